"""Bengio's model: a fixed window, the same with a cache and beside padding, and better than pairs of tokens."""

import torch
import torch.nn.functional as F
from torch import Tensor

from legollm.architectures import build
from legollm.architectures.mlp_lm import MlpLmConfig, mlp_lm
from legollm.checkpoints.huggingface import from_hf, to_hf
from legollm.components.decoder import Decoder
from legollm.generation.cache import FullCache

CFG = MlpLmConfig(vocab_size=11, window=3, d_model=4, d_ff=16)


def wide(cfg: MlpLmConfig = CFG) -> Decoder:
    """With weights large enough that every part of it matters."""
    model, generator = mlp_lm(cfg), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=generator)
    return model.double().eval()


def tokens_of(*shape: int) -> Tensor:
    return torch.randint(11, shape, generator=torch.Generator().manual_seed(1))


def test_the_window_is_all_it_sees() -> None:
    model, tokens = wide(), tokens_of(1, 9)
    before = model(tokens)
    changed = tokens.clone()
    changed[0, 4] = (changed[0, 4] + 1) % 11
    differs = (model(changed) != before).any(-1)[0].tolist()
    assert differs == [False] * 4 + [True] * 3 + [False] * 2


def test_pieces_and_padding_change_nothing() -> None:
    model, tokens = wide(), tokens_of(2, 9)
    cache = FullCache.for_model(model, 2, 9)
    parts = [model(part, cache=cache) for part in tokens.split([4, 1, 1, 3], 1)]
    torch.testing.assert_close(torch.cat(parts, 1), model(tokens), rtol=0, atol=1e-12)
    padded = torch.cat([torch.full((2, 2), 7), tokens], 1)
    positions = torch.arange(-2, 9).clamp(min=-1).expand(2, -1)
    torch.testing.assert_close(model(padded, positions)[:, 2:], model(tokens), rtol=0, atol=1e-12)


def test_every_weight_has_a_name_on_disk() -> None:
    model = wide()
    parameters = dict(model.named_parameters())
    assert sum(p.numel() for p in parameters.values()) == 11 * 4 + (3 * 4 * 16 + 16) + (16 * 11 + 11)
    back = from_hf("mlp_lm", to_hf("mlp_lm", parameters), model)
    assert all(torch.equal(back[name], p) for name, p in parameters.items())


def test_it_learns_what_pairs_cannot_tell() -> None:
    ids = tokens_of(600) % 5
    for i in range(2, 600):
        ids[i] = (ids[i - 1] + ids[i - 2]) % 5 if i % 10 > 1 else ids[i]
    losses = []
    for model in (build("bigram", vocab_size=5), mlp_lm(MlpLmConfig(vocab_size=5, window=2, d_model=8, d_ff=64))):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        for _ in range(100):
            loss = F.cross_entropy(model(ids[None, :-1])[0], ids[1:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[1] < 0.6 * losses[0]
