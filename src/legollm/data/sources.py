"""A word of the configuration -> a corpus: a file, a folder, a fetched data set, or one that is always there.

open_source("book.txt", SourceOptions())        one document
open_source("texts/", SourceOptions())          every .txt, .md, .jsonl and .parquet below, in sorted order
open_source("tiny_shakespeare", ...)            a recipe that `legollm data get` has fetched
open_source("stdlib", ...), ("world", ...)      real text and generated text on every machine
"""

import hashlib
import logging
import os
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Protocol

from legollm.data import world
from legollm.data.documents import BadRows, Document, OnBadRow, Piece, whole
from legollm.data.readers import TABLE_READERS, SourceOptions, read_text
from legollm.data.recipes import RECIPES
from legollm.errors import DataError

log = logging.getLogger(__name__)

Split = Literal["train", "val"]


class Source(Protocol):
    """A corpus that can be read again and again, always in the same order."""

    name: str
    splits: tuple[Split, ...]
    """The splits it comes with; empty if it is one heap of documents."""
    on_bad_row: OnBadRow
    """What its options say about rows that cannot be read."""
    plain: Mapping[str, Path] | None
    """Its files, by name, if their bytes are its text and each is one document; None otherwise."""

    def pieces(self, bad_rows: BadRows, split: Split | None = None) -> Iterator[Piece]:
        """Documents in bounded pieces, lazily; all of them, or those of one of its own splits.

        bad_rows: decides about rows that cannot be read, and counts them.

        Raises:
            DataError: something cannot be read; names file and line.
        """
        ...

    def fingerprint(self) -> dict[str, Any]:
        """All that decides its text, as JSON-ready values: SHA-256 of each file, and how it is read."""
        ...


class FileSource:
    """Documents from files, in the given order."""

    def __init__(
        self, name: str, files: Mapping[str, Path], options: SourceOptions, splits: Mapping[str, Split]
    ) -> None:
        """files: name for messages and hashes -> path; splits: name -> the split that file is, if it is one."""
        self.name = name
        self.files = files
        self.options = options
        self.split_of_file = splits
        self.splits: tuple[Split, ...] = ("train", "val") if splits else ()
        self.on_bad_row = options.on_bad_row
        is_table = any(path.suffix.lower() in TABLE_READERS for path in files.values())
        as_it_is = options.separator is None and options.on_bad_row == "stop"
        self.plain = files if as_it_is and not is_table else None

    def pieces(self, bad_rows: BadRows, split: Split | None = None) -> Iterator[Piece]:
        n_pieces = 0
        for name, path in self.files.items():
            if split is not None and self.split_of_file.get(name) != split:
                continue
            reader = TABLE_READERS.get(path.suffix.lower(), read_text)
            for piece in reader(path, name, self.options, bad_rows):
                n_pieces += 1
                yield piece
        if n_pieces == 0:
            left_out = f"; left out: {bad_rows.messages[0]}" if bad_rows.n else ""
            raise DataError(f"{self.name}: no text in {len(self.files)} file(s){left_out}; give a corpus with some")

    def fingerprint(self) -> dict[str, Any]:
        reading = {key: getattr(self.options, key) for key in ("field", "id_field", "separator", "on_bad_row")}
        return {"reading": reading, "sha256": {name: file_hash(path, name) for name, path in self.files.items()}}


VAL_SHARE_OF_WORLD = 20
"""One document in so many is for validation, so that this much text costs as long to generate as the training text."""


class WorldSource:
    """The built-in generated corpus, which comes split by content."""

    def __init__(self, options: SourceOptions) -> None:
        self.name = "world"
        self.splits: tuple[Split, ...] = ("train", "val")
        self.options = options
        self.on_bad_row = options.on_bad_row
        self.plain: Mapping[str, Path] | None = None

    def pieces(self, bad_rows: BadRows, split: Split | None = None) -> Iterator[Piece]:
        size = {"train": self.options.world_bytes, "val": self.options.world_bytes // VAL_SHARE_OF_WORLD}
        for part in self.splits if split is None else (split,):
            texts = world.corpus(self.options.world_seed, size[part], part)
            for number, text in enumerate(texts, start=1):
                yield Piece(text.encode("utf-8"), f"world/{part}", number, ends=True)

    def fingerprint(self) -> dict[str, Any]:
        """The generator's own code and what it is told decide every byte."""
        code = {path.name: file_hash(path, path.name) for path in sorted(Path(world.__file__).parent.glob("*.py"))}
        return {"seed": self.options.world_seed, "n_bytes": self.options.world_bytes, "sha256": code}


def documents(source: Source, split: Split | None = None) -> Iterator[Document]:
    """The documents of a corpus, each as one string; a long one needs that much memory."""
    return whole(source.pieces(BadRows(source.on_bad_row), split))


def file_hash(path: Path, name: str) -> str:
    """SHA-256 of a file, hexadecimal.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror}); check the path and its permissions") from error


def open_file(spec: str, options: SourceOptions) -> Source:
    """One file, read as its ending says."""
    path = Path(spec)
    _check_readable(spec, path, options)
    return FileSource(path.name, {path.name: path}, options, {})


def _check_readable(spec: str, path: Path, options: SourceOptions) -> None:
    suffix = path.suffix.lower()
    possible = (*options.text_suffixes, *TABLE_READERS)
    if suffix in possible:
        return
    hint = "if it is plain text, rename it or add its ending to text_suffixes"
    if suffix == ".json":
        hint = "for pre-training write one object per line and name it .jsonl; `legollm sft` reads instruction data"
    found = f"the ending '{path.suffix}'" if suffix else "no ending"
    raise DataError(f"{spec}: {path.name} has {found}; readable are {', '.join(possible)}; {hint}")


def open_folder(spec: str, options: SourceOptions) -> Source:
    """All readable files below a folder, sorted by path; hidden ones are no part of it."""
    root = Path(spec)
    possible = (*options.text_suffixes, *TABLE_READERS)
    files, others = {}, Counter[str]()
    for path in sorted(_visible_files(root)):
        if path.is_symlink() and path.is_dir():
            others["link to a folder"] += 1
        elif path.suffix.lower() in possible:
            files[path.relative_to(root).as_posix()] = path
        else:
            others[path.suffix or "without ending"] += 1
    listing = ", ".join(f"{n} {suffix}" for suffix, n in others.most_common(5))
    if not files and (root / "meta.json").is_file():
        raise DataError(f"{spec}: token files of `legollm data prepare`, no text; training takes data.prepared={spec}")
    if not files:
        found = f"only files of other kinds ({listing})" if others else "no files"
        raise DataError(f"{spec}: {found}; readable are {', '.join(possible)}; see text_suffixes for further endings")
    if others:
        log.warning("%s: %d files of other kinds left out: %s", spec, others.total(), listing)
    return FileSource(root.resolve().name, files, options, {})


def _visible_files(root: Path) -> Iterator[Path]:
    """Everything below `root` but real folders, and nothing hidden."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); check its permissions") from error

    for parent, folders, files in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        yield from (Path(parent) / name for name in (*links, *files) if not name.startswith("."))


def open_stdlib(spec: str, options: SourceOptions) -> Source:
    """The running interpreter's own library: some 10 MB of Python written by people, without its tests."""
    root = Path(sysconfig.get_paths()["stdlib"])
    skipped = {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib2to3", "__pycache__"}
    paths = (path for path in sorted(root.rglob("*.py")) if skipped.isdisjoint(path.relative_to(root).parts))
    files = {path.relative_to(root).as_posix(): path for path in paths if path.stat().st_size > 0}
    if not files:
        raise DataError(f"stdlib: no .py files in {root}; this interpreter ships without sources, use another corpus")
    # one old module is written in Latin-1 in some versions; source files may, and it is no error of the user's
    return FileSource(spec, files, replace(options, separator=None, on_bad_row="skip"), {})


def open_world(spec: str, options: SourceOptions) -> Source:
    """Generated stories and questions (see legollm.data.world)."""
    return WorldSource(options)


def open_recipe(spec: str, options: SourceOptions) -> Source:
    """A public data set that has been fetched."""
    recipe, folder = RECIPES[spec], Path(options.corpora) / spec
    parts = [file for file in recipe.files if file.role != "test"]
    files = {file.name: folder / file.name for file in parts}
    for path in files.values():
        _check_readable(spec, path, options)
    missing = [path for path in files.values() if not path.is_file()]
    if missing:
        hint = f"run `legollm data get {spec}`, or copy the file there"
        raise DataError(f"{spec}: not fetched yet, there is no {missing[0]}; {hint}")
    if options.separator is None:
        options = replace(options, separator=recipe.separator)
    has_val = any(file.role == "val" for file in parts)
    splits: dict[str, Split] = {file.name: file.role for file in parts if file.role != "test"} if has_val else {}
    return FileSource(spec, files, options, splits)


SOURCES: dict[str, Callable[[str, SourceOptions], Source]] = {
    "file": open_file,
    "folder": open_folder,
    "recipe": open_recipe,
    "stdlib": open_stdlib,
    "world": open_world,
}
"""Every kind of corpus: what opens it."""

NAMED = ("stdlib", "world")


def open_source(spec: str, options: SourceOptions) -> Source:
    """The corpus that `spec` names: a built-in one, a recipe, a file or a folder, in this order.

    Raises:
        DataError: there is none of that name, or it holds no text; says what was probably meant.
    """
    path = Path(spec)
    if spec in NAMED:
        return SOURCES[spec](spec, options)
    if spec in RECIPES:
        return open_recipe(spec, options)
    if path.is_dir():
        return open_folder(spec, options)
    if path.exists():
        return open_file(spec, options)
    siblings = [str(other) for other in path.parent.iterdir()] if path.parent.is_dir() else []
    near = get_close_matches(spec, [*NAMED, *RECIPES, *siblings], n=1)
    meant = f"did you mean '{near[0]}'? " if near else ""
    raise DataError(f"{spec}: no such file, folder or corpus; {meant}known corpora: {', '.join([*NAMED, *RECIPES])}")
