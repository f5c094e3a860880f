"""The vanilla decoder: every brick in every place, in pairs; and the rungs from a table to a small modern model."""

import dataclasses
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import legollm
from legollm.architectures import ARCHITECTURES, build
from legollm.architectures.vanilla import VanillaConfig
from legollm.checkpoints.huggingface import from_hf, to_hf
from legollm.commands.train import PRESETS, TrainRun, pretrain, train
from legollm.components.blocks import ParallelBlock, PostNormBlock, PreNormBlock, SandwichNormBlock
from legollm.components.decoder import Decoder
from legollm.components.feedforward import MLP
from legollm.components.moe import MoE
from legollm.components.norm import LayerNorm, RMSNorm
from legollm.config import read, resolve
from legollm.errors import ConfigError
from legollm.generation.cache import FullCache
from legollm.interfaces import Batch
from legollm.training.metrics import read_rows
from legollm.training.objective import NextToken
from tiny_models import some_tokens

ROOT = Path(__file__).parents[2]
CHOICES: dict[str, tuple[Any, ...]] = {
    "ffn": ("relu", "gelu", "gelu_tanh", "relu_squared", "glu", "swiglu", "geglu", "reglu", "moe", "none"),
    "positions": ("learned", "sinusoidal", "rope", "alibi", "t5", "none"),
    "norm_placement": ("pre", "post", "sandwich", "parallel"),
    "norm": ("layernorm", "rmsnorm", "none"),
    "n_kv_heads": (4, 2, 1),
    "bias": (True, False),
    "qkv_bias": (True, False),
    "qk_norm": (True, False),
    "sinks": (True, False),
    "window": (None, 3),
    "dropout": (0.0, 0.1),
    "tie_embeddings": (True, False),
}
TINY = {"vocab_size": 23, "max_seq_len": 16, "n_layers": 2, "n_heads": 4, "d_model": 16, "d_ff": 24}


def all_pairs() -> list[dict[str, Any]]:
    """Few configurations in which any two choices meet at least once."""
    names = list(CHOICES)
    left = {
        ((a, x), (b, y)) for a, b in combinations(names, 2) for x, y in product(CHOICES[a], CHOICES[b])
    }  # in the order of the names
    found = []
    while left:
        (a, x), (b, y) = min(left, key=str)
        chosen: dict[str, Any] = {a: x, b: y}
        for name in names:
            if name not in chosen:
                chosen[name] = max(CHOICES[name], key=lambda value: len(left & pairs({**chosen, name: value}, name)))
        chosen = {name: chosen[name] for name in names}
        left -= pairs(chosen)
        found.append(chosen)
    return found


def pairs(chosen: dict[str, Any], with_name: str = "") -> set[Any]:
    """The pairs of choices in a configuration, or only those that one of them is part of."""
    ordered = [(name, chosen[name]) for name in CHOICES if name in chosen]
    return {pair for pair in combinations(ordered, 2) if with_name in ("", pair[0][0], pair[1][0])}


def loss_of(model: Decoder, tokens: Tensor) -> Tensor:
    batch = Batch(tokens[:, :-1], tokens[:, 1:])
    return NextToken()(model, batch) / batch.targets.numel()


@pytest.mark.parametrize("bricks", all_pairs(), ids=lambda bricks: "-".join(map(str, bricks.values())))
def test_any_two_bricks_build_and_learn(bricks: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model, tokens = build("vanilla", **TINY, **bricks), some_tokens(4, 12, vocab_size=23)
    with torch.no_grad():
        before, logits = loss_of(model.eval(), tokens), model(tokens)
        changed = tokens.clone()
        changed[:, 6] = (changed[:, 6] + 1) % 23
        assert torch.equal(model(changed)[:, :6], logits[:, :6])
        assert (model(changed)[:, 7:] != logits[:, 7:]).any()
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-2)
    loss_of(model, tokens).backward()
    assert all(p.grad is not None for p in model.parameters())
    optimizer.step()
    assert loss_of(model.eval(), tokens) < before
    parameters = dict(model.named_parameters())
    back = from_hf("vanilla", to_hf("vanilla", parameters), model)  # every weight has a name on disk
    assert all(torch.equal(back[name], p) for name, p in parameters.items())


@pytest.mark.parametrize("positions", CHOICES["positions"])
def test_reading_in_pieces_is_reading_at_once(positions: str) -> None:
    model = build("vanilla", **TINY, positions=positions, n_kv_heads=2).double().eval()
    tokens = some_tokens(2, 12, vocab_size=23)
    cache = FullCache.for_model(model, 2, 12)
    parts = [model(part, cache=cache) for part in tokens.split([5, 1, 4, 2], 1)]
    torch.testing.assert_close(torch.cat(parts, 1), model(tokens), rtol=0, atol=1e-9)


@pytest.mark.parametrize("positions", CHOICES["positions"])
def test_order_matters_to_all_but_the_blind(positions: str) -> None:
    model = build("vanilla", **{**TINY, "n_layers": 1}, positions=positions).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)).double()
    one, other = (model(torch.tensor([ids]))[0, -1] for ids in ([1, 2, 3, 4], [2, 1, 3, 4]))
    assert torch.allclose(one, other, atol=1e-12) == (positions == "none")


def test_each_name_stands_for_its_brick() -> None:
    blocks = {"pre": PreNormBlock, "post": PostNormBlock, "sandwich": SandwichNormBlock, "parallel": ParallelBlock}
    for name, kind in blocks.items():
        model = build("vanilla", **TINY, norm_placement=name)
        assert type(model.blocks[0]) is kind
        assert isinstance(model.norm, nn.Identity) == (name == "post")
    for name, norm in {"layernorm": LayerNorm, "rmsnorm": RMSNorm, "none": nn.Identity}.items():
        assert type(build("vanilla", **TINY, norm=name).norm) is norm
    for name in CHOICES["ffn"]:
        ffn = build("vanilla", **TINY, ffn=name).blocks[0].ffn
        if isinstance(ffn, MLP):
            assert ffn.activation.__name__ == name
        else:
            assert type(ffn).__name__.lower() == {"none": "nofeedforward"}.get(name, name)


def test_one_table_of_distances_serves_all_layers() -> None:
    names = [name for name, _ in build("vanilla", **TINY, positions="t5").named_parameters()]
    assert [name for name in names if "position_bias" in name] == ["blocks.0.attn.position_bias.weight"]


def test_a_mixture_has_as_many_experts_as_asked_for() -> None:
    model = build("vanilla", **TINY, ffn="moe", n_experts=3, n_active=1)
    assert [m.router.n_experts for m in model.modules() if isinstance(m, MoE)] == [3, 3]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_active": 5}, "n_active: 5 is more than n_experts = 4"),
        ({"positions": "rope", "d_model": 20}, "n_heads: makes heads of 5 channels; rotary positions need an even"),
        ({"positions": "sinusoidal", "d_model": 15, "n_heads": 3, "n_kv_heads": 3}, "d_model: 15 is odd; sinusoidal"),
        ({"window": 0}, "window: expected a whole number from 1, found 0"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        VanillaConfig(**settings)
    assert str(caught.value).startswith(message)


def run_of(*words: str) -> TrainRun:
    return resolve(TrainRun, read(None, words), presets=PRESETS).value


def test_bricks_are_swapped_on_the_command_line() -> None:
    model = run_of("model.arch=vanilla", "model.positions=alibi", "model.ffn=swiglu", "model.n_kv_heads=1").model
    assert model == VanillaConfig(positions="alibi", ffn="swiglu", n_kv_heads=1)
    with pytest.raises(ConfigError, match=r"model.positions: 'alibis' is none of .*; did you mean alibi"):
        run_of("model.arch=vanilla", "model.positions=alibis")
    with pytest.raises(ConfigError, match=r"model.preset: 'one-blok' is none of .*; did you mean one-block"):
        run_of("model.preset=one-blok")
    with pytest.raises(ConfigError, match=r"model.preset: 'gpt2-xxl' is none of .*; did you mean gpt2-xl"):
        run_of("model.preset=gpt2-xxl")


def test_every_architecture_that_learns_from_text_can_be_trained() -> None:
    for name, row in ARCHITECTURES.items():
        if row.learns == "pairs":
            verb = "classify" if name == "encoder_classifier" else "seq2seq"
            with pytest.raises(ConfigError, match=f"model.arch: {name} learns from pairs.*; use legollm {verb} train"):
                run_of(f"model.arch={name}")
            for preset in row.presets:
                with pytest.raises(ConfigError, match=f"model.preset: {preset} learns from pairs.*{verb} train"):
                    run_of(f"model.preset={preset}")
        else:
            assert type(run_of(f"model.arch={name}").model) is row.config


def test_the_shipped_configuration_is_the_decoder_of_the_ladder() -> None:
    shipped = resolve(TrainRun, read(ROOT / "configs" / "vanilla.yaml", []), presets=PRESETS).value
    rung = run_of("preset=decoder")
    assert dataclasses.replace(shipped.model, vocab_size=65) == rung.model
    assert (shipped.optim, shipped.train) == (rung.optim, rung.train)


def text_file(folder: Path) -> Path:
    path = folder / "text.txt"
    path.write_text("the cat sat on the mat and the dog sat on the log, said the cat to the dog.\n" * 60)
    return path


def test_counting_leaves_what_any_run_leaves(tmp_path: Path) -> None:
    words = [f"data.source={text_file(tmp_path)}", "tokenizer=char", "model.arch=ngram", "model.order=4"]
    cfg = run_of(*words, f"run={tmp_path / 'run'}", "model.max_seq_len=32")
    state = pretrain(cfg)
    assert state.step == 1
    assert state.best_loss is not None
    assert state.best_loss < 0.5
    assert pretrain(cfg) == state  # it is there already
    lm = legollm.load(tmp_path / "run")
    assert lm.config.n_grams[0] == lm.config.vocab_size
    assert lm.generate("the cat s", max_new_tokens=6, temperature=0) == "at on "
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert {"step", "tokens", "val_loss", "val_bpb", "sample"} <= set().union(*rows)
    with pytest.raises(ConfigError, match=r"model\.order"):
        pretrain(run_of(*words[:3], f"run={tmp_path / 'run'}", "model.order=2", "model.max_seq_len=32"))


def test_settings_that_counting_does_not_use_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    words = [f"data.source={text_file(tmp_path)}", "tokenizer=char", "model.arch=ngram", "optim.lr=0.1"]
    train(resolve(TrainRun, read(None, [*words, f"run={tmp_path / 'run'}"]), presets=PRESETS))
    assert "optim.lr: not used" in caplog.text


RUNGS = ("bigram", "one-head", "multi-head", "one-block", "decoder")


@pytest.mark.slow
def test_each_rung_reads_better_than_the_one_before(tmp_path: Path, shared_data: Path) -> None:
    """A third of the ladder's steps is enough to see the order; after a tenth, the deeper ones still lag behind."""
    losses = []
    for name in RUNGS:
        source = shared_data / "text" / "tinyshakespeare.txt"
        words = [f"preset={name}", f"data.source={source}", f"run={tmp_path / name}", "train.max_steps=1000"]
        state = pretrain(run_of(*words, "train.eval_every=0", "train.precision=float32"))
        losses.append(state.best_loss)
    assert losses == sorted(losses, reverse=True)
