"""A source of batches that makes them: prompts are answered, the answers judged, and what was learned is served.

One rollout is n_prompts prompts with group_size answers each, by the model as it is now. Its answers are served in
batches, `epochs` times over; then comes the next one. All that is random has a seed of its own per rollout and prompt,
and the answers that are still to be served are part of the saved state: a continued run is the same to the last bit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from legollm.alignment.advantages import generalised, is_dead, whitened
from legollm.alignment.plan import Plan, SamplerConfig
from legollm.alignment.policy import Meter, Penalty, PolicyBatch, divergence, hidden_of, token_log_probs
from legollm.alignment.samples import Sample, draw_samples
from legollm.device import generator, seed_of
from legollm.errors import DataError
from legollm.generation.complete import Decoding
from legollm.generation.sampling import Sampling
from legollm.interfaces import Tokenizer
from legollm.training.objective import IGNORED

N_MEASURED = 64
"""Answers whose divergence is measured where it costs nothing."""


class Answer(NamedTuple):
    """What is served of one sampled answer, as JSON-ready values."""

    prompt: Sequence[int]
    ids: Sequence[int]
    log_probs: Sequence[float]
    reference: Sequence[float]
    advantages: Sequence[float]
    values: Sequence[float]
    returns: Sequence[float]
    counts: bool
    """Whether it teaches at all."""


class Group(NamedTuple):
    """The answers to one prompt and their rewards."""

    prompt: Sequence[int]
    samples: list[Sample]
    rewards: list[float]


class Rollouts:
    """A BatchSource of PolicyBatch.

    model: the one that is trained, which also answers. reference: the model at the start, within a block. prompts: as
    ids. judge: the number of a prompt and the answer's text -> its reward. baseline: what `plan.advantage` remembers,
    if it remembers anything.
    """

    def __init__(
        self,
        model: nn.Module,
        reference: Callable[[], AbstractContextManager[nn.Module]],
        tokenizer: Tokenizer,
        prompts: Sequence[Sequence[int]],
        judge: Callable[[int, str], float],
        *,
        plan: Plan,
        sampler: SamplerConfig,
        seed: int,
        meter: Meter,
        penalty: Penalty,
        stop_ids: Sequence[int] = (),
        value_head: nn.Module | None = None,
        baseline: Any = None,
    ) -> None:
        if not prompts:
            raise DataError("no prompts to learn from")
        self.model, self.reference, self.tokenizer = model, reference, tokenizer
        self.prompts, self.judge, self.plan, self.sampler, self.seed = prompts, judge, plan, sampler, seed
        self.meter, self.penalty, self.stop_ids = meter, penalty, tuple(stop_ids)
        self.value_head, self.baseline = value_head, baseline
        self.n_rollouts = self.n_drawn = 0  # rollouts made and prompts taken so far
        self.n_served = 0  # micro-batches of the present rollout
        self.answers: list[Answer] = []
        self.epoch, self.order = -1, list[int]()

    def __next__(self) -> PolicyBatch:
        self.model.eval()  # dropout would make the model that learns another one than the one that answered
        if not self.answers:
            self.answers = self.rollout()
            self.n_rollouts, self.n_served = self.n_rollouts + 1, 0
        size, plan = self.plan.batch_size, self.plan
        epoch, place = divmod(self.n_served, plan.n_rows // size)
        rng = generator(self.seed, f"order/{self.n_rollouts}/{epoch}")
        order = torch.randperm(plan.n_rows, generator=rng)[place * size : (place + 1) * size].tolist()
        age = self.n_served // plan.grad_accum
        serial = (self.n_rollouts - 1) * (plan.n_batches // plan.grad_accum) + age
        batch = collated([self.answers[i] for i in order], serial, age)
        self.n_served += 1
        if self.n_served == plan.n_batches:
            self.answers = []
        return batch

    def rollout(self) -> list[Answer]:
        """The answers to the next prompts, judged."""
        drawn = [group for groups in self.rounds() for group in groups]
        plan = self.plan
        live = [group for group in drawn if len(set(group.rewards)) > 1]
        chosen = drawn
        if plan.extra_rounds:  # dead groups only fill up
            chosen = (live + [group for group in drawn if len(set(group.rewards)) == 1])[: plan.n_prompts]
        rewards = torch.tensor([group.rewards for group in chosen])  # (P, G)
        prompts = [group.prompt for group in chosen for _ in group.samples]
        samples = [sample for group in chosen for sample in group.samples]
        n_read = len(samples) if self.penalty.beta else min(N_MEASURED, len(samples))
        reference = self.reference_log_probs(prompts[:n_read], samples[:n_read])
        per_answer = [answer_kl(sample.log_probs, row) for sample, row in zip(samples, reference, strict=False)]
        reference += [sample.log_probs for sample in samples[n_read:]]  # which nobody looks at
        self.measure(drawn, sum(per_answer) / len(per_answer))
        answers = self.judged(prompts, samples, reference, rewards)
        self.penalty.update(self.meter.latest["kl"])
        return answers

    def rounds(self) -> Iterator[list[Group]]:
        """Groups of answers; more of them while too few can teach anything."""
        n_live = 0
        for turn in range(1 + self.plan.extra_rounds):
            numbers = [self.number_of(self.n_drawn + i) for i in range(self.plan.n_prompts)]
            self.n_drawn += self.plan.n_prompts
            groups = self.answered(numbers, seed_of(self.seed, f"rollout/{self.n_rollouts}/{turn}"))
            yield groups
            n_live += sum(len(set(group.rewards)) > 1 for group in groups)
            if n_live >= self.plan.n_prompts:
                return

    def number_of(self, place: int) -> int:
        """The prompt at this place of the endless order: shuffled epochs, each prompt once in each."""
        epoch, place = divmod(place, len(self.prompts))
        if epoch != self.epoch:
            rng = generator(self.seed, f"prompts/{epoch}")
            self.epoch, self.order = epoch, torch.randperm(len(self.prompts), generator=rng).tolist()
        return self.order[place]

    def answered(self, numbers: Sequence[int], seed: int) -> list[Group]:
        """The group of each of these prompts."""
        size, sampler = self.plan.group_size, self.sampler
        samples = draw_samples(
            self.model,  # type: ignore[arg-type]
            self.tokenizer,
            [self.prompts[i] for i in numbers for _ in range(size)],
            Sampling(
                temperature=sampler.temperature,
                max_new_tokens=sampler.max_new_tokens,
                stop=sampler.stop or (),
                seed=seed,
            ),
            stop_ids=self.stop_ids,
            decoding=Decoding(batch_size=max(1, len(numbers) * size), on_overflow="error"),
            value_head=self.value_head,
        )
        groups = []
        for place, number in enumerate(numbers):
            own = samples[place * size : (place + 1) * size]
            groups.append(Group(self.prompts[number], own, [self.reward(number, sample) for sample in own]))
        return groups

    def reward(self, number: int, sample: Sample) -> float:
        """What the judge says, less what an answer costs that comes near the limit."""
        limit, buffer = self.sampler.max_new_tokens, self.plan.overlong_buffer
        beyond = len(sample.ids) - (limit - buffer)
        late = beyond / buffer if buffer and beyond > 0 else 0.0
        return self.judge(number, sample.text) - late

    @torch.no_grad()
    def reference_log_probs(self, prompts: Sequence[Sequence[int]], samples: Sequence[Sample]) -> list[list[float]]:
        """Of every sampled token, under the reference model."""
        n_ids, size = self.tokenizer.vocab_size, self.plan.batch_size
        found: list[list[float]] = []
        with self.reference() as model:
            device = next(model.parameters()).device
            for first in range(0, len(samples), size):
                part = samples[first : first + size]
                tokens, targets = placed(prompts[first : first + size], [sample.ids for sample in part])
                tokens, targets = tokens.to(device), targets.to(device)
                at = targets != IGNORED
                states = hidden_of(model)(tokens)[at]
                log_probs, _ = token_log_probs(model, states, targets[at], n_ids, self.sampler.temperature)
                numbers = iter(log_probs.tolist())
                found += [[next(numbers) for _ in sample.ids] for sample in part]
        return found

    def judged(
        self,
        prompts: Sequence[Sequence[int]],
        samples: Sequence[Sample],
        reference: Sequence[Sequence[float]],
        rewards: Tensor,
    ) -> list[Answer]:
        """What each answer teaches. rewards: (P, G)."""
        plan, beta = self.plan, self.penalty.beta
        log_probs, others = (filled(rows) for rows in ([sample.log_probs for sample in samples], reference))  # (B, L)
        mask = filled([[1.0] * len(sample.ids) for sample in samples]) > 0
        costs = beta * (log_probs - others) * mask if plan.kl_in_reward else torch.zeros_like(log_probs)
        values = filled([sample.values or [0.0] * len(sample.ids) for sample in samples])
        returns = torch.zeros_like(values)
        if plan.advantage is None:
            earned = -costs
            last = mask.sum(1, keepdim=True) - 1
            earned = earned.scatter_add(1, last, rewards.reshape(-1, 1))  # the answer is judged at its end
            advantages, returns = generalised(earned, values, mask, gamma=plan.gamma, lam=plan.lam)
            advantages = whitened(advantages, mask)
        else:
            advantages = plan.advantage(rewards - costs.sum(1).view_as(rewards)).reshape(-1, 1).expand_as(mask) * mask
        answers = []
        for i, (prompt, sample) in enumerate(zip(prompts, samples, strict=True)):
            n = len(sample.ids)
            gain, value, worth = (row[i, :n].tolist() for row in (advantages, values, returns))
            counts = not (plan.mask_overlong and sample.finish_reason != "stop")
            answers.append(Answer(prompt, sample.ids, sample.log_probs, reference[i], gain, value, worth, counts))
        return answers

    def measure(self, groups: Sequence[Group], kl: float) -> None:
        samples = [sample for group in groups for sample in group.samples]
        rewards = torch.tensor([group.rewards for group in groups])
        self.meter.latest |= {
            "reward": float(rewards.mean()),
            "kl": kl,
            "dead_groups": float(is_dead(rewards).float().mean()) if rewards.size(1) > 1 else 0.0,
            "answer_tokens": sum(len(sample.ids) for sample in samples) / len(samples),
            "cut_off": sum(sample.finish_reason != "stop" for sample in samples) / len(samples),
        }
        if self.penalty.target is not None:
            self.meter.latest["beta"] = self.penalty.beta

    def state_dict(self) -> dict[str, Any]:
        """With the answers that are still to be served: the weights that gave them are gone after the first step."""
        return {
            "n_rollouts": self.n_rollouts,
            "n_drawn": self.n_drawn,
            "n_served": self.n_served,
            "answers": list(self.answers),
            "figures": dict(self.meter.latest),
            "beta": self.penalty.beta,
            "baseline": None if self.baseline is None else self.baseline.value,
            **self.identity(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """
        Raises:
            DataError: the state is about other prompts, or another size of rollouts.
        """
        for key, mine in self.identity().items():
            if state[key] != mine:
                raise DataError(f"the saved rollout has {key} = {state[key]}, this run {mine}; set it back")
        self.n_rollouts, self.n_drawn, self.n_served = (int(state[k]) for k in ("n_rollouts", "n_drawn", "n_served"))
        self.answers = [Answer(*row) for row in state["answers"]]
        self.meter.latest = dict(state["figures"])
        self.penalty.beta = float(state["beta"])
        if self.baseline is not None:
            self.baseline.value = state["baseline"]

    def identity(self) -> dict[str, int]:
        plan = self.plan
        sizes = {"n_rows": plan.n_rows, "batch_size": plan.batch_size, "grad_accum": plan.grad_accum}
        return {"seed": self.seed, "n_tasks": len(self.prompts), "epochs": plan.epochs, **sizes}


def answer_kl(log_probs: Sequence[float], reference: Sequence[float]) -> float:
    """The divergence of the model from its reference over one answer, in nats."""
    return float(divergence(torch.tensor(log_probs), torch.tensor(reference), "k3").sum())


def filled(rows: Sequence[Sequence[float]]) -> Tensor:
    """Rows of unequal length as one tensor (B, L), 0 behind their ends."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in rows])


def placed(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Prompts with their answers as tokens (B, T), and as targets (B, T) the answers, IGNORED elsewhere."""
    width = max(len(prompt) + len(ids) for prompt, ids in zip(prompts, answers, strict=True)) - 1
    tokens = torch.zeros(len(prompts), width, dtype=torch.int64)
    targets = torch.full_like(tokens, IGNORED)
    for row, (prompt, ids) in enumerate(zip(prompts, answers, strict=True)):
        known = [*prompt, *ids[:-1]]
        tokens[row, : len(known)] = torch.tensor(known)
        targets[row, len(prompt) - 1 : len(known)] = torch.tensor(ids)
    return tokens, targets


def collated(answers: Sequence[Answer], serial: int, age: int) -> PolicyBatch:
    """Answers as one batch."""
    tokens, targets = placed([one.prompt for one in answers], [one.ids for one in answers])
    at = targets != IGNORED

    def spread(rows: Sequence[Sequence[float]]) -> Tensor:
        return torch.zeros(targets.shape).masked_scatter(at, torch.tensor([x for row in rows for x in row]))

    numbers = zip(*((a.log_probs, a.reference, a.advantages, a.values, a.returns) for a in answers), strict=True)
    log_probs, reference, advantages, values, returns = map(spread, numbers)
    counts = torch.tensor([one.counts for one in answers])
    n = len(answers)
    return PolicyBatch(
        tokens,
        targets.masked_fill(~counts[:, None], IGNORED),
        log_probs,
        reference,
        advantages,
        values,
        returns,
        torch.full((n,), serial),
        torch.full((n,), age),
    )
