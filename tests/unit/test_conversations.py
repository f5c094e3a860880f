"""Conversations out of JSON lines, and where exactly a malformed one is malformed."""

import json
from pathlib import Path
from typing import Any

import pytest

from legollm.commands.sft import ConversationConfig, conversations
from legollm.data import readers
from legollm.data.chat import Message
from legollm.data.conversations import read_conversations
from legollm.errors import ConfigError, DataError

GOOD = {"prompt": "Where is Mira?", "answer": "in the mill"}


def written(path: Path, *rows: Any) -> Path:
    """A file of rows; a text stands for itself."""
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def test_both_shapes(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Où est Mira ? 🏠"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "Yes.\n"},
    ]
    path = written(tmp_path / "talk.jsonl", GOOD, "", {"messages": turns, "id": 7, "prompt": "not read"})
    assert list(read_conversations(path)) == [
        [Message("user", "Where is Mira?"), Message("assistant", "in the mill")],
        [Message(turn["role"], turn["content"]) for turn in turns],
    ]


SHAREGPT = {"conversations": [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "Here."}]}
TOLD = {"conversations": [{"from": "system", "value": "Be brief."}, *SHAREGPT["conversations"]]}
ALPACA = {"instruction": "Correct it.", "input": "freind", "output": "friend"}
PREFERENCE = {"prompt": "Who?", "chosen": "Mira", "rejected": "Otto"}
HERE = [Message("user", "Where?"), Message("assistant", "Here.")]
FRIEND = [Message("user", "Correct it.\n\nfreind"), Message("assistant", "friend")]


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        (SHAREGPT, HERE),
        (TOLD, [Message("system", "Be brief."), *HERE]),
        (SHAREGPT | {"system": "Be brief."}, [Message("system", "Be brief."), *HERE]),
        (ALPACA, FRIEND),
        (ALPACA | {"system": "You spell."}, [Message("system", "You spell."), *FRIEND]),
        (ALPACA | {"input": ""}, [Message("user", "Correct it."), FRIEND[1]]),
        (ALPACA | {"input": None}, [Message("user", "Correct it."), FRIEND[1]]),
        (PREFERENCE, [Message("user", "Who?"), Message("assistant", "Mira")]),
        ({"question": "Where?", "answer": "Here."}, HERE),
        (GOOD | {"verifier": "exact"}, [Message("user", GOOD["prompt"]), Message("assistant", GOOD["answer"])]),
    ],
)
def test_each_format_is_recognised_in_lines_and_in_a_list(
    tmp_path: Path, row: dict[str, Any], messages: list[Message]
) -> None:
    assert next(iter(read_conversations(written(tmp_path / "talk.jsonl", row, GOOD)))) == messages
    as_list = written(tmp_path / "talk.json", f" [{json.dumps(row)}\n, {json.dumps(GOOD)} ]\n")
    assert next(iter(read_conversations(as_list))) == messages


def test_a_named_format_decides_where_a_row_has_the_fields_of_two(tmp_path: Path) -> None:
    path = written(tmp_path / "talk.jsonl", ALPACA | {"chosen": "a friend", "rejected": "fiend"})
    assert list(read_conversations(path, "alpaca")) == [FRIEND]
    assert list(read_conversations(path)) == [[FRIEND[0], Message("assistant", "a friend")]]
    with pytest.raises(DataError, match=":1: conversations: expected a list of turns, found None"):
        list(read_conversations(path, "sharegpt"))


SHAPES = "expected the fields of one of these: a prompt, `chosen` and `rejected`; `messages`; `conversations`; "
SHAPES += "`instruction` and `output`; `prompt` and `answer`; `question` and `answer`; found "
BAD_ROWS = [
    ({"query": "Who?", "answer": "Mira"}, f"{SHAPES}query, answer"),
    ({}, f"{SHAPES}nothing"),
    ({"question": 3, "answer": "Mira"}, "question: expected text, found 3"),
    ({"prompt": "Who?", "answer": 7}, "answer: expected text, found 7"),
    ({"prompt": None, "answer": "Mira"}, "prompt: expected text, found None"),
    ({"prompt": "Who?", "answer": "\ud83c"}, "answer: holds half a surrogate pair"),
    ({"messages": "hello"}, "messages: expected a list of turns, found 'hello'"),
    ({"messages": []}, "messages: expected a list of turns, found []"),
    ({"messages": ["hello"]}, "messages[0]: expected role and content, found 'hello'"),
    (
        {"messages": [{"role": "user", "content": "a"}, {"role": "bot", "content": "b"}]},
        "messages[1].role: 'bot' is no",
    ),
    ({"messages": [{"content": "a"}]}, "messages[0]: role: expected text, and there is no such field; found content"),
    ({"messages": [{"role": "assistant", "content": ["a"]}]}, "messages[0]: content: expected text, found ['a']"),
    ({"messages": [{"role": "user", "content": "a"}]}, "no turn of the assistant in it"),
    ({"conversations": {"from": "human"}}, "conversations: expected a list of turns, found {'from': 'human'}"),
    ({"conversations": [{"from": "me", "value": "a"}]}, "conversations[0].from: 'me' is none of system, user, assis"),
    ({"conversations": [{"from": "gpt", "text": "a"}]}, "conversations[0]: value: expected text, and there is no such"),
    ({"conversations": [{"from": "gpt", "value": 1}]}, "conversations[0]: value: expected text, found 1"),
    (ALPACA | {"input": ["a"]}, "input: expected text, found ['a']"),
    (ALPACA | {"output": None}, "output: expected text, found None"),
    (ALPACA | {"instruction": 3}, "instruction: expected text, found 3"),
    ({"chosen": "a", "rejected": "b"}, "expected `prompt`, `messages` or `instruction`; found chosen, rejected"),
]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        *BAD_ROWS,
        ('{"prompt": "Who?", "answer": ', "not JSON"),
        ("[1, 2]", "a JSON list where an object is needed"),
        ('{"prompt": "a", "prompt": "b", "answer": "c"}', "field 'prompt' occurs twice"),
    ],
)
def test_a_malformed_row_is_named_with_file_line_and_field(tmp_path: Path, row: Any, said: str) -> None:
    path = written(tmp_path / "talk.jsonl", GOOD, "", GOOD, row, GOOD)
    with pytest.raises(DataError) as found:
        list(read_conversations(path))
    assert f"{path}:4: {said}" in str(found.value)
    assert "\n" not in str(found.value)
    assert "on_bad_row" not in str(found.value)  # no setting of this verb


@pytest.mark.parametrize(
    ("item", "said"),
    [
        *((json.dumps(row), f": item 3: {said}") for row, said in BAD_ROWS),
        ("7", ": item 3: expected an object, found 7"),
        ('{"prompt": "a", "prompt": "b", "answer": "c"}', ":1: item 3: field 'prompt' occurs twice"),
        ('{"prompt": "a"\n"answer": "c"}', ":5: item 3 is not JSON: Expecting ',' delimiter at column 1"),
        ("", ":4: item 3 is not JSON: Expecting value at column 1"),
        (f'{json.dumps(GOOD)} {{"a": 1}}', ":1: item 3: after it a comma or the end of the list is due, found '{'"),
        ("[" * 70 + "]" * 70, ":1: JSON nested deeper than 64 levels"),
        (f'{{"a": {"9" * 5000}}}', ":1: item 3: Exceeds the limit"),
    ],
)
def test_a_malformed_item_of_a_list_is_named_with_its_number_and_field(tmp_path: Path, item: str, said: str) -> None:
    good = json.dumps(GOOD)
    path = written(tmp_path / "talk.json", "[", f"{good},", f"{good},", f"{item}, {good}]")
    with pytest.raises(DataError) as found:
        list(read_conversations(path))
    assert f"{path}{said}" in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps(GOOD), ":1: a .json file is one list of objects; name it .jsonl"),
        ("[]", ": nothing in it; give one JSON object a line, or a .json file with a list of them"),
        (f"[{json.dumps(GOOD)}", ":1: item 1: after it a comma or the end of the list is due, found 'the end of the"),
        ("", ":1: the file is empty"),
    ],
)
def test_a_list_that_is_none(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "talk.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as found:
        list(read_conversations(path))
    assert f"{path}{said}" in str(found.value)


def test_a_list_of_other_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "talk.json"
    path.write_bytes(b'[\n{"prompt": "\xff"}]')
    with pytest.raises(DataError, match=":2: byte 0xff is not UTF-8"):
        list(read_conversations(path))
    monkeypatch.setattr(readers, "MAX_LIST_BYTES", 10)
    with pytest.raises(DataError, match="the list is longer than"):
        list(read_conversations(path))


def test_a_file_without_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing in it; give one JSON object a line"):
        list(read_conversations(written(tmp_path / "talk.jsonl", "", "  ")))


def test_what_is_kept_for_validation_depends_on_the_words_not_on_the_place(tmp_path: Path) -> None:
    rows = [{"prompt": f"{i}?", "answer": f"{i}"} for i in range(40)]
    one, other = written(tmp_path / "a.jsonl", *rows), written(tmp_path / "b.jsonl", *reversed(rows))
    train, val = conversations(ConversationConfig(source=str(one), val_fraction=0.2))
    assert (train, val) == conversations(ConversationConfig(source=str(other), val_fraction=0.2))
    assert len(val) == 8
    assert sorted(map(str, train + val)) == sorted(map(str, read_conversations(one)))
    assert len(conversations(ConversationConfig(source=str(one), val_fraction=0.2, n_val=3))[1]) == 3
    assert len(conversations(ConversationConfig(source=str(one), val_fraction=0.001))[1]) == 1


def test_one_conversation_cannot_be_divided(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one to train on and one to check"):
        conversations(ConversationConfig(source=str(written(tmp_path / "one.jsonl", GOOD))))


@pytest.mark.parametrize("wrong", [{"n_examples": 0}, {"n_turns": 0}, {"n_val": 0}, {"val_fraction": 1.0}])
def test_impossible_shares(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ConversationConfig(**wrong)


def test_questions_about_the_world_end_with_answers_read_aloud() -> None:
    train, val = conversations(ConversationConfig(n_examples=60, n_turns=2, n_val=3))
    assert len(val) == 3
    for messages in train + val:
        assert [message.role for message in messages] == ["user", "assistant"] * (len(messages) // 2)
        assert len(messages) == 4
        story, _, question = messages[0].content.rpartition("\n")
        assert question.endswith("?")
        for message in messages[1::2]:
            aloud, _, answer = message.content.rpartition("\nAnswer: ")
            assert aloud in story
            assert answer
