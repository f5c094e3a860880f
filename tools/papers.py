"""The papers that code and pages cite, as docs/papers.md: who, when, and where what they describe is to be found.

python tools/papers.py
"""

import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "papers.md"
INDEX = ("api.md", "papers.md")
"""Pages that cite only what others do."""
NUMBER = r"arXiv:(\d{4}\.\d{4,5})"
PEOPLE = r"[A-Z][\w-]+(?:(?:, [A-Z][\w-]+)*,? (?:&|and) [A-Z][\w-]+| et al\.)?"
AUTHORS = re.compile(rf"({PEOPLE} (?:19|20)\d\d)(?:, \"[^\"]+\")?,? {NUMBER}")
ELSEWHERE = re.compile(rf"\b({PEOPLE} (?:19|20)\d\d)\b")
"""Authors and a year; those who never go with a number have published elsewhere."""
NOBODY = re.compile(r"(?:January|February|March|April|May|June|July|August|September|October|November|December) \d+")
HEAD = """# Papers

Each paper that the code or these pages cite, by its year, and where to find what was made of it. This page is
written by `python tools/papers.py` out of the citations themselves.
"""


class Paper(NamedTuple):
    """A paper and who cites it."""

    authors: str
    """Family names and the year."""
    number: str
    """At arXiv; empty for one that is not there."""
    places: tuple[str, ...]
    """Files, from the root of the repository."""


def flat(text: str) -> str:
    """A file as one line, without the signs of comments: a citation may go over the end of a line."""
    return re.sub(r"\s+", " ", re.sub(r"\n\s*#\s", " ", text))


def texts() -> dict[str, str]:
    """All that may cite: the modules of the package, and the pages."""
    paths = [
        *(ROOT / "src" / "legollm").rglob("*.py"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "docs/bricks").glob("*.md"),
    ]
    found = {path.relative_to(ROOT).as_posix(): flat(path.read_text(encoding="utf-8")) for path in sorted(paths)}
    return {name: text for name, text in found.items() if Path(name).name not in INDEX}


def papers(given: dict[str, str]) -> list[Paper]:
    """The papers that some texts cite, the oldest first. given: name of a text -> the text."""
    names: dict[str, Counter[str]] = defaultdict(Counter)
    places: dict[str, set[str]] = defaultdict(set)
    for place, text in given.items():
        for authors, number in AUTHORS.findall(text):
            names[number][authors] += 1
        for number in re.findall(NUMBER, text):
            places[number].add(place)
    numbered = [Paper(name_of(number, names), number, tuple(sorted(where))) for number, where in places.items()]
    known = {authors for some in names.values() for authors in some}
    others: dict[str, set[str]] = defaultdict(set)
    for place, text in given.items():
        for authors in ELSEWHERE.findall(text):
            if authors not in known and not NOBODY.match(authors):
                others[authors].add(place)
    found = numbered + [Paper(authors, "", tuple(sorted(where))) for authors, where in others.items()]
    return sorted(found, key=lambda paper: (paper.authors[-4:], paper.number, paper.authors))


def name_of(number: str, names: dict[str, Counter[str]]) -> str:
    assert names[number], f"arXiv:{number}: nobody says whose it is; write authors and year before it"
    return names[number].most_common(1)[0][0]


def page(found: list[Paper]) -> str:
    """The index as a page, a table for those with a number and one for the others."""
    lines = [HEAD]
    for title, some in (
        ("At arXiv", [paper for paper in found if paper.number]),
        ("Elsewhere", [paper for paper in found if not paper.number]),
    ):
        lines += [f"## {title}\n", "| paper | code | pages |", "| --- | --- | --- |"]
        lines += [f"| {named(paper)} | {code(paper)} | {pages(paper)} |" for paper in some]
        lines.append("")
    return "\n".join(lines)


def named(paper: Paper) -> str:
    return f"{paper.authors}, arXiv:{paper.number}" if paper.number else paper.authors


def code(paper: Paper) -> str:
    places = [place.removeprefix("src/legollm/") for place in paper.places if place.endswith(".py")]
    return ", ".join(f"`{place}`" for place in places)


def pages(paper: Paper) -> str:
    places = [Path(place) for place in paper.places if place.endswith(".md")]
    return ", ".join(f"[{place.stem}]({place.relative_to('docs').as_posix()})" for place in places)


if __name__ == "__main__":
    PAGE.write_text(page(papers(texts())), encoding="utf-8")
