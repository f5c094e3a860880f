"""The classes of all Unicode characters that the split patterns ask about, as one table of bytes.

Asked of the installed `regex` module, because the pure Python splitter and this table have to agree on every character
whichever version of Unicode that module knows. Asking takes a second or two, so the answer is kept on disk.
"""

import os
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import regex
from numpy.typing import NDArray

OTHER, LETTER, NUMBER, SPACE = 0, 1, 2, 3
"""What every pattern asks first: \\p{L}, \\p{N}, \\s, or none of them. Lone surrogates are none of them."""
KIND = 3
"""The bits of a table entry that hold one of these four."""
UPPER, LOWER = 4, 8
"""What o200k asks, too: may stand in the first, in the second half of a word. Marks may, though they are no letters."""

_QUESTIONS = {
    r"\p{L}+": LETTER,
    r"\p{N}+": NUMBER,
    r"\s+": SPACE,
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+": UPPER,
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]+": LOWER,
}
N_CHARACTERS = 0x110000
_SIZE = 0x200000
"""All that four bytes can spell, so that looking up a character never leaves the table."""


def build_table() -> NDArray[np.uint8]:
    """The class of every character, asked of `regex` anew."""
    everything = np.arange(N_CHARACTERS, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")
    table = np.zeros(_SIZE, np.uint8)
    for question, answer in _QUESTIONS.items():
        for match in regex.finditer(question, everything):
            table[match.start() : match.end()] |= answer
    return table


@cache
def character_table() -> NDArray[np.uint8]:
    """Code point -> its class; built by the first process and read from disk by the others."""
    name = f"characters-regex-{regex.__version__}.bin"
    folders = [Path(__file__).parent / "__pycache__", Path(os.path.expanduser("~/.cache/legollm"))]
    table = next((found for folder in folders if (found := _read(folder / name)) is not None), None)
    if table is None:
        table = build_table()
        for folder in folders:
            if _write(folder / name, table):
                break
    table.flags.writeable = False
    return table


def _read(path: Path) -> NDArray[np.uint8] | None:
    with suppress(OSError):
        table = np.fromfile(path, np.uint8)
        if len(table) == _SIZE:
            return table
    return None


def _write(path: Path, table: NDArray[np.uint8]) -> bool:
    """Whether the table is on disk now; where nothing can be written, each process builds its own."""
    draft = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        table.tofile(draft)
        draft.replace(path)
    except OSError:
        return False
    return True
