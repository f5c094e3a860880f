"""The compiled scanner cuts every text where the regular expressions do."""

import random

import numpy as np
import pytest
import regex

from legollm.tokenizers.patterns import PATTERNS

pytest.importorskip("numba")

from legollm.kernels import characters, scan, scan_plain

HAND = [
    "",
    " ",
    "a",
    "it's ' 's 'll 'LL 'ſ'ſx 're've I'M",
    "a\n  b a\n  ",
    "a \n \n  b",
    "..a .a ..\n\n a",
    "x/\n//\r\n/y",
    "123456 7 1234 ١٢٣٤ x²",
    "\u00a0\u00a0x \u3000y\u3000",
    "…a …a «x» ’s",
    "''s",
    "HelloWorld ABCdef ǅab aʰB e\u0301A \u0301 \u0301A\u0301 中A文b",
    "x" * 200,
    " " * 200 + "x",
    "\n" * 130,
    " \n" * 100 + "x",
    "'s" * 100,
    "1" * 500,
    "a\udc80b \ud800",
    "".join(map(chr, range(0x300))),
]
POOLS = [
    "ab '\n",
    "aZ '\t\n\r 1.",
    " sdmtlvre'SDMTLVREſ",
    "a1 .\n\u00a0\u3000é中…’»\U0001f600\u0301٣²",
    "\n \t",
    "中文。，字 a1\n",
    "абв, ’«»\n 1",
    "aAǅʰ中\u0301 '/\n.s",
    "AB\u0301 \udc80x",
]


def definition(text: str, pattern: str) -> list[str]:
    return [match.group() for match in regex.finditer(PATTERNS[pattern], text)]


def random_text(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.8:
        return "".join(rng.choices(rng.choice(POOLS), k=rng.choice((5, 20, 63, 64, 65, 70, 130, 300))))
    if kind < 0.9:
        return "".join(
            chr(rng.randrange(0x110000)) if rng.random() < 0.3 else rng.choice("ab '1\n.") for _ in range(99)
        )
    return "".join(rng.choice(rng.choice(POOLS)) * rng.choice((1, 1, 2, 3, 40, 100)) for _ in range(40))


def test_every_named_pattern_is_scanned() -> None:
    assert scan_plain.SCANNED.keys() == PATTERNS.keys()


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("text", HAND, ids=range(len(HAND)))
def test_hand_made_texts(pattern: str, text: str) -> None:
    assert scan.split(text, pattern) == definition(text, pattern)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_random_texts(pattern: str) -> None:
    rng = random.Random(20_2024)
    for _ in range(1_500):
        text = random_text(rng)
        assert scan.split(text, pattern) == definition(text, pattern), text


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_fast_scanner_equals_the_plain_one(pattern: str) -> None:
    rng = random.Random(7)
    classes = characters.character_table()
    for _ in range(300):
        text = random_text(rng).encode("utf-8", "surrogatepass")
        padded = np.frombuffer(text + bytes(scan.PADDING), np.uint8)
        ends, position = [], 0
        while position < len(text):
            position = scan_plain.token_end(padded, position, len(text), classes, scan_plain.SCANNED[pattern])
            ends.append(position)
        pieces = scan.split(text.decode("utf-8", "surrogatepass"), pattern)
        assert [len(piece.encode("utf-8", "surrogatepass")) for piece in pieces] == np.diff([0, *ends]).tolist()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_follows_the_text_does_not_matter(pattern: str) -> None:
    starts = np.empty(scan.STARTS, np.int64)
    for text in (b"I'", b"a\n ", b"12", b"  ", b"a.", b"x" * 63):
        found = []
        for after in (b"\0", b"s", b"1", b"\n", b" ", b"\xcc\x81"):
            padded = np.frombuffer(text + (after * scan.PADDING)[: scan.PADDING], np.uint8)
            _, m = scan.split_batch(
                padded, 0, len(text), characters.character_table(), scan_plain.SCANNED[pattern], starts
            )
            found.append(starts[: m + 1].tolist())
        assert all(one == found[0] for one in found), text


def test_the_table_on_disk_is_what_the_regex_module_says() -> None:
    rng = random.Random(3)
    table = characters.character_table()
    for code in [*range(0x250), 0xD800, 0xDFFF, *(rng.randrange(0x110000) for _ in range(3_000))]:
        wanted = 0
        for question, answer in (
            (r"\p{L}", characters.LETTER),
            (r"\p{N}", characters.NUMBER),
            (r"\s", characters.SPACE),
            (r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", characters.UPPER),
            (r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", characters.LOWER),
        ):
            wanted |= answer if regex.match(question, chr(code)) else 0
        assert table[code] == wanted, hex(code)


def test_a_damaged_table_on_disk_is_not_used(tmp_path: characters.Path) -> None:
    (tmp_path / "table").write_bytes(b"too short")
    assert characters._read(tmp_path / "table") is None
    assert characters._read(tmp_path / "none") is None
    assert not characters._write(tmp_path / "table" / "below a file", np.zeros(3, np.uint8))
