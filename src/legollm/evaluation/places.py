"""The loss by how far into a row a token stands, also past the length that a model was trained on."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from legollm.components.decoder import Decoder
from legollm.errors import DataError


@torch.inference_mode()
def losses_by_place(model: Decoder, ids: Any, n_tokens: int, *, at_once: int = 8) -> Tensor:
    """Nats of the tokens at each place, mean over the rows of n_tokens that a text makes, (n_tokens,).

    ids: (N,) of an array. A model with positions that end reads the start of each row, as far as they go.

    Raises:
        DataError: the text is shorter than a row.
    """
    n_rows = (len(ids) - 1) // n_tokens
    if n_rows < 1:
        raise DataError(f"{len(ids):,} tokens make no row of {n_tokens:,}; give more text or shorter rows")
    tokens = torch.tensor([int(i) for i in ids[: n_rows * n_tokens + 1]])
    places = slice(model.max_seq_len)  # all of them where positions do not end
    rows, targets = tokens[:-1].view(n_rows, -1)[:, places], tokens[1:].view(n_rows, -1)[:, places]
    parts = []
    for first in range(0, n_rows, at_once):
        logits = model(rows[first : first + at_once]).float()  # (B, T, V)
        parts.append(F.cross_entropy(logits.transpose(1, 2), targets[first : first + at_once], reduction="none"))
    return torch.cat(parts).mean(0)


def in_bins(losses: Tensor, size: int) -> Iterator[tuple[int, float]]:
    """(last place, mean loss) of each run of `size` places, for a curve."""
    for part in range(0, len(losses), size):
        yield min(part + size, len(losses)), float(losses[part : part + size].mean())
