"""Verifiers of steps: what they read, what they are trained on, what a verdict is; and that they find the error."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from legollm.alignment.steps import (
    STEP_LABELS,
    RightSteps,
    Stepped,
    StepVerifier,
    step_chances,
    stepped,
    stepped_batch,
)
from legollm.architectures.gpt2 import GPT2Config, gpt2
from legollm.architectures.scored import with_scores
from legollm.checkpoints.loading import Loaded, load
from legollm.checkpoints.state import save_model
from legollm.cli import main
from legollm.commands.checked_data import CheckedConfig, chains_of
from legollm.commands.train_verifier import first_doubtful
from legollm.commands.verifying import VerifierConfig, verifier_for
from legollm.data import world
from legollm.data.chat import SPECIAL_TOKENS
from legollm.data.steps import read_chains
from legollm.data.templates import CHATML
from legollm.data.world import Task
from legollm.errors import ConfigError, DataError
from legollm.tokenizers import ByteTokenizer
from legollm.training.objective import IGNORED

Capture = pytest.CaptureFixture[str]
TINY = GPT2Config(vocab_size=256, max_seq_len=80, n_layers=1, n_heads=2, d_model=24, dropout=0.0)


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_each_step_is_judged_at_its_line_feed() -> None:
    words = ByteTokenizer()
    one = stepped(words, None, "q?", ["ab", "c"], [True, None], max_len=99)
    assert words.decode(one.ids) == "q?\nab\nc\n"
    assert one == Stepped(list(b"q?\nab\nc\n"), [5, 7], [1, IGNORED])
    short = stepped(words, None, "q?", ["ab", "c"], [True, False], max_len=2)
    assert short == Stepped(list(b"c\n"), [1], [0])
    words.train([], special_tokens=list(SPECIAL_TOKENS))
    talk = stepped(words, CHATML, "q?", ["<|im_end|>", "c"], max_len=99)
    assert words.decode(talk.ids) == "<|im_start|>user\nq?<|im_end|>\n<|im_start|>assistant\n<|im_end|>\nc\n"
    assert talk.ids.count(words.special_tokens["<|im_end|>"]) == 1  # what stands in a step is text
    batch = stepped_batch([one, short])
    assert batch.tokens.tolist() == [one.ids, [*short.ids, 0, 0, 0, 0, 0, 0]]
    assert batch.ends.nonzero().tolist() == [[0, 5], [0, 7], [1, 1]]
    assert batch.labels[batch.ends].tolist() == [1, IGNORED, 0]
    assert RightSteps().n_terms(batch) == 2


class Opinion(nn.Module):
    """Finds a step that ends with byte n right with chance n / 100."""

    def forward(self, tokens: Tensor, at: Tensor) -> Tensor:
        chance = tokens.roll(1, 1)[at] / 100
        return torch.stack([torch.log(1 - chance), torch.log(chance)], -1)


def test_the_loss_counts_steps_that_were_judged_and_a_score_is_made_of_all() -> None:
    one = stepped(ByteTokenizer(), None, "?", ["AZ", "BP", "C2"], [True, False, None], max_len=99)  # 90, 80, 50
    assert step_chances(Opinion(), [one, one])[1] == pytest.approx([0.9, 0.8, 0.5])
    loss = RightSteps()(Opinion(), stepped_batch([one]))
    assert float(loss) == pytest.approx(-float(torch.tensor(0.9).log() + torch.tensor(0.2).log()), abs=1e-6)
    lm = Loaded(Opinion(), ByteTokenizer(), TINY, "gpt2", Path())
    verdict = StepVerifier(lm)("?", "AZ\n\n BP\nC2")
    assert verdict.score == pytest.approx(0.9 * 0.8 * 0.5)
    assert verdict.reason == "every step is right with a chance of at least 50%"
    doubtful = StepVerifier(lm, "min")("?", "AZ\nB!\nC(")  # 33 and 40
    assert doubtful.score == pytest.approx(0.33)
    assert doubtful.reason.startswith("step 2 is right with a chance of 33%: B!")
    assert 0 <= StepVerifier(lm)("?", "").score <= 1
    with pytest.raises(ConfigError, match="'mean' is none of product, min"):
        StepVerifier(lm, "mean")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"steps": "a", "labels": [True]}, "steps: expected a list of texts, found 'a'"),
        ({"completions": [], "labels": []}, "completions: expected a list of texts, found []"),
        ({"steps": ["a"], "labels": [1]}, "labels: expected a list of true, false or null, found [1]"),
        ({"steps": ["a", "b"], "labels": [True]}, "labels: 1 for 2 steps"),
        ({"steps": ["a", "b\nc"], "labels": [True, True]}, "steps[1]: expected one line of text, found 'b\\nc'"),
        ({"steps": [" "], "labels": [True]}, "steps[0]: expected one line of text"),
    ],
)
def test_a_malformed_row_is_named_with_file_place_and_field(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    path = written(
        tmp_path / "steps.jsonl", {"prompt": "?", "completions": ["a "], "labels": [None]}, {"prompt": "?"} | row
    )
    with pytest.raises(DataError) as found:
        list(read_chains(path))
    assert f"{path}:2: {said}" in str(found.value)


def test_chains_of_the_world_differ_from_the_truth_in_one_step() -> None:
    true = {}
    for chain in world.chains(0, 0, 4000):
        if False not in chain.labels:
            true[chain.question] = chain.steps
    wrongs = [chain for chain in world.chains(0, 4000, 8000) if False in chain.labels]
    assert 0.45 < len(wrongs) / 4000 < 0.55
    compared = [chain for chain in wrongs if chain.question in true]
    assert len(compared) > 300
    for chain in compared:
        at = chain.labels.index(False)
        assert chain.labels == (True,) * at + (False,) + (None,) * (len(chain.steps) - at - 1)
        right = true[chain.question]
        assert [i for i, step in enumerate(chain.steps) if step != right[i]] == [at], (chain, right)
        assert len(chain.steps) == len(right)
    train, val = chains_of(CheckedConfig(source=Path("world"), n_examples=500, val_fraction=0.1))
    assert len(val) == 50
    assert not {chain.key for chain in train} & {chain.key for chain in val}


FRUIT, TOOLS = ("plum", "pear", "fig", "apple", "lime"), ("hammer", "saw", "nail", "drill", "screw")


def basket(draw: random.Random) -> dict[str, Any]:
    """A list of fruit, in which a tool may stand."""
    steps = [f"a {draw.choice(FRUIT)}" for _ in range(draw.randrange(2, 5))]
    wrong = draw.randrange(len(steps)) if draw.random() < 0.75 else len(steps)
    steps[wrong : wrong + 1] = [f"a {draw.choice(TOOLS)}"] * (wrong < len(steps))
    labels = [*[True] * wrong, False, *[None] * 4][: len(steps)]
    return {"prompt": f"Fruit, {draw.randrange(100_000)}?", "steps": steps, "labels": labels}


@pytest.mark.slow
def test_the_step_found_wrong_is_the_planted_one(tmp_path: Path, capsys: Capture) -> None:
    draw = random.Random(0)
    torch.manual_seed(0)
    save_model(tmp_path / "base", gpt2(TINY), "gpt2", TINY, ByteTokenizer())
    source = written(tmp_path / "steps.jsonl", *(basket(draw) for _ in range(800)))
    run = tmp_path / "run"
    words = ["kind=process", f"data.source={source}", f"model={tmp_path / 'base'}", f"run={run}", "optim.lr=0.01"]
    loop = ["optim.schedule=constant", "train.max_steps=120", "train.eval_every=0", "train.save_every=0"]
    status = main(["verifier", "train", *words, *loop])
    out, err = capsys.readouterr()
    assert status == 0, err
    assert "held-out answers with a wrong step: the first one is found in " in out
    assert float(out.split("is found in ")[1].split("%")[0]) >= 95
    verify = StepVerifier(load(run))
    n_found = 0
    for row in (basket(draw) for _ in range(100)):
        chances = verify.chances(row["prompt"], "\n".join(row["steps"]))
        first = row["labels"].index(False) if False in row["labels"] else None
        n_found += first_doubtful(chances) == first
    assert n_found >= 95
    good = {"question": "Fruit, 1?", "answer": "a fig\na lime", "right": True}
    bad = {"question": "Fruit, 2?", "answer": "a fig\na nail", "right": False}
    graded = written(tmp_path / "graded.jsonl", good, bad)
    assert main(["grade", str(graded), f"verifier={run}", "step_score=min", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["auc"] == 1
    words = [f"model={tmp_path / 'base'}", f"verifier={run}", "strategy=best_of", "n=2", "n_questions=1"]
    assert main(["solve", *words, "max_new_tokens=4", f"run={tmp_path / 'solved'}", "kinds=[parity]"]) == 0


def test_a_folder_says_itself_what_it_judges(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_model(tmp_path / "base", gpt2(TINY), "gpt2", TINY, ByteTokenizer())
    rows = [{"prompt": f"{i}?", "steps": ["a"], "labels": [i % 2 == 0]} for i in range(60)]
    source = written(tmp_path / "steps.jsonl", *rows)
    words = [f"data.source={source}", f"model={tmp_path / 'base'}", f"run={tmp_path / 'run'}", "train.max_steps=1"]
    assert main(["verifier", "train", "kind=process", *words]) == 0
    assert load(tmp_path / "run").config.labels == STEP_LABELS
    verify = verifier_for(VerifierConfig(verifier=str(tmp_path / "run"), step_score="min"))(
        Task("?", "1", "number", "")
    )
    assert isinstance(verify, StepVerifier)
    assert verify.how == "min"
    one_kind = written(tmp_path / "steps.jsonl", *(row | {"labels": [True]} for row in rows))
    with pytest.raises(DataError, match=r"\d+ right and 0 wrong steps to train on"):
        chains_of(CheckedConfig(source=one_kind))
    model = with_scores(gpt2(TINY), 2).eval()
    examples = [stepped(ByteTokenizer(), None, "?", ["abc"[:n]] * n, max_len=80) for n in (1, 2, 3)]
    apart = [step_chances(model, [one])[0] for one in examples]
    for alone, together in zip(apart, step_chances(model, examples), strict=True):
        assert together == pytest.approx(alone, abs=1e-6)
