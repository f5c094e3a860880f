"""Conversations out of JSON lines, and where exactly a malformed one is malformed."""

import json
from pathlib import Path
from typing import Any

import pytest

from legollm.commands.sft import ConversationConfig, conversations
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


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"question": "Who?", "answer": "Mira"},
            "expected `messages`, or `prompt` and `answer`; found question, answer",
        ),
        ({}, "expected `messages`, or `prompt` and `answer`; found nothing"),
        ({"prompt": "Who?", "answer": 7}, "answer: expected text, found 7"),
        ({"prompt": None, "answer": "Mira"}, "prompt: expected text, found None"),
        ({"messages": "hello"}, "messages: expected a list of turns, found 'hello'"),
        ({"messages": []}, "messages: expected a list of turns, found []"),
        ({"messages": ["hello"]}, "messages[0]: expected role and content, found 'hello'"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "bot", "content": "b"}]}, "messages[1].role: 'bot'"),
        ({"messages": [{"content": "a"}]}, "messages[0]: role: expected text, found None"),
        ({"messages": [{"role": "assistant", "content": ["a"]}]}, "messages[0]: content: expected text, found ['a']"),
        ({"messages": [{"role": "user", "content": "a"}]}, "no turn of the assistant in it"),
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


def test_a_file_without_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no conversations in it"):
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
