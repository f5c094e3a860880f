"""A model that judges every step of an answer, so that it can say where an answer goes wrong.

Uesato et al. 2022 (arXiv:2211.14275) and Lightman et al. 2023 (arXiv:2305.20050): a verifier that is trained on whole
answers has to find out by itself which part of them was the mistake; one that is trained on steps is told.

A step is a line of the answer. The verdict on it is read at its last token, so it knows the question and all steps up
to there, and nothing of what follows.
"""

from collections.abc import Sequence
from math import prod
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.alignment.judges import template_of
from legollm.checkpoints.loading import Loaded
from legollm.data.chat import Message, encode_chat
from legollm.errors import ConfigError
from legollm.interfaces import Tokenizer
from legollm.training.balance import routing_loss
from legollm.training.objective import IGNORED
from legollm.verifiers import Verdict

STEP_LABELS = ("wrong step", "right step")
"""The outputs of a verifier of steps, which tell it from one of answers."""
StepScore = Literal["product", "min"]


class Stepped(NamedTuple):
    """A question and the steps of an answer as ids."""

    ids: list[int]
    ends: list[int]
    """Where the last token of each step stands; steps that fell off the front are not among them."""
    labels: list[int]
    """Of each of these 0 wrong, 1 right, or IGNORED."""


class SteppedBatch(NamedTuple):
    """One micro-batch of answers in steps, padded on the right."""

    tokens: Tensor
    """(B, T) int64."""
    ends: Tensor
    """(B, T) bool: the last tokens of steps."""
    labels: Tensor
    """(B, T) int64: 0 or 1 at the ends of steps that are known to be wrong or right, IGNORED elsewhere."""


def stepped(
    tokenizer: Tokenizer,
    template: str | None,
    question: str,
    steps: Sequence[str],
    labels: Sequence[bool | None] = (),
    *,
    max_len: int,
) -> Stepped:
    """What a verifier of steps reads: the turn of a conversation, or plain text; the end of it where it is too long.

    Each step is encoded by itself: its last token is the line feed behind it, whatever the next one begins with.
    """
    if template is None:
        ids = tokenizer.encode(f"{question}\n")
    else:
        ids = encode_chat(tokenizer, [Message("user", question)], template, add_generation_prompt=True)
    ends = []
    for step in steps:
        ids += tokenizer.encode(f"{step}\n")
        ends.append(len(ids) - 1)
    cut = max(0, len(ids) - max_len)
    known = labels or [None] * len(steps)
    kept = [
        (end - cut, IGNORED if label is None else int(label))
        for end, label in zip(ends, known, strict=True)
        if end >= cut
    ]
    return Stepped(ids[cut:], [end for end, _ in kept], [label for _, label in kept])


def stepped_batch(examples: Sequence[Stepped]) -> SteppedBatch:
    """Rows of unequal length as one batch."""
    shape = len(examples), max(len(one.ids) for one in examples)
    tokens, ends = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.bool)
    labels = torch.full(shape, IGNORED)
    for i, one in enumerate(examples):
        tokens[i, : len(one.ids)] = torch.tensor(one.ids)
        ends[i, one.ends] = True
        labels[i, one.ends] = torch.tensor(one.labels)
    return SteppedBatch(tokens, ends, labels)


class RightSteps:
    """Cross entropy of whether each step is right, in nats; one term for each step that was judged."""

    def __call__(self, model: nn.Module, batch: SteppedBatch) -> Tensor:
        """-> the summed loss, ()."""
        counts = batch.labels != IGNORED
        logits = model(batch.tokens, at=counts).float()  # (N, 2)
        return F.cross_entropy(logits, batch.labels[counts], reduction="sum") + routing_loss(model, counts)

    def n_terms(self, batch: SteppedBatch) -> int:
        return int((batch.labels != IGNORED).sum())


@torch.inference_mode()
def step_chances(model: nn.Module, examples: Sequence[Stepped], batch_size: int = 64) -> list[list[float]]:
    """Of every step of every answer the chance that it is right."""
    found: list[list[float]] = []
    for start in range(0, len(examples), batch_size):
        chosen = examples[start : start + batch_size]
        batch = stepped_batch(chosen)
        chances = model(batch.tokens, at=batch.ends).float().softmax(-1)[:, 1]
        found += [part.tolist() for part in chances.split([len(one.ends) for one in chosen])]
    return found


def together(chances: Sequence[float], how: StepScore) -> float:
    """The score of an answer: the product of the chances of its steps, that all of them are right; or the smallest."""
    return prod(chances) if how == "product" else min(chances)


def steps_of(answer: str) -> list[str]:
    """The lines of an answer that are not empty; of an empty answer one empty step."""
    return [line.strip() for line in answer.splitlines() if line.strip()] or [""]


class StepVerifier:
    """A model that was trained to judge steps, from `legollm verifier train kind=process`."""

    def __init__(self, lm: Loaded, how: StepScore = "product") -> None:
        if how not in get_args(StepScore):
            raise ConfigError(f"step_score: {how!r} is none of {', '.join(get_args(StepScore))}")
        self.lm, self.how, self.tokenizer = lm, how, lm.text_side()

    def chances(self, question: str, answer: str) -> list[float]:
        """Of each line of the answer the chance that it is right."""
        max_len = self.lm.config.max_seq_len
        one = stepped(self.tokenizer, template_of(self.lm), question, steps_of(answer), max_len=max_len)
        return step_chances(self.lm.model, [one])[0]

    def __call__(self, question: str, answer: str, reference: str | None = None) -> Verdict:
        """The chances of all steps as one score; a reference is not looked at. The reason names the first doubtful
        step."""
        chances = self.chances(question, answer)
        steps = steps_of(answer)
        n_unread = len(steps) - len(chances)
        for i, chance in enumerate(chances, n_unread):
            if chance < 0.5:
                reason = f"step {i + 1} is right with a chance of {chance:.0%}: {steps[i]}"
                break
        else:
            reason = f"every step is right with a chance of at least {min(chances):.0%}"
        return Verdict(together(chances, self.how), reason)
