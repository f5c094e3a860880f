"""The loss along one long text that is read once, from its first token to its last, with a memory that ends."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from legollm.generation.cache import GenerativeModel
from legollm.interfaces import Cache


@torch.inference_mode()
def losses_along(model: GenerativeModel, ids: Sequence[int], cache: Cache, *, chunk: int = 256) -> Tensor:
    """Nats of every token but the first, (N - 1,), read through a cache in pieces of at most so many tokens."""
    tokens, losses, first = torch.tensor([ids]), [], 0
    while first < len(ids) - 1:
        now = slice(first, first + cache.at_once(min(chunk, len(ids) - 1 - first)))
        logits = model.lm_head(model.hidden(tokens[:, now], None, cache))[0]
        losses.append(F.cross_entropy(logits.float(), tokens[0, now.start + 1 : now.stop + 1], reduction="none"))
        first = now.stop
    return torch.cat(losses)


@torch.inference_mode()
def losses_reread(model: GenerativeModel, ids: Sequence[int], window: int) -> Tensor:
    """The same, where a full window forgets its older half and reads the newer one again."""
    tokens, losses, known, first = torch.tensor([ids]), [], 0, 0  # known: tokens that have their loss, but the first
    while known < len(ids) - 1:
        logits = model.lm_head(model.hidden(tokens[:, first : first + window]))[0]
        following = tokens[0, first + 1 : first + window + 1]
        new = F.cross_entropy(logits[: len(following)].float(), following, reduction="none")[known - first :]
        losses.append(new)
        known += len(new)
        first += window - window // 2
    return torch.cat(losses)
