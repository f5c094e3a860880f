"""What a trained side is measured by besides its validation loss: further into rows than it learned, and in streams.

Each measure is a few figures by name. A side that cannot be measured so lacks them, and is told apart by that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from legollm.checkpoints.loading import load
from legollm.commands.calibrate import seq_len_of
from legollm.commands.train import TrainRun
from legollm.components.decoder import Decoder
from legollm.data.loader import TokenFile
from legollm.evaluation.places import in_bins, losses_by_place
from legollm.evaluation.streams import losses_along
from legollm.generation.ring_cache import RingCache

WITHIN, PAST = "loss within the training length", "loss past the training length"
ROWS = 64
"""That are read for the loss by place."""
BINS = 8
"""Points of a curve by place for each training length."""
SINKS = 4
"""First tokens that a stream keeps where it keeps some."""


@dataclass(frozen=True)
class Measured:
    """Of one run."""

    figures: Mapping[str, float]
    by_place: Sequence[tuple[float, float]] = ()
    """Place in the row -> nats."""


def measures(folder: Path, run: TrainRun, *, beyond: int, stream: int) -> Measured:
    """What was asked for, of the model in a run's folder, on its validation text.

    beyond: rows of so many training lengths; 0 is none. stream: tokens that are read in one go with a memory of one
    training length; 0 is none.
    """
    if not (beyond or stream):
        return Measured({})
    assert run.data.prepared  # sides are trained on a text that is ready
    ids, seq_len = TokenFile(run.data.prepared, "val").ids, seq_len_of(run)
    model = load(folder / "checkpoint").model
    assert isinstance(model, Decoder)
    model.eval()
    figures: dict[str, float] = {}
    points: list[tuple[float, float]] = []
    if beyond:
        losses = losses_by_place(model, ids[: beyond * seq_len * ROWS + 1], beyond * seq_len)
        figures[WITHIN] = float(losses[:seq_len].mean())
        if len(losses) > seq_len:
            figures[PAST] = float(losses[seq_len:].mean())
        points = [(float(place), loss) for place, loss in in_bins(losses, max(1, seq_len // BINS))]
    if stream and model.max_seq_len is None:
        for n_sinks, name in ((0, "the newest tokens"), (SINKS, f"the newest and the first {SINKS}")):
            cache = RingCache.for_model(model, 1, seq_len, n_sinks)
            losses = losses_along(model, [int(i) for i in ids[:stream]], cache, chunk=seq_len // 4)
            figures[f"loss of a stream that keeps {name}"] = float(losses[len(losses) // 2 :].mean())
    return Measured(figures, points)
