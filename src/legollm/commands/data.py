"""`legollm data list | get | prepare | summary`: from public addresses and files to token files."""

import json
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

from legollm.commands.material import (
    DataConfig,
    TokenizerConfig,
    get_tokenizer,
    prepare_options,
    refuse_unused_size,
    size_of,
)
from legollm.commands.run_folder import flat, save_config, saved_config
from legollm.commands.tokenizer_progress import bars
from legollm.config import Resolved, to_tree
from legollm.data.fetch import fetch
from legollm.data.prepare import prepare as prepare_folder
from legollm.data.readers import SourceOptions
from legollm.data.recipes import RECIPES
from legollm.data.sources import NAMED, open_source
from legollm.data.summary import summarise
from legollm.errors import ConfigError
from legollm.tokenizers import TOKENIZERS, load_tokenizer


@dataclass(frozen=True, kw_only=True)
class ListRun:
    """Nothing to choose but the form."""

    json: bool = False
    """Print JSON."""


def list_sources(run: Resolved[ListRun]) -> None:
    """The sources of text: built-in corpora, and public data sets with their licence and size."""
    rows = [
        {
            "name": name,
            "title": recipe.title,
            "licence": recipe.licence,
            "files": [{"url": f.url, "bytes": f.n_bytes, "sha256": f.sha256} for f in recipe.files],
        }
        for name, recipe in RECIPES.items()
    ]
    if run.value.json:
        print(json.dumps({"built_in": list(NAMED), "data_sets": rows}, indent=1))
        return
    print("always there:")
    print("  world              a generated micro-world: stories, questions and sums, answers right by construction")
    print("  stdlib             the sources of the running Python's standard library")
    print("to fetch with `legollm data get NAME`:")
    for name, recipe in RECIPES.items():
        size = sum(file.n_bytes or 0 for file in recipe.files)
        shown = f"{size / 1e6:,.2f} MB" if size else "size unknown"
        print(f"  {name:<18} {recipe.title} ({recipe.licence}; {shown})")
    print("and any .txt, .md, .jsonl or .parquet file, or a folder of them")


@dataclass(frozen=True, kw_only=True)
class GetRun:
    """A data set to fetch."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("name",)

    name: str
    """One of `legollm data list`."""
    folder: Path = Path("corpora")
    """Where data sets lie, each in a folder of its name."""


def get(run: Resolved[GetRun]) -> None:
    """Fetch a public data set over https: size capped, resumed where it broke off, checked against its SHA-256."""
    cfg = run.value
    if cfg.name not in RECIPES:
        raise ConfigError(f"name: {cfg.name!r} is none of {', '.join(RECIPES)}")
    recipe = RECIPES[cfg.name]
    print(f"{cfg.name}: {recipe.title}; licence: {recipe.licence}")
    for fetched in fetch(cfg.name, folder=cfg.folder):
        known = "as pinned" if fetched.is_pinned else "not pinned: recorded beside the file"
        print(f"  {fetched.path}  {fetched.n_bytes:,} bytes  sha256 {fetched.sha256} ({known})")


@dataclass(frozen=True, kw_only=True)
class PrepareRun:
    """Text, a tokenizer, and the folder the token files go to."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("data",)

    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    folder: Path | None = None
    """Where to; null takes data/NAME, after the source."""
    json: bool = False
    """Print meta.json."""


def prepare(run: Resolved[PrepareRun]) -> None:
    """Turn a source into token files. Streaming, on all cores, byte-identical on every run; nothing is done twice."""
    refuse_unused_size(run)
    cfg = run.value
    source = open_source(cfg.data.source, cfg.data.read)
    folder = cfg.folder or Path("data") / Path(source.name).stem
    before, now = saved_config(folder / "config.yaml"), flat(to_tree(cfg))
    parts = ("data.", "tokenizer.")
    changed = any(before.get(key, value) != value for key, value in now.items() if key.startswith(parts))
    if changed and cfg.tokenizer.kind in TOKENIZERS:
        (folder / "tokenizer.json").unlink(missing_ok=True)  # it was trained otherwise
    folder.mkdir(parents=True, exist_ok=True)
    save_config(folder, cfg)
    tokenizer = get_tokenizer(cfg.tokenizer, [(source, Fraction(1))], folder / "tokenizer.json")
    size = size_of(source)  # on disk; the text in it is known once it was read
    with bars() as show:
        done = prepare_folder(
            source,
            tokenizer,
            folder,
            options=prepare_options(cfg.data, source),
            progress=lambda stage, n_bytes, n_total: show(stage, n_bytes, n_total or size),
        )
    if cfg.json:
        print(json.dumps(done.meta, indent=1, ensure_ascii=False))
        return
    print(f"{folder}: {'written' if done.written else 'already there, nothing to do'}")
    for split, counts in done.meta["splits"].items():
        print(
            f"  {split:<6}{counts['n_documents']:>9,} documents{counts['n_bytes']:>13,} bytes"
            f"{counts['n_tokens']:>13,} tokens{counts['n_bytes'] / max(1, counts['n_tokens']):>7.2f} bytes/token"
            + (f"  in {len(counts['shards'])} files" if "shards" in counts else "")
        )
    if left_out := done.meta["bad_rows"]["n"]:
        print(f"  {left_out:,} rows could not be read and were left out, first: {done.meta['bad_rows']['messages'][0]}")


@dataclass(frozen=True, kw_only=True)
class SummaryRun:
    """A source to describe."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("source",)

    source: str = "world"
    """A file, a folder, or one of `legollm data list`."""
    tokenizer: Path | None = None
    """A tokenizer file or folder; adds tokens and fertility."""
    read: SourceOptions = field(default_factory=SourceOptions)
    json: bool = False
    """Print JSON."""


def summary(run: Resolved[SummaryRun]) -> None:
    """Documents, sizes, lengths, exact duplicates and scripts of a source, and with a tokenizer its tokens."""
    cfg = run.value
    tokenizer = load_tokenizer(cfg.tokenizer) if cfg.tokenizer else None
    figures = summarise(open_source(cfg.source, cfg.read), tokenizer=tokenizer)
    if cfg.json:
        print(json.dumps(figures, indent=1, ensure_ascii=False))
        return
    for key, value in figures.items():
        print(f"{key.replace('_', ' '):<25} {shown(value)}")


def shown(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{key}: {shown(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "  ".join(map(shown, value))
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}" if isinstance(value, float) else str(value)
