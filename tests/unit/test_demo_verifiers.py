"""The demo of verifiers: an error is found and mended, and noise costs what can be computed."""

import json
from pathlib import Path

import pytest

from legollm.cli import main
from legollm.commands.demo_verifiers import DemoVerifiersRun, at_ks, judged, judges, made_up, truth_but_for

Capture = pytest.CaptureFixture[str]


def test_two_and_two_is_five_and_then_four(tmp_path: Path, capsys: Capture) -> None:
    assert main(["demo", "verifiers", f"run={tmp_path}", "n_questions=40"]) == 0
    out = capsys.readouterr().out
    assert "Q 2+2                             A 5                         incorrect: 4" in out
    assert "2+2: 5 (incorrect: 4) -> 4 (correct)" in out
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<td>2+2</td><td>5</td><td>incorrect: 4</td>" in page
    assert page.count("<polyline") == 5


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_the_best_of_many_is_right_as_often_as_an_accepted_answer(share: float) -> None:
    """Of accepted answers p / (p + (1 - p) * share) are right; the first of them is chosen, if there is one."""
    cfg = DemoVerifiersRun(n_questions=500, accuracy=0.5)
    (*_, (k, measured)) = at_ks(judged(made_up(cfg), truth_but_for(share, 3)))
    assert k == 16
    assert measured == pytest.approx(0.5 / (0.5 + 0.5 * share), abs=0.06)


def test_what_can_be_gamed_gets_worse_with_more_answers() -> None:
    solved = made_up(DemoVerifiersRun(n_questions=100))
    curves = {name: [share for _, share in at_ks(judged(solved, judge))] for name, judge in judges(0).items()}
    assert curves["longer, can be gamed"][-1] < curves["longer, can be gamed"][0] / 2
    assert curves["contains, can be gamed"][-1] < curves["accepts 0% of wrong"][-1] - 0.1


def test_answers_of_a_real_run_are_taken_from_its_file(tmp_path: Path, capsys: Capture) -> None:
    attempts = [{"answer": "5", "score": 0.0, "right": False}, {"answer": "4", "score": 1.0, "right": True}]
    row = {"question": "2+2", "reference": "4", "attempts": attempts}
    file = tmp_path / "results.jsonl"
    file.write_text(json.dumps(row), encoding="utf-8")
    words = ["demo", "verifiers", f"results={file}", f"run={tmp_path}"]
    assert main(words) == 0
    assert "accepts 0% of wrong         0.0   100.0\n" in capsys.readouterr().out
    file.write_text(json.dumps(row | {"attempts": [{"answer": "5"}]}), encoding="utf-8")
    assert main(words) == 2
    assert "expected answer, score and right of each" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["n_questions=0", "accuracy=1.5"])
def test_what_cannot_be_is_refused(wrong: str, capsys: Capture) -> None:
    assert main(["demo", "verifiers", wrong]) == 2
    assert wrong.partition("=")[0] in capsys.readouterr().err
