"""What the documents name is there, and what a paper describes cites it."""

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

from legollm import components
from legollm.architectures import ARCHITECTURES
from legollm.eject import READING_ORDER

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "bricks").glob("*.md")),
]
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"[\w.-]*/?(?:[\w.-]+/)*[\w-]+\.(?:py|md|yaml|toml|txt|yml|cfg)")
FOLDER = re.compile(r"(?:[\w.-]+/)+")
PLACEHOLDER = re.compile(r"\b(?:NAME|KIND|FILE|FOLDER)\b")
MODULE = re.compile(r"legollm(?:\.\w+)+")
CITATION = re.compile(r"arXiv:\d{4}\.\d{4,5}|\b[A-Z][\w-]+(?: et al\.| & [A-Z]\w+)? (?:19|20)\d\d\b")


def prose(path: Path) -> str:
    """A page without its fenced blocks, which run or are pictures."""
    return re.sub(r"(?ms)^```.*?^```$", "", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"(?m)^#+ (.+)$", path.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> Iterator[str]:
    for target in LINK.findall(prose(page)):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            yield target


def missing_paths(text: str, page: str) -> Iterator[str]:
    """Paths in backticks that are neither here nor in the package."""
    for name in CODE.findall(text):
        if not (FILE.fullmatch(name) or FOLDER.fullmatch(name)) or PLACEHOLDER.search(name) or is_made_by_a_run(name):
            continue
        if not any((root / name).exists() for root in (ROOT, ROOT / "src" / "legollm")):
            yield f"{page}: {name}"


def is_made_by_a_run(name: str) -> bool:
    """What a user has and gets: book.txt, runs/book/, data/book/train.bin; data/loader.py is ours."""
    if name.endswith((".py", ".md")):
        return False
    return "/" not in name or name.split("/")[0] in ("runs", "data", "corpora", "site")


def missing_modules(text: str, page: str) -> Iterator[str]:
    for name in MODULE.findall(text):
        parts = name.split(".")
        for n in range(len(parts), 0, -1):
            try:
                found: object = importlib.import_module(".".join(parts[:n]))
            except ModuleNotFoundError:
                continue
            for attribute in parts[n:]:
                found = getattr(found, attribute, None)
            if found is None:
                yield f"{page}: {name}"
            break


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert list(broken_links(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_named_files_and_modules_exist(page: Path) -> None:
    text = prose(page)
    assert [*missing_paths(text, page.name), *missing_modules(text, page.name)] == []


def test_the_checks_find_what_is_wrong(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A title\n\n[a](gone.md) [b](#nowhere) [c](#a-title) [d](page.md)\n", encoding="utf-8")
    assert list(broken_links(page)) == ["gone.md", "#nowhere"]
    text = "`training/trian.py` `training/train.py` `trainig/` `book.txt` `runs/book/` `architectures/NAME.py`"
    assert list(missing_paths(text, "p")) == ["p: training/trian.py", "p: trainig/"]
    assert list(missing_modules("legollm.load legollm.nothing.here", "p")) == ["p: legollm.nothing.here"]


def bricks() -> dict[str, type[nn.Module]]:
    modules = [importlib.import_module(f"legollm.{name}") for name in READING_ORDER if name.startswith("components.")]
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, nn.Module) and value.__module__ == module.__name__
    }


NOBODYS = {"TokenEmbedding", "TokenAndPositionEmbedding", "Decoder"}
"""Bricks that no paper introduced: a table of vectors, a sum of two, and the frame around all."""


def cites(brick: type) -> bool:
    """Itself, or the brick it is a kind of."""
    own = [base for base in brick.__mro__ if base.__module__.startswith(components.__name__)]
    return any(CITATION.search(base.__doc__ or "") for base in own)


def test_every_brick_cites_its_paper() -> None:
    found = bricks()
    assert len(found) > 15
    assert {name for name, brick in found.items() if not cites(brick)} == NOBODYS


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_cites_its_paper(name: str) -> None:
    assert CITATION.search(importlib.import_module(f"legollm.architectures.{name}").__doc__ or "")
