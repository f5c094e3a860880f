#!/usr/bin/env python3
"""Install legollm into .venv and start something there, with nothing but the standard library.

    python3 bootstrap.py run [WORD ...]    the demo, from raw text to a trained and evaluated model; WORDs go to it
    python3 bootstrap.py test [WORD ...]   the default tests; WORDs go to pytest
    python3 bootstrap.py env [--extra NAME] [--venv DIR]   install only

A second call starts at once: .venv keeps a stamp of everything that decided the installation. The environment variable
TORCH says which PyTorch to use:

    auto   (default) one of at least 2.10 that the calling Python already has, otherwise the pinned one as pip finds it
    cpu    the pinned one without CUDA, or stop
    cuda   the pinned one with CUDA, or stop
    skip   install none: use the one that .venv or the calling Python has, or stop

Exit status: that of the program started; 1 when the installation failed, 2 for a wrong word, 130 after Ctrl-C.
"""

from __future__ import annotations  # an older Python must get as far as the message that it is too old

import argparse
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OLDEST_PYTHON = (3, 11)
OLDEST_TORCH = (2, 10)  # older ones have known memory corruption in their loader; pyproject.toml has the same floor
TORCH_CHOICES = ("auto", "cpu", "cuda", "skip")
VERBS = {
    "run": ["-m", "legollm", "demo"],
    # worksteal: neighbours in a file share a process, and with it what the file makes once
    "test": ["-m", "pytest", "-n", "logical", "--maxprocesses", "8", "--dist", "worksteal"],
}


class Stop(Exception):
    """What went wrong and what to do, in one line."""


def say(text: str) -> None:
    print(text, flush=True)


def seconds_since(start: float) -> str:
    return f"{time.monotonic() - start:.0f} s"


def answer_of(python: str | Path, code: str) -> str | None:
    """What `python -c code` prints; None if there is no such program or it fails."""
    try:
        done = subprocess.run([str(python), "-c", code], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def base_python() -> str:
    """The interpreter behind the running one, so that calling this file from inside .venv changes nothing."""
    return getattr(sys, "_base_executable", None) or sys.executable


def python_in(venv: Path) -> Path:
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def suitable_torch(python: str | Path) -> str | None:
    """The version of the PyTorch that `python` can import, if it is new enough."""
    version = answer_of(python, "import torch; print(torch.__version__)")
    number = re.match(r"(\d+)\.(\d+)", version or "")
    return version if number and tuple(map(int, number.groups())) >= OLDEST_TORCH else None


def has_nvidia_driver() -> bool:
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()


def sees_system_packages(venv: Path) -> bool:
    text = (venv / "pyvenv.cfg").read_text(encoding="utf-8", errors="replace")
    return re.search(r"(?mi)^include-system-site-packages\s*=\s*true", text) is not None


def torch_to_keep(choice: str, venv: Path) -> tuple[str | None, bool]:
    """The version that must not be replaced, if any, and whether it is outside of `venv`."""
    if choice == "skip" and (venv / "pyvenv.cfg").is_file():
        version = suitable_torch(python_in(venv))
        if version:
            return version, sees_system_packages(venv)
    version = suitable_torch(base_python()) if choice in ("auto", "skip") else None
    if choice == "skip" and version is None:
        floor = ".".join(map(str, OLDEST_TORCH))
        raise Stop(
            f"TORCH=skip, but neither {venv} nor {base_python()} has torch >= {floor}; install one there or unset TORCH"
        )
    return version, version is not None


def make_venv(venv: Path, system_packages: bool) -> None:
    """A virtual environment of this Python at `venv`; one that fits stays, one that does not is made again.

    Only a folder with our mark is ever deleted. The mark is there before anything else, so a half-made one has it, too.
    """
    mark = venv / "legollm.mark"
    if (venv / "pyvenv.cfg").is_file():
        found = answer_of(python_in(venv), "import pip, sys; print(*sys.version_info[:2])")
        if found == "{} {}".format(*sys.version_info[:2]) and sees_system_packages(venv) == system_packages:
            return
    if venv.exists() and any(venv.iterdir()):
        if not mark.exists():
            raise Stop(f"{venv} is there, was not made by bootstrap.py and does not fit; move it away or use --venv")
        shutil.rmtree(venv)
    venv.mkdir(parents=True, exist_ok=True)
    mark.write_text("made by bootstrap.py, which may delete this folder\n", encoding="utf-8")
    command = [base_python(), "-m", "venv", *(["--system-site-packages"] if system_packages else []), str(venv)]
    if subprocess.run(command).returncode != 0:
        raise Stop(f"no virtual environment could be made; the command was: {shlex.join(command)}")


def cuda_is_usual() -> bool:
    """Whether the torch that pip takes by itself comes with CUDA."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def look_for_cpu_build(python: Path, pin: str, insist: bool) -> None:
    """Before several GB of CUDA libraries come to a machine that cannot use them: say so, or stop.

    pip prefers a build named `pin`+cpu to plain `pin` by itself; it only has to know a place that has one.
    """
    command = [str(python), "-m", "pip", "index", "versions", "torch", "--disable-pip-version-check"]
    known = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if known.returncode != 0 or f"{pin}+cpu" in known.stdout:
        return  # where even the question fails, the installation will say why
    advice = "set PIP_EXTRA_INDEX_URL to the address that PyTorch's installation page shows for the CPU build"
    if insist:
        raise Stop(f"TORCH=cpu, but pip knows no torch {pin}+cpu; {advice}")
    say("      pip knows only the torch with several GB of CUDA, which this machine cannot use; it works all the same,")
    say(f"      but to avoid it press Ctrl-C, {advice}, and start again")


def write_constraints(venv: Path, choice: str, kept: str | None) -> Path:
    """constraints.txt with the line for torch that `choice` stands for, inside `venv`."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    line = re.search(r"(?m)^torch==(\S+)$", text)
    assert line is not None, "tests/unit/test_packaging.py checks constraints.txt"
    wanted, pin = line[0], line[1]
    if kept:
        wanted = f"torch=={kept}"
    elif choice == "cuda":
        wanted = f"torch=={pin},!={pin}+cpu"
    elif cuda_is_usual() and (choice == "cpu" or not has_nvidia_driver()):
        look_for_cpu_build(python_in(venv), pin, insist=choice == "cpu")
        if choice == "cpu":
            wanted = f"torch=={pin}+cpu"
    path = venv / "legollm-constraints.txt"
    path.write_text(text.replace(line[0], wanted), encoding="utf-8")
    return path


def pip_install(python: Path, words: list[str]) -> None:
    """Quiet; what pip had to say and its exact command appear when it fails."""
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    if done.returncode != 0:
        print(done.stdout, file=sys.stderr)
        raise Stop(f"pip failed; the command, in {ROOT}, was: {shlex.join(command)}")


def key_of(choice: str) -> str:
    """A hash of everything that decides what gets installed; the root, because an editable install points to it."""
    parts = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt", "bootstrap.py")]
    parts.append(repr((sys.version_info[:2], str(ROOT), choice)).encode())
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def install(venv: Path, extras: set[str]) -> None:
    """Bring `venv` to the state that pyproject.toml, constraints.txt and TORCH ask for, unless its stamp says it is."""
    choice = os.environ.get("TORCH") or "auto"
    if choice not in TORCH_CHOICES:
        raise Stop(f"TORCH={choice} is unknown; use one of {', '.join(TORCH_CHOICES)}")
    stamp, key, python = venv / "legollm.stamp", key_of(choice), python_in(venv)
    old_key, *old_extras = stamp.read_text(encoding="utf-8").split() if stamp.is_file() else [""]
    if old_key == key and extras <= set(old_extras) and python.exists():
        return

    start = time.monotonic()
    driver = "an NVIDIA driver" if has_nvidia_driver() else "no NVIDIA driver"
    say(f"[1/3] Python {platform.python_version()}, {platform.system()} {platform.machine()}, {driver}, TORCH={choice}")
    kept, outside = torch_to_keep(choice, venv)
    make_venv(venv, outside)
    say(f"[2/3] virtual environment {venv.name} ({seconds_since(start)})")

    start = time.monotonic()
    wanted = extras | (set(old_extras) if old_key == key else set())
    target = f".[{','.join(sorted(wanted))}]" if wanted else "."
    constraints = write_constraints(venv, choice, kept)
    say(f"[3/3] legollm{target[1:]} {f'beside torch {kept}' if kept else 'and torch'}; may take minutes")
    stamp.unlink(missing_ok=True)
    pip_install(python, ["-c", str(constraints), "-e", target])

    torch = answer_of(python, "import torch; print(torch.__version__, torch.version.cuda)")
    if torch is None:
        raise Stop(
            f"torch was installed but cannot be imported; see: {shlex.join([str(python), '-c', 'import torch'])}"
        )
    version, cuda = torch.split()
    if (choice, cuda == "None") in (("cpu", False), ("cuda", True)):
        raise Stop(f"TORCH={choice}, but pip took torch {version}; let pip see the wanted build, or unset TORCH")
    stamp.write_text("\n".join([key, *sorted(wanted)]) + "\n", encoding="utf-8")
    say(f"      installed, with torch {version} ({seconds_since(start)})")


def become(command: list[str]) -> int:
    """Run `command` in our place, at the root: its exit status is ours, and signals reach it alone."""
    os.chdir(ROOT)
    if os.name == "posix":
        os.execv(command[0], command)
    child = subprocess.Popen(command)
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:  # the child got it, too, and decides when and how to end
            continue


def main(argv: list[str]) -> int:
    if sys.version_info < OLDEST_PYTHON:
        floor = ".".join(map(str, OLDEST_PYTHON))
        found = platform.python_version()
        raise Stop(f"Python {found} is too old, legollm needs {floor} or newer; e.g. `make run PYTHON=python3.12`")
    if not argv or argv[0] not in (*VERBS, "env"):
        print(__doc__)
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    verb, words = argv[0], argv[1:]
    if verb == "env":
        parser = argparse.ArgumentParser(prog="bootstrap.py env", description="Install legollm; start nothing.")
        parser.add_argument("--extra", action="append", default=[], help="an extra of pyproject.toml; may be repeated")
        parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="the folder to install into")
        options = parser.parse_args(words)
        install(options.venv.resolve(), set(options.extra))
        return 0
    install(ROOT / ".venv", {"dev"} if verb == "test" else set())
    return become([str(python_in(ROOT / ".venv")), *VERBS[verb], *words])


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Stop as stop:
        sys.exit(f"bootstrap.py: {stop}")
    except KeyboardInterrupt:
        print("\nbootstrap.py: interrupted; the same command continues", file=sys.stderr)
        sys.exit(130)
