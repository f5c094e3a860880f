"""Two answers to one prompt, or one that was judged, as ids; and batches in which they go through a model together."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from legollm.data.chat import Message, encode_example
from legollm.data.preferences import Judgement, Preference
from legollm.errors import DataError
from legollm.interfaces import Tokenizer
from legollm.training.objective import IGNORED

WIDTHS = 32
"""Batches are as wide as a multiple of this: kernels are prepared and kept for each width that occurs."""


class Pair(NamedTuple):
    """A prompt and its answers as ids; an answer ends with the token that ends a turn."""

    prompt: list[int]
    answers: tuple[list[int], ...]
    """The preferred one and the other one, or a single one that was judged; and where an objective asks for it one that
    was given to another prompt."""
    reference: tuple[list[float], ...] = ()
    """Of each answer the log-probabilities of its tokens under the model that training started from."""
    is_good: bool | None = None
    """What was said of a single answer; None where two are compared."""


class PairBatch(NamedTuple):
    """One micro-batch of P pairs with A answers each, padded on the right."""

    tokens: Tensor
    """(P, A, T) int64, prompt and answer without its last token."""
    targets: Tensor
    """(P, A, T) int64, the answer's token that follows each; IGNORED elsewhere."""
    reference: Tensor
    """(P, A, T) log-probabilities of the targets under the reference; 0 elsewhere, or where there is none."""


class JudgedBatch(NamedTuple):
    """One micro-batch of P judged answers, each beside one that was given to another prompt; otherwise a PairBatch."""

    tokens: Tensor
    """(P, 2, T) int64."""
    targets: Tensor
    """(P, 2, T) int64."""
    reference: Tensor
    """(P, 2, T)."""
    is_good: Tensor
    """(P,) bool."""


class ScoredPairBatch(NamedTuple):
    """One micro-batch of P pairs whose whole rows are to be scored, padded on the right."""

    tokens: Tensor
    """(P, 2, T) int64, prompt and answer."""
    lengths: Tensor
    """(P, 2) int64."""


def encode_pair(said: Preference | Judgement, tokenizer: Tokenizer, template: str, max_len: int) -> Pair:
    """A prompt and its two answers, or its judged one, as ids.

    Raises:
        DataError: more of them than the model reads, or a template in which no answer can be told from its prompt.
    """
    prompts, answers = [], []
    is_good = said.is_good if isinstance(said, Judgement) else None
    for answer in (said.answer,) if isinstance(said, Judgement) else (said.chosen, said.rejected):
        ids, is_answer = encode_example(tokenizer, [*said.prompt, Message("assistant", answer)], template)
        stop = len(ids) - is_answer[::-1].index(True)
        begin = stop
        while begin and is_answer[begin - 1]:  # earlier answers are part of the prompt
            begin -= 1
        if stop > max_len:
            raise DataError(
                f"the row whose prompt ends with {said.prompt[-1].content[-40:]!r} has {stop} tokens, the model "
                f"reads {max_len}; shorten it, or train a base model with a larger model.max_seq_len"
            )
        prompts.append(ids[:begin])
        answers.append(ids[begin:stop])
    if prompts[0] != prompts[-1]:
        raise DataError(
            "the chat template writes the prompt in another way for another answer; they cannot be compared"
        )
    return Pair(prompts[0], tuple(answers), is_good=is_good)


def with_strangers(pairs: Sequence[Pair], max_len: int) -> list[Pair]:
    """To each pair an answer to the next other prompt, of two by turns the preferred and the other: what the model says
    unasked."""
    found, n = [], len(pairs)
    strangers = [*range(1, n), 0]  # the next row, and where it has the same prompt whatever is right for that
    for i in reversed(range(2 * n)):
        after = (i + 1) % n
        if pairs[after].prompt == pairs[i % n].prompt:
            strangers[i % n] = strangers[after]
    for i, pair in enumerate(pairs):
        answers = pairs[strangers[i]].answers
        stranger = answers[i % len(answers)]
        found.append(pair._replace(answers=(*pair.answers, stranger[: max_len - len(pair.prompt)])))
    return found


def pair_batch(pairs: Sequence[Pair], max_len: int = 0) -> PairBatch:
    """Pairs of unequal length as one batch. max_len: how far the width may be rounded up; 0 leaves it as it is."""
    longest = max(len(pair.prompt) + len(answer) - 1 for pair in pairs for answer in pair.answers)
    shape = len(pairs), len(pairs[0].answers), rounded(longest, max_len)
    tokens = torch.zeros(shape, dtype=torch.int64)
    targets = torch.full_like(tokens, IGNORED)
    reference = torch.zeros(shape)
    for i, pair in enumerate(pairs):
        first = len(pair.prompt) - 1  # what stands here is followed by the answer's first token
        for j, answer in enumerate(pair.answers):
            n = first + len(answer)
            tokens[i, j, :n] = torch.tensor([*pair.prompt, *answer[:-1]])
            targets[i, j, first:n] = torch.tensor(answer)
            if pair.reference:
                reference[i, j, first:n] = torch.tensor(pair.reference[j])
    return PairBatch(tokens, targets, reference)


def judged_batch(pairs: Sequence[Pair], max_len: int = 0) -> JudgedBatch:
    """Judged answers of unequal length as one batch, as `pair_batch` lays them out."""
    return JudgedBatch(*pair_batch(pairs, max_len), torch.tensor([bool(pair.is_good) for pair in pairs]))


def scored_batch(pairs: Sequence[Pair], max_len: int = 0) -> ScoredPairBatch:
    """Whole rows, for a model that scores them at their last token."""
    lengths = torch.tensor([[len(pair.prompt) + len(answer) for answer in pair.answers[:2]] for pair in pairs])
    tokens = torch.zeros(len(pairs), 2, rounded(int(lengths.max()), max_len), dtype=torch.int64)
    for i, pair in enumerate(pairs):
        for j, answer in enumerate(pair.answers[:2]):
            tokens[i, j, : lengths[i, j]] = torch.tensor([*pair.prompt, *answer])
    return ScoredPairBatch(tokens, lengths)


def rounded(width: int, max_len: int) -> int:
    """Up to a multiple of WIDTHS, but not beyond max_len."""
    return max(width, min(-(-width // WIDTHS) * WIDTHS, max_len))


def by_length(pairs: Sequence[Pair]) -> list[Pair]:
    """So sorted that little of a batch is padding."""
    return sorted(pairs, key=lambda pair: len(pair.prompt) + max(map(len, pair.answers)))


def fingerprint(pairs: Sequence[Pair]) -> str:
    """SHA-256 of all ids."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(repr((pair.prompt, pair.answers)).encode())
    return digest.hexdigest()
