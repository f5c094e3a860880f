"""`legollm demo sinks`: a text without end, and what a model needs to keep of it in order not to lose the thread.

A text is one digit and then the alphabet, round and round, in steps of that digit: 2aceg..., 5afkp... Some spaces may
stand before it. Only the digit says how to go on, and it is read once: whoever drops it has to guess.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from legollm.architectures.vanilla import VanillaConfig, vanilla
from legollm.commands.text_plot import plot
from legollm.components.decoder import Decoder
from legollm.config import Resolved
from legollm.errors import ConfigError
from legollm.evaluation.report import STYLE, Chart, Curve, svg
from legollm.generation.complete import Decoding, complete
from legollm.generation.sampling import Sampling
from legollm.interfaces import Batch
from legollm.training.objective import NextToken
from legollm.training.optim import OptimConfig, build_optimizer
from legollm.training.train import TrainConfig, TrainState, train
from legollm.whole_file import write_whole

LETTERS = "abcdefghijklmnopqrstuvwxyz"
CHARACTERS = " 123456789" + LETTERS
N_PIECES = 20
"""Points of a curve."""


@dataclass(frozen=True, kw_only=True)
class SinksRun:
    """How long the text becomes, and what is kept of it."""

    n_tokens: int = 2000
    """Letters to write."""
    window: int = 32
    """Tokens that are kept."""
    sinks: int = 4
    """How many of them are the first ones of the text, where some are."""
    strides: int = 5
    """How many different steps there are; with 1 the next letter follows from the last, and nothing can be lost."""
    steps: int = 300
    """Training steps, of 16 texts of 48 tokens each."""
    seed: int = 0
    """Decides weights and texts."""
    svg: Path | None = None
    """A picture to write."""

    def __post_init__(self) -> None:
        if not 1 <= self.strides <= 9:
            raise ConfigError(f"strides: a number from 1 to 9, found {self.strides}")
        if self.n_tokens < N_PIECES or self.steps < 1:
            raise ConfigError(
                f"n_tokens: at least {N_PIECES}, and steps at least 1; found {self.n_tokens}, {self.steps}"
            )


def sinks(run: Resolved[SinksRun]) -> None:
    """Train a tiny model for a few seconds, let it write thousands of letters, and count which are right.

    legollm demo sinks
    legollm demo sinks strides=1
    """
    cfg = run.value
    ways = {
        "window and sinks": Decoding(cache="sinks", window=cfg.window, sinks=cfg.sinks),
        "window": Decoding(cache="rolling", window=cfg.window),
        "re-prefill": Decoding(on_overflow="re-prefill", window=cfg.window),
    }
    model = trained(cfg)
    print(f"{cfg.n_tokens:,} letters with {cfg.window} tokens kept, {cfg.sinks} of them the first ones where some are")
    print(f"{'what is kept':<18}{'right':>8}{'first wrong':>14}   the end of the text")
    curves: dict[str, list[tuple[float, float]]] = {}
    for name, decoding in ways.items():
        text, is_right = written(model, cfg, decoding, place=0)
        first = "none" if is_right.all() else f"{int(is_right.float().argmin()):,}"
        print(f"{name:<18}{is_right.float().mean():>8.1%}{first:>14}   ...{text[-30:]}")
        size = len(is_right) // N_PIECES
        parts = is_right[: size * N_PIECES].view(N_PIECES, size).float().mean(1).tolist()
        curves[name] = [(size * (i + 1), 100 * part) for i, part in enumerate(parts)]
    print("\n% right along the text")
    print("\n".join(plot(curves, x_label="letters")))
    print(f"\nwindow and sinks ({cfg.sinks}), by how many spaces stand before the digit")
    short = replace(cfg, n_tokens=min(cfg.n_tokens, 10 * cfg.window))
    for place in range(2 * cfg.sinks):
        _, is_right = written(model, short, ways["window and sinks"], place=place)
        kept = "among the first ones" if place < cfg.sinks else "forgotten"
        print(f"{place:>4} {is_right.float().mean():>8.1%}   {kept}")
    if cfg.svg is not None:
        write_whole(cfg.svg, picture(curves))


def trained(cfg: SinksRun) -> Decoder:
    """A model of two layers that has learned to go on in steps."""
    config = VanillaConfig(
        vocab_size=len(CHARACTERS),
        max_seq_len=48,
        n_layers=2,
        n_heads=2,
        n_kv_heads=2,
        d_model=48,
        d_ff=128,
        positions="rope",
        norm="rmsnorm",
        ffn="swiglu",
        bias=False,
    )
    model = vanilla(config, cfg.seed)
    last: dict[str, Any] = {}
    train(
        model,
        NextToken(),
        Texts(cfg),
        build_optimizer(model, OptimConfig(lr=2e-3)),
        TrainConfig(max_steps=cfg.steps, eval_every=0, save_every=0, device="cpu", precision="float32"),
        learning_rate=lambda step: 2e-3 * min(1.0, 2 * (1 - step / cfg.steps)),
        state=TrainState(),
        log=lambda step, **values: last.update(values),
        evaluate=lambda state: None,
        save=lambda state: None,
    )
    print(f"trained: {cfg.steps} steps, loss {last['loss']:.3f} nats per token\n")
    return model.eval()


def text_of(stride: int, start: int, n_spaces: int, n_letters: int) -> str:
    """Spaces, the digit, and so many letters."""
    letters = (LETTERS[(start + stride * i) % len(LETTERS)] for i in range(n_letters))
    return " " * n_spaces + str(stride) + "".join(letters)


def ids_of(text: str) -> list[int]:
    return [CHARACTERS.index(character) for character in text]


class Texts:
    """An endless supply of such texts, a BatchSource."""

    def __init__(self, cfg: SinksRun) -> None:
        self.cfg, self.rng = cfg, torch.Generator().manual_seed(cfg.seed)

    def below(self, n: int) -> int:
        return int(torch.randint(n, (), generator=self.rng))

    def __next__(self) -> Batch:
        rows = []
        for _ in range(16):
            n_spaces = self.below(2 * self.cfg.sinks)
            rows.append(ids_of(text_of(1 + self.below(self.cfg.strides), self.below(26), n_spaces, 48 - n_spaces)))
        tokens = torch.tensor(rows)
        return Batch(tokens[:, :-1], tokens[:, 1:])

    def state_dict(self) -> dict[str, Any]:
        return {"rng": self.rng.get_state().tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.rng.set_state(torch.tensor(state["rng"], dtype=torch.uint8))


def written(model: Decoder, cfg: SinksRun, decoding: Decoding, place: int) -> tuple[str, Tensor]:
    """A text in the largest step, and which of its letters are right after the one before them, (N,)."""
    stride = cfg.strides
    prompt = ids_of(text_of(stride, 0, place, 10))
    (done,) = complete(model, [prompt], Sampling(temperature=0, max_new_tokens=cfg.n_tokens), decoding=decoding)
    letters = torch.tensor([prompt[-1], *done.ids]) - CHARACTERS.index("a")
    is_right = (letters[1:] >= 0) & (letters[1:] == (letters[:-1] + stride) % len(LETTERS))
    return "".join(CHARACTERS[i] for i in done.ids), is_right


def picture(curves: Mapping[str, list[tuple[float, float]]]) -> str:
    """The curves as an image by themselves."""
    chart = Chart("Letters that are right", "letters", "%", [Curve(name, points) for name, points in curves.items()])
    head, _, rest = svg(chart).partition(">")
    head = head.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    return f"{head}><style>{STYLE}</style>{rest}"
