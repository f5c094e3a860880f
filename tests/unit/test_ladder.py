"""The ladder's command: figures of each rung against a count by hand, a folder that goes on, and what it refuses."""

import json
from pathlib import Path

import pytest

from legollm.cli import main
from legollm.commands import ladder
from legollm.commands.run_presets import LADDER
from legollm.training.metrics import read_rows

TEXT = "The cat sat on the mat, and the dog sat on the log; so they sat, and sat, and said no word.\n" * 80


def climb(folder: Path, *words: str) -> dict[str, dict[str, object]]:
    """The rungs of results.json, by name."""
    text = folder / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    assert main(["ladder", f"{text}", f"run={folder / 'runs'}", "max_steps=3", *words]) == 0
    found = json.loads((folder / "runs" / "results.json").read_text(encoding="utf-8"))
    return {row["rung"]: row for row in found["rungs"]}


def test_a_ladder_is_a_table_a_page_and_a_run_of_each_rung(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = climb(tmp_path, 'rungs=["count-bigram","bigram","mlp"]')
    n_ids = len(set(TEXT))
    assert list(rows) == ["count-bigram", "bigram", "mlp"]
    assert [rows[name]["parameters"] for name in ("bigram", "mlp")] == [
        n_ids**2,
        16 * n_ids + 2 * 16 * 128 + 128 + 128 * n_ids + n_ids,
    ]
    products = 3 * 2 * (2 * 16 * 128 + 128 * n_ids)  # forward and two gradients, a product and a sum each
    assert [row["flops_per_token"] for row in rows.values()] == [None, 0, products]
    for name, row in rows.items():
        last = read_rows(tmp_path / "runs" / name / "metrics.jsonl")[-1]
        assert (row["val_loss"], row["val_bpb"]) == (last["val_loss"], last["val_bpb"])
        assert last["val_tokens"] == len(TEXT) // 10 - 1
    printed = capsys.readouterr().out
    note, page = ((tmp_path / "runs" / name).read_text(encoding="utf-8") for name in ("note.md", "report.html"))
    for name, row in rows.items():
        assert f"| {name} | {row['val_loss']:.3f} |" in note
        assert f"<h2>{name}</h2>" in page
        assert f"\n{name} " in printed


def test_a_ladder_goes_on_where_it_stopped(tmp_path: Path) -> None:
    below = climb(tmp_path, 'rungs=["bigram"]')
    written = (tmp_path / "runs" / "bigram" / "metrics.jsonl").read_bytes()
    both = climb(tmp_path, 'rungs=["bigram","count-bigram"]')
    assert both["bigram"] == below["bigram"]
    assert (tmp_path / "runs" / "bigram" / "metrics.jsonl").read_bytes() == written


def test_without_a_text_it_takes_what_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert ladder.usual_text() == "world"
    fetched = tmp_path / "corpora" / "tiny_shakespeare" / "tinyshakespeare.txt"
    fetched.parent.mkdir(parents=True)
    fetched.write_text(TEXT, encoding="utf-8")
    assert ladder.usual_text() == "tiny_shakespeare"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("rungs=attic", f"rungs: 'attic' is none of {', '.join(LADDER)}"),
        ('rungs=["mlp","mlp"]', "each once"),
        ("max_steps=0", "max_steps: must be at least 1, found 0"),
    ],
)
def test_what_cannot_be_is_refused(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ladder", words]) == 2
    assert said in capsys.readouterr().err
