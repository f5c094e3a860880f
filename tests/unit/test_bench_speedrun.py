"""The speedrun's command: what it refuses, the text it insists on, and a record of a tiny size from start to end."""

import json
import os
from pathlib import Path

import pytest

from legollm.cli import main
from legollm.commands import bench_speedrun
from legollm.commands.bench_speedrun import row_of

DATA = Path(os.environ.get("LEGOLLM_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (['records=["1.2"]'], "records: '1.2' is none of 1.91, 1.88, 1.60, 1.50"),
        (["rounds=0"], "rounds: must be at least 1, found 0"),
        (["against=nowhere"], "against: nowhere has no data/shakespeare_char/train.bin"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "speedrun", *words]) == 2
    assert said in capsys.readouterr().err


def test_another_text_does_not_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run itself is real, of two steps; only its validation text is another."""
    (tmp_path / "text.txt").write_text("To be, or not to be: that is the question.\n" * 200)
    preset = {**bench_speedrun.SPEEDRUNS["speedrun-1.88"]}
    assert preset["model"]["n_layers"] == 2
    text = str(tmp_path / "text.txt")
    run = tmp_path / "run"
    words = ["preset=speedrun-1.88", f"data.source={text}", f"run={run}", "train.max_steps=2", "model.d_model=32"]
    assert main(["train", *words, "model.d_ff=32"]) == 0
    with pytest.raises(bench_speedrun.DataError, match="not the last tenth of Tiny Shakespeare"):
        bench_speedrun.check_validation_text(run)


def test_medians_decide() -> None:
    row = row_of("1.88", [(3.0, 1.87), (9.0, 1.90), (5.0, 1.879)])
    assert row == {"name": "1.88", "seconds": 5.0, "loss": 1.879, "worst": 1.90, "reached": True}
    assert row_of("nanoGPT", [(1.0, 1.9)])["reached"] is None


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="needs the text of LEGOLLM_DATA")
def test_the_first_record_is_reached(capsys: pytest.CaptureFixture[str]) -> None:
    """The command of the docs, whatever the machine's speed: the loss is what is promised."""
    text = DATA / "text" / "tinyshakespeare.txt"
    assert main(["bench", "speedrun", f"{text}", 'records=["1.88"]', "json=true"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["reached"] is True
