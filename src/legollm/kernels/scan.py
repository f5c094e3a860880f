"""Cutting UTF-8 text into pre-tokens, 64 bytes at a time.

Each class of characters is a whole number with one bit for a byte, and where tokens start follows from shifting and
combining these. What that does not handle is left to `legollm.kernels.scan_plain`: digits and spaces beyond ASCII,
tokens longer than a window, and o200k, whose words end where the case changes back, so that a start depends on all
letters before it.

The text is UTF-8 (lone surrogates as three bytes each) and is followed by PADDING bytes that may be read and mean
nothing.
"""

from itertools import pairwise

import numpy as np

from legollm.kernels.characters import KIND, LETTER, NUMBER, character_table
from legollm.kernels.machine import (
    EIGHT,
    I64,
    I64S,
    NOTHING,
    PAIR,
    TEXT,
    WINDOW,
    Array,
    byte_classes,
    count_ones,
    kernel,
    leading_zeros,
    out_of_line,
    put,
    shift_right,
    trailing_zeros,
    wrap_add,
)
from legollm.kernels.scan_plain import GPT2, GPT4, O200K, QWEN, SCANNED, character, contraction, token_end

PADDING = 80
"""Bytes after the text that the kernels may read: a window, and 16 bytes of a word that starts in its last byte."""
BATCH = 512
"""Tokens that are looked at together; a window can add some more."""
AT_ONCE = 16
"""Tokens of a window that are written without asking whether there are so many; most windows have a few less."""
STARTS = BATCH + WINDOW + AT_ONCE + 1
"""Room that `split_batch` needs."""

# `x << 1` moves every bit to the following byte: `x & ~(x << 1)` are the bytes that begin a run of x.


@kernel(EIGHT(TEXT, I64, I64, TEXT))
def classify(text: Array, position: int, n: int, classes: Array) -> tuple[int, int, int, int, int, int, int, int]:
    """The classes of the n <= 64 bytes from `position` on, as bits, and for how many bytes they hold.

    In order: letters, numbers, whitespace, blanks, newlines, apostrophes, continuation bytes. Every byte of a letter
    of several bytes is a letter. The window ends early before a character that it cuts in two, or a number or space
    beyond ASCII.
    """
    letters, numbers, spaces, blanks, newlines, apostrophes, high = byte_classes(text, position)
    continuation = 0
    valid = -1 if n == WINDOW else (1 << n) - 1
    high &= valid
    while high:
        i = trailing_zeros(high)
        entry, length = character(text, position + i, position + WINDOW + 4, classes)
        kind = entry & KIND
        if i + length > n or kind >= NUMBER:  # NUMBER or SPACE
            n = i
            valid = (1 << n) - 1
            break
        its_bytes = ((1 << length) - 1) << i
        if kind == LETTER:
            letters |= its_bytes
        continuation |= its_bytes & ~(1 << i)
        high &= ~its_bytes
    letters &= valid
    return (
        letters, numbers & valid, spaces & valid, blanks & valid,
        newlines & valid, apostrophes & valid, continuation & valid, n,
    )  # fmt: skip


@kernel(I64(TEXT, I64, I64, I64, I64, I64, I64, I64, I64))
def gpt2_starts(
    text: Array, position: int, end: int, n: int, letters: int, numbers: int, spaces: int, blanks: int, apostrophes: int
) -> int:
    """The bytes of a window where a token of gpt2 starts."""
    valid = -1 if n == WINDOW else (1 << n) - 1
    others = ~(letters | numbers | spaces) & valid
    runs = (letters & ~(letters << 1)) | (numbers & ~(numbers << 1)) | (others & ~(others << 1))
    bare = runs & ~(blanks << 1)  # the others have their token start at the blank before
    starts = bare | shift_right(runs & (spaces << 1), 1) | (spaces & ~(spaces << 1)) | 1
    candidates = apostrophes & bare & shift_right(letters, 1)
    while candidates:
        i = trailing_zeros(candidates)
        candidates &= candidates - 1
        length = contraction(text, position + i, end, 0)
        if length:
            starts &= ~(1 << (i + 1))  # what follows the apostrophe is no token of its own
            if i + length < n:
                starts |= 1 << (i + length)
    return starts


@kernel(I64(I64, I64, I64, I64))
def blanks_after_newlines(spaces: int, newlines: int, n: int, whole_last_run: int) -> int:
    r"""Where a run of whitespace is cut after its last newline, as \s*[\r\n]+ does.

    whole_last_run: the run that touches the end of the window is not cut.
    """
    plain = spaces & ~newlines
    cuts = plain & (newlines << 1)
    if wrap_add(plain, cuts) & ~plain & newlines:  # adding carries through a run of blanks to what follows: a newline
        candidates = cuts
        while candidates:
            i = trailing_zeros(candidates)
            candidates &= candidates - 1
            following = i + trailing_zeros(~shift_right(plain, i))
            if following < WINDOW and shift_right(newlines, following) & 1:
                cuts &= ~(1 << i)
    if whole_last_run and n > 0 and shift_right(spaces, n - 1) & 1:
        valid = -1 if n == WINDOW else (1 << n) - 1
        before = ~spaces & valid
        cuts &= (2 << (63 - leading_zeros(before))) - 1 if before else 0
    return cuts


@kernel(I64(TEXT, I64, I64, I64, I64, I64, I64, I64, I64, I64, I64, I64, I64))
def gpt4_starts(
    text: Array, position: int, end: int, n: int, letters: int, numbers: int, spaces: int, blanks: int,
    newlines: int, apostrophes: int, continuation: int, pattern: int, last: int,
) -> int:  # fmt: skip
    """The bytes of a window where a token of gpt4, llama3 or qwen starts; last: the window ends with the text."""
    valid = -1 if n == WINDOW else (1 << n) - 1
    others = ~(letters | numbers | spaces) & valid
    words, counts, signs = letters & ~(letters << 1), numbers & ~(numbers << 1), others & ~(others << 1)
    plain = spaces & ~newlines  # whitespace that a word can take along
    bare_signs = signs & ~(blanks << 1)
    # A word also takes one sign along that has no blank before it: the last byte of that sign's character.
    prefix = bare_signs
    if continuation:
        for _ in range(3):
            longer = (prefix << 1) & continuation
            prefix = (prefix & ~shift_right(longer, 1)) | longer
    runs = words | counts | signs
    starts = (words & ~(prefix << 1) & ~(plain << 1)) | bare_signs | counts | shift_right(runs & (plain << 1), 1) | 1
    # Newlines directly after signs belong to them: adding carries through the run of newlines.
    taken = newlines & ~wrap_add(newlines, (others << 1) & newlines)
    spaces &= ~taken
    starts |= spaces & ~(spaces << 1)
    whole_last_run = 1 if pattern == GPT4 or not last else 0
    starts |= blanks_after_newlines(spaces, newlines & spaces, n, whole_last_run)
    if pattern == QWEN:
        starts |= numbers
    else:
        triples = numbers & (numbers << 1) & (numbers << 2)
        group = counts
        while group:
            group = (group << 3) & triples
            starts |= group
    candidates = apostrophes & bare_signs & shift_right(letters, 1)
    while candidates:
        i = trailing_zeros(candidates)
        candidates &= candidates - 1
        length = contraction(text, position + i, end, 1)
        if length and i + length < n:
            starts |= 1 << (i + length)
    return starts


@kernel(PAIR(TEXT, I64, I64, TEXT, I64))
def window_starts(text: Array, position: int, end: int, classes: Array, pattern: int) -> tuple[int, int]:
    """Token starts among the next 64 bytes as bits, the lowest always set, and the number n of bytes looked at.

    The last start begins a token that may go on; when the window reaches the end of the text all are whole, and n is
    returned negative.
    """
    n = end - position if end - position < WINDOW else WINDOW
    letters, numbers, spaces, blanks, newlines, apostrophes, continuation, n = classify(text, position, n, classes)
    last = 1 if position + n == end else 0
    if pattern == GPT2:
        starts = gpt2_starts(text, position, end, n, letters, numbers, spaces, blanks, apostrophes)
    else:
        starts = gpt4_starts(
            text, position, end, n, letters, numbers, spaces, blanks, newlines, apostrophes, continuation, pattern, last
        )
    if last:
        return starts, -n
    # What stands in the last bytes can depend on what follows: a letter after a sign, a third digit.
    return (1, n) if n < 5 else (starts & ((1 << (n - 3)) - 1), n)


@kernel(NOTHING(I64S, I64, I64, I64))
def put_starts(starts: Array, m: int, position: int, bits: int) -> None:
    """Write the place of each bit that is set, the lowest first, to starts[m:]; overwrites AT_ONCE places at least.

    The processor would guess wrong in most windows if it were asked after each start whether it was the last.
    """
    for _ in range(AT_ONCE):
        put(starts, m, position + trailing_zeros(bits))
        bits &= bits - 1
        m += 1
    while bits:
        put(starts, m, position + trailing_zeros(bits))
        bits &= bits - 1
        m += 1


@kernel(PAIR(TEXT, I64, I64, TEXT, I64, I64S))
def split_batch(text: Array, position: int, end: int, classes: Array, pattern: int, starts: Array) -> tuple[int, int]:
    """The next tokens, BATCH of them or a few more: token j is text[starts[j] : starts[j + 1]].

    Returns the position after them and their number.
    """
    out_of_line()
    m = 0
    while position < end and m < BATCH:
        if pattern == O200K:
            put(starts, m, position)
            position = token_end(text, position, end, classes, pattern)
            m += 1
            continue
        found, n = window_starts(text, position, end, classes, pattern)
        put_starts(starts, m, position, found)
        m += count_ones(found)
        if n < 0:
            position -= n
        elif found == 1:
            position = token_end(text, position, end, classes, pattern)
        else:  # the token that starts last may go on: it starts the next window
            m -= 1
            position += 63 - leading_zeros(found)
    put(starts, m, position)
    return position, m


def split(text: str, pattern: str) -> list[str]:
    """All tokens of `text`, for who wants to look at them."""
    data = text.encode("utf-8", "surrogatepass")
    padded = np.frombuffer(data + bytes(PADDING), np.uint8)
    starts = np.empty(STARTS, np.int64)
    pieces: list[str] = []
    position = 0
    while position < len(data):
        position, m = split_batch(padded, position, len(data), character_table(), SCANNED[pattern], starts)
        cuts = starts[: m + 1].tolist()
        pieces += [data[a:b].decode("utf-8", "surrogatepass") for a, b in pairwise(cuts)]
    return pieces
