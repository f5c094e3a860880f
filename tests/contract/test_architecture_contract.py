"""What every architecture promises, run over the table: a row there, and it is held to all of it."""

import functools
import math
from typing import Any

import pytest
import torch
from torch import nn

from legollm.architectures import ARCHITECTURES, build
from legollm.commands.check import check_architecture
from legollm.components.decoder import Decoder
from legollm.components.positions import Llama3Scaling
from legollm.contract import Verdict, learning, models
from legollm.contract.studs import tiny_config
from legollm.errors import ContextError, TokenizerError
from legollm.generation.cache import FullCache

OTHER_SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2, head of its own": ("gpt2", {"tie_embeddings": False}),
    "llama3, stretched and tied": (
        "llama3",
        {"rope_scaling": Llama3Scaling(original_max_seq_len=32), "tie_embeddings": True},
    ),
    "qwen3, wide heads and local layers": ("qwen3", {"d_head": 16, "local_layers": (0,), "window": 3}),
}
CASES = {name: (name, {}) for name in ARCHITECTURES} | OTHER_SHAPES


@functools.cache
def found_in(case: str) -> list[Verdict]:
    name, changes = CASES[case]
    return check_architecture(name, **changes)[1]


@pytest.mark.parametrize(
    "case", [*ARCHITECTURES, *(pytest.param(case, marks=pytest.mark.slow) for case in OTHER_SHAPES)]
)
def test_it_keeps_its_promises(case: str) -> None:
    assert [verdict for verdict in found_in(case) if not verdict.passed] == []


def test_every_check_is_asked_of_a_decoder() -> None:
    found = found_in("llama3")
    assert len(found) == 18
    everywhere = (*models.CALLER_CHECKS, *models.READER_CHECKS, *learning.LEARNING_CHECKS)
    asked = {verdict.name for verdict in found}
    assert {check.__name__.replace("_", " ") for check in everywhere} < asked
    assert asked > {"compiles whole", "packed documents are apart", "ejected equals built", "tokens become logits"}


DECODERS = [name for name, row in ARCHITECTURES.items() if row.learns == "steps"]


def tiny(name: str, **changes: Any) -> nn.Module:
    return ARCHITECTURES[name].build(tiny_config(ARCHITECTURES[name].config, **changes)).eval()


@pytest.mark.parametrize("name", DECODERS)
def test_the_cache_of_the_package_is_as_good_as_lists(name: str) -> None:
    assert models.cached_equals_uncached(tiny(name), in_float64).passed


def in_float64(model: Any, n_rows: int, max_len: int) -> FullCache:
    return FullCache(model.kv_shapes, n_rows, max_len, dtype=torch.float64)


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if ARCHITECTURES[name].learns != "pairs"])
def test_wrong_input_is_named(name: str) -> None:
    with pytest.raises(TokenizerError, match="token 97 is not among the model's ids 0 to 96"):
        tiny(name)(torch.tensor([[1, 97]]))


@pytest.mark.parametrize("name", DECODERS)
def test_the_end_of_the_context(name: str) -> None:
    model: Any = tiny(name)
    tokens = torch.zeros(1, 41, dtype=torch.long)
    if model.max_seq_len is None:
        assert model(tokens.repeat(1, 8)).isfinite().all()
    else:
        with pytest.raises(ContextError, match="max_seq_len = 40"):
            model(tokens)


@pytest.mark.parametrize("name", DECODERS)
def test_its_own_defaults_know_nothing_at_first(name: str) -> None:
    """Not only at the small sizes of the contract."""
    model = build(name, vocab_size=512)
    tokens = torch.randint(512, (2, 65), generator=torch.Generator().manual_seed(0))
    assert learning.loss_of(model, tokens).item() == pytest.approx(math.log(512), abs=0.3)


@pytest.mark.parametrize("name", DECODERS)
def test_a_tied_head_costs_nothing(name: str) -> None:
    fields = ARCHITECTURES[name].config.__dataclass_fields__
    if "tie_embeddings" not in fields:
        pytest.skip("its head is not tied")
    tied, free = (tiny(name, tie_embeddings=tie) for tie in (True, False))
    assert sum(p.numel() for p in free.parameters()) - sum(p.numel() for p in tied.parameters()) == 97 * 32


@pytest.mark.parametrize("name", DECODERS)
def test_it_is_a_language_model(name: str) -> None:
    model = tiny(name)
    assert len(model.kv_shapes) <= len(list(model.blocks)) if isinstance(model, Decoder) else model.kv_shapes
