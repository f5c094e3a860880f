"""The benchmark of writing: what it refuses, what several rounds say together, and a real table of a tiny model."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from legollm.cli import main
from legollm.commands.bench_generate import percentile, picture, speed, table


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["engines=[gpu]"], "engines: 'gpu' is none of torch, torch-bfloat16, torch-no-cache, cpu"),
        (["against=[vllm]"], "against: 'vllm' is none of transformers, transformers-bfloat16, nor a folder with"),
        (["new=7"], "new: must be at least 8, found 7"),
        (["prompt=[0]"], "prompt: must be at least 1, found 0"),
        (["nowhere", "rounds=1", "engines=[torch]"], "no such folder"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "generate", *words]) != 0
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("n", [1, 2, 10, 99, 100, 101])
def test_a_percentile_is_the_smallest_value_that_covers_its_share(n: int) -> None:
    values = [float((i * 37) % n) for i in range(n)]
    for share in (0.01, 0.5, 0.9, 0.99, 1.0):
        wanted = min(v for v in values if sum(other <= v for other in values) >= share * n - 1e-9)
        assert percentile(values, share) == wanted


def a_round(factor: float) -> dict[str, object]:
    tokens = [factor * ms / 1000 for ms in range(1, 101)]
    figures = {"start_s": factor, "prompt_s": factor * 0.5, "token_s": tokens, "peak_bytes": int(factor * 2**20)}
    return figures | {"reads": (1000, 2000.0)}


def test_the_middle_round_decides() -> None:
    row = speed("cpu", 64, 2, [a_round(1), a_round(100), a_round(2)])
    assert (row.p50_ms, row.p90_ms, row.p99_ms) == pytest.approx((100, 180, 198))
    assert row.tokens_per_s == pytest.approx(2 * 100 / (2 * 5.05))
    assert row.prompt_tokens_per_s == pytest.approx(2 * 64 / 1.0)
    assert (row.start_s, row.peak_mib) == (2, 2)
    assert row.share == pytest.approx(1000 * (100 / 10.1) / 2000)


def test_ratios_are_to_the_first_row_of_the_same_case() -> None:
    rows = [speed(name, n, 1, [a_round(f)]) for n in (8, 16) for name, f in (("torch", 2), ("cpu", 1))]
    lines = table(rows).splitlines()
    assert [line.split()[4] for line in lines[1:]] == ["1.00x", "2.00x"] * 2
    tree = ElementTree.fromstring(picture(rows))
    assert tree.tag.endswith("svg")
    assert "tokens of the prompt" in picture(rows)
    assert "texts written together" in picture([speed("cpu", 8, n, [a_round(1)]) for n in (1, 4)])


@pytest.mark.slow
def test_a_tiny_model_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engines = "engines=[torch,torch-no-cache,cpu-int8]"
    words = ["bench", "generate", "tiny", "rounds=1", "new=12", "prompt=[8,16]", engines, "against=[transformers]"]
    assert main([*words, "json=true", f"svg={tmp_path / 'speed.svg'}"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["engine"], row["n_prompt"]) for row in rows] == [
        (engine, n) for n in (8, 16) for engine in ("torch", "torch-no-cache", "cpu-int8", "transformers")
    ]
    assert all(0 < row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"] for row in rows)
    assert all(row["tokens_per_s"] > 0 and row["start_s"] > 0 and row["peak_mib"] > 50 for row in rows)
    assert [row["share"] is not None for row in rows] == [False, False, True, False] * 2
    ElementTree.parse(tmp_path / "speed.svg")
