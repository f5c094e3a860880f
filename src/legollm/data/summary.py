"""Figures about a corpus: sizes, copies, lengths, scripts, tokens, and what validation shares with training."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from legollm.data.documents import BadRows, Piece
from legollm.data.prepare import PrepareOptions
from legollm.data.sources import Source, Split
from legollm.data.split import plan_split, split_pieces
from legollm.interfaces import Tokenizer

OVERLAP_WORDS = 13
"""Length of the runs of words that count as shared (Brown et al. 2020, arXiv:2005.14165, appendix C)."""

COMMON = "common"
_BLOCKS: tuple[tuple[int, str], ...] = (
    (0x0000, COMMON),
    (0x0041, "Latin"),
    (0x005B, COMMON),
    (0x0061, "Latin"),
    (0x007B, COMMON),
    (0x00C0, "Latin"),
    (0x02B0, COMMON),
    (0x0370, "Greek"),
    (0x0400, "Cyrillic"),
    (0x0530, "Armenian"),
    (0x0590, "Hebrew"),
    (0x0600, "Arabic"),
    (0x0700, "other"),
    (0x0750, "Arabic"),
    (0x0780, "other"),
    (0x08A0, "Arabic"),
    (0x0900, "Devanagari"),
    (0x0980, "Bengali"),
    (0x0A00, "Gurmukhi"),
    (0x0A80, "Gujarati"),
    (0x0B00, "other"),
    (0x0B80, "Tamil"),
    (0x0C00, "Telugu"),
    (0x0C80, "Kannada"),
    (0x0D00, "Malayalam"),
    (0x0D80, "Sinhala"),
    (0x0E00, "Thai"),
    (0x0E80, "Lao"),
    (0x0F00, "Tibetan"),
    (0x1000, "Myanmar"),
    (0x10A0, "Georgian"),
    (0x1100, "Hangul"),
    (0x1200, "Ethiopic"),
    (0x13A0, "other"),
    (0x1780, "Khmer"),
    (0x1800, "other"),
    (0x1E00, "Latin"),
    (0x1F00, "Greek"),
    (0x2000, COMMON),
    (0x2E80, "Han"),
    (0x2FE0, COMMON),
    (0x3040, "Hiragana"),
    (0x30A0, "Katakana"),
    (0x3100, "other"),
    (0x3130, "Hangul"),
    (0x3190, "other"),
    (0x3400, "Han"),
    (0xA000, "other"),
    (0xAC00, "Hangul"),
    (0xD7B0, "other"),
    (0xF900, "Han"),
    (0xFB00, "other"),
    (0xFE00, COMMON),
    (0xFE70, "Arabic"),
    (0xFF00, COMMON),
    (0x10000, "other"),
    (0x1F000, "emoji"),
    (0x20000, "Han"),
    (0x323B0, "other"),
)
"""First code point of a range of blocks, and the script most of it is for; blocks of digits and signs are common."""

_STARTS = np.array([start for start, _ in _BLOCKS], np.uint32)


def summarise(
    source: Source, *, tokenizer: Tokenizer | None = None, overlap_of: PrepareOptions | None = None
) -> dict[str, Any]:
    """Figures about all documents of a corpus, read once, as JSON-ready values.

    tokenizer: adds tokens and fertility; a document of more than 64 kilobytes is tokenised in parts, which may
        add a token per part. overlap_of: adds what the two splits made by these options have in common.

    Raises:
        DataError: something cannot be read; names file and line.
    """
    bad_rows = BadRows(source.on_bad_row)
    n_bytes = n_chars = n_words = n_tokens = n_copies = 0
    lengths: list[int] = []
    scripts: Counter[str] = Counter()
    seen: set[bytes] = set()
    digest, length, in_word = hashlib.sha256(), 0, False
    for piece in source.pieces(bad_rows):
        text = piece.text
        n_bytes += len(piece.data)
        n_words += len(text.split()) - (in_word and not text[0].isspace())
        scripts.update(count_scripts(text))
        n_tokens += len(tokenizer.encode(text)) if tokenizer is not None else 0
        digest.update(piece.data)
        length += len(text)
        in_word = not piece.ends and not text[-1].isspace()
        if piece.ends:
            lengths.append(length)
            n_chars += length
            n_copies += digest.digest() in seen
            seen.add(digest.digest())
            digest, length = hashlib.sha256(), 0
    figures: dict[str, Any] = {
        "name": source.name,
        "documents": len(lengths),
        "bytes": n_bytes,
        "characters": n_chars,
        "words": n_words,
        "exact_copies": n_copies,
        "rows_left_out": bad_rows.n,
        "characters_per_document": {"least": min(lengths), "median": int(np.median(lengths)), "most": max(lengths)},
        "documents_by_characters": _histogram(lengths),
        "scripts": {name: n / n_chars for name, n in scripts.most_common()},
    }
    if tokenizer is not None:
        figures["tokens"] = n_tokens
        figures["bytes_per_token"] = n_bytes / max(n_tokens, 1)
        figures["tokens_per_word"] = n_tokens / max(n_words, 1)
    if overlap_of is not None:
        figures["overlap"] = _overlap(source, overlap_of)
    return figures


def count_scripts(text: str) -> dict[str, int]:
    """Characters of each script, by the Unicode block they lie in."""
    points = np.frombuffer(text.encode("utf-32-le"), "<u4")
    counts: Counter[str] = Counter()
    for block, n in enumerate(np.bincount(np.searchsorted(_STARTS, points, side="right") - 1)):
        if n:
            counts[_BLOCKS[block][1]] += int(n)
    return dict(counts)


def _histogram(lengths: list[int]) -> dict[str, int]:
    """Documents by length, in classes that double: '128-255' holds those of 128 to 255 characters."""
    classes = Counter(length.bit_length() for length in lengths)
    return {f"{1 << bits - 1}-{(1 << bits) - 1}": classes[bits] for bits in range(min(classes), max(classes) + 1)}


def _overlap(source: Source, options: PrepareOptions) -> dict[str, Any]:
    """Which share of the different runs of words in validation occurs in training as well."""
    plan = plan_split(source, options.split, val_fraction=options.val_fraction, seed=options.seed)

    def runs(wanted: Split) -> Iterator[int]:
        parts = split_pieces(source, plan, BadRows(source.on_bad_row))
        return _runs_of_words(piece for split, piece in parts if split == wanted)

    in_val = set(runs("val"))  # the smaller of the two is what is held in memory
    shared = in_val.intersection(runs("train"))
    share = len(shared) / max(len(in_val), 1)
    return {"words_per_run": OVERLAP_WORDS, "runs_in_val": len(in_val), "also_in_train": len(shared), "share": share}


def _runs_of_words(pieces: Iterable[Piece]) -> Iterator[int]:
    """Hashes of all runs of OVERLAP_WORDS words within a document, letter case aside."""
    before: list[str] = []
    begun = ""  # a word that the end of a piece may have cut
    for piece in pieces:
        text = piece.text
        words = (begun + text.lower()).split()
        begun = words.pop() if words and not piece.ends and not text[-1].isspace() else ""
        words = before + words
        for first in range(len(words) - OVERLAP_WORDS + 1):
            yield hash(tuple(words[first : first + OVERLAP_WORDS]))
        before = [] if piece.ends else words[1 - OVERLAP_WORDS :]
