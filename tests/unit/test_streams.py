"""The loss along a text, against the loss of each token computed by itself."""

import torch
import torch.nn.functional as F
from torch import Tensor

from legollm.evaluation.streams import losses_along, losses_reread
from legollm.generation.cache import FullCache
from legollm.generation.ring_cache import RingCache
from tiny_models import some_tokens, tiny_model


def alone(model: torch.nn.Module, ids: list[int], first: list[int]) -> Tensor:
    """Nats of ids[i + 1], after the tokens from first[i] on."""
    losses = [
        F.cross_entropy(model(torch.tensor([ids[start : i + 1]]))[0, -1], torch.tensor(ids[i + 1]))
        for i, start in enumerate(first)
    ]
    return torch.stack(losses)


@torch.inference_mode()
def test_each_token_has_its_loss() -> None:
    model = tiny_model("llama3", dtype=torch.float64, n_layers=1)
    ids = some_tokens(40).tolist()
    full = losses_along(model, ids, FullCache.for_model(model, 1, 39), chunk=7)
    torch.testing.assert_close(full, alone(model, ids, [0] * 39).float(), atol=1e-5, rtol=0)
    sinks = [losses_along(model, ids, RingCache.for_model(model, 1, 9, 2), chunk=chunk) for chunk in (1, 5, 64)]
    torch.testing.assert_close(sinks[0], sinks[1])
    torch.testing.assert_close(sinks[0], sinks[2])
    torch.testing.assert_close(sinks[0][:9], full[:9])
    for window in (9, 8, 2):
        half, first, start = window - window // 2, [], 0
        for i in range(39):
            start += half if i >= start + window else 0
            first.append(start)
        found = losses_reread(model, ids, window)
        torch.testing.assert_close(found, alone(model, ids, first).float(), atol=1e-5, rtol=0)
