from pathlib import Path

import pytest

from legollm import eject as ejecting
from legollm.architectures import ARCHITECTURES
from legollm.eject import READING_ORDER, EjectError, check_names, eject, parse, reachable
from legollm.errors import ConfigError


def in_package(monkeypatch: pytest.MonkeyPatch, folder: Path, **modules: str) -> list[ejecting.Module]:
    monkeypatch.setattr(ejecting, "ROOT", folder)
    monkeypatch.setattr(ejecting, "READING_ORDER", tuple(modules))
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    return [parse(name) for name in modules]


def test_all_bricks_can_be_copied() -> None:
    check_names([parse(name) for name in READING_ORDER])


def test_the_reading_order_has_every_brick() -> None:
    bricks = (Path(ejecting.__file__).parent / "components").glob("*.py")
    assert {f"components.{path.stem}" for path in bricks} - {"components.__init__"} <= set(READING_ORDER)


def test_only_what_is_used_is_copied() -> None:
    llama3, gpt2 = eject("llama3"), eject("gpt2")
    for name in ("RMSNorm", "SwiGLU", "RotaryEmbedding", "rotate", "Llama3Config", "PRESETS"):
        assert name in llama3
    for name in ("LayerNorm", "ReGLU", "GPT2Config", "HUGGING_FACE", "config_from_hf", "legollm.components"):
        assert name not in llama3
    assert "class MLP" in gpt2
    assert "class RMSNorm" not in gpt2


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_only_torch_is_imported(name: str) -> None:
    lines = [line for line in eject(name).splitlines() if line.startswith(("import ", "from "))]
    roots = {line.split()[1].split(".")[0] for line in lines}
    assert roots <= {
        "torch",
        "math",
        "collections",
        "contextvars",
        "dataclasses",
        "difflib",
        "functools",
        "inspect",
        "typing",
    }
    assert lines == list(dict.fromkeys(lines))


def test_comments_and_decorators_come_along(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = "from a import d, e\n\n# why\n# it is so\n@d\n@e\ndef f():\n    return 1\n"
    (module,) = in_package(monkeypatch, tmp_path, x=text)
    assert ejecting.source_of(module, module.definitions["f"]) == text.partition("\n\n")[2].rstrip("\n")
    assert ejecting.imports_of({"f"}, [module]) == "from a import d, e\n"


@pytest.mark.parametrize(
    ("first", "second", "complaint"),
    [
        ("print(1)", "", "x:1: more than imports of names and definitions"),
        ("if True:\n    A = 1", "", "x:1: more than imports of names and definitions"),
        ("from . import y", "", "x:1: more than imports of names and definitions"),
        ("A = 1", "A = 2", "y: A is also a name in x"),
        ("from legollm.y import A", "A = 1", "x: imports A from y, which does not come before it"),
        ("A = 1", "from legollm.x import A as B", "y:1: a name of the package is imported as another"),
        ("A = 1", "from legollm.x import *", "y:1: a name of the package is imported as another"),
        ("A = 1", "def f():\n    import math", "line 2: an import inside a definition cannot be copied"),
        ("A = 1", "from legollm.z import B\ndef f():\n    return B", "y: f uses B, which no module to read defines"),
    ],
)
def test_what_copying_cannot_carry_over_is_refused(
    first: str, second: str, complaint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def copy() -> None:
        modules = in_package(monkeypatch, tmp_path, x=first, y=second)
        check_names(modules)
        reachable({"f"}, modules)

    with pytest.raises(EjectError) as caught:
        copy()
    assert str(caught.value) == complaint


def test_unknown_name() -> None:
    with pytest.raises(ConfigError, match="did you mean llama3"):
        eject("llama")
