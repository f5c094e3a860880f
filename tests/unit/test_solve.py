"""`legollm solve`, `grade` and `verifier train`, with models of a few thousand weights."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from legollm.alignment.judges import (
    CHECKER,
    LABELS,
    Checked,
    RightOrWrong,
    SelfVerifier,
    TrainedVerifier,
    answer_ids,
    chances,
    checked_batch,
    template_of,
)
from legollm.architectures.gpt2 import GPT2Config, gpt2
from legollm.architectures.scored import last_scores, with_scores
from legollm.checkpoints.loading import Loaded, load
from legollm.checkpoints.state import save_model
from legollm.cli import main
from legollm.commands.checked_data import Answer, CheckedConfig, read_answers, split_answers
from legollm.commands.solve import ModelWriter
from legollm.data.chat import Message
from legollm.data.templates import CHATML
from legollm.errors import CheckpointError, DataError
from legollm.evaluation.intervals import auc, share
from legollm.generation.complete import Decoding
from legollm.generation.sampling import Sampling
from legollm.tokenizers import ByteTokenizer

Capture = pytest.CaptureFixture[str]
TINY = GPT2Config(vocab_size=256, max_seq_len=96, n_layers=1, n_heads=2, d_model=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny"
    torch.manual_seed(0)
    save_model(path, gpt2(TINY), "gpt2", TINY, ByteTokenizer())
    return path


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


SOLVE = ("max_new_tokens=4", "n=3", "tries=2", "n_questions=3", "engine=torch")


@pytest.mark.parametrize("strategy", ["retry", "best_of", "vote", "weighted"])
def test_the_world_is_asked_and_everything_is_written_down(
    strategy: str, folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = ["solve", f"model={folder}", f"strategy={strategy}", f"run={tmp_path / 'out'}", *SOLVE, "--json"]
    assert main(words) == 0
    figures = json.loads(capsys.readouterr().out)
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 3
    n_answers = [len(row["attempts"]) for row in rows]
    assert figures["answers"] == sum(n_answers)
    assert set(n_answers) <= {1, 2} if strategy == "retry" else n_answers == [3, 3, 3]
    assert figures["tokens_written"] == sum(one["tokens"] for row in rows for one in row["attempts"])
    assert figures["tokens_written"] <= 4 * figures["answers"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "incorrect" in page
    assert "<script" not in page


def test_the_same_seed_gives_the_same_answers(folder: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert main(["solve", f"model={folder}", f"run={tmp_path / name}", f"seed={seed}", *SOLVE]) == 0
    a, b, c = ((tmp_path / name / "results.jsonl").read_text(encoding="utf-8") for name in "abc")
    assert a == b != c
    answers = [one["answer"] for one in json.loads(a.splitlines()[0])["attempts"]]
    assert len(set(answers)) > 1


def test_questions_come_from_a_file_and_other_verifiers_choose(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    file = written(tmp_path / "sums.jsonl", *({"prompt": f"{i} + 1 =", "answer": f"{i + 1}"} for i in range(3)))
    words = ["solve", f"model={folder}", f"source={file}", f"run={tmp_path / 'out'}", *SOLVE]
    assert main(words) == 2
    assert "verifier: None is none of" in capsys.readouterr().err
    assert main([*words, "verifier=gsm8k", "false_accept=1", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["accepted"].startswith("100.0% (3 of 3")
    assert figures["accepted_but_wrong"] == 3 - int(figures["right"].split("(")[1].split()[0])
    for wrong, why in (
        ("verifier=nmber", "'nmber' is none of exact, number"),
        ("budget=3", "less than one answer"),
        ("n_questions=0", "at least 1"),
    ):
        assert main([*words, "verifier=number", wrong]) == 2
        assert why in capsys.readouterr().err


def test_of_a_file_the_world_knows_nothing(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    file = written(tmp_path / "sums.jsonl", {"prompt": "1 + 1 =", "answer": "2", "verifier": "number"})
    assert main(["solve", f"model={folder}", f"source={file}", "verifier=world", *SOLVE]) == 2
    assert "knows only its own questions" in capsys.readouterr().err


def test_a_second_try_is_a_conversation_or_a_text_that_asks_again() -> None:
    turns = [Message("user", "2+2"), Message("assistant", "5"), Message("user", "That is not right. Try again.")]
    plain, chat = ByteTokenizer(), ByteTokenizer()
    chat.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    base = ModelWriter(Loaded(Opinion(), plain, TINY, "gpt2", Path()), Sampling(), Decoding())
    assert plain.decode(base.prompt_of(turns[:1])) == "2+2"
    assert plain.decode(base.prompt_of(turns)) == "2+2 5\nThat is not right. Try again.\n2+2"
    tuned = ModelWriter(Loaded(Opinion(), chat, TINY, "gpt2", Path(), chat_template=CHATML), Sampling(), Decoding())
    said = chat.decode(tuned.prompt_of(turns))
    assert said.count("<|im_start|>") == 4
    assert "user\nThat is not right. Try again.<|im_end|>\n<|im_start|>assistant\n" in said


@pytest.mark.parametrize("verifier", ["self", "world"])
def test_the_model_and_the_state_of_the_world_can_be_asked(verifier: str, folder: Path, tmp_path: Path) -> None:
    assert main(["solve", f"model={folder}", f"run={tmp_path}", f"verifier={verifier}", *SOLVE]) == 0


# grade


def test_two_and_two_is_four(tmp_path: Path, capsys: Capture) -> None:
    file = written(tmp_path / "a.jsonl", {"prompt": "2+2", "answer": "5"}, {"prompt": "What is 2 * 3?", "answer": "6"})
    assert main(["grade", str(file), "verifier=arithmetic", f"run={tmp_path / 'out'}"]) == 0
    out = capsys.readouterr().out
    assert "2+2" in out
    assert "incorrect: 4" in out
    assert "50.0% (1 of 2; 95 % interval 9.5% to 90.5%)" in out
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<td>2+2</td><td>5</td><td>incorrect: 4</td><td>2+2 is not 5</td>" in page
    row = json.loads((tmp_path / "out" / "results.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert (row["question"], row["answer"], row["verdict"], row["correction"]) == ("2+2", "5", "incorrect: 4", "4")


def test_answers_are_graded_against_references(tmp_path: Path, capsys: Capture) -> None:
    file = written(
        tmp_path / "a.jsonl",
        {"question": "How much?", "response": "It is $72.", "answer": "... #### 72", "right": True},
        {"question": "How much?", "response": "71", "answer": "#### 72", "right": True},
        {"question": "How much?", "response": "70", "reference": "#### 72", "right": False},
    )
    assert main(["grade", str(file), "verifier=gsm8k", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["right"].startswith("33.3% (1 of 3")
    assert figures["agrees"].startswith("66.7% (2 of 3")
    assert figures["auc"] == 0.75


@pytest.mark.parametrize(
    ("row", "words", "why"),
    [
        ({"answer": "5"}, [], "a.jsonl:1: expected one of prompt, question; found answer"),
        ({"prompt": "2+2"}, [], "expected one of response, completion, output, answer"),
        ({"prompt": "2+2", "answer": "5"}, [], "verifier exact: compares with a reference"),
        ({"prompt": "2+2", "answer": "5", "verifier": "no"}, [], "'no' is none of"),
        ({"prompt": "2+2", "answer": "5", "right": 1}, ["verifier=arithmetic"], "expected true or false, found 1"),
        ({"prompt": "Where?", "answer": "5"}, ["verifier=arithmetic"], "nothing to compute in 'Where?'"),
        ({"prompt": "Where?", "answer": "5"}, ["verifier=self"], "asks the model that answers"),
        ({"prompt": "Where?", "answer": "5"}, ["false_accept=2"], "a share from 0 to 1"),
    ],
)
def test_rows_that_cannot_be_graded(
    row: dict[str, object], words: list[str], why: str, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["grade", str(written(tmp_path / "a.jsonl", row)), *words]) == 2
    assert why in capsys.readouterr().err


def test_a_share_has_an_interval_and_scores_a_ranking() -> None:
    assert str(share(0, 10)) == "0.0% (0 of 10; 95 % interval 0.0% to 27.8%)"  # from a table of Wilson's interval
    assert (round(share(50, 100).low, 4), round(share(50, 100).high, 4)) == (0.4038, 0.5962)
    assert (share(0, 0).low, share(0, 0).high) == (0, 1)
    draw = random.Random(0)
    for _ in range(50):
        n = draw.randint(2, 12)
        scores, labels = [draw.randint(0, 4) / 4 for _ in range(n)], [draw.random() < 0.5 for _ in range(n)]
        both = list(zip(scores, labels, strict=True))
        pairs = [(a, b) for a, right in both if right for b, other in both if not other]
        wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs]
        assert auc(scores, labels) == pytest.approx(sum(wins) / len(wins) if wins else 0.5)


# Models as verifiers


class Opinion(nn.Module):
    """Goes on with `right` after an answer that has the word good in it, else with `wrong`."""

    def forward(self, tokens: Tensor) -> Tensor:
        said = bytes(tokens[0].tolist()).decode()
        likely = " right" if "good" in said else " wrong"
        logits = torch.zeros(1, tokens.size(1), 256)
        for i, character in enumerate(likely.encode(), start=len(said.rpartition(CHECKER)[0]) + len(CHECKER) - 1):
            if i < tokens.size(1):
                logits[0, i, character] = 3.0
        return logits


def test_the_model_itself_is_asked_after_a_fixed_text() -> None:
    lm = Loaded(Opinion(), ByteTokenizer(), TINY, "gpt2", Path("nowhere"))
    verify = SelfVerifier(lm)
    assert bytes(verify.prompt_of("2+2", " 4 ")) == b"2+2 4\nChecker: The answer is"
    assert verify("How?", "good").score > 0.99
    assert verify("How?", "bad").score < 0.01
    assert "asked itself" in verify("How?", "bad").reason
    assert verify("x" * 200, "good").score > 0.99  # of what is too long the end is read


def test_a_verifier_reads_a_conversation_or_plain_text() -> None:
    plain, chat = ByteTokenizer(), ByteTokenizer()
    chat.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    assert bytes(answer_ids(plain, None, "2+2", " 4", 99)) == b"2+2 4\n"
    assert bytes(answer_ids(plain, None, "2+2", "4", 3)) == b" 4\n"
    ids = answer_ids(chat, CHATML, "2+2", "4", 99)
    assert chat.decode(ids).startswith("<|im_start|>user\n2+2<|im_end|>\n<|im_start|>assistant\n4<|im_end|>")
    assert template_of(Loaded(Opinion(), plain, TINY, "gpt2", Path())) is None
    assert template_of(Loaded(Opinion(), chat, TINY, "gpt2", Path())) == CHATML


def scorer(labels: tuple[str, ...] = LABELS) -> nn.Module:
    torch.manual_seed(0)
    return with_scores(gpt2(TINY), len(labels), seed=1).eval()


def test_chances_do_not_depend_on_neighbours_and_are_those_of_the_loss() -> None:
    model = scorer()
    examples = [Checked(list(range(1, 3 + 5 * i)), i % 2) for i in range(5)]
    together = chances(model, examples)
    assert together == pytest.approx([chances(model, [one])[0] for one in examples], abs=1e-6)
    loss = RightOrWrong()(model, checked_batch(examples)).item()
    logs = [torch.tensor(c if one.label else 1 - c).log() for c, one in zip(together, examples, strict=True)]
    assert loss == pytest.approx(-sum(logs).item(), rel=1e-5)  # type: ignore[union-attr]
    assert RightOrWrong().n_terms(checked_batch(examples)) == 5
    (reward,) = chances(scorer(("reward",)), examples[:1])
    score = last_scores(scorer(("reward",)), torch.tensor([examples[0].ids]), torch.tensor([len(examples[0].ids)]))
    assert reward == pytest.approx(score.sigmoid().item())


def test_a_model_without_scores_judges_nothing(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="legollm verifier train"):
        TrainedVerifier(load(folder))


def test_the_question_decides_where_an_answer_belongs(tmp_path: Path) -> None:
    row = {"question": "q", "attempts": [{"answer": "1", "right": True}, {"answer": "2", "right": False}]}
    file = written(tmp_path / "a.jsonl", row, row, {"question": "p", "answer": "3", "right": False})
    assert read_answers(file) == [Answer("q", "1", True), Answer("q", "2", False), Answer("p", "3", False)]
    answers = [Answer(f"{i}", f"{j}", j == 0) for i in range(200) for j in range(3)]
    train, val = split_answers(answers, CheckedConfig(source=file, val_fraction=0.2))
    assert not {one.question for one in train} & {one.question for one in val}
    assert len(train) + len(val) == 600
    assert 60 < len(val) < 180
    with pytest.raises(DataError, match=r"0 right and \d+ wrong answers to train on"):
        split_answers([one for one in answers if not one.is_right], CheckedConfig(source=file))
    for bad, why in (({"question": "q", "answer": "1"}, "right: expected"), ({"question": "q", "attempts": 1}, "list")):
        with pytest.raises(DataError, match=why):
            read_answers(written(tmp_path / "bad.jsonl", bad))


@pytest.mark.slow
def test_a_trained_verifier_tells_answers_to_new_questions_apart(tmp_path: Path, folder: Path, capsys: Capture) -> None:
    draw = random.Random(0)
    rows = []
    for n in draw.sample(range(1000), 500):
        said = [("even", n % 2 == 0), ("odd", n % 2 == 1)]
        rows += [{"question": f"Is {n} even or odd?", "answer": word, "right": right} for word, right in said]
    file = written(tmp_path / "answers.jsonl", *rows)
    loop = ["train.max_steps=500", "train.eval_every=500", "train.save_every=500", "optim.lr=0.01"]
    words = [f"data.source={file}", f"model={folder}", f"run={tmp_path / 'verifier'}", "data.val_fraction=0.3", *loop]
    status = main(["verifier", "train", *words])
    out, err = capsys.readouterr()
    assert status == 0, err
    assert float(out.split("AUC ")[1].split(",")[0]) >= 0.9
    verify = TrainedVerifier(load(tmp_path / "verifier"))
    assert verify("Is 12 even or odd?", "even").score > verify("Is 12 even or odd?", "odd").score
    assert main(["grade", str(file), f"verifier={tmp_path / 'verifier'}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["auc"] >= 0.9
    assert main(["generate", str(tmp_path / "verifier"), "x"]) == 1
