"""Published tests: each format read as it was published, faults named, and what the answers come to."""

import json
import math
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from legollm.commands import evaluate_tasks
from legollm.data.benchmarks import BENCHMARKS, Item, before, read_items, shots_of
from legollm.errors import ConfigError, DataError
from legollm.evaluation.choices import Judged, judge_all
from legollm.evaluation.intervals import bootstrap_interval, estimate, ratio_interval, share
from legollm.evaluation.likelihood import Likelihood
from legollm.evaluation.prompts import Prompts
from legollm.evaluation.samples import answer_all, pass_at_k, run_tests
from legollm.generation.complete import Decoding
from legollm.generation.sampling import Sampling
from legollm.generation.text import generate_text
from legollm.tokenizers import ByteTokenizer
from legollm.verifiers.sandbox import SandboxConfig, level
from legollm.verifiers.verdict import RIGHT, Verdict
from tiny_models import tiny_model


def lines(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def read(task: str, source: Path, **more: Any) -> list[Item]:
    return read_items(BENCHMARKS[task], source, more.pop("split", None), **more)


def mmlu(folder: Path) -> Path:
    for subject, letter in (("world_religions", "B"), ("astronomy", "D")):
        for split, n in (("dev", 2), ("test", 3)):
            rows = [f'"{subject} {split} {i}?\nSay, ",x,"y, z",0,1,{letter}' for i in range(n)]
            lines(folder / split / f"{subject}_{split}.csv", *rows)
    return folder


def test_mmlu_as_it_is_asked(tmp_path: Path) -> None:
    items = read("mmlu", mmlu(tmp_path))
    assert [(item.kind, item.right) for item in items] == [("astronomy", 3)] * 3 + [("world_religions", 1)] * 3
    shots = shots_of(BENCHMARKS["mmlu"], tmp_path, items, 1)
    assert before(BENCHMARKS["mmlu"], items[3], shots["world_religions"]) + items[3].prompt == (
        "The following are multiple choice questions (with answers) about world religions.\n\n"
        "world_religions dev 0?\nSay,\nA. x\nB. y, z\nC. 0\nD. 1\nAnswer: B\n\n"
        "world_religions test 0?\nSay,\nA. x\nB. y, z\nC. 0\nD. 1\nAnswer:"
    )
    assert [item.where.rpartition(":")[2] for item in items[:3]] == ["2", "4", "6"]
    file = tmp_path / "test" / "astronomy_test.csv"
    assert shots_of(BENCHMARKS["mmlu"], file, read("mmlu", file), 2)["astronomy"][1].question.startswith(
        "astronomy dev"
    )
    assert len(read("mmlu", tmp_path, n_items=2)) == 4
    assert {item.kind for item in read("mmlu", tmp_path, kinds=["astronomy"])} == {"astronomy"}


def test_the_others_as_they_are_published(tmp_path: Path) -> None:
    scene = {"activity_label": "Baking", "ctx_a": "Mix [step] it.", "ctx_b": "then", "endings": ["a [title] b", " c "]}
    (item,) = read("hellaswag", lines(tmp_path / "h" / "hellaswag_val.jsonl", scene | {"label": 1}).parent)
    assert (item.prompt, item.choices, item.answer) == ("Baking: Mix it. Then", ("a. b", "c"), "c")
    listed = [{"text": "ice", "label": "A"}, {"text": "fire", "label": "B"}]
    published = {"question": {"stem": "Hot?", "choices": listed}, "answerKey": "B"}
    elsewhere = {"question": "Hot?", "choices": {"text": ["ice", "fire"], "label": ["1", "2"]}, "answerKey": "2"}
    for row in (published, elsewhere):
        (item,) = read("arc", lines(tmp_path / "ARC-Easy-Test.jsonl", row))
        assert (item.prompt, item.choices, item.right, item.kind) == (
            "Question: Hot?\nAnswer:",
            ("ice", "fire"),
            1,
            "ARC-Easy",
        )
    goals = lines(tmp_path / "p" / "valid.jsonl", *({"goal": f"go {i}", "sol1": "walk", "sol2": "run"} for i in (0, 1)))
    lines(tmp_path / "p" / "valid-labels.lst", "1", "0")
    assert [item.answer for item in read("piqa", goals.parent)] == ["run", "walk"]
    sums = lines(tmp_path / "g" / "test.jsonl", {"question": "1+1?", "answer": "It is\n#### 2"})
    lines(tmp_path / "g" / "train.jsonl", {"question": "0+1?", "answer": "Just #### 1"})
    items = read("gsm8k", sums.parent)
    shots = shots_of(BENCHMARKS["gsm8k"], sums, items, 1)["gsm8k"]
    assert before(BENCHMARKS["gsm8k"], items[0], shots) == "Question: 0+1?\nAnswer: Just #### 1\n\n"


def test_what_is_asked_is_not_shown_with_its_answer(tmp_path: Path) -> None:
    rows = [{"question": f"{i}+0?", "answer": f"#### {i}"} for i in range(4)]
    file = lines(tmp_path / "train.jsonl", *rows)
    shots = shots_of(BENCHMARKS["gsm8k"], file, read("gsm8k", file, n_items=2), 2)["gsm8k"]
    assert [one.question for one in shots] == ["2+0?", "3+0?"]
    with pytest.raises(DataError, match="0 worked examples for gsm8k that are not asked, and n_shots=2"):
        shots_of(BENCHMARKS["gsm8k"], file, read("gsm8k", file), 2)


HELLA = {"activity_label": "a", "ctx_a": "b", "ctx_b": "c", "endings": ["d", "e"], "label": "1"}
CODE = {"prompt": "def f():\n", "test": "def check(f): pass", "entry_point": "f"}
WRONG = [
    ("mmlu", "q,a,b,c,d", "t:1: expected question, four choices and a letter, found 5 fields"),
    ("mmlu", "q,a,b,c,d,E", "t:1: answer: 'E' is none of A, B, C, D"),
    ("mmlu", 'q,"a"b,c,d,e,A', "t:1: cannot be read as CSV"),
    ("hellaswag", HELLA | {"label": 2}, "t:1: label: expected a whole number from 0 to 1, found 2"),
    ("hellaswag", HELLA | {"endings": "d"}, "t:1: endings: expected a list of texts, found 'd'"),
    ("hellaswag", HELLA | {"endings": ["d", 3]}, "t:1: endings: expected text, found 3"),
    ("arc", {"question": "q", "choices": 3, "answerKey": "A"}, "t:1: choices: expected a list of label and text"),
    ("arc", {"question": "q", "choices": {"text": ["x"], "label": ["A"]}, "answerKey": "C"}, "'C' is none of A"),
    ("piqa", {"goal": "g", "sol1": "a", "sol2": "b"}, "t:1: label: there is no such field, and no t-labels.lst"),
    ("gsm8k", {"question": "q", "answer": "2"}, "t:1: answer: expected #### and a number at its end, found '2'"),
    ("code", CODE | {"test": "assert f()"}, "t:1: test: expected a function `check(candidate)`"),
    ("code", CODE | {"entry_point": "f()"}, "t:1: entry_point: 'f()' is no name of a function"),
    ("code", {"prompt": "p"}, "t:1: test: expected text, and there is no such field; found prompt"),
]


@pytest.mark.parametrize(("task", "row", "said"), WRONG)
def test_a_row_of_another_shape_is_named(task: str, row: Any, said: str, tmp_path: Path) -> None:
    file = lines(tmp_path / "t", row)
    with pytest.raises(DataError) as caught:
        read(task, file)
    assert said in str(caught.value)
    assert str(file) in str(caught.value)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    folder = mmlu(tmp_path / "m")
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        read("mmlu", tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no file \*test\*\.jsonl in it, found dev, test"):
        read("arc", folder)
    with pytest.raises(ConfigError, match=r"kinds: there is no 'astrology' in .*; found astronomy, world_religions"):
        read("mmlu", folder, kinds=["astrology"])
    with pytest.raises(DataError, match="2 worked examples for astronomy, and n_shots=3"):
        shots_of(BENCHMARKS["mmlu"], folder, read("mmlu", folder), 3)
    (tmp_path / "empty.csv").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match=r"empty\.csv: nothing in it"):
        read("mmlu", tmp_path / "empty.csv")
    lines(tmp_path / "p-labels.lst", "1")
    goals = lines(tmp_path / "p.jsonl", *[{"goal": "g", "sol1": "a", "sol2": "b"}] * 2)
    with pytest.raises(DataError, match=r"1 labels, and p\.jsonl has more rows"):
        read("piqa", goals)


def test_three_ways_to_pick_a_choice() -> None:
    """Long choices are less likely as a whole; characters of several bytes tell acc_norm and acc_bytes apart."""
    item = Item("q", "q", "b", "k", "w", ("a", "éé", "four"), 1)
    said = tuple(Likelihood(log_prob, False) for log_prob in (-3.0, -4.4, -5.0))
    one = Judged(item, said, 0)
    assert [one.picked(metric) for metric in ("acc", "acc_norm", "acc_bytes")] == [0, 2, 1]
    assert [one.is_right(metric) for metric in ("acc", "acc_norm", "acc_bytes")] == [False, False, True]
    tie = Judged(item, (Likelihood(-1.0, False),) * 3, 0)
    assert tie.picked("acc") == 0


def test_choices_are_judged_after_instructions_and_cut_where_there_is_no_room() -> None:
    model, prompts = tiny_model("gpt2", vocab_size=256), Prompts(ByteTokenizer())
    item = Item("q", "Hot?\nAnswer:", "ice", "k", "w", ("ice", "a flame"), 1)
    (whole,) = judge_all(model, prompts, [item], ["Say: "], window=40, batch_size=2)
    text = list(b"Say: Hot?\nAnswer: a flame")
    with torch.no_grad():
        log_probs = model(torch.tensor([text]))[0].log_softmax(-1)
    expected = sum(float(log_probs[i - 1, text[i]]) for i in range(len(text) - 8, len(text)))
    assert whole.said[1].log_prob == pytest.approx(expected, abs=1e-4)
    assert whole.n_cut == 0
    (cut,) = judge_all(model, prompts, [item], ["Say: "], window=20, batch_size=2)
    (same,) = judge_all(model, prompts, [item._replace(prompt=" Hot?\nAnswer:")], [""], window=40, batch_size=2)
    assert cut.n_cut == 4
    many = judge_all(
        model, prompts, [item] * 17, ["Say: "] * 9 + [""] * 8, window=20, batch_size=1
    )  # more than at once
    assert [one.n_cut for one in many] == [4] * 9 + [0] * 8
    assert [one.said[1].log_prob for one in many[:9]] == pytest.approx([cut.said[1].log_prob] * 9, abs=1e-5)
    assert cut.said[1].log_prob == pytest.approx(same.said[1].log_prob, abs=1e-5) != whole.said[1].log_prob


@pytest.mark.parametrize(("n", "n_right"), [(1, 0), (1, 1), (5, 2), (6, 0), (6, 6), (7, 1)])
def test_pass_at_k_is_the_share_of_all_draws(n: int, n_right: int) -> None:
    for k in range(1, n + 1):
        draws = [any(i < n_right for i in draw) for draw in combinations(range(n), k)]
        assert pass_at_k(n, n_right, k) == pytest.approx(sum(draws) / len(draws), abs=1e-12)


def test_samples_are_those_of_their_seeds_and_judged_in_order() -> None:
    model, tokenizer = tiny_model("gpt2", vocab_size=256), ByteTokenizer()
    items = [Item(name, name, "x", "k", name) for name in ("one", "another question, longer than the window has room")]
    prompts = [tokenizer.encode(item.prompt) for item in items]
    sampling = Sampling(temperature=1.0, max_new_tokens=5, seed=3)

    def judge(item: Item, said: str) -> Verdict:
        return RIGHT if item is items[0] and len(said) % 2 else Verdict(0.0, said)

    found = answer_all(
        model, tokenizer, items, prompts, judge, n_samples=3, sampling=sampling, stop_ids=(), decoding=Decoding()
    )
    for i, one in enumerate(found):
        window = prompts[i][-35:]  # 40 less the room for the answer
        for j, sample in enumerate(one.samples):
            own = Sampling(temperature=1.0, max_new_tokens=5, seed=3 + 3 * i + j)
            assert sample.text == generate_text(model, tokenizer, window, own).text
        assert one.n_right == sum(judge(items[i], sample.text).is_right for sample in one.samples)
        assert one.passes_at(1) == pytest.approx(one.n_right / 3)
    assert [one.n_cut for one in found] == [0, len(prompts[1]) - 35]


def test_code_is_run_against_its_tests() -> None:
    if level() == "none":
        pytest.skip("this machine cannot fence code in; tests/unit/test_sandbox_level.py covers that")
    tests = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-1) == 1\n"
    item = Item("Write it", "def square(x):\n    ", tests, "code", "w", entry_point="square")
    for right in ("return x * x\n", "```python\ndef square(x):\n    return x ** 2\n```", "y = x\n    return y * y"):
        assert run_tests(item, right, SandboxConfig()).is_right
    for wrong, why in (
        ("return x + 3\n", "AssertionError"),
        ("return ((\n", "SyntaxError"),
        ("import os; os._exit(0)\n", "was stopped"),
        ("raise SystemExit\n", "SystemExit"),
    ):
        verdict = run_tests(item, wrong, SandboxConfig())
        assert not verdict.is_right
        assert why in verdict.reason


def test_a_function_written_anew_finds_what_stands_before_it_in_the_prompt() -> None:
    if level() == "none":
        pytest.skip("this machine cannot fence code in; tests/unit/test_sandbox_level.py covers that")
    head = "import math\nfrom typing import List\n\ndef twice(x):\n    return 2 * x\n\n"
    prompt = f'{head}def roots(xs: List[int]) -> List[int]:\n    """Of each."""\n'
    tests = "def check(candidate):\n    assert candidate([4, 9]) == [2, 3]\n    assert twice(2) == 4\n"
    item = Item("Write it", prompt, tests, "code", "w", entry_point="roots")
    said = "```python\ndef roots(xs: List[int]) -> List[int]:\n    return [math.isqrt(x) for x in xs]\n```"
    assert run_tests(item, said, SandboxConfig()).is_right


@pytest.mark.parametrize(("in_chat", "stop"), [(True, ()), (False, BENCHMARKS["code"].stop)])
def test_a_function_in_an_answer_does_not_end_it(in_chat: bool, stop: tuple[str, ...], monkeypatch: Any) -> None:
    """Plain text ends where another function begins; an answer says something before its first one."""
    samplings = []

    def listens(*args: Any, sampling: Sampling, **more: Any) -> list[Any]:
        samplings.append(sampling)
        return []

    monkeypatch.setattr(evaluate_tasks, "answer_all", listens)
    template = "a template" if in_chat else None
    lm = cast(Any, SimpleNamespace(chat_template=template, stop_ids=list, text_side=ByteTokenizer, writer=None))
    monkeypatch.setattr(evaluate_tasks, "prompts_of", lambda lm: Prompts(ByteTokenizer(), None))
    cfg = evaluate_tasks.TaskSettings(task="code", source=Path("a.jsonl"))
    evaluate_tasks.written(cfg, lm, [], {}, lambda item, said: RIGHT, Decoding(), on_cpu=False)
    assert samplings[0].stop == stop


def test_a_loss_is_as_sure_as_its_documents_are_many() -> None:
    rng = torch.Generator().manual_seed(0)
    inside = 0
    for _ in range(200):
        counts = torch.randint(5, 60, (40,), generator=rng)
        own = 3 + 0.5 * torch.randn(40, generator=rng)  # tokens of one document are alike
        value, half = ratio_interval((counts * own).tolist(), counts.tolist())
        inside += abs(value - 3) <= half
    assert 180 <= inside <= 198
    assert ratio_interval([6.0], [2]) == (3.0, 0.0)
    equal = ratio_interval([2.0, 4.0, 6.0, 8.0], [1, 1, 1, 1])
    assert equal == (5.0, pytest.approx(1.959964 * math.sqrt(20 / 3 / 4)))


def test_intervals_of_shares_and_of_means() -> None:
    assert estimate([1.0, 0.0, 0.0, 1.0])[1:] == pytest.approx(share(2, 4)[2:] and (0.5, *share(2, 4)[2:]))
    values = [0.0, 0.5, 1.0, 0.25] * 25
    found = estimate(values)
    assert found.value == pytest.approx(0.4375)
    spread = 1.96 * float(torch.tensor(values).std()) / 10
    assert (found.low, found.high) == pytest.approx((0.4375 - spread, 0.4375 + spread), abs=0.01)
    assert bootstrap_interval(values) == bootstrap_interval(values)
