import dataclasses

import pytest
import torch

from legollm.architectures import build
from legollm.components.decoder import Decoder
from legollm.components.init import init_weights
from legollm.components.masks import Causal, Ragged
from tiny_models import TINY, some_tokens, tiny_model


def test_masks_are_values() -> None:
    assert Causal() == Causal()
    assert Causal().allowed(3, 7) is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        Ragged(torch.zeros(1, 1), torch.zeros(1, 1)).key_positions = torch.ones(1, 1)


def test_padding_sees_padding_and_text_sees_text() -> None:
    positions = torch.tensor([[-1, 0, 1]])
    allowed = Ragged(positions, positions).allowed(3, 3)
    assert allowed.tolist() == [[[[True, False, False], [False, True, False], [False, True, True]]]]


@pytest.mark.parametrize("name", TINY)
def test_hidden_states_and_head_make_the_logits(name: str) -> None:
    model, tokens = tiny_model(name), some_tokens(2, 5)
    assert torch.equal(model.lm_head(model.hidden(tokens)), model(tokens))


def test_what_a_cache_has_to_hold() -> None:
    assert tiny_model("qwen3").kv_shapes == [(2, 16), (2, 16)]
    assert tiny_model("gpt2").kv_shapes == [(4, 8), (4, 8)]
    assert tiny_model("bigram").kv_shapes == []
    assert tiny_model("gpt2").max_seq_len == 40
    assert tiny_model("llama3").max_seq_len is None


def test_residual_outputs_start_smaller() -> None:
    model = tiny_model("gpt2", n_layers=8, d_model=128)
    init_weights(model, torch.Generator().manual_seed(1))
    weights = dict(model.named_parameters())
    for name, parameter in weights.items():
        if name.endswith("bias"):
            assert not parameter.any()
        elif parameter.ndim == 2:
            expected = 0.02 / 4 if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
            assert parameter.std().item() == pytest.approx(expected, rel=0.05), name


def test_a_seed_gives_the_same_weights_and_leaves_other_numbers_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    a, b, c = (build("llama3", seed=seed, **TINY["llama3"]) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(a, Decoder)
    pairs = zip(a.parameters(), b.parameters(), c.parameters(), strict=True)
    assert all(torch.equal(x, y) and (x.ndim == 1 or not torch.equal(x, z)) for x, y, z in pairs)
