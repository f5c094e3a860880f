"""Answers with the probabilities they were drawn with: the inference engine, overheard."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from legollm.generation.cache import GenerativeModel
from legollm.generation.complete import Decoding, FinishReason, decode, open_rows
from legollm.generation.sampling import Sampling
from legollm.generation.text import Transcript
from legollm.interfaces import Tokenizer


class Sample(NamedTuple):
    """One answer."""

    ids: list[int]
    """All tokens that were drawn, the one that ended it included."""
    log_probs: list[float]
    """Of each under the distribution it was drawn from."""
    values: list[float]
    """What the value head said before each; empty without one."""
    text: str
    """Up to what ended it."""
    finish_reason: FinishReason


class Overheard:
    """A model that generates, and remembers of its latest pass what the tokens are drawn from."""

    def __init__(self, model: GenerativeModel, temperature: float, n_ids: int, value_head: nn.Module | None) -> None:
        self.model, self.temperature, self.n_ids, self.value_head = model, temperature, n_ids, value_head
        self.states = self.logits = torch.empty(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def lm_head(self, x: Tensor) -> Tensor:
        """x: (B, D) -> logits (B, V)."""
        self.states, self.logits = x, self.model.lm_head(x)
        return self.logits

    def pass_(self, tokens: Sequence[int]) -> Iterator[tuple[float, float]]:
        """Of the tokens chosen after the latest pass, one a row: log-probability and value."""
        logits = self.logits[:, : self.n_ids].float() / self.temperature
        chosen = logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None].to(logits.device)).squeeze(1)
        values = torch.zeros_like(chosen) if self.value_head is None else self.value_head(self.states).squeeze(-1)
        return zip(chosen.tolist(), values.tolist(), strict=True)


@torch.inference_mode()
def draw_samples(
    model: GenerativeModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    stop_ids: Collection[int],
    decoding: Decoding,
    value_head: nn.Module | None = None,
) -> list[Sample]:
    """An answer to each prompt, in order; prompt i draws with seed + i, whatever it is batched with.

    sampling: of the settings that change the distribution only the temperature may be set.

    Raises:
        ContextError: see `complete`.
    """
    n_ids = tokenizer.vocab_size
    overheard = Overheard(model, sampling.temperature, n_ids, value_head)
    rows = open_rows(model, prompts, sampling, decoding)
    transcripts = {row: Transcript(tokenizer, sampling.stop) for row in rows}
    texts = dict.fromkeys(rows, "")
    steps = decode(cast(GenerativeModel, overheard), rows, sampling, stop_ids=stop_ids, decoding=decoding, n_ids=n_ids)
    heard: dict[Any, list[tuple[float, float]]] = {row: [] for row in rows}
    waiting: list[Any] = []  # rows and tokens of the latest pass: one each, in the order of its logits
    for row, token in steps:
        texts[row] += transcripts[row].push(row, token)
        waiting.append((row, token))
        if len(waiting) == overheard.logits.size(0):
            said = overheard.pass_([token for _, token in waiting])
            for (one, _), pair in zip(waiting, said, strict=True):
                heard[one].append(pair)
            waiting.clear()
    return [
        Sample(
            row.ids[row.n_prompt :],
            [log_prob for log_prob, _ in heard[row]],
            [value for _, value in heard[row]] if value_head is not None else [],
            texts[row],
            row.finish_reason or "length",
        )
        for row in rows
    ]
