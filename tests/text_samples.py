"""Strings that break tokenizers, by hand and by chance."""

import random
import unicodedata

BAG = [
    "",
    " ",
    "\n",
    "Hello, world!",
    "don't I'LL we're 'tis O’Neil",
    "1234567 3.14 ٣٤٥ Ⅷ ½",
    "...!?--  ''\"\"",
    "a\x00b\x00",
    "\r\nline\r\n\r\n\n  indented\t\ttab \n ",
    "trailing spaces   ",
    "cafe\u0301 A\u030a \u0301\u0301\u0301",
    "नमस्ते สวัสดี 日本語の文章 한국어 שלום مرحبا",
    "👩‍👩‍👧‍👦 🇩🇪🇫🇷 👍🏽 ☃️",
    "".join(chr(plane * 0x10000 + 0x1F0) for plane in range(17)),
    "\ufeff\u2028\u2029\x85\xa0\u3000\u200b",
    "<|endoftext|> <|endoftext| <<|endoftext|>> <|im_start|>system",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" * 9,
    "ſ K ﬁ ß İ ı Ǆ ǅ ʰ",
]

# Engines carry different versions of Unicode; Python 3.11 knows the oldest. U+0295 changed its category since.
_ASSIGNED = [
    chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co") and code != 0x295
]
_MARKS = [c for c in _ASSIGNED if unicodedata.category(c) in ("Mn", "Mc", "Me")]
_SPACES = list(" \n\r\t\x0b\x0c\x1c\x85\xa0\u1680\u2003\u2028\u3000") + [" "] * 20 + ["\n"] * 4
_ASCII = [chr(code) for code in range(128)]
_PIECES = [
    "'s",
    "'LL",
    "'re",
    "don't",
    " the",
    "The",
    "ing",
    "\r\n",
    "  ",
    "...",
    "//",
    "123",
    "<|endoftext|>",
    "'ſ",
    "日本",
]


def random_texts(seed: int, n: int) -> list[str]:
    """Short texts of all kinds of characters, assigned in Unicode 14, private use left out."""
    rng = random.Random(seed)
    pools = [_ASSIGNED, _MARKS, _SPACES, _ASCII, _PIECES, list("abcdeABCDE"), list("0123456789"), _ASSIGNED[:1000]]
    texts = []
    for _ in range(n):
        chosen = rng.choices(pools, k=rng.randrange(1, 5))
        texts.append("".join(rng.choice(rng.choice(chosen)) for _ in range(rng.randrange(1, 24))))
    return texts
