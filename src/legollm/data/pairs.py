"""Pairs of texts: a source and its target, a text and its label, number or tags; from JSON lines to batches."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from legollm.data.documents import BadRows
from legollm.data.loader import IGNORED
from legollm.data.readers import read_rows
from legollm.device import generator
from legollm.errors import DataError

Example = TypeVar("Example")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class TextPair(NamedTuple):
    """One row of a file."""

    given: str
    wanted: str


class TextNumber(NamedTuple):
    """One row of a file whose label is a number."""

    given: str
    wanted: float


class TaggedText(NamedTuple):
    """One row of a file with a tag for each word."""

    words: tuple[str, ...]
    tags: tuple[str, ...]

    @property
    def given(self) -> str:
        """The text."""
        return " ".join(self.words)


Row = TypeVar("Row", TextPair, TextNumber, TaggedText)


class SourceTarget(NamedTuple):
    """A source and what is to be written for it, as ids; the target ends with the token that ends a text."""

    source: list[int]
    target: list[int]


class Labelled(NamedTuple):
    """A text as ids, and the number of its label, or the number that it is to get."""

    ids: list[int]
    label: float


class Tagged(NamedTuple):
    """A text as ids, the places where its words end, and the number of each word's tag."""

    ids: list[int]
    ends: list[int]
    tags: list[int]


class SourceBatch(NamedTuple):
    """One micro-batch of sources and targets."""

    source: Tensor
    """(B, S) int64."""
    source_positions: Tensor
    """(B, S) int64, -1 at padding."""
    tokens: Tensor
    """(B, T) int64: the start token, then the target without its last token."""
    targets: Tensor
    """(B, T) int64, the token that follows each; IGNORED after the end."""


class LabelBatch(NamedTuple):
    """One micro-batch of texts and what they are."""

    tokens: Tensor
    """(B, S) int64."""
    positions: Tensor
    """(B, S) int64, -1 at padding."""
    labels: Tensor
    """(B,) int64, or float32 where they are numbers."""


class TagBatch(NamedTuple):
    """One micro-batch of texts whose words have tags, padded on the right."""

    tokens: Tensor
    """(B, T) int64."""
    tags: Tensor
    """(B, T) int64 at the last token of each word, IGNORED elsewhere."""


def read_pairs(path: Path, given: str, wanted: str) -> list[TextPair]:
    """The rows of a .jsonl file; `given` and `wanted` name the two fields, which hold text.

    Raises:
        DataError: a row without them; names file, line and field. Or no rows.
    """
    return [
        TextPair(text_in(row, given, where), text_in(row, wanted, where))
        for where, row in some_rows(path, given, wanted)
    ]


def read_numbers(path: Path, given: str, wanted: str) -> list[TextNumber]:
    """The rows of a .jsonl file with a text in `given` and a number in `wanted`.

    Raises:
        DataError: a row without them; names file, line and field. Or no rows.
    """
    found = []
    for where, row in some_rows(path, given, wanted):
        number = row.get(wanted)
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise DataError(f"{where}: expected a number in the field {wanted!r}, found {number!r:.60}")
        found.append(TextNumber(text_in(row, given, where), float(number)))
    return found


def read_tagged(path: Path, words: str, tags: str) -> list[TaggedText]:
    """The rows of a .jsonl file with a list of words and a list of as many tags, all of them text.

    Raises:
        DataError: a row without them; names file, line and field. Or no rows.
    """
    found = []
    for where, row in some_rows(path, words, tags):
        for field in (words, tags):
            each = row.get(field)
            if not isinstance(each, list) or not each or not all(isinstance(one, str) and one for one in each):
                raise DataError(f"{where}: expected a list of texts in the field {field!r}, found {each!r:.60}")
        if len(row[words]) != len(row[tags]):
            raise DataError(f"{where}: {len(row[tags])} {tags} for {len(row[words])} {words}; give one for each")
        found.append(TaggedText(tuple(row[words]), tuple(row[tags])))
    return found


def some_rows(path: Path, *fields: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a .jsonl file, each with `FILE:LINE`.

    Raises:
        DataError: there are none.
    """
    n = 0
    for line, row in read_rows(path, str(path), BadRows("stop", way_out="")):
        n = line
        yield f"{path}:{line}", row
    if not n:
        raise DataError(f"{path}: no rows in it; give one JSON object with {' and '.join(map(repr, fields))} a line")


def text_in(row: Mapping[str, Any], field: str, where: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value:
        found = ", ".join(map(repr, row)) or "nothing"
        raise DataError(f"{where}: expected text in the field {field!r}; the row has {found}")
    return value


def reversals(seed: int, n: int, max_chars: int) -> list[TextPair]:
    """Up to n strings of 1 to max_chars letters, no string twice, each with its reverse: a task for every character."""
    rng = generator(seed, "reversals")
    lengths = torch.randint(1, max_chars + 1, (n,), generator=rng).tolist()
    letters = torch.randint(len(LETTERS), (n, max_chars), generator=rng).tolist()
    words = ("".join(LETTERS[i] for i in row[:length]) for row, length in zip(letters, lengths, strict=True))
    return [TextPair(word, word[::-1]) for word in dict.fromkeys(words)]


def split_pairs(pairs: Sequence[Row], val_fraction: float) -> tuple[list[Row], list[Row]]:
    """Those to train on and those to validate on. What is given decides, so that no text is in both.

    Raises:
        DataError: too few pairs for one of the two.
    """
    parts: tuple[list[Row], list[Row]] = ([], [])
    for pair in pairs:
        number = int.from_bytes(hashlib.sha256(pair.given.encode()).digest()[:8], "big")
        parts[number < val_fraction * 2**64].append(pair)
    if not all(parts):
        raise DataError(
            f"{len(pairs)} rows give {len(parts[0])} to train on and {len(parts[1])} to check with; "
            "give more of them or another data.val_fraction"
        )
    return parts


def source_batch(examples: Sequence[SourceTarget], start_id: int) -> SourceBatch:
    """Rows of unequal length as one batch, padded on the right."""
    source, source_positions = right_padded([example.source for example in examples])
    tokens, _ = right_padded([[start_id, *example.target[:-1]] for example in examples])
    targets, positions = right_padded([example.target for example in examples])
    return SourceBatch(source, source_positions, tokens, targets.masked_fill(positions < 0, IGNORED))


def label_batch(examples: Sequence[Labelled]) -> LabelBatch:
    """Rows of unequal length as one batch, padded on the right."""
    tokens, positions = right_padded([example.ids for example in examples])
    return LabelBatch(tokens, positions, torch.tensor([example.label for example in examples]))


def tag_batch(examples: Sequence[Tagged]) -> TagBatch:
    """Rows of unequal length as one batch."""
    tokens, _ = right_padded([example.ids for example in examples])
    tags = torch.full_like(tokens, IGNORED)
    for row, example in zip(tags, examples, strict=True):
        row[example.ends] = torch.tensor(example.tags)
    return TagBatch(tokens, tags)


def right_padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Tokens (B, T) and their positions (B, T), -1 at padding."""
    width = max(map(len, rows))
    tokens = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    positions = torch.tensor([[*range(len(row)), *[-1] * (width - len(row))] for row in rows])
    return tokens, positions


class ShuffledBatches(Generic[Example]):
    """A BatchSource of examples in memory: endless, each once per epoch, in an order that seed and epoch decide.

    Of the next batch_size * world_size of them each rank gets its own consecutive batch_size.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        collate: Callable[[Sequence[Example]], Any],
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """collate: examples -> what the objective takes."""
        self.examples, self.collate, self.batch_size, self.seed = examples, collate, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.n_seen = 0  # examples handed out since the start, over all epochs and to all processes
        self.epoch, self.order = 0, self.order_of(0)

    def __next__(self) -> Any:
        first = self.n_seen + self.rank * self.batch_size
        chosen = [self.example(first + i) for i in range(self.batch_size)]
        self.n_seen += self.batch_size * self.world_size
        return self.collate(chosen)

    def example(self, index: int) -> Example:
        epoch, place = divmod(index, len(self.examples))
        if epoch != self.epoch:
            self.epoch, self.order = epoch, self.order_of(epoch)
        return self.examples[self.order[place]]

    def order_of(self, epoch: int) -> list[int]:
        rng = generator(self.seed, f"examples/{epoch}")
        order: list[int] = torch.randperm(len(self.examples), generator=rng).tolist()
        return order

    def state_dict(self) -> dict[str, Any]:
        return {"n_seen": self.n_seen, **self.identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """
        Raises:
            DataError: the state is about other examples or another order of them.
        """
        for key, mine in self.identity().items():
            if state[key] != mine:
                raise DataError(f"the saved place in the pairs has {key} = {state[key]}, this run {mine}; set it back")
        self.n_seen = int(state["n_seen"])

    def identity(self) -> dict[str, int]:
        return {"seed": self.seed, "n_examples": len(self.examples)}


def in_order(
    examples: Sequence[Example], collate: Callable[[Sequence[Example]], Any], batch_size: int
) -> Iterator[Any]:
    """Every example once, for validation."""
    for start in range(0, len(examples), batch_size):
        yield collate(examples[start : start + batch_size])
