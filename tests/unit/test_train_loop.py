"""The training loop: exact accumulation, the guard against numbers that are not finite, and what happens when."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from legollm.errors import ConfigError, DivergedError
from legollm.evaluation.loss import Loss, mean_loss
from legollm.interfaces import Batch
from legollm.training.objective import IGNORED, NextToken
from legollm.training.optim import OptimConfig, build_optimizer, optimizer_tensors
from legollm.training.train import MAX_SKIPS, TrainConfig, TrainState, due, layer_norms, train

V = 7


class Toy(nn.Module):
    """A table, dropout and a layer: enough to learn and to forget."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        self.embed = nn.Embedding(V, 4, _weight=torch.randn(V, 4, generator=rng))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(4, V)
        for parameter in self.head.parameters():
            parameter.data.normal_(generator=rng)
        self.dtypes = list[torch.dtype]()

    def forward(self, tokens: Tensor, at: Tensor | None = None) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.embed(tokens)))
        self.dtypes.append(logits.dtype)
        return logits if at is None else logits[at]


class Fixed:
    """A BatchSource that hands out a list, again and again."""

    def __init__(self, batches: Sequence[Any]) -> None:
        self.batches, self.n_taken = batches, 0

    def __next__(self) -> Any:
        self.n_taken += 1
        return self.batches[(self.n_taken - 1) % len(self.batches)]

    def state_dict(self) -> dict[str, Any]:
        return {"n_taken": self.n_taken}

    def load_state_dict(self, state: Any) -> None:
        self.n_taken = state["n_taken"]


class Journal:
    """Everything the loop calls, in order."""

    def __init__(self) -> None:
        self.rows = list[tuple[int, dict[str, Any]]]()
        self.calls = list[tuple[str, int]]()

    def __call__(self, step: int, **values: float | int | str) -> None:
        self.rows.append((step, values))
        self.calls.append(("log", step))

    def evaluate(self, state: TrainState) -> None:
        self.calls.append(("evaluate", state.step))

    def save(self, state: TrainState) -> None:
        self.calls.append(("save", state.step))

    def steps(self, what: str) -> list[int]:
        return [step for name, step in self.calls if name == what]


def some_batches(n: int, rows: int = 2, seed: int = 0) -> list[Batch]:
    rng = torch.Generator().manual_seed(seed)
    ids = torch.randint(V, (n, rows, 6), generator=rng)
    return [Batch(one[:, :-1], one[:, 1:]) for one in ids]


def run(
    model: nn.Module,
    batches: Any,
    *,
    objective: Any = None,
    state: TrainState | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    lr: float = 0.05,
    stop: Callable[[], bool] = lambda: False,
    **settings: Any,
) -> tuple[TrainState, Journal, torch.optim.Optimizer]:
    journal, state = Journal(), state or TrainState()
    optimizer = optimizer or build_optimizer(model, OptimConfig(lr=lr))
    usual: dict[str, Any] = {"precision": "float32", "eval_every": 0, "save_every": 0, "log_every": 1}
    cfg = TrainConfig(**(usual | settings))
    train(
        model,
        objective or NextToken(),
        batches,
        optimizer,
        cfg,
        learning_rate=lambda step: lr,
        state=state,
        log=journal,
        evaluate=journal.evaluate,
        save=journal.save,
        stop=stop,
    )
    return state, journal, optimizer


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def same_bits(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# accumulation


def masked(batch: Batch, keep: Tensor) -> Batch:
    return Batch(batch.tokens, batch.targets.where(keep, IGNORED))


def test_k_micro_batches_equal_one_batch_whatever_is_masked() -> None:
    """Three micro-batches with 9, 1 and 0 targets: the mean of three means would be another loss."""
    parts = some_batches(3)
    keep = torch.zeros(3, 2, 5, dtype=torch.bool)
    keep[0, 0, :], keep[0, 1, :4], keep[1, 1, 2] = True, True, True
    parts = [masked(part, k) for part, k in zip(parts, keep, strict=True)]
    whole = Batch(torch.cat([p.tokens for p in parts]), torch.cat([p.targets for p in parts]))
    split, joined = Toy().double(), Toy().double()
    state_a, journal_a, _ = run(split, Fixed(parts), grad_accum=3, max_steps=5, grad_clip=0.5)
    state_b, journal_b, _ = run(joined, Fixed([whole]), grad_accum=1, max_steps=5, grad_clip=0.5)
    assert state_a.n_tokens == state_b.n_tokens == 5 * 10
    for (_, a), (_, b) in zip(journal_a.rows, journal_b.rows, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-12)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-12)
    for a, b in zip(weights(split), weights(joined), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_the_loss_is_the_mean_over_unmasked_targets() -> None:
    model = Toy().double()
    (batch,) = some_batches(1)
    batch = masked(batch, torch.tensor([[True, False, True, True, False], [False] * 5]))
    with torch.no_grad():
        probs = model(batch.tokens)[0].softmax(-1)
    expected = -sum(math.log(probs[t, batch.targets[0, t]]) for t in (0, 2, 3)) / 3
    _, journal, _ = run(model, Fixed([batch]), max_steps=1)
    assert journal.rows[0][1]["loss"] == pytest.approx(expected, rel=1e-12)
    assert journal.rows[0][1]["tokens"] == 3


def test_a_step_without_any_target_is_no_catastrophe() -> None:
    (batch,) = some_batches(1)
    nothing = masked(batch, torch.zeros(2, 5, dtype=torch.bool))
    state, journal, _ = run(model := Toy(), Fixed([nothing]), max_steps=2)
    assert [row["loss"] for _, row in journal.rows] == [0.0, 0.0]
    assert state.n_tokens == 0
    assert all(torch.isfinite(p).all() for p in model.parameters())


# clipping


@pytest.mark.parametrize("clip", [0.0, 0.1, 1e6])
def test_clipping_scales_the_gradient_to_the_limit_and_reports_what_it_was(clip: float) -> None:
    class KeepGradient(torch.optim.SGD):
        seen: list[Tensor]

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            self.seen = [p.grad.clone() for g in self.param_groups for p in g["params"]]

    model = Toy().double()
    (batch,) = some_batches(1)
    reference = torch.autograd.grad(NextToken()(model, batch) / 10, list(model.parameters()))
    norm = math.sqrt(sum(float(g.square().sum()) for g in reference))
    optimizer = KeepGradient(model.parameters(), lr=1.0)
    _, journal, _ = run(model, Fixed([batch]), max_steps=1, grad_clip=clip, optimizer=optimizer)
    assert journal.rows[0][1]["grad_norm"] == pytest.approx(norm, rel=1e-12)
    scale = min(1.0, clip / norm) if clip else 1.0
    assert 0.1 < norm < 1e6
    for found, expected in zip(optimizer.seen, reference, strict=True):
        torch.testing.assert_close(found, expected * scale, rtol=1e-5, atol=1e-9)


# the guard


class Poison:
    """NextToken that spoils the loss or one gradient in the given steps (counted from 0)."""

    def __init__(self, steps: set[int], where: str, value: float) -> None:
        self.steps, self.where, self.value, self.step = steps, where, value, -1

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        self.step += 1
        loss = NextToken()(model, batch)
        if self.step not in self.steps:
            return loss
        if self.where == "loss":
            return loss * self.value
        parameter = model.get_parameter(self.where)
        parameter.register_hook(spoil_once(self.value))
        return loss

    def n_terms(self, batch: Batch) -> int:
        return NextToken().n_terms(batch)


def spoil_once(value: float) -> Callable[[Tensor], Tensor]:
    """A hook that sets one number of the next gradient that passes."""
    left = [1]

    def hook(grad: Tensor) -> Tensor:
        if not left:
            return grad
        left.pop()
        grad = grad.clone()
        grad.view(-1)[0] = value
        return grad

    return hook


@pytest.mark.parametrize("where", ["loss", "head.bias", "embed.weight"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("k", [0, 3])
def test_a_step_that_is_not_finite_is_not_applied(where: str, value: float, k: int) -> None:
    """The step is as if it had never been: what follows equals a run that never saw its batch."""
    batches = some_batches(6)
    clean, poisoned = Toy(), Toy()
    without = [batch for i, batch in enumerate(batches) if i != k]
    _, _, clean_optimizer = run(clean, Fixed(without), max_steps=5)
    state, journal, optimizer = run(poisoned, Fixed(batches), objective=Poison({k}, where, value), max_steps=6)
    assert same_bits(weights(clean), weights(poisoned))
    a, b = optimizer_tensors(clean_optimizer), optimizer_tensors(optimizer)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    skipped = [(step, row) for step, row in journal.rows if "skipped" in row]
    assert [(step, row["skipped"]) for step, row in skipped] == [(k + 1, 1)]
    assert state.n_skips == 0


def test_weights_are_untouched_at_the_moment_of_the_skip() -> None:
    model = Toy()
    batches = Fixed(some_batches(4))
    state, _, optimizer = run(model, batches, max_steps=2)
    before, memory = weights(model), optimizer_tensors(optimizer)
    memory = {name: tensor.clone() for name, tensor in memory.items()}
    objective = Poison({0, 1}, "head.bias", math.nan)
    run(model, batches, objective=objective, state=state, optimizer=optimizer, max_steps=4)
    assert state.n_skips == 2
    assert same_bits(before, weights(model))
    assert all(torch.equal(tensor, memory[name]) for name, tensor in optimizer_tensors(optimizer).items())
    assert all(p.grad is None for p in model.parameters())  # nor does the gradient wait for the next step


def test_three_in_a_row_stop_the_run_and_name_the_layer() -> None:
    model = Toy()
    objective = Poison({2, 3, 4}, "head.bias", math.nan)
    state = TrainState()
    fresh = Toy()
    run(fresh, Fixed(some_batches(9)), max_steps=2)
    with pytest.raises(DivergedError) as caught:
        run(model, Fixed(some_batches(9)), objective=objective, state=state, max_steps=9)
    assert "gradients not finite in head.bias;" in str(caught.value)
    assert "the weights are those of the last good step" in str(caught.value)
    assert caught.value.exit_status == 4
    assert same_bits(weights(fresh), weights(model))
    details = caught.value.details
    assert details["step"] == 5
    assert details["grad_norms"]["head.bias"] == "nan"
    assert math.isfinite(float(details["grad_norms"]["head.weight"]))  # the others are as they were
    assert math.isfinite(float(details["grad_norms"]["embed.weight"]))
    assert float(details["lr"]) == 0.05
    assert details["layers"]["head"] == "nan"
    assert details["layers"]["embed"] == details["grad_norms"]["embed.weight"]
    assert details["last_losses"] == state.losses
    assert details["last_grad_norms"] == state.norms
    assert len(state.norms) == 2  # of the two good steps
    assert details["batches_of_step"] == {"n_taken": 4}  # load it into the source, and the batch of step 5 is the next
    assert state.n_skips == MAX_SKIPS == 3


def test_layers_are_blocks_and_what_stands_beside_them() -> None:
    norms = {"embed.weight": 1.0, "blocks.0.attn.q": 3.0, "blocks.0.ffn": 4.0, "blocks.1.ffn": math.nan, "norm": 2.0}
    assert str(layer_norms(norms)) == "{'embed': 1.0, 'blocks.0': 5.0, 'blocks.1': nan, 'norm': 2.0}"


def test_a_number_that_is_none_in_the_embedding_is_named_and_nothing_is_made_worse() -> None:
    model = Toy()
    state, _, optimizer = run(model, Fixed(some_batches(4)), max_steps=2)
    with torch.no_grad():
        model.embed.weight[:, 0] = math.nan
    before = weights(model)
    with pytest.raises(DivergedError, match=r"weights not finite in embed\.weight: the last checkpoint is before that"):
        run(model, Fixed(some_batches(4)), state=state, optimizer=optimizer, max_steps=9)
    assert state.step == 4
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(before, weights(model), strict=True))


# spikes


class Louder(NextToken):
    """NextToken times 1000 in some steps, counted from 0."""

    def __init__(self, steps: set[int]) -> None:
        self.steps, self.step = steps, -1

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        self.step += 1
        return super().__call__(model, batch) * (1000.0 if self.step in self.steps else 1.0)


def test_a_spike_is_left_out_if_that_is_asked_for() -> None:
    """The step is as if it had never been, but for its place in the window."""
    batches = some_batches(30)
    without = [batch for i, batch in enumerate(batches) if i != 25]
    clean, spiked = Toy(), Toy()
    run(clean, Fixed(without), max_steps=29)
    state, journal, _ = run(spiked, Fixed(batches), objective=Louder({25}), max_steps=30, spike_factor=20)
    assert same_bits(weights(clean), weights(spiked))
    assert [step for step, row in journal.rows if "spike" in row] == [26]
    assert state.n_skips == 0
    assert len(state.norms) == 30


def test_spikes_are_taken_by_default_and_mentioned_once(caplog: pytest.LogCaptureFixture) -> None:
    _, journal, _ = run(Toy(), Fixed(some_batches(30)), objective=Louder({25, 26}), max_steps=30)
    assert not any("spike" in row for _, row in journal.rows)
    (line,) = [record.getMessage() for record in caplog.records if "gradient's norm" in record.getMessage()]
    assert line.startswith("step 26: the gradient's norm is ")
    assert "lower optim.lr or give train.spike_factor=10" in line


def test_what_stays_large_becomes_usual() -> None:
    """Otherwise a run whose gradients have grown for good would never make another step."""
    loud = Louder(set(range(30, 300)))
    _, journal, _ = run(Toy(), Fixed(some_batches(9)), objective=loud, max_steps=160, spike_factor=20, lr=1e-4)
    skipped = [step for step, row in journal.rows if "spike" in row]
    assert skipped == list(range(31, 61))  # as many as were usual before


def test_a_finite_step_resets_the_count() -> None:
    objective = Poison({0, 1, 3, 4, 6, 7}, "loss", math.nan)
    state, journal, _ = run(Toy(), Fixed(some_batches(4)), objective=objective, max_steps=9)
    assert state.step == 9
    assert [row["skipped"] for _, row in journal.rows if "skipped" in row] == [1, 2] * 3


def test_the_count_survives_a_restart() -> None:
    state = TrainState.from_dict(TrainState(step=5, n_skips=2).as_dict())
    with pytest.raises(DivergedError, match="step 6"):
        run(Toy(), Fixed(some_batches(1)), objective=Poison({0}, "loss", math.nan), state=state, max_steps=9)


def test_spoiled_weights_are_not_called_good() -> None:
    """An optimizer whose memory was damaged writes NaN; the loop cannot undo that, but it says so and stops."""
    model = Toy()
    state, _, optimizer = run(model, Fixed(some_batches(4)), max_steps=2)
    optimizer.state[model.head.bias]["mean"][0] = math.nan
    with pytest.raises(DivergedError, match=r"weights not finite in head\.bias: the last checkpoint is before that"):
        run(model, Fixed(some_batches(4)), state=state, optimizer=optimizer, max_steps=9)
    assert state.step == 5  # one step spoils the weights, the second and third are skipped, the next one stops


# what happens when


def test_logs_evaluates_and_saves_at_the_right_steps() -> None:
    state, journal, _ = run(Toy(), Fixed(some_batches(3)), max_steps=11, log_every=4, eval_every=3, save_every=5)
    assert journal.steps("log") == [4, 8, 11]
    assert journal.steps("evaluate") == [3, 6, 9, 11]
    assert journal.steps("save") == [5, 10, 11]
    assert journal.calls[-3:] == [("log", 11), ("evaluate", 11), ("save", 11)]  # so that a save holds the best step
    assert state.step == 11


def test_never_means_once_at_the_end() -> None:
    _, journal, _ = run(Toy(), Fixed(some_batches(3)), max_steps=5, log_every=100)
    assert journal.calls == [("log", 5), ("evaluate", 5), ("save", 5)]


def test_due() -> None:
    assert [step for step in range(1, 13) if due(step, 4)] == [4, 8, 12]
    assert not any(due(step, 0) for step in range(9))


def test_stop_ends_after_the_step_that_was_running() -> None:
    state = TrainState()
    _, journal, _ = run(Toy(), Fixed(some_batches(3)), state=state, max_steps=11, stop=lambda: state.step == 4)
    assert state.step == 4
    assert journal.steps("save") == []  # whoever asked to stop decides


def test_targets_are_counted_and_the_rate_of_each_step_is_used() -> None:
    model, journal = Toy(), Journal()
    optimizer = build_optimizer(model, OptimConfig())
    state = TrainState()
    cfg = TrainConfig(max_steps=4, log_every=1, eval_every=0, precision="float32", grad_accum=2)
    rates = [0.4, 0.3, 0.2, 0.1]
    batches = Fixed(some_batches(3))
    train(
        model,
        NextToken(),
        batches,
        optimizer,
        cfg,
        learning_rate=rates.__getitem__,
        state=state,
        log=journal,
        evaluate=journal.evaluate,
        save=journal.save,
    )
    assert [row["lr"] for _, row in journal.rows] == rates
    assert [row["tokens"] for _, row in journal.rows] == [20, 40, 60, 80]
    assert all(float(row["tokens_per_s"]) > 0 for _, row in journal.rows)
    assert batches.n_taken == 8
    assert {group["lr"] for group in optimizer.param_groups} == {0.1}


def test_evaluation_sees_no_dropout_and_training_does() -> None:
    model = Toy(dropout=0.5)
    modes = list[bool]()
    cfg = TrainConfig(max_steps=3, eval_every=1, save_every=0, precision="float32")
    held_out = some_batches(2, seed=9)
    losses = list[Loss]()

    def evaluate(state: TrainState) -> None:
        modes.append(model.training)
        losses.extend(mean_loss(model, NextToken(), held_out) for _ in range(2))

    class Watched(Fixed):
        def __next__(self) -> Any:
            modes.append(model.training)
            return super().__next__()

    optimizer = build_optimizer(model, OptimConfig())
    train(
        model,
        NextToken(),
        Watched(some_batches(3)),
        optimizer,
        cfg,
        learning_rate=lambda step: 0.01,
        state=TrainState(),
        log=Journal(),
        evaluate=evaluate,
        save=lambda state: None,
    )
    assert modes == [True, False] * 3
    assert losses[0::2] == losses[1::2]  # nothing is random


# precision


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_precision_is_that_of_products_not_of_weights(precision: str, dtype: torch.dtype) -> None:
    model = Toy()
    _, journal, optimizer = run(model, Fixed(some_batches(3)), max_steps=3, precision=precision)
    assert set(model.dtypes) == {dtype}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {t.dtype for t in optimizer_tensors(optimizer).values() if t.ndim} == {torch.float32}
    assert journal.rows[-1][1]["loss"] < journal.rows[0][1]["loss"] + 1


def test_auto_is_decided_by_the_loop_not_taken_for_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("legollm.training.train.pick_precision", lambda wish, device: "bfloat16")
    run(model := Toy(), Fixed(some_batches(1)), max_steps=1, precision="auto")
    assert model.dtypes == [torch.bfloat16]


def test_a_loss_in_bfloat16_is_summed_in_float32() -> None:
    logits = torch.zeros(1, 300, V, dtype=torch.bfloat16)
    batch = Batch(torch.zeros(1, 300, dtype=torch.int64), torch.zeros(1, 300, dtype=torch.int64))

    class Flat(nn.Module):
        def forward(self, tokens: Tensor, at: Tensor | None = None) -> Tensor:
            return logits if at is None else logits[at]

    assert float(NextToken()(Flat(), batch)) == pytest.approx(300 * math.log(V), rel=1e-5)


# settings and state


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_steps", 0),
        ("batch_size", 0),
        ("grad_accum", 0),
        ("log_every", 0),
        ("eval_batches", 0),
        ("eval_every", -1),
        ("save_every", -1),
        ("grad_clip", -0.5),
        ("seq_len", 0),
        ("keep", 1),
    ],
)
def test_impossible_settings_are_named_with_what_was_found(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}: .*found {value}$"):
        TrainConfig(**{name: value})  # type: ignore[arg-type]


def test_state_survives_json() -> None:
    state = TrainState(step=3, n_tokens=9, n_skips=1, seconds=0.1 + 0.2, best_loss=1 / 3, best_step=2)
    assert TrainState.from_dict(state.as_dict()) == state
