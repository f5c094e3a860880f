"""Questions with a known answer: the share that a model answers exactly, by kind, beside what guessing would give."""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from legollm.generation.cache import GenerativeModel
from legollm.generation.complete import Decoding
from legollm.generation.sampling import Sampling
from legollm.generation.text import generate_texts
from legollm.interfaces import Tokenizer


class Item(NamedTuple):
    """A question as the model reads it."""

    prompt: list[int]
    question: str
    answer: str
    kind: str
    chance: float
    """The share that picking one of the plausible answers at random would get right."""


class Answered(NamedTuple):
    """An item and what the model said."""

    item: Item
    said: str
    answer: str
    """What counts of it."""

    @property
    def is_right(self) -> bool:
        return normal(self.answer) == normal(self.item.answer)


class Score(NamedTuple):
    """Exact matches among the questions of one kind."""

    kind: str
    n: int
    n_right: int
    chance: float

    @property
    def share(self) -> float:
        return self.n_right / max(1, self.n)


def answer_all(
    model: GenerativeModel,
    tokenizer: Tokenizer,
    items: Sequence[Item],
    *,
    stop_ids: Collection[int],
    stop: tuple[str, ...] = (),
    final: Callable[[str], str] = str.strip,
    max_new_tokens: int = 24,
    batch_size: int = 64,
) -> list[Answered]:
    """The likeliest answer to every item, in order.

    final: from what was said to what counts of it, for models that think aloud first.
    """
    sampling = Sampling(temperature=0, max_new_tokens=max_new_tokens, stop=stop)
    decoding = Decoding(batch_size=batch_size, on_overflow="crop")
    prompts = [item.prompt for item in items]
    said = generate_texts(model, tokenizer, prompts, sampling, stop_ids=stop_ids, decoding=decoding)
    return [Answered(item, one.text, final(one.text)) for item, one in zip(items, said, strict=True)]


def scores(answered: Sequence[Answered]) -> list[Score]:
    """One score per kind, sorted by kind, and `all` at the end."""
    kinds = sorted({one.item.kind for one in answered})
    rows = [score(kind, [one for one in answered if one.item.kind == kind]) for kind in kinds]
    return [*rows, score("all", answered)]


def score(kind: str, answered: Sequence[Answered]) -> Score:
    chance = sum(one.item.chance for one in answered) / max(1, len(answered))
    return Score(kind, len(answered), sum(one.is_right for one in answered), chance)


def normal(text: str) -> str:
    """Without what does not change an answer: capitals, outer white space and the last full stop."""
    return text.strip().rstrip(".").rstrip().casefold()
