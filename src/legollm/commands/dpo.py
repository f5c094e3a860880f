"""`legollm dpo`: a model and answers that were compared, or judged -> a model that prefers the better ones. The same
loop, other batches."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from legollm.alignment.drift import Drift, drift_of
from legollm.alignment.pairs import Pair, by_length, encode_pair, judged_batch, pair_batch, with_strangers
from legollm.alignment.preferences import JudgedLoss, PreferenceConfig, PreferenceLoss
from legollm.alignment.reference import Known, log_probs_of, reference_of, with_reference
from legollm.checkpoints.adapter import fingerprint
from legollm.checkpoints.loading import load
from legollm.checkpoints.manifest import steps
from legollm.commands.fit import Job, fit, team_of
from legollm.commands.preference_data import PairConfig, judgements_of, preferences_of
from legollm.commands.run_folder import Resume, open_run
from legollm.commands.start_from import Start, prepare
from legollm.config import Resolved
from legollm.data.chat import end_of_turn
from legollm.data.pairs import ShuffledBatches, in_order
from legollm.data.templates import template_for
from legollm.device import Precision, pick_device, pick_precision
from legollm.evaluation.intervals import auc
from legollm.team import ALONE, Team
from legollm.training.optim import OptimConfig
from legollm.training.train import TrainConfig, TrainState
from legollm.transforms.lora import LoraConfig

ANSWER_TOKENS = 64
"""Of an answer that the model writes itself, at most, and at most half of what it can read at once; prompts that leave
less room are not asked."""


@dataclass(frozen=True, kw_only=True)
class DpoRun:
    """A whole run over pairs of answers."""

    model: Path = Path("runs/sft/checkpoint")
    """The model to start from, best one that was fine-tuned: a checkpoint or run folder, or a Hugging Face folder."""
    run: Path = Path("runs/dpo")
    """The run's folder."""
    seed: int = 1337
    """Decides the order of the pairs and dropout."""
    resume: Resume = "auto"
    """auto continues where the run stopped, never refuses a folder that holds a run, a number continues that step."""
    data: PairConfig = field(default_factory=PairConfig)
    dpo: PreferenceConfig = field(default_factory=PreferenceConfig)
    n_answers: int = 32
    """Answers the model writes at the end, to measure how far it went from where it began; 0 is none."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    freeze: tuple[str, ...] = ()
    """Parts of the model that stand still, such as embed,blocks.0; or all_but_last_2 for all blocks but two."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=5e-5, warmup_steps=10, weight_decay=0.0))
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(max_steps=200, batch_size=8, eval_every=50, save_every=50)
    )


def dpo(run: Resolved[DpoRun]) -> None:
    """Make the preferred of two answers likelier than the other: DPO, IPO, KTO, ORPO or SimPO, without a reward model.

    KTO learns from single answers, too, that were judged good or bad: rows with `prompt`, `completion` and `label`.

    legollm dpo model=runs/sft data.source=pairs.jsonl run=runs/dpo
    legollm dpo model=runs/sft data.source=judged.jsonl dpo.loss=kto run=runs/kto
    """
    cfg = run.value
    with team_of(cfg) as team:
        state, val, precision = prefer(cfg, team)
        if team.leads:
            report(cfg, state, val, precision)


def report(cfg: DpoRun, state: TrainState, val: Sequence[Pair], precision: Precision) -> None:
    """What the run came to, on the screen."""
    is_judged = val[0].is_good is not None
    kind = "judged answers" if is_judged else "pairs"
    print(f"{cfg.run}: {state.step} steps, {state.n_tokens:,} {kind}, {state.seconds:.0f} s of training")
    found, each = outcome_of(cfg, val, precision), " for each token" if cfg.dpo.divides else ""
    if is_judged:
        print(
            f"held-out answers: a good one became likelier than a bad one did{each} in {found.after:.1%} of the cases"
        )
    else:
        print(f"held-out pairs: the preferred answer is likelier{each} in {found.before:.1%} -> {found.after:.1%}")
    if drift := found.drift:
        print(
            f"divergence from the start: {drift.nats:.2f} nats per answer, over {drift.n_answers} answers of "
            f"{drift.n_tokens / drift.n_answers:.1f} tokens"
        )
    print(f"next: legollm chat {cfg.run}/checkpoint")


def prefer(cfg: DpoRun, team: Team = ALONE) -> tuple[TrainState, list[Pair], Precision]:
    """The whole run: its state, the held-out rows as the model saw them at the start, and the precision of that."""
    open_run(cfg.run, cfg, cfg.resume, team)
    base = load(cfg.model)
    base.refuse_pairs()
    start = prepare(base, cfg.lora, cfg.freeze, seed=cfg.seed)
    tokenizer, max_len = base.text_side(), base.config.max_seq_len
    template = template_for(tokenizer, cfg.data.template, base.chat_template)
    judged = judgements_of(cfg.data) if cfg.dpo.loss == "kto" else None
    train, val = (
        [encode_pair(said, tokenizer, template, max_len) for said in part]
        for part in judged or preferences_of(cfg.data)
    )
    if cfg.dpo.loss == "kto":
        train, val = with_strangers(train, max_len), with_strangers(val, max_len)
    reference = team.first(lambda: compared_with(cfg, start, train, val))
    if cfg.dpo.has_reference:
        train = with_reference(train, reference.numbers["train"])
    val = with_reference(val, reference.numbers["val"])
    a_step = cfg.train.batch_size * cfg.train.grad_accum
    objective = JudgedLoss(cfg.dpo, a_step) if judged else PreferenceLoss(cfg.dpo, a_step)

    def batch_of(pairs: Sequence[Pair]) -> object:
        return judged_batch(pairs, max_len) if judged else pair_batch(pairs, max_len)

    job = Job(
        folder=cfg.run,
        arch=start.arch,
        model_config=start.config,
        model=start.model,
        adapter=start.adapter,
        tokenizer=tokenizer,
        objective=objective,
        batches=ShuffledBatches(
            train, batch_of, cfg.train.batch_size, seed=cfg.seed, rank=team.rank, world_size=team.size
        ),
        validation=lambda n: islice(in_order(by_length(val), batch_of, cfg.train.batch_size), n),
        optim=cfg.optim,
        train=replace(cfg.train, precision=reference.precision),  # the same rounding on both sides
        seed=cfg.seed,
        resume=cfg.resume,
        figures=objective.figures.read,
        val_figures=objective.val_figures.read,
        counts_tokens=False,
        tokenizer_files={"chat_template": template, "eos": tokenizer.decode([end_of_turn(tokenizer, template)])},
        team=team,
    )
    return fit(job), val, reference.precision


def compared_with(cfg: DpoRun, start: Start, train: Sequence[Pair], val: Sequence[Pair]) -> Known:
    """What the model at the start thinks of all answers that are compared with it; of the held-out ones in any case."""
    device = pick_device(cfg.train.device)
    return reference_of(
        cfg.run,
        start.model.to(device),
        {"val": val} | ({"train": train} if cfg.dpo.has_reference else {}),
        base=fingerprint(start.model),
        precision=pick_precision(cfg.train.precision, device),
        batch_size=cfg.train.batch_size,
        max_len=start.config.max_seq_len,
        is_resumed=bool(steps(cfg.run / "checkpoints")),
    )


class Outcome(NamedTuple):
    """What a run changed."""

    before: float
    """The share of held-out pairs whose preferred answer was the likelier one; of judged answers 0.5."""
    after: float
    """The same now; of judged answers the chance that a good one gained more than a bad one."""
    drift: Drift | None
    """How far the model went for it; None where it was not asked to answer."""


def outcome_of(cfg: DpoRun, val: Sequence[Pair], precision: Precision) -> Outcome:
    """val: with what the model thought of them at the start."""
    tuned = load(cfg.run)
    model = tuned.model.to(pick_device(cfg.train.device))
    max_len = tuned.config.max_seq_len
    sizes = {"batch_size": cfg.train.batch_size, "max_len": max_len}
    later = with_reference(val, log_probs_of(model, val, **sizes, precision=precision))
    if val[0].is_good is None:
        before, after = (share_preferred(pairs, cfg.dpo.divides) for pairs in (val, later))
    else:
        before, after = 0.5, share_told(val, later, cfg.dpo.divides)
    room = min(ANSWER_TOKENS, max_len // 2)
    prompts = [pair.prompt for pair in val if len(pair.prompt) + room <= max_len][: cfg.n_answers]
    if not prompts:
        return Outcome(before, after, None)
    has_start = cfg.lora.rank and not cfg.lora.also
    start = None if has_start else load(cfg.model).model.to(next(model.parameters()).device)
    return Outcome(before, after, drift_of(tuned, start, prompts, seed=cfg.seed, max_new_tokens=room))


def share_preferred(pairs: Sequence[Pair], divides: bool) -> float:
    """The share of pairs whose preferred answer is the likelier one."""

    won = (score(pair.reference[0], divides) > score(pair.reference[1], divides) for pair in pairs)
    return sum(won) / len(pairs)


def share_told(before: Sequence[Pair], after: Sequence[Pair], divides: bool) -> float:
    """The chance that a good answer gained more than a bad one; 0.5 where there are only answers of one kind."""
    changes = [
        score(now.reference[0], divides) - score(then.reference[0], divides)
        for then, now in zip(before, after, strict=True)
    ]
    return auc(changes, [bool(pair.is_good) for pair in before])


def score(log_probs: Sequence[float], divides: bool) -> float:
    return sum(log_probs) / (len(log_probs) if divides else 1)
