"""`legollm inspect FOLDER text=...`: what a model does with a text, as one page or as figures."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from legollm.architectures import ARCHITECTURES
from legollm.checkpoints.loading import Loaded, load
from legollm.commands.xray_page import xray_page
from legollm.errors import ConfigError
from legollm.evaluation import experts, heads
from legollm.evaluation.xray import XRay
from legollm.tokenizers.inspect_merges import readable
from legollm.whole_file import write_whole

LARGE = 5_000_000
"""Bytes; a page above this size comes with a hint."""

log = logging.getLogger(__name__)


def open_with_weights(name: str) -> Loaded:
    """The model of a folder.

    Raises:
        ConfigError: the name of an architecture or of a published size, which has no weights.
        CheckpointError: no model, or one that does not continue a text, or has no tokenizer.
    """
    sizes = {preset for row in ARCHITECTURES.values() for preset in row.presets}
    if not Path(name).is_dir() and name in {*ARCHITECTURES, *sizes}:
        raise ConfigError(f"text: {name} is a kind of model without weights; name the folder of a run or a checkpoint")
    lm = load(name)
    lm.refuse_pairs()
    return lm


def ids_of(lm: Loaded, text: str, max_tokens: int, n_sinks: int) -> list[int]:
    """The tokens of a text that are looked at: the first max_tokens, and no more than the model reads.

    Raises:
        ConfigError: too few for a page.
    """
    ids = lm.text_side().encode(text)
    room: int | None = getattr(lm.model, "max_seq_len", None)
    limit = max_tokens if room is None else min(max_tokens, room)
    if len(ids) <= max(1, n_sinks):
        raise ConfigError(
            f"text: has {len(ids)} tokens; at least {max(1, n_sinks) + 1} are needed, so that one looks back at another"
        )
    if len(ids) > limit:
        wider = f"max_tokens={len(ids)} shows all" if room is None or room >= len(ids) else f"the model reads {room}"
        log.warning("text: %s tokens, of which the first %s are shown; %s", f"{len(ids):,}", f"{limit:,}", wider)
    return ids[:limit]


def names_of(lm: Loaded) -> Callable[[int], str]:
    """How a token id is written; rows of a model beyond its tokenizer have a number only."""
    tokenizer = lm.text_side()
    return lambda token: readable(tokenizer.token_bytes(token)) if token < tokenizer.vocab_size else f"#{token}"


def figures(lm: Loaded, ray: XRay) -> dict[str, Any]:
    """What is printed with --json."""
    shown = names_of(lm)
    return {"arch": lm.arch, "tokens": [shown(token) for token in ray.ids]} | ray.figures()


def write_page(lm: Loaded, ray: XRay, name: str, out: Path, layers: tuple[int, ...] | None) -> None:
    """Write the page, and say on the terminal what stands out.

    Raises:
        ConfigError: a block without attention is to be drawn.
    """
    possible = ", ".join(map(str, ray.attention)) or "none"
    for block in layers or ():
        if block not in ray.attention:
            raise ConfigError(f"layers: block {block} has no attention to draw; possible: {possible}")
    size = sum(parameter.numel() for parameter in lm.model.parameters())
    about = (
        f"{lm.arch}, {size:,} parameters. {len(ray.ids):,} tokens at {ray.loss:.3f} nats each. The stronger the "
        "colour, the less a token was expected; point at it, tap it or tab to it for more."
    )
    title = f"What {name} does with a text"
    text = xray_page(ray, title, about, names_of(lm), lm.config.vocab_size, layers)
    write_whole(out, text)
    n_bytes = len(text.encode())
    seen = f"{len(ray.heads)} heads in {len(ray.attention)} blocks"
    print(f"{out}: {len(ray.ids):,} tokens, {ray.loss:.3f} nats each, {seen}")
    if n_bytes > LARGE:
        print(f"  {n_bytes / 1e6:.0f} MB; layers=0,1 draws the maps of two blocks only, max_tokens=32 shows less text")
    for line in standing_out(ray):
        print(line)


def standing_out(ray: XRay) -> list[str]:
    """The first heads by each figure and the most specialised experts, a line each."""
    lines = []
    for figure, words in heads.RANKED_BY.items():
        found = heads.ranked(ray.heads, figure)[:3]
        if found:
            lines.append(f"  {words}: {heads.told(found, figure, ray.by_chance)}")
    of_a_kind = [one for one in experts.ranked(ray.mixtures) if one.specialisation > one.by_chance][:3]
    if of_a_kind:
        named = ", ".join(
            f"block {one.block} expert {one.expert} ({one.kind} {one.share:.0%}, text {one.share_in_text:.0%})"
            for one in of_a_kind
        )
        lines.append(f"  experts of a kind: {named}")
    return lines
