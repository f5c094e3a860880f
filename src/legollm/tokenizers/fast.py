"""The Python side of the compiled encoder: its tables, the buffers it writes to, threads, files.

Same ids as the plain path in `regex_bpe`, some twenty times faster. What is here once for a tokenizer is read only and
shared by threads; what a thread remembers of the words it has seen is its own while it works.
"""

import logging
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from legollm.errors import TokenizerError
from legollm.tokenizers.patterns import PATTERNS

if TYPE_CHECKING:
    from legollm.kernels.words import Memory

log = logging.getLogger(__name__)

Ids = NDArray[np.int32]

WORTH_LOADING = 4 << 20
"""Characters of text after which the compiled code has paid for its import, half a second if it is on disk already."""
WORTH_BUILDING = 1 << 18
"""The same where it is imported: then only the tables of the vocabulary are made."""
WORTH_CALLING = 256
"""Characters of a text from which on the compiled code is faster than a dictionary of known pieces."""
BLOCK = 1 << 20
"""Bytes of a file that a thread takes at once: what is read and written stays in the processor's cache."""
LARGEST_TABLE = 8 << 20
"""Whole numbers in the largest table of words (64 MB), which holds a million of them; later ones are not remembered."""
LARGEST_POOL = 16 << 20
SAFE_CUT = re.compile(rb"[0-9A-Za-z](?= )")
"""Between an ASCII letter or digit and a blank every named pattern cuts, and no normal form joins."""


def is_there(*kernels: str) -> bool:
    """Whether these modules of compiled code, by default those that encode, can be used on this machine."""
    try:
        for name in kernels or ("encode",):
            import_module(f"legollm.kernels.{name}")
    except ImportError as error:
        log.info("texts are encoded and learned from in Python: no compiled code, because of %s", error)
        return False
    return True


def is_loaded() -> bool:
    """Whether somebody in this process paid for importing the compiled code already."""
    return "legollm.kernels.encode" in sys.modules


def knows(pattern: str, tokens: Mapping[int, bytes], merges: Sequence[Any], whole_pieces: bool) -> bool:
    """Whether the compiled code can serve such a vocabulary; needs no numba to say so."""
    small = max(tokens) < (1 << 21) - 1 and len(merges) < 1 << 21  # the bits that its tables have for each
    return small and pattern in PATTERNS.values() and not (whole_pieces and max(map(len, tokens.values())) > 4096)


def text_bytes(text: str) -> bytes:
    """UTF-8, lone surrogates as three bytes each."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def checked_text(data: bytes, *, at: int = 0) -> str:
    """The text of UTF-8 bytes, which stand at byte `at` of what the user gave.

    Raises:
        TokenizerError: bytes that are no UTF-8.
    """
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise TokenizerError(
            f"byte {at + error.start} of the text is no UTF-8: {error.reason}; convert the text, or decode it with "
            "errors='replace'"
        ) from None


def last_cut(block: bytes) -> int:
    """The last place in the end of `block` where it may be cut; 0 if there is none."""
    for size in (1 << 6, 1 << 10, 1 << 16):
        cuts = [match.end() for match in SAFE_CUT.finditer(block, max(0, len(block) - size))]
        if cuts:
            return cuts[-1]
    return 0


def blocks_of(path: Path, size: int) -> Iterator[bytes]:
    """The bytes of a file in blocks of about `size`, cut where every named pattern cuts; larger where there is none."""
    with path.open("rb") as file:
        held: list[bytes] = []
        while block := file.read(size):
            cut = last_cut(block)
            if cut:
                yield b"".join([*held, block[:cut]])
                held = []
            held.append(block[cut:])
        yield b"".join(held)


def placed(blocks: Iterator[bytes]) -> Iterator[tuple[bytes, int]]:
    """Each block and where it begins."""
    at = 0
    for block in blocks:
        yield block, at
        at += len(block)


class FastEncoder:
    """The compiled encoder for one vocabulary. Threads may share it."""

    def __init__(
        self, pattern: str, tokens: Mapping[int, bytes], merges: Sequence[tuple[bytes, bytes]], *, whole_pieces: bool
    ) -> None:
        """pattern: one of the regular expressions in PATTERNS; merges: in rank order."""
        from legollm.kernels.characters import character_table
        from legollm.kernels.scan import PADDING
        from legollm.kernels.scan_plain import SCANNED

        ids = {token: i for i, token in tokens.items()}
        self._pattern = SCANNED[next(name for name, known in PATTERNS.items() if known == pattern)]
        self._classes = character_table()
        self._rules = make_rules(ids, merges)
        # The tokens themselves are the words of most texts: remembered from the start.
        self._tokens = np.frombuffer(b"".join(tokens.values()) + bytes(PADDING), np.uint8)
        self._offsets = np.cumsum([0, *map(len, tokens.values())], dtype=np.int64)
        self._ids = np.array(list(tokens), np.int32)
        self._whole_pieces = whole_pieces
        self._memories: list[Memory] = []

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_memories": []}  # a copy in another process begins with its own

    def encode(self, text: bytes) -> Ids:
        """The ids of valid UTF-8."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[bytes], *, threads: int = 1) -> tuple[Ids, NDArray[np.int64]]:
        """The ids of all texts in a row, and where each text's begin: text i has ids[offsets[i] : offsets[i + 1]]."""
        from legollm.kernels.scan import PADDING

        places = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        joined = np.frombuffer(b"".join([*texts, bytes(PADDING)]), np.uint8)
        shares = np.searchsorted(places, places[-1] * np.arange(threads + 1) // threads)
        shares[-1] = len(texts)
        ends = np.zeros(len(texts), np.int64)

        def work(share: int) -> Ids:
            return self._encode_share(joined, places, int(shares[share]), int(shares[share + 1]), ends)

        if threads == 1:
            parts = [work(0)]
        else:
            with ThreadPoolExecutor(threads) as pool:
                parts = list(pool.map(work, range(threads)))
        offsets = np.zeros(len(texts) + 1, np.int64)
        before = 0
        for part, first, last in zip(parts, shares[:-1], shares[1:], strict=True):
            offsets[first + 1 : last + 1] = ends[first:last] + before
            before += len(part)
        return parts[0] if threads == 1 else np.concatenate(parts), offsets

    def _encode_share(
        self, joined: NDArray[np.uint8], places: NDArray[np.int64], first: int, last: int, ends: NDArray[np.int64]
    ) -> Ids:
        """The ids of texts `first` to `last`, and in `ends` where those of each end."""
        from legollm.kernels.encode import SLACK, encode_texts

        try:
            memory = self._memories.pop()
        except IndexError:  # as many threads are at work as never before
            memory = self._new_memory()
        position, end = int(places[first]), int(places[last])
        begin = position
        out = np.empty((end - position) // 3 + 4096, np.int32)
        i, n = first, 0
        while True:
            start = position
            i, position, n = encode_texts(
                self._rules, memory, joined, places, i, last, position, self._classes, self._pattern, out, n, ends,
                int(may_grow(memory)),
            )  # fmt: skip
            if i == last:
                break
            grown = grow(memory)
            if grown is memory and position == start:  # one token may be all that is left, with an id for every byte
                out = enlarge(out, n, n + end - position + SLACK)
            elif n + (1 << 16) > len(out):  # as many ids a byte as until now
                out = enlarge(out, n, n + (1 << 16) + int(1.1 * (end - position) * n / (position - begin + 1)))
            memory = grown
        self._memories.append(memory)
        return out[:n]

    def _new_memory(self) -> "Memory":
        from legollm.kernels.encode import HEADROOM, POOL_HEADROOM, learn_tokens
        from legollm.kernels.merging import SCRATCH
        from legollm.kernels.words import BUCKET, SLOT, Memory

        n_tokens = len(self._ids)
        n_bytes = len(self._tokens) if self._whole_pieces else 0
        memory = Memory(
            short=lines(BUCKET * power_of_two(2 * n_tokens + 2 * HEADROOM)),
            long=lines(SLOT * power_of_two((2 * n_tokens if self._whole_pieces else 0) + 16 * HEADROOM)),
            pool=np.empty(n_bytes + 16 * n_tokens + 16 * POOL_HEADROOM, np.int32),
            used=np.zeros(3, np.int64),
            scratch=np.zeros(SCRATCH, np.int32),
        )
        out = np.empty(64, np.int32)
        learn_tokens(self._rules, memory, self._tokens, self._offsets, self._ids, int(self._whole_pieces), out)
        return memory

    def encode_file(self, path: Path, *, threads: int, prepare: Callable[[bytes, int], bytes]) -> Ids:
        """The ids of a file; prepare: makes valid UTF-8 in normal form of each block, told where it begins."""

        def work(block: bytes, at: int) -> Ids:
            return self.encode(prepare(block, at))

        blocks = placed(blocks_of(path, BLOCK))
        if threads == 1:
            return np.concatenate([work(block, at) for block, at in blocks])
        parts: list[Ids] = []
        with ThreadPoolExecutor(threads) as pool:
            waiting: deque[Future[Ids]] = deque()
            for block, at in blocks:
                waiting.append(pool.submit(work, block, at))
                if len(waiting) > 2 * threads:  # one block that a thread works on, one that waits for it
                    parts.append(waiting.popleft().result())
            return np.concatenate([*parts, *(one.result() for one in waiting)])


def make_rules(ids: Mapping[bytes, int], merges: Sequence[tuple[bytes, bytes]]) -> Any:
    """The merges as the kernels read them."""
    from legollm.kernels.rules import (
        BUCKET,
        EMPTY,
        ENDS_IN_ASCII,
        N_CHARACTERS,
        STARTS_CHARACTER,
        Rules,
        fill_characters,
        fill_pairs,
    )

    lefts = np.array([ids[left] for left, _ in merges], np.int32)
    rights = np.array([ids[right] for _, right in merges], np.int32)
    edges = np.zeros(max(ids.values()) + 1, np.int32)
    for token, i in ids.items():
        edges[i] = STARTS_CHARACTER * (not b"\x80" <= token[:1] < b"\xc0") + ENDS_IN_ASCII * (token[-1:] < b"\x80")
    bits = max(7, (len(merges) // 6).bit_length())  # buckets of eight are a quarter full, or three at most
    spare = 64
    while True:
        rules = Rules(
            pairs=lines(((1 << bits) + spare) * BUCKET),
            characters=np.full(N_CHARACTERS, EMPTY, np.int64),
            byte_ids=np.array([ids[bytes([value])] for value in range(256)], np.int32),
            products=np.array([ids[left + right] for left, right in merges], np.int32),
            shift=64 - bits,
        )
        rules.pairs[:] = EMPTY
        if fill_pairs(rules, lefts, rights):
            fill_characters(rules, lefts, rights, edges)
            return rules
        spare *= 4


def power_of_two(n: int) -> int:
    """The least that is n or more."""
    return 1 << (n - 1).bit_length()


def lines(n: int) -> NDArray[np.int64]:
    """n zeros that begin where a cache line does."""
    raw = np.zeros(n + 8, np.int64)
    first = -raw.ctypes.data % 64 // 8
    return raw[first : first + n]


def enlarge(out: Ids, n: int, size: int) -> Ids:
    """Room for `size` ids, the first n kept."""
    larger = np.empty(size, np.int32)
    larger[:n] = out[:n]
    return larger


def may_grow(memory: "Memory") -> bool:
    """Whether no part of it has reached its largest size."""
    return max(len(memory.short), len(memory.long)) < LARGEST_TABLE and len(memory.pool) < LARGEST_POOL


def grow(memory: "Memory") -> "Memory":
    """The same words in tables with room for more; the memory itself if there is room already or may be no more."""
    from legollm.kernels.encode import HEADROOM, POOL_HEADROOM, is_full
    from legollm.kernels.words import BUCKET, LONG_WORDS, POOL, SHORT_WORDS, SLOT, move_long, move_short

    if not may_grow(memory) or not is_full(memory):
        return memory
    short, long, pool = memory.short, memory.long, memory.pool
    if len(short) // BUCKET - memory.used[SHORT_WORDS] < HEADROOM:
        short = lines(2 * len(short))
        move_short(memory.short, short)
    if len(long) // SLOT - 2 * memory.used[LONG_WORDS] < HEADROOM:
        long = lines(2 * len(long))
        move_long(memory.long, long)
    if len(pool) - memory.used[POOL] < POOL_HEADROOM:
        pool = enlarge(pool, len(pool), 2 * len(pool))
    return memory._replace(short=short, long=long, pool=pool)


def cores() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
