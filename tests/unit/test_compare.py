"""Comparisons: what a swap means, widths that make costs equal against trying all of them, and the command itself."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from legollm.architectures import ARCHITECTURES, build
from legollm.cli import main
from legollm.commands import compare_match
from legollm.commands.calibrate import Seconds
from legollm.commands.compare import PRESETS, CompareRun
from legollm.commands.compare_match import flops_per_token, n_parameters, of_equal_cost
from legollm.commands.compare_measures import PAST, WITHIN
from legollm.commands.compare_page import mean_line
from legollm.commands.compare_presets import COMPARISONS
from legollm.commands.compare_sides import Side, key_of, sides_of, variant
from legollm.commands.train import TrainRun
from legollm.config import read, resolve
from legollm.errors import ConfigError, DataError
from legollm.evaluation.places import in_bins, losses_by_place
from legollm.training.metrics import read_rows

TEXT = "The cat sat on the mat, and the dog sat on the log; so they sat, and sat, and said no word.\n" * 80
TINY = "arch=vanilla n_layers=1 n_heads=2 n_kv_heads=2 d_model=16 d_ff=32 max_seq_len=16 vocab_size=64"


def base_of(*words: str) -> TrainRun:
    tiny = [f"model.{word}" for word in TINY.split()]
    return resolve(TrainRun, read(None, [*tiny, *words])).value


def loss_by_hand(model: Any, row: torch.Tensor) -> list[float]:
    """One token after the other."""
    with torch.no_grad():
        return [float(F.cross_entropy(model(row[None, :i])[0, -1], row[i])) for i in range(1, len(row))]


# Swaps


def test_a_swap_is_the_base_but_for_what_it_says() -> None:
    base = base_of("optim.lr=0.5")
    side = variant(base, "ffn:swiglu")
    assert side == Side("ffn-swiglu", replace(base, model=replace(base.model, ffn="swiglu")), {"model.ffn": "swiglu"})
    side = variant(base, "model.norm=rmsnorm,lr:1e-3,betas:[0.8,0.9],tokenizer:char")
    assert (side.run.model.norm, side.run.optim.lr, side.run.optim.betas) == ("rmsnorm", 1e-3, (0.8, 0.9))
    assert side.run.tokenizer == replace(base.tokenizer, kind="char")
    assert list(side.swapped) == ["model.norm", "optim.lr", "optim.betas", "tokenizer"]
    assert variant(base, "lora.rank:4").run.lora.rank == 4


def test_another_architecture_keeps_what_it_shares() -> None:
    model = variant(base_of(), "arch:llama3").run.model
    assert (model.arch, model.n_layers, model.d_model, model.d_ff) == ("llama3", 1, 16, 32)


@pytest.mark.parametrize(
    ("swap", "said"),
    [
        ("kind:char", "swap: kind may be tokenizer.kind or lora.kind; write one of them"),
        ("colour:red", "swap: colour is no setting of a run"),
        ("ffn", "swap: 'ffn' is no key:value, such as ffn:swiglu"),
        ("seed:3", "swap: seed is the same for all sides"),
        ("ffn:swigl", "model.ffn: 'swigl' is none of"),
    ],
)
def test_a_swap_that_cannot_be_is_refused(swap: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        variant(base_of(), swap)
    assert str(caught.value).startswith(said)


def test_sides_are_told_apart() -> None:
    with pytest.raises(ConfigError, match="swap: says what shall differ"):
        list(sides_of(base_of(), []))
    with pytest.raises(ConfigError, match="occurs twice"):
        list(sides_of(base_of(), ["ffn:swiglu", "ffn=swiglu"]))
    assert [side.name for side in sides_of(base_of(), ["ffn:swiglu"])] == ["base", "ffn-swiglu"]


def test_a_short_key_is_that_of_the_base_first() -> None:
    assert key_of(base_of(), "window") == "model.window"
    assert key_of(base_of(), "rope_scaling.factor") == "rope_scaling.factor"


@pytest.mark.parametrize("name", COMPARISONS)
def test_every_preset_has_sides_that_can_be_built(name: str) -> None:
    cfg = resolve(CompareRun, read(None, [f"preset={name}"]), presets=PRESETS).value
    base = TrainRun(**{one.name: getattr(cfg, one.name) for one in fields(TrainRun)})
    sides = list(sides_of(base, cfg.swap))
    assert len(sides) > 1
    for side in sides:
        with torch.device("meta"):
            assert ARCHITECTURES[side.run.model.arch].build(side.run.model)


# Equal cost


@pytest.mark.parametrize("swap", ["ffn:swiglu", "n_kv_heads:1"])
def test_the_width_is_the_best_of_all(swap: str) -> None:
    base = base_of("model.d_ff=40")
    side = variant(base, swap)
    found = of_equal_cost(base, side, "params", "model.d_ff")

    def off(n: int) -> float:
        return abs(n_parameters(replace(side.run, model=replace(side.run.model, d_ff=n))) - n_parameters(base))

    assert found.key == "model.d_ff"
    assert off(found.value) == min(off(n) for n in range(1, 81))
    assert off(found.value) < 0.01 * n_parameters(base)


@pytest.mark.slow
def test_a_mixture_costs_what_one_feed_forward_does() -> None:
    """Two of four experts with three matrices each work on a token, and a router of four rows; the base has two."""
    base = base_of("model.d_ff=600", "model.d_model=32")
    found = of_equal_cost(base, variant(base, "ffn:moe"), "flops", "model.d_ff")
    assert found.value == round((2 * 32 * 600 - 4 * 32) / (2 * 3 * 32))
    assert abs(flops_per_token(found.applied(variant(base, "ffn:moe").run)) / flops_per_token(base) - 1) < 0.01


def test_widths_that_cannot_be_are_passed_over() -> None:
    base = base_of("model.n_heads=4", "model.n_kv_heads=4", "model.d_model=64", "model.d_ff=128")
    found = of_equal_cost(base, variant(base, "ffn:swiglu"), "params", "model.d_model")
    assert found.value % 4 == 0
    assert 48 < found.value < 64


def test_what_is_equal_stays_and_what_cannot_be_is_refused() -> None:
    base = base_of()
    side = variant(base, "lr:1e-3")
    assert of_equal_cost(base, side, "params", "model.d_ff").applied(side.run) == side.run
    for swap, by, said in (
        ("arch:bigram", "model.d_ff", "match_by: model.d_ff is no width of a bigram"),
        ("ffn:swiglu", "model.bias", "match_by: model.bias is no width"),
        ("d_ff:64", "model.d_ff", "match_by: model.d_ff is what d_ff-64 swaps"),
        ("ffn:swiglu", "optim.lr", "match_by: optim.lr is no width"),
    ):
        with pytest.raises(ConfigError, match=said):
            of_equal_cost(base, variant(base, swap), "params", by)
    with pytest.raises(ConfigError, match="match: time is measured of models whose weights all learn"):
        of_equal_cost(base, variant(base, "lora.rank:2"), "time", "model.d_ff")


def test_equal_time_is_fewer_steps_for_slower_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is the outside world."""
    monkeypatch.setattr(
        compare_match,
        "measured",
        lambda run, part, precision, limit: (Seconds(0.5 if run.model.ffn == "swiglu" else 0.2, 0.1, 0.1, 0.1), 9),
    )
    base = base_of("train.max_steps=1000")
    side = variant(base, "ffn:swiglu")
    assert of_equal_cost(base, side, "time", "model.d_ff").applied(side.run).train.max_steps == 400


# By place


@pytest.mark.parametrize("positions", ["rope", "learned"])
def test_the_loss_by_place_is_that_of_each_token_by_hand(positions: str) -> None:
    model = build("vanilla", n_layers=1, n_heads=2, n_kv_heads=2, d_model=8, d_ff=8, max_seq_len=6, vocab_size=11,
                  positions=positions).eval()  # fmt: skip
    ids = torch.randint(11, (40,), generator=torch.Generator().manual_seed(0))
    length = 6 if positions == "learned" else 9  # there are no more learned ones
    found = losses_by_place(model, ids.numpy(), 9, at_once=2)
    rows = [loss_by_hand(model, ids[i : i + length + 1]) for i in range(0, 36, 9)]
    torch.testing.assert_close(found, torch.tensor(rows).mean(0), rtol=1e-5, atol=1e-6)
    assert list(in_bins(torch.arange(5.0), 2)) == [(2, 0.5), (4, 2.5), (5, 4.0)]
    with pytest.raises(DataError, match="make no row of"):
        losses_by_place(model, ids[:5].numpy(), 9)


def test_a_mean_line_goes_as_far_as_all_do() -> None:
    assert mean_line([[(1, 2.0), (2, 4.0)], [(3, 4.0)]]) == [(2, 3.0)]


# The command


def compared(folder: Path, *words: str, status: int = 0) -> dict[str, Any]:
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    tiny = [f"model.{word}" for word in TINY.split() if not word.startswith("vocab")]
    loop = ["train.max_steps=4", "train.batch_size=2", "train.eval_every=2", "train.eval_batches=1"]
    setup = ["tokenizer=char", f"data.source={folder / 'text.txt'}", f"run={folder / 'runs'}", "optim.warmup_steps=0"]
    assert main(["compare", *tiny, *loop, *setup, "train.precision=float32", "train.save_every=0", *words]) == status
    path = folder / "runs" / "results.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def test_a_base_against_itself_differs_in_nothing_and_goes_on(tmp_path: Path) -> None:
    compared(tmp_path, "swap=train.log_every:3", "seeds=1")
    written = (tmp_path / "runs" / "base" / "seed-1337" / "metrics.jsonl").read_bytes()
    found = compared(tmp_path, "swap=train.log_every:3", "seeds=2")
    assert (tmp_path / "runs" / "base" / "seed-1337" / "metrics.jsonl").read_bytes() == written  # not done again
    assert [one["verdict"] for one in found["differences"]] == [
        "between +0.0000 and +0.0000: no difference seen with 2 seeds: the same to the last bit"
    ]
    rows = read_rows(tmp_path / "runs" / "base" / "seed-1338" / "metrics.jsonl")
    assert found["sides"][0]["runs"][1]["figures"]["validation loss"] == rows[-1]["val_loss"]


def test_runs_that_end_early_are_told_with_the_steps_they_did(tmp_path: Path) -> None:
    found = compared(tmp_path, "swap=train.log_every:3", "seeds=1", "train.target_loss=100")
    assert [(side["steps"], [run["steps"] for run in side["runs"]]) for side in found["sides"]] == [(2, [2])] * 2


@pytest.mark.slow
def test_a_comparison_from_start_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("swap=[optim.lr:1e-9,positions:rope]", "beyond=2", "stream=40", "seeds=3")
    found = compared(tmp_path, *words, "optim.lr=0.01")
    planted, rope = [one for one in found["differences"] if one["figure"] == "validation loss"]
    assert planted["verdict"].startswith("between +")  # what does not learn is found
    assert rope["n"] == 3
    past = [one for one in found["differences"] if one["figure"] == PAST]
    assert [one["variant"] for one in past] == ["positions-rope"]
    assert "verdict" not in past[0]  # learned positions end, so there is nothing to compare with
    assert {WITHIN, PAST} < found["sides"][2]["runs"][0]["figures"].keys()
    note, page = ((tmp_path / "runs" / name).read_text(encoding="utf-8") for name in ("note.md", "report.html"))
    printed = capsys.readouterr().out
    for text in (note, page, printed):
        assert planted["verdict"] in text
    assert page.count("<svg") == 2
    capsys.readouterr()
    compared(tmp_path, *words, "optim.lr=0.02", status=2)
    assert "optim.lr: " in capsys.readouterr().err


@pytest.mark.slow
def test_another_tokenizer_is_compared_in_bits_per_byte(tmp_path: Path) -> None:
    found = compared(tmp_path, "swap=tokenizer:byte", "seeds=1", "json=true")
    assert [one["figure"] for one in found["differences"]] == ["bits per byte"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("seeds=0",), "seeds: must be at least 1, found 0"),
        (("beyond=1",), "beyond: 0, or 2 training lengths or more, found 1"),
        (("stream=-1",), "stream: must not be negative"),
        (("resume=never",), "resume: a comparison goes on by itself"),
        (("size=1M",), "size: a comparison wants its sizes written down"),
        (("swap=arch:ngram",), "model.arch: ngram counts its text"),
        (("swap=lora.rank:2",), "lora.rank: random weights have nothing to keep"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    words: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compared(tmp_path, *words, status=2)
    assert said in capsys.readouterr().err
