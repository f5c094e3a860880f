"""Sources in, targets out: an encoder-decoder given its sources is a decoder, and writes through the decode loop."""

from collections.abc import Collection, Sequence
from itertools import takewhile

import torch

from legollm.components.encoder_decoder import EncoderDecoder
from legollm.generation.cache import FullCache
from legollm.generation.generate import generate, left_padded
from legollm.generation.sampling import Sampling, row_generators


@torch.inference_mode()
def write_targets(
    model: EncoderDecoder,
    sources: Sequence[Sequence[int]],
    start_id: int,
    sampling: Sampling,
    *,
    stop_ids: Collection[int] = (),
    batch_size: int = 32,
    use_cache: bool = True,
) -> list[list[int]]:
    """The target of each source, without the token that ended it; source i draws with seed + i.

    Sources are read once, their keys and values kept for all tokens. Stop texts in `sampling` are not looked for.
    """
    device = next(model.parameters()).device
    stops = {*stop_ids, *sampling.stop_ids}
    rngs = row_generators(sampling.seed, len(sources))
    targets: list[list[int]] = []
    for first in range(0, len(sources), batch_size):
        rows = slice(first, first + batch_size)
        writer = model.given(*left_padded(sources[rows], device))
        n_rows = len(sources[rows])
        steps = generate(
            writer,
            torch.full((n_rows, 1), start_id, device=device),
            sampling,
            cache=FullCache.for_model(writer, n_rows, sampling.max_new_tokens) if use_cache else None,
            stop_ids=stops,
            rngs=rngs[rows],
        )
        written = torch.stack(list(steps), 1).tolist()
        targets += [list(takewhile(lambda token: token not in stops, row)) for row in written]
    return targets
