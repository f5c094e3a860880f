"""What every architecture promises, run over the table: one row in tests/tiny_models.py and it is held to all of it."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.architectures import ARCHITECTURES, build
from legollm.components.decoder import Decoder
from legollm.components.masks import Causal, Ragged
from legollm.errors import ContextError, TokenizerError
from legollm.interfaces import Mask
from tiny_models import TINY, VOCAB, some_tokens, tiny_config, tiny_model

pytestmark = pytest.mark.parametrize("name", TINY)


class SlowLayerCache:
    def __init__(self) -> None:
        self.k: list[Tensor] = []
        self.v: list[Tensor] = []

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.k.append(k)
        self.v.append(v)
        return torch.cat(self.k, 2), torch.cat(self.v, 2)


class SlowCache:
    """The shortest cache there can be: lists."""

    def __init__(self, n_layers: int) -> None:
        self.length = 0
        self.layers = [SlowLayerCache() for _ in range(n_layers)]
        self.seen: list[Tensor] = []

    def place(self, n_tokens: int, positions: Tensor | None) -> tuple[Tensor, Mask]:
        if positions is None:
            return torch.arange(self.length, self.length + n_tokens), Causal()
        self.seen.append(positions)
        return positions, Ragged(positions, torch.cat(self.seen, 1))

    def advance(self, n_tokens: int) -> None:
        self.length += n_tokens


def loss_of(model: nn.Module, tokens: Tensor) -> Tensor:
    logits = model(tokens[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def test_tokens_to_logits(name: str) -> None:
    logits = tiny_model(name)(some_tokens(3, 7))
    assert logits.shape == (3, 7, VOCAB)
    assert logits.dtype == torch.float32


def test_no_token_is_seen_before_its_time(name: str) -> None:
    model, tokens = tiny_model(name), some_tokens(2, 12)
    before = model(tokens)
    for place in (11, 6, 1):
        changed = tokens.clone()
        changed[:, place] = (changed[:, place] + 1) % VOCAB
        after = model(changed)
        assert torch.equal(after[:, :place], before[:, :place])
        assert (after[:, place] != before[:, place]).any()


@pytest.mark.parametrize("pieces", [(12,), (5, 4, 3), (1,) * 12, (7, 1, 1, 3)], ids=str)
def test_cached_equals_uncached(name: str, pieces: tuple[int, ...]) -> None:
    model, tokens = tiny_model(name, dtype=torch.float64), some_tokens(2, 12)
    cache: Any = SlowCache(len(model.blocks))
    parts = [model(part, cache=cache) for part in tokens.split(pieces, 1)]
    assert cache.length == 12
    torch.testing.assert_close(torch.cat(parts, 1), model(tokens), rtol=0, atol=1e-9)


def padded(rows: list[Tensor], width: int) -> tuple[Tensor, Tensor]:
    tokens = torch.stack([F.pad(row, (width - len(row), 0)) for row in rows])
    positions = torch.stack([F.pad(torch.arange(len(row)), (width - len(row), 0), value=-1) for row in rows])
    return tokens, positions


@pytest.mark.parametrize("cached", [False, True])
def test_a_row_does_not_depend_on_its_neighbours(name: str, cached: bool) -> None:
    model = tiny_model(name, dtype=torch.float64)
    rows = [some_tokens(n, seed=n) for n in (3, 9, 6)]
    tokens, positions = padded(rows, 10)
    if cached:
        cache: Any = SlowCache(len(model.blocks))
        pairs = zip(tokens.split([8, 1, 1], 1), positions.split([8, 1, 1], 1), strict=True)
        logits = torch.cat([model(*pair, cache=cache) for pair in pairs], 1)
    else:
        logits = model(tokens, positions)
    assert logits.isfinite().all()
    for row, got in zip(rows, logits, strict=True):
        torch.testing.assert_close(got[-len(row) :], model(row[None])[0], rtol=0, atol=1e-9)


def test_padding_gets_no_gradient_into_the_text(name: str) -> None:
    model = tiny_model(name, **({} if name == "bigram" else {"tie_embeddings": False}))  # a tied table is the head, too
    tokens, positions = padded([torch.tensor([1, 2, 3])], 6)
    tokens[0, :3] = 50  # what stands under padding
    model(tokens, positions)[:, 3:].sum().backward()
    table = next(p for n, p in model.named_parameters() if n.startswith("embed") and p.size(0) == VOCAB)
    assert table.grad[3].any()
    assert not table.grad[50].any()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_gradients_reach_every_parameter(name: str) -> None:
    model = tiny_model(name).train()
    loss_of(model, some_tokens(4, 30)).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        if not parameter_name.endswith("k_proj.bias"):  # shifts all scores of a query alike, which changes nothing
            assert parameter.grad.abs().max() > 0, parameter_name


def test_one_batch_can_be_learned_by_heart(name: str) -> None:
    torch.manual_seed(0)
    model = ARCHITECTURES[name].build(tiny_config(name))
    tokens = torch.randperm(VOCAB)[:34].view(2, 17)  # no token twice, so that a bigram can do it, too
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    if name == "bigram":
        optimizer.param_groups[0]["lr"] = 0.3
    for _ in range(60):
        loss = loss_of(model, tokens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss_of(model, tokens) < 0.05


def test_an_untrained_model_knows_nothing(name: str) -> None:
    model = build(name, vocab_size=512)
    loss = loss_of(model, some_tokens(4, 65, vocab_size=512)).item()
    assert loss == pytest.approx(math.log(512), abs=0.3)


def test_state_dict_goes_and_comes_back(name: str) -> None:
    model, other = tiny_model(name), tiny_model(name, seed=1)
    tokens = some_tokens(2, 7)
    assert not torch.equal(model(tokens), other(tokens))
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(model(tokens), other(tokens))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtypes(name: str, dtype: torch.dtype) -> None:
    tokens = some_tokens(2, 12)
    exact = tiny_model(name, dtype=torch.float64)(tokens)
    assert exact.dtype == torch.float64
    got = tiny_model(name, dtype=dtype)(tokens)
    assert got.dtype == dtype
    error = (got.double() - exact).norm() / exact.norm()
    assert error < {torch.float32: 1e-6, torch.bfloat16: 0.03}[dtype]


def test_autocast_stays_near_float32(name: str) -> None:
    model, tokens = tiny_model(name), some_tokens(2, 12)
    with torch.autocast("cpu", torch.bfloat16):
        got = model(tokens)
    exact = model(tokens)
    assert (got.float() - exact).norm() / exact.norm() < 0.03


def test_wrong_input_is_named(name: str) -> None:
    with pytest.raises(TokenizerError, match=f"token {VOCAB} is not among the model's ids 0 to {VOCAB - 1}"):
        tiny_model(name)(torch.tensor([[1, VOCAB]]))


def test_the_end_of_the_context(name: str) -> None:
    model = tiny_model(name)
    if model.max_seq_len is None:
        assert model(some_tokens(1, 300)).isfinite().all()
    else:
        with pytest.raises(ContextError, match="max_seq_len = 40"):
            model(some_tokens(1, 41))


def test_tied_embeddings_stay_one_tensor(name: str) -> None:
    if "tie_embeddings" not in ARCHITECTURES[name].config.__dataclass_fields__:
        assert name == "bigram"
        return
    tied, free = (tiny_model(name, tie_embeddings=tie) for tie in (True, False))
    assert sum(p.numel() for p in free.parameters()) - sum(p.numel() for p in tied.parameters()) == VOCAB * 32
    tied.load_state_dict(tied.state_dict())
    for model in (tied, tied.to(torch.bfloat16), tied.double()):
        owners = [p for _, p in model.named_parameters(remove_duplicate=False) if p.shape == (VOCAB, 32)]
        assert len(owners) == 2
        assert owners[0] is owners[1]


def test_it_is_a_language_model(name: str) -> None:
    model = tiny_model(name)
    assert isinstance(model, Decoder)
    assert len(model.kv_shapes) == len(model.blocks)
