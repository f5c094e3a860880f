"""Mixtral and Qwen 3 MoE against those of the transformers library: weights, logits, gradients, routing, its loss."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.checkpoints.huggingface import load_hf_folder, save_hf_folder, to_hf
from legollm.components.decoder import Decoder
from legollm.components.moe import MoE
from legollm.components.routing import Routing, balance_loss
from tiny_models import VOCAB, some_tokens, tiny_config, tiny_model

transformers = pytest.importorskip("transformers")

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("mixtral", {}),
    "mixtral with a window": ("mixtral", {"window": 5, "tie_embeddings": True, "z_loss": 0.5, "jitter": 0.1}),
    "qwen3_moe": ("qwen3_moe", {}),
    "qwen3_moe as they are": ("qwen3_moe", {"normalise": False, "n_active": 3, "dense_layers": (), "window": 6}),
    "qwen3_moe alternating": ("qwen3_moe", {"n_layers": 4, "dense_layers": (0, 2), "balance_loss": 0.02}),
}


def exact(other: nn.Module) -> nn.Module:
    """Their model in float64 throughout: they compute norms, angles and the router's softmax in float32."""

    def rotary(module: nn.Module) -> Any:
        def forward(x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
            angles = position_ids[..., None].double() * module.inv_freq.double()
            return torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()

        return forward

    def rms_norm(module: nn.Module) -> Any:
        return lambda x: module.weight * x / (x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon).sqrt()

    def router(module: nn.Module) -> Any:
        def forward(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            logits = F.linear(x.reshape(-1, module.hidden_dim), module.weight)
            weights, experts = logits.softmax(-1).topk(module.top_k)
            if getattr(module, "norm_topk_prob", True):
                weights = weights / weights.sum(-1, keepdim=True)
            return logits, weights, experts

        return forward

    frequencies = {name: buffer.clone() for name, buffer in other.named_buffers() if name.endswith("inv_freq")}
    other = other.double()
    for name, module in other.named_modules():
        kind = type(module).__name__
        if kind.endswith("RotaryEmbedding"):
            module.inv_freq = frequencies[f"{name}.inv_freq"]
            module.forward = rotary(module)
        elif kind.endswith("RMSNorm"):
            module.forward = rms_norm(module)
        elif kind.endswith("TopKRouter"):
            module.forward = router(module)
    return other


Pair = tuple[str, Any, Decoder, Any]


@pytest.fixture(params=CASES)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Pair:
    """Ours, and what AutoModelForCausalLM makes of the folder we wrote."""
    name, changes = CASES[request.param]
    model, cfg = tiny_model(name, **changes), tiny_config(name, **changes)
    save_hf_folder(tmp_path, name, cfg, model)
    other, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path,
        output_loading_info=True,
        experts_implementation="eager",  # the other ways know no float64
    )
    assert not any(report.values()), report
    return name, cfg, model, other.eval()


def routed(model: Decoder) -> list[MoE]:
    return [block.ffn for block in model.blocks if isinstance(block.ffn, MoE)]


def passes(model: Decoder, tokens: Tensor) -> list[tuple[Tensor, Routing]]:
    """What every router decided, with nothing left out or drawn."""
    model.train()
    for layer in routed(model):
        layer.router.jitter = 0.0
    model(tokens)
    model.eval()
    return [layer.last for layer in routed(model)]


def test_logits_in_float32(pair: Pair) -> None:
    _, _, model, other = pair
    tokens = some_tokens(3, 33)
    torch.testing.assert_close(model(tokens), other(tokens).logits, rtol=0, atol=1e-5)


def split_experts(name: str, key: str, tensor: Tensor) -> dict[str, Tensor]:
    """Their parameters hold the experts together, gate above up; their files, and our names for them, one by one."""
    place, gate, up, down = {
        "mixtral": ("block_sparse_moe", "w1", "w3", "w2"),
        "qwen3_moe": ("mlp", "gate_proj", "up_proj", "down_proj"),
    }[name]
    key = key.replace(".mlp.", f".{place}.") if name == "mixtral" else key
    if key.endswith("gate_up_proj"):
        stem = key.removesuffix("gate_up_proj")
        return {
            f"{stem}{e}.{n}.weight": half
            for e, both in enumerate(tensor)
            for n, half in zip((gate, up), both.chunk(2), strict=True)
        }
    if key.endswith("experts.down_proj"):
        stem = key.removesuffix("down_proj")
        return {f"{stem}{e}.{down}.weight": one for e, one in enumerate(tensor)}
    return {key: tensor}


def test_logits_and_gradients_in_float64(pair: Pair) -> None:
    name, _, model, other = pair
    model, other, tokens = model.double(), exact(other), some_tokens(3, 33)
    torch.testing.assert_close(model(tokens), other(tokens).logits, rtol=0, atol=1e-9)
    for one in (model(tokens), other(tokens).logits):
        F.cross_entropy(one[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    ours = to_hf(name, {n: p.grad for n, p in model.named_parameters()})
    theirs: dict[str, Tensor] = {}
    for n, p in other.named_parameters():
        theirs |= split_experts(name, n, p.grad)
    assert ours.keys() == theirs.keys()
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], rtol=0, atol=1e-9, msg=key)


def test_router_logits_and_balance_loss(pair: Pair) -> None:
    """Their loss is taken over all layers at once, as if they were one long text."""
    _, cfg, model, other = pair
    model, other, tokens = model.double(), exact(other), some_tokens(3, 33)
    ours = passes(model, tokens)
    out = other(tokens, labels=tokens, output_router_logits=True)
    assert len(out.router_logits) >= len(ours)
    theirs = [logits for logits in out.router_logits if logits is not None]
    for (logits, _), expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(logits.flatten(0, 1), expected, rtol=0, atol=1e-9)
    whole = Routing(*(torch.cat([getattr(r, f).flatten(0, 1) for _, r in ours])[None] for f in Routing._fields))
    counted = torch.ones(whole.experts.shape[:2], dtype=torch.bool)
    mean = balance_loss(whole, counted) / counted.numel()
    torch.testing.assert_close(mean, out.aux_loss.double(), rtol=1e-6, atol=0)  # they add up in float32
    assert other.router_aux_loss_coef == cfg.balance_loss


def test_padding_on_the_left(pair: Pair) -> None:
    _, _, model, other = pair
    model, other = model.double(), exact(other)
    tokens, width = some_tokens(3, 12), torch.tensor([12, 5, 9])
    attention_mask = (torch.arange(12) >= 12 - width[:, None]).long()
    positions = (attention_mask.cumsum(1) - 1).masked_fill(attention_mask == 0, -1)
    theirs = other(tokens, attention_mask=attention_mask, position_ids=positions.clamp(min=0)).logits
    text = attention_mask.bool()
    torch.testing.assert_close(model(tokens, positions)[text], theirs[text], rtol=0, atol=1e-9)


def test_balance_loss_without_padding(pair: Pair) -> None:
    _, cfg, model, other = pair
    model, other, tokens = model.double(), exact(other), some_tokens(2, 12)
    text = torch.ones(2, 12, dtype=torch.bool)
    text[1, 8:] = False
    ours = passes(model, tokens)
    loss_of = transformers.models.mixtral.modeling_mixtral.load_balancing_loss_func
    for logits, routing in ours:
        theirs = loss_of((logits.flatten(0, 1),), cfg.n_experts, cfg.n_active, text.long())
        whole = Routing(*(part.flatten(0, 1)[None] for part in routing))
        mean = balance_loss(whole, text.view(1, -1)) / text.sum()
        torch.testing.assert_close(mean.float(), theirs.float(), rtol=1e-6, atol=0)


def test_greedy_continuations(pair: Pair) -> None:
    _, _, model, other = pair
    model, other, tokens = model.double(), exact(other), some_tokens(1, 5)
    theirs = other.generate(tokens, max_new_tokens=16, do_sample=False, eos_token_id=None, pad_token_id=0)
    with torch.no_grad():
        logits = model(theirs)[0]
    for place in range(5, 21):
        chosen = logits[place - 1, theirs[0, place]]  # equal to our best, or tied with it
        assert chosen >= logits[place - 1].max() - 1e-9


def test_their_folder_is_ours(pair: Pair, tmp_path: Path) -> None:
    name, cfg, model, other = pair
    other.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    arch, found, loaded = load_hf_folder(tmp_path / "theirs")
    assert (arch, found) == (name, cfg)
    assert torch.equal(loaded.eval()(some_tokens(2, 9)), model(some_tokens(2, 9)))


SIZES = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "head_dim": 8}
SIZES |= {"num_key_value_heads": 2, "intermediate_size": 64}
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("Mixtral", {"num_local_experts": 4}),
    "qwen3_moe": ("Qwen3Moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}),
    "every second": (
        "Qwen3Moe",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "decoder_sparse_step": 2}
        | {"mlp_only_layers": [1]},
    ),
}


@pytest.mark.parametrize("case", THEIRS)
def test_their_fresh_models_load(case: str, tmp_path: Path) -> None:
    """With the configuration keys their own defaults write."""
    kind, changes = THEIRS[case]
    config = getattr(transformers, f"{kind}Config")(**SIZES, **changes)
    other = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    other.save_pretrained(tmp_path)
    _, cfg, loaded = load_hf_folder(tmp_path)
    if case == "every second":
        assert cfg.dense_layers == (0, 1, 2)
    tokens = some_tokens(2, 9)
    torch.testing.assert_close(loaded.eval()(tokens), other(tokens).logits, rtol=0, atol=1e-5)
