"""Our encoder-decoders and classifiers against independent ones, with the same random weights, in both directions."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.architectures import ARCHITECTURES, build
from legollm.architectures.t5 import T5Config
from legollm.checkpoints.huggingface import load_hf_folder, save_hf_folder, to_hf
from legollm.data.pairs import right_padded
from legollm.generation.sampling import Sampling
from legollm.generation.targets import write_targets
from tiny_models import VOCAB, some_tokens

transformers = pytest.importorskip("transformers")

T5_SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "n_layers": 2,
    "n_decoder_layers": 3,
    "d_model": 32,
    "n_heads": 4,
    "d_head": 6,
    "d_ff": 48,
    "n_buckets": 8,
    "max_distance": 20,
    "start_id": 3,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("t5", T5_SIZES),
    "t5 version 1.1": ("t5", T5_SIZES | {"gated": True, "tie_embeddings": False}),
    "bert": (
        "encoder_classifier",
        {"vocab_size": VOCAB, "labels": ("bad", "fair", "good"), "d_model": 32, "d_ff": 48, "max_seq_len": 40},
    ),
}
T5_CASES = [case for case in CASES if case.startswith("t5")]


def random_model(arch: str, seed: int = 0, **sizes: Any) -> Any:
    """With weights large enough that every part of it matters to the logits."""
    model: nn.Module = build(arch, **sizes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def exact(other: nn.Module) -> nn.Module:
    """Their model in float64 throughout: they compute T5's norms in float32 whatever the weights are."""

    def rms_norm(module: Any) -> Any:
        return lambda x: module.weight * x / (x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon).sqrt()

    for module in other.double().modules():
        if type(module).__name__ == "T5LayerNorm":
            module.forward = rms_norm(module)
    return other


def pair_of(case: str, folder: Path) -> tuple[str, Any, Any, Any]:
    """Ours, and what transformers makes of the folder we wrote."""
    arch, sizes = CASES[case]
    model, cfg = random_model(arch, **sizes), ARCHITECTURES[arch].config(**sizes)
    save_hf_folder(folder, arch, cfg, model)
    cls = getattr(transformers, ARCHITECTURES[arch].hugging_face.class_name)
    other, report = cls.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return arch, cfg, model, other.eval()


def ragged(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three rows of text, two of them padded."""
    return right_padded([some_tokens(n, seed=seed + n).tolist() for n in (11, 4, 25)])


def inputs_of(arch: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same rows as our arguments and as theirs."""
    source, positions = ragged()
    theirs = {"input_ids": source, "attention_mask": (positions >= 0).long()}
    if arch == "t5":
        target = some_tokens(3, 30, seed=9)
        return (source, target, positions), theirs | {"decoder_input_ids": target}
    return (source, positions), theirs


@pytest.mark.parametrize("case", CASES)
def test_logits_in_float32(case: str, tmp_path: Path) -> None:
    arch, _, model, other = pair_of(case, tmp_path)
    ours, theirs = inputs_of(arch)
    torch.testing.assert_close(model(*ours), other(**theirs).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_logits_and_gradients_in_float64(case: str, tmp_path: Path) -> None:
    arch, _, model, other = pair_of(case, tmp_path)
    model, other = model.double(), exact(other)
    ours, theirs = inputs_of(arch)
    logits = model(*ours), other(**theirs).logits
    torch.testing.assert_close(*logits, rtol=0, atol=1e-9)
    labels = some_tokens(*logits[0].shape[:-1], vocab_size=logits[0].size(-1))
    for one in logits:
        F.cross_entropy(one.flatten(0, -2), labels.flatten()).backward()
    mine = to_hf(arch, {name: p.grad for name, p in model.named_parameters()})
    found = {name: p.grad for name, p in other.named_parameters()}
    assert mine.keys() == found.keys()
    for key in mine:
        torch.testing.assert_close(mine[key], found[key], rtol=0, atol=1e-9, msg=key)


@pytest.mark.parametrize("case", CASES)
def test_their_folder_is_ours(case: str, tmp_path: Path) -> None:
    arch, cfg, model, other = pair_of(case, tmp_path)
    other.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    found_arch, found, loaded = load_hf_folder(tmp_path / "theirs")
    assert (found_arch, found) == (arch, cfg)
    ours, _ = inputs_of(arch)
    assert torch.equal(loaded.eval()(*ours), model(*ours))


@pytest.mark.parametrize("case", T5_CASES)
def test_greedy_targets(case: str, tmp_path: Path) -> None:
    _, cfg, model, other = pair_of(case, tmp_path)
    model, other = model.double(), exact(other)
    other.generation_config.decoder_start_token_id = other.generation_config.pad_token_id = cfg.start_id
    source, positions = ragged()
    rows = [row[place >= 0].tolist() for row, place in zip(source, positions, strict=True)]
    ours = write_targets(model, rows, cfg.start_id, Sampling(temperature=0, max_new_tokens=16))
    theirs = other.generate(  # their cache has as many layers as the encoder, whatever the decoder has
        source,
        attention_mask=(positions >= 0).long(),
        max_new_tokens=16,
        do_sample=False,
        eos_token_id=None,
        use_cache=False,
    )
    assert theirs[:, 0].tolist() == [cfg.start_id] * 3
    with torch.no_grad():
        scores = model(source, theirs[:, :-1], positions)  # (B, T, V)
    best, chosen = scores.amax(-1), scores.gather(-1, theirs[:, 1:, None]).squeeze(-1)
    assert (chosen >= best - 1e-9).all()  # equal to our best, or tied with it
    assert ours == theirs[:, 1:].tolist()


def test_their_fresh_models_load(tmp_path: Path) -> None:
    """With the configuration keys their own defaults write."""
    t5 = {"vocab_size": VOCAB, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    bert = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    for cls, config, arch in [
        (transformers.T5ForConditionalGeneration, transformers.T5Config(**t5), "t5"),
        (transformers.BertForSequenceClassification, transformers.BertConfig(**bert), "encoder_classifier"),
    ]:
        other = cls(config).eval()
        other.save_pretrained(tmp_path / arch)
        found, _, loaded = load_hf_folder(tmp_path / arch)
        assert found == arch
        ours, theirs = inputs_of(arch)
        torch.testing.assert_close(loaded.eval()(*ours), other(**theirs).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("preset", "n_parameters"),
    [("t5-small", 60_506_624), ("t5-base", 222_903_552), ("t5-v1.1-small", 76_961_152), ("t5-v1.1-base", 247_577_856)],
)
def test_published_sizes(preset: str, n_parameters: int) -> None:
    cfg: T5Config = ARCHITECTURES["t5"].presets[preset]
    with torch.device("meta"):
        model = ARCHITECTURES["t5"].build(cfg)
    assert sum(p.numel() for p in model.parameters()) == n_parameters


@pytest.mark.parametrize("pre_norm", [False, True])
def test_the_first_transformer_is_that_of_torch(pre_norm: bool) -> None:
    """torch.nn's layers, whose attention has biases that the paper has not: they are set to zero."""
    sizes = {"vocab_size": VOCAB, "d_model": 32, "d_ff": 48, "n_heads": 4, "n_layers": 2, "pre_norm": pre_norm}
    model = random_model("transformer", **sizes).double()
    options: dict[str, Any] = {"norm_first": pre_norm, "batch_first": True, "dropout": 0.0}
    norms = [nn.LayerNorm(32), nn.LayerNorm(32)] if pre_norm else [None, None]
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(32, 4, 48, **options), 2, norms[0], enable_nested_tensor=False
    )
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(32, 4, 48, **options), 2, norms[1])
    for last, ours in zip(norms, (model.encoder.norm, model.norm), strict=True):
        if last:
            last.load_state_dict(ours.state_dict())
    for ours, theirs in zip([*model.encoder.blocks, *model.blocks], [*encoder.layers, *decoder.layers], strict=True):
        copy_layer(ours, theirs)
    source, positions = ragged()
    target = some_tokens(3, 9, seed=1)
    padding = positions < 0
    causal = nn.Transformer.generate_square_subsequent_mask(9, dtype=torch.float64)
    states = encoder.double()(model.encoder.embed(source, positions), src_key_padding_mask=padding)
    written = model.embed(target, torch.arange(9))
    out = decoder.double()(written, states, tgt_mask=causal, memory_key_padding_mask=padding.double() * -1e30)
    torch.testing.assert_close(model(source, target, positions), model.lm_head(out), rtol=0, atol=1e-9)


@torch.no_grad()
def copy_layer(ours: Any, theirs: Any) -> None:
    """The weights of one of our blocks into one of torch's layers."""
    attentions = [(ours.attn, theirs.self_attn)]
    norms = [(ours.norm1, theirs.norm1), (ours.norm2, theirs.norm2)]
    if hasattr(ours, "cross_attn"):
        attentions.append((ours.cross_attn, theirs.multihead_attn))
        norms = [(ours.norm1, theirs.norm1), (ours.cross_norm, theirs.norm2), (ours.norm2, theirs.norm3)]
    for mine, other in attentions:
        other.in_proj_weight.copy_(torch.cat([mine.q_proj.weight, mine.k_proj.weight, mine.v_proj.weight]))
        other.out_proj.weight.copy_(mine.o_proj.weight)
        other.in_proj_bias.zero_()
        other.out_proj.bias.zero_()
    for mine, other in [*norms, (ours.ffn.up_proj, theirs.linear1), (ours.ffn.down_proj, theirs.linear2)]:
        other.load_state_dict(mine.state_dict())
