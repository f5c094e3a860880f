"""The files around the package: pins, licence, installer, wheel, and what no file may name."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def tracked_files() -> list[str]:
    """What git has or would take, as paths from the root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True)
    except FileNotFoundError:
        pytest.skip("git is not installed")
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    names = done.stdout.decode("utf-8").split("\0")
    return sorted(name for name in names if name and (ROOT / name).is_file())


def pins() -> dict[str, str]:
    """Name -> version, and every line of constraints.txt is one exact pin or a comment."""
    found: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        name, version = line.split("==")
        assert canonicalize_name(name) not in found, f"{name} twice"
        found[canonicalize_name(name)] = version
    return found


def direct_requirements() -> list[Requirement]:
    texts = [*PROJECT["dependencies"], *(text for extra in PROJECT["optional-dependencies"].values() for text in extra)]
    return [requirement for requirement in map(Requirement, texts) if requirement.name != PROJECT["name"]]


def installed_closure() -> Iterator[tuple[str, str]]:
    """Every distribution that the direct requirements bring to this machine, with who asks for it."""
    waiting = [(requirement, PROJECT["name"]) for requirement in direct_requirements()]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement, parent = waiting.pop()
        name = canonicalize_name(requirement.name)
        yield name, parent
        for extra in ["", *requirement.extras]:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                needs = map(Requirement, metadata.requires(name) or [])
            except metadata.PackageNotFoundError:  # an extra that this environment leaves out
                continue
            waiting += [(need, name) for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})]


def test_constraints_satisfy_pyproject() -> None:
    for requirement in direct_requirements():
        version = pins().get(canonicalize_name(requirement.name))
        assert version, f"constraints.txt does not pin {requirement.name}"
        assert requirement.specifier.contains(version), f"{requirement} does not allow {version}"


def test_constraints_are_the_whole_freeze() -> None:
    from_torch = ("nvidia-", "cuda-", "triton")  # torch pins its own CUDA libraries
    missing = {(n, p) for n, p in installed_closure() if n not in pins() and not n.startswith(from_torch)}
    assert missing == set()


def test_torch_is_pinned_without_naming_a_build() -> None:
    assert pins()["torch"] == "2.13.0"


def test_the_version_stands_in_one_place() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["version"]
    assert "version" in PROJECT["dynamic"]
    assert "version" not in PROJECT
    pattern = re.compile(r"(?m)^(?:__)?version(?:__)?\b[^=\n]*=\s*[\"']\d")
    homes = [n for n in tracked_files() if n.endswith((".py", ".toml", ".cfg")) and pattern.search(read(n))]
    assert homes == [build["path"]]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8", errors="replace")


def test_an_old_python_gets_as_far_as_the_message() -> None:
    ast.parse(read("bootstrap.py"), feature_version=(3, 8))


def test_bootstrap_needs_only_the_standard_library() -> None:
    nodes = list(ast.walk(ast.parse(read("bootstrap.py"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


@pytest.mark.parametrize(
    ("words", "torch", "status", "message"),
    [([], "auto", 2, "bootstrap.py run"), (["run"], "rocm", 1, "TORCH=rocm is unknown; use one of auto, cpu")],
)
def test_bootstrap_refuses_what_it_does_not_know(words: list[str], torch: str, status: int, message: str) -> None:
    command = [sys.executable, str(ROOT / "bootstrap.py"), *words]
    done = subprocess.run(command, env=os.environ | {"TORCH": torch}, capture_output=True, text=True)
    assert done.returncode == status
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_licence_is_there() -> None:
    assert PROJECT["license"] == "MIT"
    assert read("LICENSE").startswith("MIT License")


# Brackets keep these patterns from finding themselves. A recipe under data/ may say where its data set lies.
HOSTS = re.compile(
    r"(?i)\b(?:[p]ypi\.org|[p]ythonhosted\.org|[d]ownload\.pytorch|[r]egistry\.npm|[d]eb\.debian|[h]uggingface\.co"
    r"|[h]f\.co)\b"
)
MACHINE = re.compile(r"(?:^|[\s\"'`(=:])/(?:[h]ome|[r]oot|[w]ork|[o]pt|[t]mp/dev|[U]sers)/")


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (HOSTS, "pip install -i https://" + "pypi" + ".org/simple", True),
        (HOSTS, "https://download." + "pytorch.org/whl/cpu", True),
        (HOSTS, "the package index", False),
        (MACHINE, "cd /" + "work/main", True),
        (MACHINE, "framework/main", False),
    ],
)
def test_the_patterns_find_what_they_should(pattern: re.Pattern[str], text: str, found: bool) -> None:
    assert bool(pattern.search(text)) == found


def test_no_file_names_a_download_host_or_a_path_of_one_machine() -> None:
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name in tracked_files()
        for number, line in enumerate(read(name).splitlines(), 1)
        if MACHINE.search(line) or (HOSTS.search(line) and not name.startswith("src/legollm/data/"))
    ]
    assert found == []


def test_the_wheel_holds_the_whole_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = pytest.importorskip("hatchling.build", reason="hatchling is not installed; it is in the test extra")
    monkeypatch.chdir(ROOT)
    with zipfile.ZipFile(tmp_path / build.build_wheel(str(tmp_path))) as wheel:
        names = set(wheel.namelist())
    files = (path for path in (ROOT / "src" / "legollm").rglob("*") if path.is_file())  # also what git ignores
    package = {path.relative_to(ROOT / "src").as_posix() for path in files if path.parent.name != "__pycache__"}
    assert package <= names
    assert {"legollm/py.typed", "legollm/__init__.py"} <= names
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests/", "docs/", "data/")) for name in names)


def test_documents_name_only_files_that_exist() -> None:
    text = "\n".join(map(read, ("CONTRIBUTING.md", "SECURITY.md", "Makefile", ".ci/run")))
    named = set(re.findall(r"\b(?:tests|docs|benchmarks|src)/[\w./-]*\w\.(?:py|md)\b", text))
    named |= {f"docs/{page}" for page in re.findall(r"(?m)^  - .*: (\S+\.md)$", read("mkdocs.yml"))}
    assert len(named) > 15
    assert {name for name in named if not (ROOT / name).is_file()} == set()
