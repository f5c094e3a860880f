"""Rollouts: what was drawn has the probability it is said to have, and every algorithm learns to pick the best arm."""

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from legollm.alignment.advantages import RunningBaseline
from legollm.alignment.kinds import KINDS, advantage_of
from legollm.alignment.plan import Plan, SamplerConfig
from legollm.alignment.policy import Meter, ObjectiveConfig, Penalty, PolicyBatch, PolicyGradient
from legollm.alignment.rollouts import Rollouts
from legollm.architectures import build
from legollm.components.decoder import Decoder
from legollm.errors import ConfigError, DataError
from legollm.tokenizers.char import CharTokenizer
from legollm.training.objective import IGNORED
from legollm.training.optim import OptimConfig, build_optimizer

LETTERS = CharTokenizer()
LETTERS.train("abcdefgh\n")
WORTH = {"b": 0.3, "d": 1.0, "g": 0.6}


def letter(number: int, text: str) -> float:
    """The bandit: each arm is a letter."""
    return WORTH.get(text, 0.0)


def frozen(model: nn.Module) -> Callable[[], Any]:
    start = copy.deepcopy(model).requires_grad_(False)

    @contextmanager
    def as_it_was() -> Iterator[nn.Module]:
        yield start

    return as_it_was


def plan_of(**changes: Any) -> Plan:
    usual = {"n_prompts": 4, "group_size": 8, "epochs": 1, "batch_size": 32, "grad_accum": 1}
    return Plan(**({"advantage": KINDS["grpo"].advantage} | usual | changes))


def rollouts(
    model: nn.Module,
    judge: Callable[[int, str], float] = letter,
    *,
    prompts: Sequence[str] = ("a", "b", "c"),
    plan: Plan | None = None,
    max_new_tokens: int = 1,
    temperature: float = 1.0,
    seed: int = 0,
    reference: nn.Module | None = None,
    **more: Any,
) -> Rollouts:
    return Rollouts(
        model,
        frozen(reference or model),
        LETTERS,
        [LETTERS.encode(prompt) for prompt in prompts],
        judge,
        plan=plan or plan_of(),
        sampler=SamplerConfig(temperature=temperature, max_new_tokens=max_new_tokens, stop=("\n",)),
        seed=seed,
        **({"meter": Meter(), "penalty": Penalty(0.0)} | more),
    )


def language_model(**sizes: Any) -> Decoder:
    usual = {"vocab_size": 11, "max_seq_len": 16, "n_layers": 2, "n_heads": 2, "d_model": 16, "d_ff": 32, "seed": 3}
    model = build("llama3", **(usual | sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    return model


def bandit(name: str, n_steps: int) -> tuple[float, Meter]:
    """Train a table of logits; returns the probability of the best letter, and the figures."""
    model = build("bigram", vocab_size=LETTERS.vocab_size, seed=0)
    meter, penalty, baseline = Meter(), Penalty(0.0), RunningBaseline()
    head = None
    more: dict[str, Any] = {}
    if name == "ppo":
        head = nn.Linear(LETTERS.vocab_size, 1)
        more, plan = {"value_head": head, "value_weight": 0.1, "average": "token"}, plan_of(advantage=None)
    else:
        kind = KINDS[name]
        plan = plan_of(
            advantage=advantage_of(kind, baseline), kl_in_reward=not kind.kl_in_loss, extra_rounds=kind.extra_rounds
        )
        more = {"average": kind.average, "by_answer": kind.by_answer}
    objective = PolicyGradient(ObjectiveConfig(), meter=meter, penalty=penalty, n_ids=LETTERS.vocab_size, **more)
    batches = rollouts(model, plan=plan, meter=meter, penalty=penalty, value_head=head, baseline=baseline)
    optimizer = build_optimizer(model, OptimConfig(weight_decay=0.0), head)
    for group in optimizer.param_groups:
        group["lr"] = 0.5
    for _ in range(n_steps):
        batch = next(batches)
        (objective(model, batch) / objective.n_terms(batch)).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        chances = model(torch.tensor([LETTERS.encode("abc")])).softmax(-1)[0]
    return float(chances[:, LETTERS.encode("d")[0]].min()), meter


@pytest.mark.parametrize("name", [*KINDS, "ppo"])
def test_every_algorithm_finds_the_best_arm(name: str) -> None:
    chance, meter = bandit(name, n_steps=25)
    assert chance > 0.95
    assert meter.latest["reward"] > 0.9
    assert meter.latest["logprob_gap"] < 1e-4


def sampled_log_probs(model: Decoder, batch: PolicyBatch, temperature: float) -> Tensor:
    """An independent reading: the whole row at once, no cache, without padding."""
    found = torch.zeros_like(batch.log_probs)
    for row in range(len(batch.tokens)):
        logits = model(batch.tokens[row : row + 1])[0, :, : LETTERS.vocab_size] / temperature
        at = batch.targets[row] != IGNORED
        found[row, at] = logits.log_softmax(-1)[at].gather(1, batch.targets[row, at, None]).squeeze(1)
    return found


@pytest.mark.parametrize(("first", "temperature"), [("a", 1.0), ("a", 0.6), ("ab", 1.0)])
def test_sampler_and_trainer_agree_on_the_probabilities(first: str, temperature: float) -> None:
    """The model has two more ids than the tokenizer, which are never drawn; prompts and answers are of any length."""
    model = language_model().eval()
    batches = rollouts(
        model, prompts=(first, "bcd", "efghabc"), max_new_tokens=6, temperature=temperature, plan=plan_of(batch_size=16)
    )
    with torch.no_grad():
        for _ in range(2):
            batch = next(batches)
            wanted = sampled_log_probs(model, batch, temperature)
            assert len(set((batch.targets != IGNORED).sum(1).tolist())) > 1
            torch.testing.assert_close(batch.log_probs, wanted, atol=1e-4, rtol=0)
            torch.testing.assert_close(batch.reference, wanted, atol=1e-4, rtol=0)  # nothing was learned yet


def test_every_answer_is_served_once_per_epoch() -> None:
    plan = plan_of(batch_size=8, epochs=3, grad_accum=2)
    batches = rollouts(language_model(), plan=plan, max_new_tokens=4)
    served = [next(batches) for _ in range(plan.n_batches)]
    rows = [
        sorted(tuple(b.log_probs[i, b.targets[i] != IGNORED].tolist()) for b in part for i in range(8))
        for part in (served[:4], served[4:8], served[8:])
    ]
    assert rows[0] == rows[1] == rows[2]
    assert (
        [int(batch.serial[0]) for batch in served]
        == [int(b.age[0]) for b in served]
        == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    )
    assert int(next(batches).serial[0]) == 6


@pytest.mark.parametrize("n_before", [1, 3, 4])
def test_a_place_in_the_rollouts_survives_json(n_before: int) -> None:
    """At any place, also in the middle of a rollout, when the weights that gave the answers are gone."""
    plan = plan_of(batch_size=8)
    model = language_model()
    reference = copy.deepcopy(model)
    first = rollouts(model, plan=plan, max_new_tokens=4, penalty=Penalty(0.1, target=1.0), reference=reference)
    for _ in range(n_before):
        next(first)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 1.1
    second = rollouts(model, plan=plan, max_new_tokens=4, penalty=Penalty(0.1, target=1.0), reference=reference)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for _ in range(6):
        for a, b in zip(next(first), next(second), strict=True):
            assert torch.equal(a, b)
    assert first.state_dict() == second.state_dict()


def test_another_run_is_refused() -> None:
    state = rollouts(language_model()).state_dict()
    with pytest.raises(DataError, match="n_rows = 32, this run 16"):
        rollouts(language_model(), plan=plan_of(group_size=4, batch_size=16)).load_state_dict(state)


def test_prompts_come_once_in_each_epoch() -> None:
    batches = rollouts(language_model(), prompts="abcdefgh", plan=plan_of(n_prompts=4))
    drawn = [int(batch.tokens[i, 0]) for batch in (next(batches), next(batches)) for i in range(32)]
    assert {first: drawn.count(first) for first in set(drawn)} == dict.fromkeys(LETTERS.encode("abcdefgh"), 8)


def test_dead_groups_give_no_gradient_and_dapo_looks_for_others() -> None:
    model = language_model()

    def judge(number: int, text: str) -> float:
        return float(text < "d") if number == 2 else 1.0

    dead = rollouts(model, judge, prompts="ab")
    objective = PolicyGradient(
        ObjectiveConfig(), average="answer", meter=dead.meter, penalty=dead.penalty, n_ids=LETTERS.vocab_size
    )
    objective(model, next(dead)).backward()
    assert all((p.grad == 0).all() for p in model.parameters() if p.grad is not None)
    assert dead.meter.latest["dead_groups"] == 1.0
    wanted = rollouts(model, judge, prompts="abc", plan=plan_of(n_prompts=1, batch_size=8, extra_rounds=5))
    for _ in range(4):
        batch = next(wanted)
        assert (batch.tokens[:, 0] == LETTERS.encode("c")[0]).all()
        assert len(set(batch.advantages.sum(1).tolist())) > 1


def test_answers_that_come_near_the_limit() -> None:
    """max_new_tokens = 4, the last 2 of them cost 1 in all; those that were cut off may teach nothing."""
    model = language_model()
    batches = rollouts(
        model,
        lambda number, text: 5.0,
        max_new_tokens=4,
        plan=plan_of(overlong_buffer=2, mask_overlong=True, advantage=lambda rewards: rewards),
    )
    batch = next(batches)
    lengths = (batch.log_probs != 0).sum(1)
    assert set(lengths.tolist()) >= {1, 3, 4}
    for row, n in enumerate(lengths.tolist()):
        assert float(batch.advantages[row].max()) == {1: 5.0, 2: 5.0, 3: 4.5, 4: 4.0}[n]
        is_cut = n == 4 and batch.targets[row, -1] != LETTERS.encode("\n")[0]
        assert (batch.targets[row] == IGNORED).all() == is_cut or n == 4
    assert 0 < batches.meter.latest["cut_off"] < 1


def test_divergence_in_the_reward() -> None:
    model = language_model()
    batches = rollouts(
        model,
        lambda number, text: 2.0,
        max_new_tokens=4,
        penalty=Penalty(0.5),
        plan=plan_of(kl_in_reward=True, advantage=lambda rewards: rewards),
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 1.2
    batch = next(batches)
    costs = 0.5 * (batch.log_probs - batch.reference).sum(1)
    torch.testing.assert_close(batch.advantages.amax(1), 2.0 - costs)
    assert costs.abs().max() > 0.01


def test_adaptive_beta_keeps_the_divergence_in_its_band() -> None:
    """A reward that pulls to one letter without end; beta starts too small."""
    model = build("bigram", vocab_size=LETTERS.vocab_size, seed=0)
    meter, penalty = Meter(), Penalty(0.2, target=0.5)
    objective = PolicyGradient(
        ObjectiveConfig(), average="answer", meter=meter, penalty=penalty, n_ids=LETTERS.vocab_size
    )
    batches = rollouts(model, plan=plan_of(advantage=KINDS["dr_grpo"].advantage), meter=meter, penalty=penalty)
    optimizer = build_optimizer(model, OptimConfig(weight_decay=0.0))
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    seen = []
    for _ in range(120):
        batch = next(batches)
        (objective(model, batch) / objective.n_terms(batch)).backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(meter.latest["kl"])
    assert max(seen[:60]) > 0.6  # it did overshoot
    assert 0.35 < sum(seen[-30:]) / 30 < 0.65
    assert penalty.beta > 0.25


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="do not divide the 32 of a rollout"):
        plan_of(batch_size=12)
    with pytest.raises(ConfigError, match="temperature"):
        SamplerConfig(temperature=0.0)
