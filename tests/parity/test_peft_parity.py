"""Adapters against the peft library: both open each other's folders, and both learn the same from the same batches."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.checkpoints.adapter import write_adapter
from legollm.checkpoints.huggingface import save_hf_folder
from legollm.checkpoints.loading import load
from legollm.commands.start_from import prepare
from legollm.errors import CheckpointError
from legollm.interfaces import Batch
from legollm.training.objective import NextToken
from legollm.training.optim import OptimConfig, build_optimizer
from legollm.transforms.lora import LoraConfig
from tiny_models import some_tokens, tiny_config, tiny_model

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

ARCHS = ("gpt2", "llama3", "qwen3")
KINDS = ("lora", "rslora", "dora")
AT_ONCE = {("gpt2", "dora"), ("llama3", "lora"), ("qwen3", "rslora")}
CASES = [
    pytest.param(arch, kind, marks=() if (arch, kind) in AT_ONCE else pytest.mark.slow)
    for arch in ARCHS
    for kind in KINDS
]
TARGETS = {
    "gpt2": ["c_attn", "mlp.c_proj"],
    "llama3": ["q_proj", "down_proj"],
    "qwen3": ["o_proj", "up_proj", "k_proj"],
}


def base_in(folder: Path, arch: str) -> Path:
    """A base model's folder, with logits of about 3."""
    model = tiny_model(arch)
    model.lm_head.weight.data *= 0.3
    save_hf_folder(folder, arch, tiny_config(arch), model)
    return folder


def moved(model: nn.Module) -> None:
    """As if the adapters had learned something."""
    rng = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora" in name or "magnitude" in name:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=rng)


def adapted(base: Path, folder: Path, **settings: Any) -> nn.Module:
    """A base with adapters that count, and their folder."""
    lm = load(base)
    start = prepare(lm, LoraConfig(**{"rank": 3, "alpha": 5.0} | settings), seed=1)
    assert start.adapter
    moved(start.model)
    write_adapter(folder, start.adapter, start.arch, start.model)
    return start.model


def theirs(base: Path, folder: Path, **settings: Any) -> Any:
    """As a user of peft opens our folder."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    opened = peft.PeftModel.from_pretrained(model, folder, **settings)
    return opened.train() if settings else opened.eval()


@pytest.mark.parametrize(("arch", "kind"), CASES)
def test_peft_opens_our_folder(tmp_path: Path, arch: str, kind: str) -> None:
    base, tokens = base_in(tmp_path / "base", arch), some_tokens(2, 11)
    ours = adapted(base, tmp_path / "adapter", kind=kind)
    with torch.no_grad():
        logits = theirs(base, tmp_path / "adapter")(tokens).logits
        torch.testing.assert_close(ours(tokens), logits, rtol=0, atol=1e-5)
        assert (load(base).model(tokens) - logits).abs().max() > 0.1


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("k_proj",), ("blocks.1.attn.v_proj",)])
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_part_of_a_fused_matrix_is_the_whole_with_zeros(tmp_path: Path, targets: tuple[str, ...], kind: str) -> None:
    base, tokens = base_in(tmp_path / "base", "gpt2"), some_tokens(2, 11)
    ours = adapted(base, tmp_path / "adapter", kind=kind, targets=targets)
    with torch.no_grad():
        logits = theirs(base, tmp_path / "adapter")(tokens).logits
    torch.testing.assert_close(ours(tokens), logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(load(tmp_path / "adapter").model(tokens), ours(tokens), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("arch", "kind"), CASES)
def test_we_open_their_folder(tmp_path: Path, arch: str, kind: str) -> None:
    base, tokens = base_in(tmp_path / "base", arch), some_tokens(2, 11)
    settings: dict[str, Any] = {
        "use_rslora": kind == "rslora",
        "use_dora": kind == "dora",
        "rank_pattern": {TARGETS[arch][0]: 2},
        "alpha_pattern": {TARGETS[arch][1]: 11},
    }
    wish = peft.LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS[arch], fan_in_fan_out=arch == "gpt2", **settings)
    model = peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(base), wish).eval()
    moved(model)
    model.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        logits = model(tokens).logits
    torch.testing.assert_close(load(tmp_path / "adapter").model(tokens), logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("arch", "kind"), CASES)
def test_three_steps_are_theirs(tmp_path: Path, arch: str, kind: str) -> None:
    base = base_in(tmp_path / "base", arch)
    ours = adapted(base, tmp_path / "adapter", kind=kind).train()
    other = theirs(base, tmp_path / "adapter", is_trainable=True)
    optim = OptimConfig(lr=1e-2)
    mine = build_optimizer(ours, optim)
    learning = [parameter for parameter in other.parameters() if parameter.requires_grad]
    assert sum(p.numel() for p in learning) == sum(p.numel() for p in ours.parameters() if p.requires_grad)
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": optim.weight_decay},
        {"params": [p for p in learning if p.ndim == 1], "weight_decay": 0.0},
    ]
    their = torch.optim.AdamW(groups, lr=optim.lr, betas=(0.9, 0.95), eps=optim.eps)
    for step in range(3):
        tokens = some_tokens(3, 12, seed=step)
        batch = Batch(tokens[:, :-1], tokens[:, 1:])
        (NextToken()(ours, batch) / batch.targets.numel()).backward()
        logits: Tensor = other(batch.tokens).logits
        F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten()).backward()
        for optimizer in (mine, their):
            optimizer.step()
            optimizer.zero_grad()
    tokens = some_tokens(2, 11)
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), other(tokens).logits, rtol=0, atol=1e-5)
    before = load(tmp_path / "adapter").model(tokens)
    assert (ours(tokens) - before).abs().max() > 0.01


@pytest.mark.parametrize(("arch", "also"), [("gpt2", ("norm",)), ("qwen3", ("embed", "blocks.0.norm1"))])
def test_modules_trained_as_a_whole_come_along(tmp_path: Path, arch: str, also: tuple[str, ...]) -> None:
    """Qwen's embedding is tied to its head, and stays so."""
    base, tokens = base_in(tmp_path / "base", arch), some_tokens(2, 11)
    start = prepare(load(base), LoraConfig(rank=2, also=also), seed=1)
    for name, parameter in start.model.named_parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
    assert start.adapter
    write_adapter(tmp_path / "adapter", start.adapter, start.arch, start.model)
    other = theirs(base, tmp_path / "adapter")
    other.save_pretrained(tmp_path / "theirs")
    with torch.no_grad():
        logits = other(tokens).logits
        for model in (start.model, load(tmp_path / "adapter").model, load(tmp_path / "theirs").model):
            torch.testing.assert_close(model(tokens), logits, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # peft has its own opinion of some of them
@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"bias": "lora_only"}, "bias: 'lora_only' is not supported, only 'none'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights: 'pissa' moved the base, too"),
        (
            {"target_modules": ["wte"]},
            "wte.lora_embedding_A: neither an adapter of a linear map nor a weight of its own",
        ),
        (
            {"modules_to_save": ["lm_head"]},
            "lm_head.weight: neither an adapter of a linear map nor a weight of its own",
        ),
        (
            {"target_modules": ["lm_head"]},
            "lm_head: an adapter of what is no linear map of this gpt2 with weights of its",
        ),
        ({"modules_to_save": ["wte"]}, "trained apart from the weights that it is tied to"),
        ({"lora_bias": True}, "lora_bias: True is not supported"),
        ({"alpha_pattern": {"^transformer.h.0.*c_attn": 4}}, "is no name, nor the end of one"),
    ],
)
def test_what_has_no_place_here_is_one_line(tmp_path: Path, settings: dict[str, Any], problem: str) -> None:
    base = base_in(tmp_path / "base", "gpt2")
    wish = peft.LoraConfig(**{"r": 2, "target_modules": ["c_attn"], "fan_in_fan_out": True} | settings)
    model = peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(base), wish)
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path / "adapter")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
