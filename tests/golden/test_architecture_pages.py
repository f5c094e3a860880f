"""docs/architectures.md and its pictures are what the code says now."""

import re
from pathlib import Path
from typing import Any

import pytest

from legollm.architectures import ARCHITECTURES
from legollm.commands.inspect_model import parts_of, write_diagrams
from legollm.evaluation.cost import cost_of

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "architectures.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"(?ms)^`(\w+)`\. (.*?)(?=^## |\Z)", PAGE))
COUNTED = [name for name, row in ARCHITECTURES.items() if row.learns != "counts"]
LARGE = 200_000_000  # parameters; larger ones take seconds each


def shown(arch: str) -> dict[str, str]:
    """The rows of the table of an architecture by size."""
    lines = [line for line in SECTIONS.get(arch, "").splitlines() if line.startswith("| ")][2:]
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines}


def sizes_of(arch: str) -> dict[str, Any]:
    row = ARCHITECTURES[arch]
    return dict(row.presets) or {"(default)": row.config()}


def expected(arch: str, size: str) -> str:
    cfg = sizes_of(arch)[size]
    cost = cost_of(lambda: ARCHITECTURES[arch].build(cfg), cfg.max_seq_len)
    products = [f"{flops / cost.seq_len:.3g}" for flops in (cost.weight_flops, cost.attention_flops)]
    counts = [f"{n:,}" for n in (cost.n_parameters, cost.n_active, cost.seq_len)]
    return f"| {' | '.join([size, *counts, *products, f'{2 * cost.kv_values(1):,}'])} |"


def by_weight(*, is_large: bool) -> list[tuple[str, str]]:
    return [
        (arch, size)
        for arch in COUNTED
        for size, row in shown(arch).items()
        if (int(row.split(" | ")[1].replace(",", "")) > LARGE) is is_large
    ]


def test_every_architecture_has_its_section_and_picture() -> None:
    assert set(SECTIONS) == set(ARCHITECTURES)
    for arch, text in SECTIONS.items():
        assert f"](diagrams/{arch}.svg)" in text
        assert re.search(r"arXiv:\d{4}\.\d{4,5}|\b[A-Z]\w+(?: et al\.)? (?:19|20)\d\d\b", text)


MANY_PARTS = {"qwen3_moe"}  # its larger size has 36,000 experts' matrices; making the modules alone takes seconds


@pytest.mark.parametrize("arch", COUNTED)
def test_every_size_is_there(arch: str) -> None:
    assert list(shown(arch)) == list(sizes_of(arch))


@pytest.mark.parametrize(
    "arch", [pytest.param(arch, marks=pytest.mark.slow) if arch in MANY_PARTS else arch for arch in COUNTED]
)
def test_every_size_has_its_parameters(arch: str) -> None:
    counts = {size: f"{parts_of(arch, cfg).n_parameters:,}" for size, cfg in sizes_of(arch).items()}
    assert {size: row.split(" | ")[1] for size, row in shown(arch).items()} == counts


@pytest.mark.parametrize(("arch", "size"), by_weight(is_large=False))
def test_figures_of_small_models(arch: str, size: str) -> None:
    assert shown(arch)[size] == expected(arch, size)


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "size"), by_weight(is_large=True))
def test_figures_of_large_models(arch: str, size: str) -> None:
    assert shown(arch)[size] == expected(arch, size)


@pytest.mark.slow
def test_pictures_are_drawn_from_the_code_as_it_is(tmp_path: Path) -> None:
    """If not: `legollm inspect all`."""
    write_diagrams(tmp_path)
    assert {path.name for path in (DOCS / "diagrams").iterdir()} == {path.name for path in tmp_path.iterdir()}
    for path in tmp_path.iterdir():
        assert (DOCS / "diagrams" / path.name).read_text(encoding="utf-8") == path.read_text(encoding="utf-8")


FAMILIES = sorted((DOCS / "bricks").glob("*.md"))


@pytest.mark.parametrize("page", FAMILIES, ids=lambda path: path.stem)
def test_a_brick_page_says_what_for_how_and_how_far(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    headings = ["Problem", "Idea", "Equation", "Use it", "The code to read", "Limits", "Papers"]
    assert re.findall(r"(?m)^## (.+)$", text) == headings
    assert "```python" in text or "```sh" in text
    assert f"](bricks/{page.name})" in PAGE
