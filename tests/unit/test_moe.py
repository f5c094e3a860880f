"""The mixture of experts against a loop over tokens, every rule against its formula, the losses against a split."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legollm.architectures import ARCHITECTURES, build
from legollm.checkpoints.huggingface import load_hf_folder, save_hf_folder
from legollm.components.feedforward import MLP, SwiGLU
from legollm.components.moe import MoE, upcycle
from legollm.components.routing import (
    Router,
    Routing,
    Rule,
    SigmoidTopK,
    Soft,
    StraightThrough,
    Switch,
    TopK,
    balance_loss,
    z_loss,
)
from legollm.errors import ConfigError
from legollm.interfaces import Batch
from legollm.training import balance
from legollm.training.balance import balance_figures, routing_loss
from legollm.training.objective import IGNORED, NextToken
from tiny_models import VOCAB, some_tokens, tiny_config, tiny_model

D, E = 6, 5
RULES: dict[str, Callable[[], Rule]] = {
    "switch": Switch,
    "top 2": lambda: TopK(2),
    "top 3, as they are": lambda: TopK(3, normalise=False),
    "soft": Soft,
    "straight through": StraightThrough,
    "sigmoid": lambda: SigmoidTopK(E, 2, scale=2.5),
}


def mixture(rule: str, *, seed: int = 0, **options: float) -> MoE:
    """In float64, with weights of which every one matters."""
    torch.manual_seed(seed)
    shared = SwiGLU(D, 4) if options.pop("shared", 0) else None
    capacity = options.pop("capacity", None)
    router = Router(D, E, RULES[rule](), **options)
    layer = MoE(router=router, experts=[SwiGLU(D, 8) for _ in range(E)], shared=shared, capacity=capacity).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    return layer


def some_x(n_rows: int = 3, n_tokens: int = 7, seed: int = 1) -> Tensor:
    return torch.randn(n_rows, n_tokens, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_by_one(layer: MoE, x: Tensor) -> Tensor:
    """What the layer means: for every token, every one of its experts, one after the other."""
    _, routing = layer.router(x)
    rows = []
    for token, chosen, weights in zip(
        x.view(-1, D),
        routing.experts.view(-1, routing.experts.size(-1)),
        routing.weights.view(-1, routing.weights.size(-1)),
        strict=True,
    ):
        y = sum(w * layer.experts[int(e)](token) for e, w in zip(chosen, weights, strict=True))
        rows.append(y if layer.shared is None else y + layer.shared(token))
    return torch.stack(rows).view(x.shape)


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("shared", [0, 1])
@pytest.mark.parametrize("rule", RULES)
def test_grouped_equals_one_by_one(rule: str, shared: int, is_training: bool) -> None:
    layer = mixture(rule, shared=shared).train(is_training)
    results = []
    for compute in (layer, lambda x: one_by_one(layer, x)):
        x = some_x().requires_grad_()
        layer.zero_grad()
        y = compute(x)
        (y * some_x(seed=2)).sum().backward()  # not a function of y, which would enlarge differences in its last bits
        grads = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in layer.named_parameters()}
        results.append({"": y, "x": x.grad, **grads})
    for name, found in results[0].items():
        torch.testing.assert_close(found, results[1][name], rtol=1e-12, atol=1e-12, msg=name)
    if is_training:
        assert results[0]["router.proj.weight"].abs().max() > 0  # the router learns from the answers


@pytest.mark.parametrize("rule", RULES)
def test_gradients_are_those_of_the_function(rule: str) -> None:
    layer = mixture(rule).eval()  # straight-through differs in training on purpose: its test is below
    assert torch.autograd.gradcheck(layer, some_x(1, 3).requires_grad_())


def test_experts_without_tokens_get_zero_gradients_and_no_work() -> None:
    layer = mixture("switch")
    with torch.no_grad():
        layer.router.proj.weight[1:] = 0
        layer.router.proj.weight[0] = 1e3
    layer(some_x().abs()).sum().backward()
    assert layer.experts[0].up_proj.weight.grad.abs().max() > 0
    for expert in layer.experts[1:]:
        assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in expert.parameters())
    calls = []
    for i, expert in enumerate(layer.experts):
        expert.register_forward_hook(lambda *_, i=i: calls.append(i))
    with torch.no_grad():
        layer(some_x().abs())
    assert calls == [0]


def scores() -> Tensor:
    return torch.randn(4, 9, E, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def test_normalised_is_a_softmax_over_the_chosen() -> None:
    best, which = scores().topk(2)
    found = TopK(2)(scores())
    assert torch.equal(found.experts, which)
    torch.testing.assert_close(found.weights, best.softmax(-1))


def test_weights_of_each_rule() -> None:
    shares = scores().softmax(-1)
    switch = Switch()(scores())
    assert torch.equal(switch.weights.squeeze(-1), shares.max(-1).values)
    assert torch.equal(TopK(3, normalise=False)(scores()).weights, shares.topk(3).values)
    assert torch.equal(Soft()(scores()).weights, shares)
    sigmoid = SigmoidTopK(E, 2, scale=2.5)(scores())
    best = scores().sigmoid().topk(2)
    assert torch.equal(sigmoid.experts, best.indices)
    torch.testing.assert_close(sigmoid.weights, 2.5 * best.values / best.values.sum(-1, keepdim=True))
    for rule in RULES.values():
        torch.testing.assert_close(rule()(scores()).shares.sum(-1), torch.ones(4, 9, dtype=torch.float64))


def test_straight_through_is_hard_forward_and_soft_backward() -> None:
    hard, soft = mixture("straight through"), mixture("soft")
    soft.load_state_dict(hard.state_dict())
    x = some_x()
    torch.testing.assert_close(hard.train()(x), hard.eval()(x), rtol=0, atol=1e-12)
    best = hard.router.logits(x).argmax(-1)
    torch.testing.assert_close(hard(x)[0, 0], hard.experts[int(best[0, 0])](x[0, 0]))
    for layer in (hard.train(), soft):
        layer(x).sum().backward()
    torch.testing.assert_close(hard.router.proj.weight.grad, soft.router.proj.weight.grad)


def test_the_bias_moves_the_choice_and_not_the_weights() -> None:
    rule = SigmoidTopK(E, 2).double()
    before = rule(scores())
    with torch.no_grad():
        rule.bias[3] = 5.0
    after = rule(scores())
    assert (after.experts[..., 0] == 3).all()
    same = (before.experts.sort(-1).values == after.experts.sort(-1).values).all(-1)
    assert same.any()
    torch.testing.assert_close(after.weights[same].sort(-1).values, before.weights[same].sort(-1).values)


def test_temperature_and_jitter() -> None:
    warm, plain = mixture("soft", temperature=2.0), mixture("soft")
    torch.testing.assert_close(2 * warm.router.logits(some_x()), plain.router.logits(some_x()))
    shaky = mixture("soft", jitter=0.1)
    assert not torch.equal(shaky.router.logits(some_x()), plain.router.logits(some_x()))
    assert torch.equal(shaky.eval().router.logits(some_x()), plain.router.logits(some_x()))
    ones = Router(1, 1, Soft(), jitter=0.1)
    nn.init.ones_(ones.proj.weight)
    drawn = ones.logits(torch.ones(1000, 1))
    assert 0.9 <= drawn.min() < 0.92
    assert 1.08 < drawn.max() <= 1.1


def test_scores_are_float32_in_a_bfloat16_model() -> None:
    layer, x = mixture("top 2").to(torch.bfloat16), some_x().bfloat16()
    exact = F.linear(x.float(), layer.router.proj.weight.float())
    assert torch.equal(layer.router.logits(x), exact)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.router.logits(x), exact)
    assert layer(x).dtype == torch.bfloat16


def test_capacity_drops_the_last_choices() -> None:
    layer = mixture("top 2", capacity=0.5).train()  # 8 tokens, 2 choices, 5 experts: at most ceil(1.6) = 2 each
    x = some_x(2, 4)
    _, routing = layer.router(x)
    taken, kept = [0] * E, torch.zeros(8, 2)
    for choice in range(2):
        for token in range(8):
            expert = int(routing.experts.view(8, 2)[token, choice])
            if taken[expert] < 2:
                taken[expert] += 1
                kept[token, choice] = 1
    assert 0 < kept.sum() < 16
    answers = torch.stack(
        [
            torch.stack([layer.experts[int(e)](t) for e in chosen])
            for t, chosen in zip(x.view(8, D), routing.experts.view(8, 2), strict=True)
        ]
    )  # (8, 2, D)
    expected = (answers * (routing.weights.view(8, 2) * kept)[..., None]).sum(1)
    torch.testing.assert_close(layer(x).view(8, D), expected)
    roomy = mixture("top 2", capacity=float(E)).train()
    torch.testing.assert_close(roomy(x), mixture("top 2")(x))
    torch.testing.assert_close(layer.eval()(x), one_by_one(layer, x))  # none is dropped when it counts


def even(n_tokens: int) -> Routing:
    """Each of two experts chosen in turn, at even shares."""
    return Routing(
        (torch.arange(n_tokens) % 2).view(1, -1, 1), torch.ones(1, n_tokens, 1), torch.full((1, n_tokens, 2), 0.5)
    )


def test_balance_loss_by_hand() -> None:
    everything = torch.ones(1, 4, dtype=torch.bool)
    assert balance_loss(even(4), everything) == 4.0  # 1 per token
    shares = torch.tensor([0.75, 0.25]).expand(1, 4, 2)
    uneven = Routing(torch.zeros(1, 4, 1, dtype=torch.int64), torch.ones(1, 4, 1), shares)
    assert balance_loss(uneven, everything) == 4 * 2 * 0.75
    half = torch.tensor([[True, False, False, False]])
    assert balance_loss(even(4), half) == 2 * 0.5  # one token, all on one expert
    assert z_loss(torch.zeros(1, 4, 2), half).item() == pytest.approx(torch.tensor(2.0).log().item() ** 2)


def test_losses_do_not_depend_on_the_split() -> None:
    layer = mixture("top 2", balance_loss=0.3, z_loss=0.2).train()
    x, counted = some_x(6), torch.rand(6, 7, generator=torch.Generator().manual_seed(3)) < 0.8
    layer(x)
    whole = layer.collect(counted)
    (at_once,) = torch.autograd.grad(whole, [layer.router.proj.weight])
    for sizes in ([3, 3], [1, 5], [1] * 6):
        total, grads = 0.0, torch.zeros_like(at_once)
        for part, some in zip(x.split(sizes), counted.split(sizes), strict=True):
            layer(part)
            loss = layer.collect(some)
            total += loss.item()
            grads += torch.autograd.grad(loss, [layer.router.proj.weight])[0]
        assert total == pytest.approx(whole.item(), rel=1e-12)
        torch.testing.assert_close(grads, at_once, rtol=1e-12, atol=1e-12)


def test_outside_training_there_are_no_losses() -> None:
    layer = mixture("top 2", balance_loss=1.0).eval()
    layer(some_x())
    assert layer.collect(torch.ones(3, 7, dtype=torch.bool)) == 0


def test_what_a_pass_left_can_be_copied_and_is_forgotten() -> None:
    layer = mixture("top 2", balance_loss=1.0).train()
    layer(some_x())
    assert copy.deepcopy(layer).last is None
    assert layer.collect(torch.ones(3, 7, dtype=torch.bool)) > 0
    assert layer.last is None


def test_the_bias_falls_for_busy_experts_by_the_learning_rate() -> None:
    layer = mixture("sigmoid").train()
    nn.init.zeros_(layer.router.rule.bias)
    x, counted = some_x(8, 20), torch.ones(8, 20, dtype=torch.bool)
    _, routing = layer.router(x)
    excess = torch.bincount(routing.experts.flatten(), minlength=E) - 8 * 20 * 2 / E
    assert excess.abs().min() > 0
    optimizer = torch.optim.AdamW([layer.router.rule.bias], lr=0.01, weight_decay=0.0)
    layer(x)
    loss = layer.collect(counted)
    assert loss == 0
    (loss / counted.sum()).backward()
    optimizer.step()
    torch.testing.assert_close(layer.router.rule.bias.detach(), -0.01 * excess.sign().double(), rtol=1e-2, atol=0)


def test_bias_balancing_evens_out_the_load() -> None:
    layer = mixture("sigmoid").train()
    nn.init.zeros_(layer.router.rule.bias)
    x, counted = some_x(8, 50) + 1, torch.ones(8, 50, dtype=torch.bool)  # what tokens share favours some
    optimizer = torch.optim.AdamW([layer.router.rule.bias], lr=0.02, weight_decay=0.0)
    busiest = []
    for _ in range(80):
        layer.load = [0] * E
        layer(x)
        optimizer.zero_grad()
        (layer.collect(counted) / counted.sum()).backward()
        optimizer.step()
        busiest.append(max(layer.load) * E / sum(layer.load))
    assert busiest[0] > 1.3
    assert busiest[-1] < 1.08


@pytest.mark.parametrize("rule", ["switch", "top 2"])
def test_the_balance_loss_evens_out_the_load(rule: str) -> None:
    """Against the same run without it."""
    busiest = {}
    for strength in (0.0, 3.0):
        layer = mixture(rule, balance_loss=strength).train()
        x, counted = some_x(8, 50) + 1, torch.ones(8, 50, dtype=torch.bool)
        optimizer = torch.optim.AdamW(layer.router.parameters(), lr=0.05, weight_decay=0.0)
        for _ in range(100):
            layer.load = [0] * E
            y = layer(x)
            optimizer.zero_grad()
            (layer.collect(counted) / counted.sum() + 0.01 * y.square().mean()).backward()
            optimizer.step()
        busiest[strength] = max(layer.load) * E / sum(layer.load)
    assert busiest[3.0] < 1.4 < 1.6 < busiest[0.0]


@pytest.mark.parametrize("rule", ["top 2", "soft", "straight through"])
@pytest.mark.parametrize("ffn", [lambda: SwiGLU(D, 8), lambda: MLP(D, 8)])
def test_upcycling_preserves_the_function(ffn: Callable[[], nn.Module], rule: str) -> None:
    dense = ffn().double()
    layer = upcycle(dense, Router(D, E, RULES[rule]())).double()
    torch.testing.assert_close(layer(some_x()), dense(some_x()), rtol=1e-12, atol=1e-12)
    layer(some_x()).sum().backward()
    assert all(p.grad is None for p in dense.parameters())  # copies, not the same weights


def a_batch() -> Batch:
    tokens = some_tokens(6, 10)
    targets = some_tokens(6, 10, seed=1)
    return Batch(tokens, targets.masked_fill(some_tokens(6, 10, seed=2) % 4 == 0, IGNORED))


def test_the_objective_does_not_depend_on_the_split() -> None:
    model = tiny_model("qwen3_moe", balance_loss=0.5, z_loss=0.1, dtype=torch.float64).train()
    objective, batch = NextToken(), a_batch()
    results = []
    for size in (6, 3, 2):
        model.zero_grad()
        parts = [Batch(*pair) for pair in zip(batch.tokens.split(size), batch.targets.split(size), strict=True)]
        n_terms, total = sum(map(objective.n_terms, parts)), 0.0
        for part in parts:
            loss = objective(model, part) / n_terms
            loss.backward()
            total += loss.item()
        results.append((total, [p.grad.clone() for p in model.parameters()]))
    for total, grads in results[1:]:
        assert total == pytest.approx(results[0][0], rel=1e-12)
        for found, expected in zip(grads, results[0][1], strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_an_evaluation_measures_the_text_alone() -> None:
    model, batch = tiny_model("mixtral", balance_loss=0.5), a_batch()
    plain = NextToken()(model.eval(), batch)
    counts = batch.targets != IGNORED
    expected = F.cross_entropy(model(batch.tokens)[counts], batch.targets[counts], reduction="sum")
    torch.testing.assert_close(plain, expected)
    model.train()(batch.tokens)
    wanted = [layer.router.loss(*layer.last, counts) for _, layer in balance.routed_layers(model)]
    assert len(wanted) == 2
    assert min(wanted) > 0.5 * int(counts.sum())
    torch.testing.assert_close(NextToken()(model, batch), plain + sum(wanted))


def test_a_dense_model_has_nothing_to_balance() -> None:
    model = tiny_model("qwen3").train()
    NextToken()(model, a_batch())
    assert routing_loss(model, torch.ones(6, 10, dtype=torch.bool)) == 0
    assert balance_figures(model) == {}


def test_a_dead_expert_is_named(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance, "IDLE_PASSES", 3)
    model = build("qwen3_moe", vocab_size=VOCAB, n_layers=2, n_experts=4, n_active=1, dense_layers=(0,)).train()
    layer = model.blocks[1].ffn
    nn.init.zeros_(layer.router.proj.weight)  # all scores alike: the same expert is taken every time
    for _ in range(2):
        NextToken()(model, a_batch())
    assert not caplog.records
    NextToken()(model, a_batch())
    assert len(caplog.records) == 3
    said = [f"blocks.1.ffn: expert {e} of 4 got no token in 3 passes" for e in range(4) if not layer.load[e]]
    assert [record.getMessage().split(";")[0] for record in caplog.records] == said
    assert balance_figures(model) == {"busiest_expert": 4.0, "idle_experts": 3}
    assert balance_figures(model) == {}  # counted anew since the last look
    NextToken()(model, a_batch())
    assert len(caplog.records) == 3  # said once


PUBLISHED = {
    "mixtral-8x7b": 46_702_792_704,
    "mixtral-8x22b": 140_620_634_112,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-235b-a22b": 235_093_634_560,
}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_published_sizes(preset: str) -> None:
    """Counted on one block, without memory: all blocks are alike."""
    name = "mixtral" if preset.startswith("mixtral") else "qwen3_moe"
    n_layers = ARCHITECTURES[name].presets[preset].n_layers
    with torch.device("meta"):
        model = build(name, preset, n_layers=1)
    n_block = sum(p.numel() for p in model.blocks[0].parameters())
    assert sum(p.numel() for p in model.parameters()) + (n_layers - 1) * n_block == PUBLISHED[preset]


def test_a_dense_model_becomes_a_mixture_that_answers_alike() -> None:
    dense = tiny_model("qwen3", tie_embeddings=False, dtype=torch.float64)
    mixed = copy.deepcopy(dense)
    for block in mixed.blocks:
        block.ffn = upcycle(block.ffn, Router(32, 4, TopK(2)))
    mixed.double()
    torch.testing.assert_close(mixed(some_tokens(2, 9)), dense(some_tokens(2, 9)), rtol=0, atol=1e-12)
    rebuilt = tiny_model("qwen3_moe", d_expert=64, dense_layers=(), dtype=torch.float64)
    rebuilt.load_state_dict(mixed.state_dict())  # it is a Qwen 3 MoE now, and can be saved as one
    assert torch.equal(rebuilt(some_tokens(2, 9)), mixed(some_tokens(2, 9)))


@pytest.mark.parametrize(
    ("name", "changes", "complaint"),
    [
        ("mixtral", {"n_active": 5, "n_experts": 4}, r"n_active: 5 of n_experts = 4 cannot be; use 1 to 4"),
        ("qwen3_moe", {"n_experts": 0}, "n_experts: expected a whole number from 1"),
        ("qwen3_moe", {"dense_layers": (4,)}, "dense_layers: blocks are 0 to 3, found 4"),
        ("mixtral", {"balance_loss": -0.1}, "balance_loss: must not be negative"),
        ("mixtral", {"jitter": 1.0}, "jitter: a share from 0 to below 1"),
        ("moe", {"capacity": 0.0}, "temperature, capacity: must be above 0, found 1.0 and 0.0"),
        ("moe", {"d_shared": -1}, "d_shared: must not be negative"),
        ("qwen3_moe", {"window": 0}, "window: expected a whole number from 1"),
    ],
)
def test_impossible_mixtures(name: str, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        build(name, **changes)


@pytest.mark.parametrize("rule", ["switch", "top_k", "soft", "straight_through", "sigmoid"])
def test_every_rule_by_its_name(rule: str, tmp_path: Path) -> None:
    """From the configuration, through a step of training, to a folder and back."""
    options = {"rule": rule, "capacity": 1.5, "temperature": 1.2, "jitter": 0.05, "z_loss": 0.01}
    model = tiny_model("moe", **options).train()
    batch, objective = a_batch(), NextToken()
    before = objective(model, batch)
    (before / objective.n_terms(batch)).backward()
    bias = [p for name, p in model.named_parameters() if name.endswith("rule.bias")]
    assert len(bias) == (rule == "sigmoid")
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    torch.optim.AdamW(model.parameters(), lr=3e-3).step()
    model.eval()
    save_hf_folder(tmp_path, "moe", tiny_config("moe", **options), model)
    arch, cfg, loaded = load_hf_folder(tmp_path)
    assert (arch, cfg) == ("moe", tiny_config("moe", **options))
    assert torch.equal(loaded.eval()(batch.tokens), model(batch.tokens))
    assert objective(model, batch) < before
