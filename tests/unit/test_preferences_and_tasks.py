"""Pairs of answers and tasks out of files, and the message where a row is malformed."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from legollm.data import world
from legollm.data.chat import Message
from legollm.data.preferences import (
    Judgement,
    Preference,
    has_judgements,
    read_judgements,
    read_preferences,
    world_preferences,
)
from legollm.data.tasks import read_tasks
from legollm.data.world import Task
from legollm.errors import DataError

ANSWERS = {"chosen": "Mira", "rejected": "Otto"}
WHO = [Message("user", "Who?")]
TURNS = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Who?")]
MESSAGES = [{"role": role, "content": content} for role, content in TURNS]
TASK = {"prompt": "2 + 2?", "answer": "4", "verifier": "number"}
VERIFIERS = {"number", "exact"}


def written(path: Path, *rows: Any) -> Path:
    text = json.dumps(rows) if path.suffix == ".json" else "".join(f"{json.dumps(row)}\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.json"])
def test_prompts_of_every_shape(tmp_path: Path, name: str) -> None:
    path = written(
        tmp_path / name,
        {"prompt": "Who?"} | ANSWERS,
        {"messages": MESSAGES} | ANSWERS,
        {"prompt": MESSAGES} | ANSWERS,
        {"instruction": "Who?", "input": "", "output": "Mira"} | ANSWERS,
        {"instruction": "Who?", "input": "in the mill"} | ANSWERS,
    )
    talk = [Message(*turn) for turn in TURNS]
    prompts = [WHO, talk, talk, WHO, [Message("user", "Who?\n\nin the mill")]]
    assert list(read_preferences(path)) == [Preference(prompt, "Mira", "Otto") for prompt in prompts]


BAD_PAIRS = [
    (ANSWERS, "expected `prompt`, `messages` or `instruction`; found chosen, rejected"),
    ({"prompt": 7} | ANSWERS, "prompt: expected text, found 7"),
    (
        {"messages": [*MESSAGES, {"role": "assistant", "content": "Mira"}]} | ANSWERS,
        "the last turn is the assistant's, so there is nothing",
    ),
    ({"messages": [{"role": "user"}]} | ANSWERS, "messages[0]: content: expected text, and there is no such field"),
    ({"prompt": "Who?", "chosen": "Mira"}, "rejected: expected text, and there is no such field; found prompt, chosen"),
    ({"prompt": "Who?", "chosen": ["Mira"], "rejected": "Otto"}, "chosen: expected text, found ['Mira']"),
]


@pytest.mark.parametrize(("row", "said"), BAD_PAIRS)
def test_a_malformed_pair_is_named_with_file_place_and_field(tmp_path: Path, row: Any, said: str) -> None:
    good = {"prompt": "Who?"} | ANSWERS
    for name, place in {"pairs.jsonl": ":2", "pairs.json": ": item 2"}.items():
        path = written(tmp_path / name, good, row, good)
        with pytest.raises(DataError) as found:
            list(read_preferences(path))
        assert f"{path}{place}: {said}" in str(found.value)


def test_judged_answers_of_every_shape(tmp_path: Path) -> None:
    path = written(
        tmp_path / "judged.jsonl",
        {"prompt": "Who?", "completion": "Mira", "label": True},
        {"prompt": "Who?", "answer": "Otto", "label": False},
        {"prompt": MESSAGES, "completion": [{"role": "assistant", "content": "Mira"}], "label": True},
        {"prompt": "Who?"} | ANSWERS,
    )
    talk = [Message(*turn) for turn in TURNS]
    assert list(read_judgements(path)) == [
        Judgement(WHO, "Mira", True),
        Judgement(WHO, "Otto", False),
        Judgement(talk, "Mira", True),
        Judgement(WHO, "Mira", True),
        Judgement(WHO, "Otto", False),
    ]
    assert has_judgements(path)
    with pytest.raises(
        DataError, match=r"judged.jsonl:1: label: judges a single answer, .* `legollm dpo dpo.loss=kto`"
    ):
        list(read_preferences(path))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"completion": "Mira", "label": 1}, "label: expected true or false, found 1"),
        ({"completion": "Mira", "label": None}, "label: expected true or false, found None"),
        ({"label": True}, "completion: expected text, and there is no such field; found prompt, label"),
        ({"completion": ["Mira", "Otto"], "label": True}, "completion: expected text or one turn of the assistant"),
        ({"completion": [MESSAGES[0]], "label": True}, "completion[0].role: 'system' is none of assistant"),
        (
            {"completion": "Mira"},
            "expected `completion` and `label`, or `chosen` and `rejected`; found prompt, completion",
        ),
        ({"chosen": "Mira"}, "rejected: expected text, and there is no such field"),
    ],
)
def test_a_malformed_judgement_is_named_with_file_place_and_field(tmp_path: Path, row: Any, said: str) -> None:
    path = written(tmp_path / "judged.jsonl", {"prompt": "Who?"} | ANSWERS, {"prompt": "Who?"} | row)
    with pytest.raises(DataError) as found:
        list(read_judgements(path))
    assert f"{path}:2: {said}" in str(found.value)


def test_equal_answers_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good, equal = {"prompt": "Who?"} | ANSWERS, {"prompt": "Who?", "chosen": "Mira", "rejected": "Mira"}
    path = written(tmp_path / "pairs.jsonl", good, equal, good, equal)
    assert len(list(read_preferences(path))) == 2
    assert f"{path}:2: chosen and rejected are the same text; left out, as are 1 more" in caplog.text


def test_pairs_of_the_world_differ_only_in_what_is_answered() -> None:
    pairs = list(world_preferences(0, 0, 60, split="train"))
    assert pairs == [*world_preferences(0, 0, 30, split="train"), *world_preferences(0, 30, 60, split="train")]
    for (prompt, chosen, rejected), known in zip(pairs, world.preferences(0, 0, 60, split="train"), strict=True):
        assert prompt == [Message("user", f"{known.question.context}\n{known.question.question}")]
        assert world.final_answer(chosen) == known.question.answer
        assert world.final_answer(rejected) == known.rejected != known.question.answer
        assert rejected.rpartition("\n")[0] == chosen.rpartition("\n")[0]
    assert next(islice(world_preferences(0, 0, 500, split="val"), 1)) not in pairs


@pytest.mark.parametrize("name", ["tasks.jsonl", "tasks.json"])
def test_tasks(tmp_path: Path, name: str) -> None:
    plain = {"question": "Who?", "answer": "Mira"}
    path = written(tmp_path / name, TASK, plain)
    assert list(read_tasks(path, VERIFIERS, verifier="exact")) == [
        Task("2 + 2?", "4", "number", "2 + 2?"),
        Task("Who?", "Mira", "exact", "Who?"),
    ]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "Who?", "answer": "Mira"}, "verifier: None is none of exact, number"),
        (TASK | {"verifier": "nubmer"}, "verifier: 'nubmer' is none of exact, number"),
        (TASK | {"verifier": ["number"]}, "verifier: ['number'] is none of exact, number"),
        (TASK | {"answer": 4}, "answer: expected text, found 4"),
        ({"answer": "4", "verifier": "number"}, "prompt: expected text, and there is no such field"),
    ],
)
def test_a_malformed_task_is_named_with_file_place_and_field(tmp_path: Path, row: Any, said: str) -> None:
    for name, place in {"tasks.jsonl": ":2", "tasks.json": ": item 2"}.items():
        path = written(tmp_path / name, TASK, row)
        with pytest.raises(DataError) as found:
            list(read_tasks(path, VERIFIERS))
        assert f"{path}{place}: {said}" in str(found.value)
