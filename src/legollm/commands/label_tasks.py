"""What a text can be given, and how that is read, learned and measured: a label, a number, or a tag for each word."""

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from legollm.architectures.encoder_classifier import EncoderClassifierConfig
from legollm.architectures.scored import ScoredConfig
from legollm.commands.pairs import PairTokenizer
from legollm.data.pairs import (
    Labelled,
    Tagged,
    TaggedText,
    TextNumber,
    TextPair,
    in_order,
    label_batch,
    read_numbers,
    read_pairs,
    read_tagged,
    tag_batch,
)
from legollm.errors import DataError
from legollm.evaluation.intervals import share
from legollm.interfaces import Objective, Tokenizer
from legollm.training.objective import IGNORED
from legollm.training.pairs import LabelOfText, NumberOfText, TagOfWord, label_logits

TaskName = Literal["classes", "regression", "tags"]
NUMBER = ("value",)
"""The one output of a model that gives a number."""
Row = TextPair | TextNumber | TaggedText
Example = Labelled | Tagged


class Task(NamedTuple):
    """One kind of label."""

    fields: tuple[str, str]
    """What its rows call the text and the label."""
    read: Callable[[Path, str, str], Sequence[Any]]
    objective: Callable[[], Objective]
    collate: Callable[[Sequence[Any]], Any]


TASKS: dict[TaskName, Task] = {
    "classes": Task(("text", "label"), read_pairs, LabelOfText, label_batch),
    "regression": Task(("text", "label"), read_numbers, NumberOfText, label_batch),
    "tags": Task(("tokens", "tags"), read_tagged, TagOfWord, tag_batch),
}


def labels_of(rows: Sequence[Row], source: Path) -> tuple[str, ...]:
    """The outputs of a model for these rows.

    Raises:
        DataError: all rows have the same label.
    """
    labels: set[str] = set()
    for row in rows:
        match row:
            case TextNumber():
                return NUMBER
            case TaggedText():
                labels |= {*row.tags}
            case _:
                labels.add(row.wanted)
    if len(labels) < 2:
        raise DataError(f"{source}: {labels.pop()!r} is the only label in it; a choice needs two")
    return tuple(sorted(labels))


def example_of(
    row: Row, labels: Sequence[str], tokenizer: Tokenizer, cfg: EncoderClassifierConfig | ScoredConfig
) -> Example:
    """A row as ids.

    Raises:
        DataError: more of them than the model reads.
    """
    match row:
        case TaggedText():
            return tagged(row.words, tokenizer, cfg.max_seq_len)._replace(tags=[labels.index(tag) for tag in row.tags])
        case TextNumber():
            return Labelled(ids_of(row.given, tokenizer, cfg), row.wanted)
    return Labelled(ids_of(row.given, tokenizer, cfg), labels.index(row.wanted))


def ids_of(text: str, tokenizer: Tokenizer, cfg: EncoderClassifierConfig | ScoredConfig) -> list[int]:
    """A text as the classifier reads it; an encoder after a token that is no part of it: in its place stands the state
    that decides. A decoder decides at the last token.

    Raises:
        DataError: more ids than the model is built for.
    """
    if isinstance(cfg, EncoderClassifierConfig):
        words = PairTokenizer(tokenizer=tokenizer)
        return [words.end_id, *words.ids(text, cfg.max_seq_len - 1)]
    ids = tokenizer.encode(text)
    refuse_long(ids, text, cfg.max_seq_len)
    return ids


def tagged(words: Sequence[str], tokenizer: Tokenizer, max_len: int) -> Tagged:
    """Words as ids, each encoded by itself with the space before it; their tags are not known yet.

    Raises:
        DataError: more ids than the model reads.
    """
    ids: list[int] = []
    ends = []
    for i, word in enumerate(words):
        ids += tokenizer.encode(f" {word}" if i else word)
        ends.append(len(ids) - 1)
    refuse_long(ids, " ".join(words), max_len)
    return Tagged(ids, ends, [0] * len(ends))


def refuse_long(ids: Sequence[int], text: str, max_len: int) -> None:
    """
    Raises:
        DataError: more ids than the model reads.
    """
    if len(ids) > max_len:
        raise DataError(
            f"the text that starts with {text[:40]!r} has {len(ids)} tokens, the model reads {max_len}; "
            "shorten it, or take a base model with a larger model.max_seq_len"
        )


@torch.inference_mode()
def outputs(model: nn.Module, examples: Sequence[Any], batch_size: int) -> list[Tensor]:
    """The logits of each text, (C,), or of each of its words, (W, C); examples: all of one kind."""
    rows: list[Tensor] = []
    if isinstance(examples[0], Tagged):
        for batch in in_order(examples, tag_batch, batch_size):
            counts = batch.tags != IGNORED
            rows += model(batch.tokens, at=counts).float().split(counts.sum(1).tolist())
    else:
        for batch in in_order(examples, label_batch, batch_size):
            rows += label_logits(model, batch).float()
    return rows


def measured(model: nn.Module, val: Sequence[Any], labels: Sequence[str], batch_size: int) -> list[str]:
    """How well a model does on examples that it has not learned from, in lines for the user."""
    found = outputs(model, val, batch_size)
    if isinstance(val[0], Tagged):
        pairs = [
            (labels[guess], labels[tag])
            for logits, example in zip(found, val, strict=True)
            for guess, tag in zip(logits.argmax(-1).tolist(), example.tags, strict=True)
        ]
        return tag_table(pairs)
    if len(labels) == 1:
        return [fit_line([float(value) for value in found], [example.label for example in val])]
    n_right = sum(int(row.argmax()) == example.label for row, example in zip(found, val, strict=True))
    return [f"right on unseen texts: {n_right} of {len(val)} ({n_right / len(val):.2%})"]


def fit_line(guesses: Sequence[float], true: Sequence[float]) -> str:
    """The mean distance and the share of the variance that is explained."""
    errors = [guess - value for guess, value in zip(guesses, true, strict=True)]
    mean = statistics.fmean(true)
    spread = sum((value - mean) ** 2 for value in true)
    explained = f"{1 - sum(error**2 for error in errors) / spread:.3f}" if spread else "without meaning, all are equal"
    return f"unseen texts: mean distance {statistics.fmean(map(abs, errors)):.4g}, R^2 {explained}"


def tag_table(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """pairs: (guess, tag) of every word -> the share of right words, and for each tag that share and its F1."""
    right = Counter(tag for guess, tag in pairs if guess == tag)
    guessed, true = Counter(guess for guess, _ in pairs), Counter(tag for _, tag in pairs)
    f1 = {tag: 2 * right[tag] / (guessed[tag] + true[tag]) for tag in sorted(true)}
    width = max(map(len, f1))
    return [
        f"right on words of unseen texts: {share(right.total(), len(pairs))}",
        f"F1, the mean over tags: {statistics.fmean(f1.values()):.3f}",
        *(f"  {tag:<{width}}  right {right[tag]} of {true[tag]}, F1 {value:.3f}" for tag, value in f1.items()),
    ]
