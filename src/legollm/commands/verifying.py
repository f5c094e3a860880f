"""Which verifier a command means: one from the table, the world's state, a trained model, or the model itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from legollm.alignment.judges import SelfVerifier, TrainedVerifier
from legollm.alignment.steps import STEP_LABELS, StepScore, StepVerifier
from legollm.checkpoints.loading import Loaded, load
from legollm.data.world import Task
from legollm.errors import ConfigError
from legollm.verifiers import VERIFIERS, CodeVerifier, Verifier
from legollm.verifiers.fallible import NoisyVerifier
from legollm.verifiers.sandbox import SandboxConfig

ALIASES = {"gsm8k": "number"}
"""Other names, by the data set that is judged so."""
NAMES = frozenset((*VERIFIERS, *ALIASES))
"""What a row of a file may name."""


@dataclass(frozen=True, kw_only=True)
class VerifierConfig:
    """Who judges the answers."""

    verifier: str | None = None
    """The name of a verifier; or a folder, a model that was trained to judge; or self, the model is asked. Null is the
    one that each question names."""
    step_score: StepScore = "product"
    """verifier=FOLDER of a model that judges steps: an answer's score is the product of the chances of its lines, or
    min, the smallest of them."""
    false_accept: float = 0.0
    """Share of wrong answers that are accepted all the same, to see what that does."""
    false_reject: float = 0.0
    """Share of right answers that are rejected all the same."""
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    """What code from a model may use, for verifier=code."""

    def __post_init__(self) -> None:
        NoisyVerifier(VERIFIERS["exact"].verify, self.false_accept, self.false_reject)
        others = ("self", "world")
        if self.verifier not in (None, *others, *NAMES) and not Path(str(self.verifier)).is_dir():
            possible = ", ".join((*VERIFIERS, *ALIASES, *others))
            raise ConfigError(f"verifier: {self.verifier!r} is none of {possible}, and no folder")


def table(sandbox: SandboxConfig, more: Mapping[str, Verifier] | None = None) -> dict[str, Verifier]:
    """All verifiers by name, the one for code with these settings."""
    found = {name: row.verify for name, row in VERIFIERS.items()} | {"code": CodeVerifier(sandbox)} | dict(more or {})
    return found | {name: found[other] for name, other in ALIASES.items()}


def verifier_for(
    cfg: VerifierConfig, lm: Loaded | None = None, more: Mapping[str, Verifier] | None = None
) -> Callable[[Task], Verifier]:
    """Of a task the verifier that the configuration names, or else its own.

    lm: the model that answers, for verifier=self. more: verifiers besides those of the table.

    Raises:
        ConfigError: no such verifier.
        CheckpointError: a folder without a model that judges.
    """
    known = table(cfg.sandbox, more)
    named: Verifier | None = None
    if cfg.verifier == "self":
        if lm is None:
            raise ConfigError("verifier: self asks the model that answers, and here there is none; name another")
        named = SelfVerifier(lm)
    elif cfg.verifier is not None:
        if cfg.verifier == "world" and "world" not in known:
            raise ConfigError("verifier: world knows only its own questions; use source=world, or another verifier")
        named = known.get(cfg.verifier) or trained(load(cfg.verifier), cfg.step_score)

    def of(task: Task) -> Verifier:
        verify = named or known[task.verifier]
        if not cfg.false_accept and not cfg.false_reject:
            return verify
        return NoisyVerifier(verify, cfg.false_accept, cfg.false_reject)

    return of


def trained(lm: Loaded, step_score: StepScore) -> Verifier:
    """The verifier that a model was trained to be, of answers or of their steps."""
    is_process = getattr(lm.config, "labels", ()) == STEP_LABELS
    return StepVerifier(lm, step_score) if is_process else TrainedVerifier(lm)


def judge_for(sandbox: SandboxConfig, more: Mapping[str, Verifier] | None = None) -> Callable[[Task], Verifier]:
    """Of a task its own verifier, without noise: what counts as right."""
    known = table(sandbox, more)
    return lambda task: known[task.verifier]
