"""The index of papers is what code and pages cite, and what comes from a paper says from which."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("papers", ROOT / "tools" / "papers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_index_is_up_to_date(tool: ModuleType) -> None:
    is_same = tool.PAGE.read_text(encoding="utf-8") == tool.page(tool.papers(tool.texts()))
    assert is_same, "citations have changed: run `python tools/papers.py`"


def test_every_number_that_is_written_anywhere_is_in_the_index(tool: ModuleType) -> None:
    """Against a plain search, which knows nothing of authors."""
    found = {paper.number for paper in tool.papers(tool.texts()) if paper.number}
    paths = [*(ROOT / "src" / "legollm").rglob("*.py"), *(ROOT / "docs").glob("*.md")]
    written = {n for path in paths for n in re.findall(r"arXiv:(\d+\.\d+)", path.read_text(encoding="utf-8"))}
    assert len(found) > 100
    assert written <= found


def test_citations_of_all_shapes(tool: ModuleType) -> None:
    given = {
        "src/legollm/a.py": '"""One (Poe et al. 2001, arXiv:0101.00001;\nlast) and (Doe & Roe\n# 1999) in May 2020"""',
        "docs/b.md": 'Poe et al. 2001, arXiv:0101.00001, and Coe, Noe and Toe 2002, "A B", arXiv:0202.00002: two.',
        "docs/bricks/c.md": "Only a number: arXiv:0202.00002, then others (Woe 2003).",
    }
    found = tool.papers({name: tool.flat(text) for name, text in given.items()})
    assert [(paper.authors, paper.number) for paper in found] == [
        ("Doe & Roe 1999", ""),
        ("Poe et al. 2001", "0101.00001"),
        ("Coe, Noe and Toe 2002", "0202.00002"),
        ("Woe 2003", ""),
    ]
    lines = tool.page(found).splitlines()
    assert "| Poe et al. 2001, arXiv:0101.00001 | `a.py` | [b](b.md) |" in lines
    assert "| Coe, Noe and Toe 2002, arXiv:0202.00002 |  | [b](b.md), [c](bricks/c.md) |" in lines
    with pytest.raises(AssertionError, match="nobody says whose it is"):
        tool.papers({"docs/d.md": "arXiv:0303.00003"})


FROM_A_PAPER = (
    *(f"training/{name}.py" for name in ("adamw", "lion", "muon", "sgd", "schedule", "clipping")),
    *(f"training/{name}.py" for name in ("distributed", "linear_loss")),
    *(f"transforms/{name}.py" for name in ("awq", "gptq", "lora", "recompute")),
    *(f"generation/{name}.py" for name in ("beams", "block_pool", "drafts", "paged_cache", "ring_cache", "sampling")),
    *(f"generation/{name}.py" for name in ("scheduler", "speculative")),
    *(f"alignment/{name}.py" for name in ("advantages", "feedback", "judges", "policy", "preferences", "reward")),
    *(f"tokenizers/{name}.py" for name in ("char_bpe", "learn_merges", "naive_bpe", "unigram", "wordpiece")),
    *(f"evaluation/{name}.py" for name in ("baselines", "cost", "heads", "intervals")),
    *(f"data/{name}.py" for name in ("mixture", "packing", "recipes")),
)
"""Beside the bricks and architectures, which a test of their own goes through."""


def test_what_comes_from_a_paper_says_from_which(tool: ModuleType) -> None:
    cited = {place for paper in tool.papers(tool.texts()) for place in paper.places}
    assert [name for name in FROM_A_PAPER if f"src/legollm/{name}" not in cited] == []
