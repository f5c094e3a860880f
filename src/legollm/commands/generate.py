"""`legollm generate`: a checkpoint and a prompt -> a continuation, as it is written."""

import json
import logging
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar

from legollm.checkpoints.loading import load
from legollm.config import Resolved
from legollm.errors import ConfigError
from legollm.generation.beams import Beams
from legollm.generation.complete import Decoding
from legollm.generation.sampling import Sampling
from legollm.generation.speculative import Speculation, Speculator
from legollm.generation.text import stream_text
from legollm.lowering.engine import Engine
from legollm.lowering.weights import Precision

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class GenerateRun(Sampling, Speculation, Beams):
    """A model, a prompt, and how the next token is chosen."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("model", "prompt")

    model: Path = Path("runs/demo/checkpoint")
    """A checkpoint or run folder, or a Hugging Face folder."""
    prompt: str | None = None
    """What to continue; null reads standard input, or starts a new text where that is a terminal."""
    engine: Engine = "auto"
    """What runs the model: torch, cpu (compiled kernels), or auto: whichever is done sooner."""
    precision: Precision = "float32"
    """What weight matrices are kept in: float32, bfloat16 (half the memory), or with engine=cpu int8 and int4."""
    decoding: Decoding = field(default_factory=lambda: Decoding(on_overflow="crop"))
    json: bool = False
    """Print one JSON object when it is finished: prompt, text, n_tokens, finish_reason; with a draft also speculation:
    how many guesses were accepted, in how many checks 0, 1, ... were, and the speed-up."""

    def __post_init__(self) -> None:
        Sampling.__post_init__(self)
        Speculation.__post_init__(self)
        Beams.__post_init__(self)


def generate(run: Resolved[GenerateRun]) -> None:
    """Continue a prompt. The text appears as it is written; the same seed writes the same text.

    legollm generate runs/demo "Mira put the key" temperature=0.8 max_new_tokens=80
    legollm generate runs/large "Mira put the key" draft=runs/small lookahead=4
    legollm generate runs/demo "Mira put the key" beams=4 length_penalty=0.8
    legollm generate runs/demo "One morning," max_new_tokens=100000 decoding.cache=sinks decoding.window=64
    """
    cfg = run.value
    lm = load(cfg.model, engine=cfg.engine, precision=cfg.precision)
    lm.refuse_pairs()
    sampling = Sampling(**{one.name: getattr(cfg, one.name) for one in fields(Sampling)})
    speculation = Speculation(**{one.name: getattr(cfg, one.name) for one in fields(Speculation)})
    beams = Beams(**{one.name: getattr(cfg, one.name) for one in fields(Beams)})
    decoder = lm.decoder_of(speculation, beams, sampling)
    report = decoder.lookahead if isinstance(decoder, Speculator) else None
    prompt = cfg.prompt
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read()
    ids = lm.text_side().encode(prompt) if prompt else list(lm.stop_ids()[:1])
    if not ids:
        raise ConfigError("prompt: empty, and this model has no token that starts a text; give a prompt")
    decoding = lm.decoding(cfg.decoding)
    stream = stream_text(
        lm.writer_of(sampling, decoding=decoding),
        lm.text_side(),
        ids,
        sampling,
        stop_ids=lm.stop_ids(),
        decoding=decoding,
        decoder=decoder,
    )
    if cfg.json:
        text = "".join(stream)
        result = {
            "prompt": prompt or "",
            "text": text,
            "n_tokens": len(stream.ids),
            "finish_reason": stream.finish_reason,
        } | ({"speculation": report.report()} if report else {})
        print(json.dumps(result, ensure_ascii=False))
        return
    print(prompt or "", end="", flush=True)
    for piece in stream:
        print(piece, end="", flush=True)
    print()
    if report:
        log.info("%s", report)
