"""Cutting UTF-8 text into pre-tokens as the named patterns do, without a regex: one character at a time.

The patterns of GPT-2, GPT-4, LLaMA 3, Qwen and o200k, each as the function that says where the token that begins here
ends. `legollm.kernels.scan` does the same for 64 bytes at once and comes here for what it does not handle. The
definition is `legollm.tokenizers.patterns`.
"""

from legollm.kernels.characters import KIND, LETTER, LOWER, NUMBER, OTHER, SPACE, UPPER
from legollm.kernels.machine import I64, PAIR, TEXT, Array, at, kernel, out_of_line

GPT2, GPT4, LLAMA3, QWEN, O200K = range(5)
SCANNED = {"gpt2": GPT2, "gpt4": GPT4, "llama3": LLAMA3, "qwen": QWEN, "o200k": O200K}
"""The named patterns that are known here, and their numbers."""

END = 7
"""The class of what comes after the text."""
_LF, _CR, _BLANK, _APOSTROPHE, _SLASH = (ord(character) for character in "\n\r '/")
_D, _E, _L, _M, _R, _S, _T, _V = (ord(character) for character in "delmrstv")
_LONG_S = (0xC5, 0xBF)
"""The bytes of U+017F, which is an s where case does not count."""


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
