"""Cutting UTF-8 text into pre-tokens as the patterns of GPT-2, GPT-4, LLaMA 3, Qwen and o200k do, without a regex.

Two scanners with one result. The plain one, `token_end`, reads character by character and says where the token that
begins here ends. The fast one looks at 64 bytes at once: each class of characters is a whole number with one bit for a
byte, and where tokens start follows from shifting and combining these. What it does not handle (digits and spaces
beyond ASCII, tokens longer than its window, o200k) it leaves to the plain one.

Their definition is `legollm.tokenizers.patterns`. The text is UTF-8 (lone surrogates as three bytes each) and is
followed by PADDING bytes that may be read and mean nothing.
"""

from itertools import pairwise

import numpy as np

from legollm.kernels.characters import KIND, LETTER, LOWER, NUMBER, OTHER, SPACE, UPPER, character_table
from legollm.kernels.machine import (
    EIGHT,
    I64,
    I64S,
    PAIR,
    TEXT,
    WINDOW,
    Array,
    at,
    byte_classes,
    kernel,
    leading_zeros,
    out_of_line,
    put,
    shift_right,
    trailing_zeros,
    wrap_add,
)

PADDING = 80
"""Bytes after the text that the kernels may read: a window, and 16 bytes of a word that starts in its last byte."""

GPT2, GPT4, LLAMA3, QWEN, O200K = range(5)
SCANNED = {"gpt2": GPT2, "gpt4": GPT4, "llama3": LLAMA3, "qwen": QWEN, "o200k": O200K}
"""The named patterns that are known here, and their numbers."""

BATCH = 512
"""Tokens that are looked at together; a window can add some more."""
STARTS = BATCH + WINDOW + 1
"""Room that `split_batch` needs."""

END = 7
"""The class of what comes after the text."""
_LF, _CR, _BLANK, _APOSTROPHE, _SLASH = (ord(character) for character in "\n\r '/")
_D, _E, _L, _M, _R, _S, _T, _V = (ord(character) for character in "delmrstv")
_LONG_S = (0xC5, 0xBF)
"""The bytes of U+017F, which is an s where case does not count."""


# ---- one character at a time --------------------------------------------------------------------------------------


@kernel(PAIR(TEXT, I64, I64, TEXT))
def character(text: Array, position: int, end: int, classes: Array) -> tuple[int, int]:
    """Table entry and byte length of the character at `position`; END and 0 after the text."""
    if position >= end:
        return END, 0
    a = at(text, position)
    if a < 0x80:
        return at(classes, a), 1
    b = at(text, position + 1) & 0x3F
    if a < 0xE0:
        return at(classes, (a & 0x1F) << 6 | b), 2
    c = at(text, position + 2) & 0x3F
    if a < 0xF0:
        return at(classes, (a & 0x0F) << 12 | b << 6 | c), 3
    return at(classes, (a & 0x07) << 18 | b << 12 | c << 6 | at(text, position + 3) & 0x3F), 4


@kernel(PAIR(TEXT, I64, I64, TEXT))
def kind_of(text: Array, position: int, end: int, classes: Array) -> tuple[int, int]:
    """OTHER, LETTER, NUMBER, SPACE or END, and the byte length."""
    entry, length = character(text, position, end, classes)
    return (END if length == 0 else entry & KIND), length


@kernel(I64(TEXT, I64, I64, I64))
def contraction(text: Array, position: int, end: int, any_case: int) -> int:
    """How many bytes 's, 't, 'm, 'd, 'll, 've or 're takes at this apostrophe; 0 if it is none."""
    if position + 1 >= end:
        return 0
    a = at(text, position + 1)
    if any_case:
        if a == _LONG_S[0]:
            return 3 if position + 2 < end and at(text, position + 2) == _LONG_S[1] else 0
        a |= 0x20  # lower case
    if a in (_S, _T, _M, _D):
        return 2
    if position + 2 >= end:
        return 0
    b = at(text, position + 2)
    if any_case:
        b |= 0x20
    return 3 if (a == _L and b == _L) or (a in (_V, _R) and b == _E) else 0


@kernel(I64(TEXT, I64, I64, TEXT, I64))
def run_end(text: Array, position: int, end: int, classes: Array, kind: int) -> int:
    """Where the run of characters of this kind ends."""
    while True:
        found, length = kind_of(text, position, end, classes)
        if found != kind:
            return position
        position += length


@kernel(I64(TEXT, I64, I64, TEXT, I64))
def numbers_end(text: Array, position: int, end: int, classes: Array, most: int) -> int:
    r"""The end of \p{N}{1,most}."""
    for _ in range(most):
        found, length = kind_of(text, position, end, classes)
        if found != NUMBER:
            break
        position += length
    return position


@kernel(I64(TEXT, I64, I64, TEXT, I64, I64))
def spaces_end(text: Array, position: int, end: int, classes: Array, newlines: int, whole_at_end: int) -> int:
    r"""The end of the token that whitespace begins: \s*[\r\n]+|\s+(?!\S)|\s+.

    newlines: whether the first alternative is there (not in gpt2); whole_at_end: gpt4's \s+ at the end of the text.
    """
    last = here = position
    after_newline = -1
    while True:
        found, length = kind_of(text, here, end, classes)
        if found != SPACE:
            break
        if at(text, here) == _LF or at(text, here) == _CR:
            after_newline = here + 1
        last = here
        here += length
    if found == END and whole_at_end:
        return here
    if newlines and after_newline >= 0:
        return after_newline
    return here if found == END or last == position else last


@kernel(I64(TEXT, I64, I64, TEXT))
def gpt2_end(text: Array, position: int, end: int, classes: Array) -> int:
    """The end of the token of gpt2 at `position`."""
    first = at(text, position)
    if first == _APOSTROPHE:
        length = contraction(text, position, end, 0)
        if length:
            return position + length
    kind, length = kind_of(text, position, end, classes)
    if kind == SPACE:
        kind = kind_of(text, position + 1, end, classes)[0] if first == _BLANK else SPACE
        if kind in (SPACE, END):
            return spaces_end(text, position, end, classes, 0, 0)
        position += 1
    return run_end(text, position, end, classes, kind)


@kernel(I64(TEXT, I64, I64, TEXT, I64))
def gpt4_end(text: Array, position: int, end: int, classes: Array, pattern: int) -> int:
    """The end of the token of gpt4, llama3 or qwen at `position`."""
    first = at(text, position)
    if first == _APOSTROPHE:
        length = contraction(text, position, end, 1)
        if length:
            return position + length
    kind, length = kind_of(text, position, end, classes)
    if kind == LETTER:
        return run_end(text, position, end, classes, LETTER)
    if kind == NUMBER:
        return numbers_end(text, position, end, classes, 1 if pattern == QWEN else 3)
    following = kind_of(text, position + length, end, classes)[0]
    if following == LETTER and first != _LF and first != _CR:
        return run_end(text, position + length, end, classes, LETTER)
    if first == _BLANK and following == OTHER:
        position += 1
        kind = OTHER
    if kind == SPACE:
        return spaces_end(text, position, end, classes, 1, 1 if pattern == GPT4 else 0)
    position = run_end(text, position, end, classes, OTHER)
    while position < end and (at(text, position) == _LF or at(text, position) == _CR):
        position += 1
    return position


@kernel(PAIR(TEXT, I64, I64, TEXT))
def cased_end(text: Array, position: int, end: int, classes: Array) -> tuple[int, int]:
    """Where upper* lower+ and where upper+ lower* end, each -1 if it does not match here."""
    here = position
    both = -1  # the end of the last character that can be either, given back by upper* if no lower one follows
    while True:
        entry, length = character(text, here, end, classes)
        if entry == END or not entry & UPPER:
            break
        here += length
        if entry & LOWER:
            both = here
    upper_end = here
    while entry != END and entry & LOWER:
        here += length
        entry, length = character(text, here, end, classes)
    lower_end = here if here > upper_end else both
    return lower_end, here if upper_end > position else -1


@kernel(I64(TEXT, I64, I64, TEXT))
def o200k_word_end(text: Array, position: int, end: int, classes: Array) -> int:
    """The end of o200k's word at `position`, its contraction included; -1 if there is none."""
    kind, length = kind_of(text, position, end, classes)
    first = at(text, position)
    lower = upper = -1  # the longer way, with a character before the word, comes first
    if kind in (OTHER, SPACE) and first != _LF and first != _CR:
        lower, upper = cased_end(text, position + length, end, classes)
    if lower < 0:
        lower, bare_upper = cased_end(text, position, end, classes)
        upper = upper if upper >= 0 else bare_upper
    word = lower if lower >= 0 else upper
    if word >= 0 and word < end and at(text, word) == _APOSTROPHE:
        word += contraction(text, word, end, 1)
    return word


@kernel(I64(TEXT, I64, I64, TEXT))
def o200k_end(text: Array, position: int, end: int, classes: Array) -> int:
    """The end of the token of o200k at `position`."""
    word = o200k_word_end(text, position, end, classes)
    if word >= 0:
        return word
    kind = kind_of(text, position, end, classes)[0]
    if kind == NUMBER:
        return numbers_end(text, position, end, classes, 3)
    if at(text, position) == _BLANK and kind_of(text, position + 1, end, classes)[0] == OTHER:
        position += 1
        kind = OTHER
    if kind == SPACE:
        return spaces_end(text, position, end, classes, 1, 0)
    position = run_end(text, position, end, classes, OTHER)
    while position < end:
        byte = at(text, position)
        if byte != _LF and byte != _CR and byte != _SLASH:
            break
        position += 1
    return position


@kernel(I64(TEXT, I64, I64, TEXT, I64))
def token_end(text: Array, position: int, end: int, classes: Array, pattern: int) -> int:
    """The end of the token that begins at `position` < `end`: the definition that the fast scanner equals."""
    out_of_line()
    if pattern == GPT2:
        return gpt2_end(text, position, end, classes)
    if pattern == O200K:
        return o200k_end(text, position, end, classes)
    return gpt4_end(text, position, end, classes, pattern)


# ---- 64 bytes at a time -------------------------------------------------------------------------------------------
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


@kernel(PAIR(TEXT, I64, I64, TEXT, I64, I64S))
def split_batch(text: Array, position: int, end: int, classes: Array, pattern: int, starts: Array) -> tuple[int, int]:
    """The next tokens, BATCH of them or a few more: token j is text[starts[j] : starts[j + 1]].

    Returns the position after them and their number.
    """
    out_of_line()
    m = 0
    put(starts, 0, position)
    while position < end and m < BATCH:
        if pattern == O200K:
            position = token_end(text, position, end, classes, pattern)
            m += 1
            put(starts, m, position)
            continue
        found, n = window_starts(text, position, end, classes, pattern)
        following = found & ~1
        while following:
            m += 1
            put(starts, m, position + trailing_zeros(following))
            following &= following - 1
        if n < 0:
            position -= n
            m += 1
            put(starts, m, position)
        elif found == 1:
            position = token_end(text, position, end, classes, pattern)
            m += 1
            put(starts, m, position)
        else:
            position = at(starts, m)
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
