"""Models as verifiers: one that was trained to tell right answers from wrong ones (Cobbe et al. 2021,
arXiv:2110.14168), and one that is asked about itself (Kadavath et al. 2022, arXiv:2207.05221).

Both see only the text. They generalise to questions that no program can check, and they err; how often is measured on
answers to questions that they were not trained with.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.architectures.scored import last_scores
from legollm.checkpoints.loading import Loaded
from legollm.data.chat import Message, encode_chat
from legollm.data.templates import CHATML
from legollm.errors import CheckpointError
from legollm.interfaces import Tokenizer
from legollm.verifiers import Verdict

LABELS = ("wrong", "right")
"""The outputs of a trained verifier."""
CHECKER = "Checker: The answer is"
"""What stands before the model's judgement of an answer."""
WORDS = (" wrong", " right")


class Checked(NamedTuple):
    """A question with an answer as ids, and whether it is right."""

    ids: list[int]
    label: int


class CheckedBatch(NamedTuple):
    """One micro-batch of checked answers."""

    tokens: Tensor
    """(B, T) int64, padded on the right."""
    lengths: Tensor
    """(B,) int64."""
    labels: Tensor
    """(B,) int64: 0 wrong, 1 right."""


def answer_ids(tokenizer: Tokenizer, template: str | None, question: str, answer: str, max_len: int) -> list[int]:
    """What a trained verifier reads: the turn of a conversation, or plain text; the end of it where it is too long."""
    if template is None:
        ids = tokenizer.encode(f"{question} {answer.strip()}\n")
    else:
        ids = encode_chat(tokenizer, [Message("user", question), Message("assistant", answer.strip())], template)
    return ids[-max_len:]


def checked_batch(examples: Sequence[Checked]) -> CheckedBatch:
    """Rows of unequal length as one batch."""
    lengths = torch.tensor([len(one.ids) for one in examples])
    tokens = torch.zeros(len(examples), int(lengths.max()), dtype=torch.int64)
    for row, one in zip(tokens, examples, strict=True):
        row[: len(one.ids)] = torch.tensor(one.ids)
    return CheckedBatch(tokens, lengths, torch.tensor([one.label for one in examples]))


class RightOrWrong:
    """Cross entropy of whether each answer is right, in nats."""

    def __call__(self, model: nn.Module, batch: CheckedBatch) -> Tensor:
        """-> the summed loss, ()."""
        return F.cross_entropy(last_scores(model, batch.tokens, batch.lengths).float(), batch.labels, reduction="sum")

    def n_terms(self, batch: CheckedBatch) -> int:
        return batch.labels.size(0)


@torch.inference_mode()
def chances(model: nn.Module, examples: Sequence[Checked], batch_size: int = 64) -> list[float]:
    """How likely each answer is right, by a model with LABELS, or by a reward model through the logistic function."""
    found: list[float] = []
    for start in range(0, len(examples), batch_size):
        batch = checked_batch(examples[start : start + batch_size])
        scores = last_scores(model, batch.tokens, batch.lengths).float()
        found += (scores.softmax(-1)[:, 1] if scores.size(1) == 2 else scores[:, 0].sigmoid()).tolist()
    return found


class TrainedVerifier:
    """A model that was trained to score answers, from `legollm verifier train` or `legollm reward`."""

    def __init__(self, lm: Loaded) -> None:
        labels = getattr(lm.config, "labels", ())
        if labels != LABELS and len(labels) != 1:
            raise CheckpointError(f"{lm.folder}: {lm.arch} judges no answers; train one with `legollm verifier train`")
        self.lm, self.tokenizer = lm, lm.text_side()

    def __call__(self, question: str, answer: str, reference: str | None = None) -> Verdict:
        """The chance that it is right; a reference is not looked at."""
        ids = answer_ids(self.tokenizer, self.lm.chat_template, question, answer, self.lm.config.max_seq_len)
        (chance,) = chances(self.lm.model, [Checked(ids, 0)])
        return Verdict(chance, f"it is right with a chance of {chance:.0%}")


class SelfVerifier:
    """The model itself is asked: after `Checker: The answer is`, what is likelier, ` right` or ` wrong`?

    No training is needed, and little is to be expected of a small model: it was not taught what the question means.
    """

    def __init__(self, lm: Loaded) -> None:
        lm.refuse_pairs()
        self.lm, self.tokenizer = lm, lm.text_side()

    def __call__(self, question: str, answer: str, reference: str | None = None) -> Verdict:
        """The share of ` right` among both words; a reference is not looked at."""
        prompt = self.prompt_of(question, answer)
        wrong, right = (self.log_chance(prompt, self.tokenizer.encode(word)) for word in WORDS)
        chance = float(torch.sigmoid(torch.tensor(right - wrong)))
        return Verdict(chance, f"asked itself, it finds it right with a chance of {chance:.0%}")

    def prompt_of(self, question: str, answer: str) -> list[int]:
        """Question and answer, and the beginning of a judgement."""
        if self.lm.chat_template is None:
            return self.tokenizer.encode(f"{question} {answer.strip()}\n{CHECKER}")
        asked = Message("user", f"{question}\n{answer.strip()}\nIs that right?")
        return [*self.lm.chat_prompt([asked]), *self.tokenizer.encode(CHECKER)]

    @torch.inference_mode()
    def log_chance(self, prompt: Sequence[int], word: Sequence[int]) -> float:
        """ln of the probability that the model goes on with this word."""
        ids = [*prompt, *word][-self.lm.config.max_seq_len :]
        logits = self.lm.model(torch.tensor([ids[:-1]]))[0, -len(word) :].float()
        return float(logits.log_softmax(-1)[range(len(word)), list(word)].sum())


def template_of(lm: Loaded) -> str | None:
    """The template that a verifier trained from this model reads with: a base model has the tokens for one, or not."""
    if lm.chat_template is None and "<|im_end|>" in lm.text_side().special_tokens:
        return CHATML
    return lm.chat_template
