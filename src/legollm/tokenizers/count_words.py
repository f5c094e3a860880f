"""What a trainer needs of a corpus: its different pre-tokens, and how often each occurs. The text itself is let go."""

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, pairwise
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from numpy.typing import NDArray

from legollm.errors import TokenizerError
from legollm.tokenizers.fast import cores, is_there
from legollm.tokenizers.patterns import PATTERNS, Splitter

if TYPE_CHECKING:
    from legollm.kernels.count import WordCounter

Engine = Literal["auto", "python", "kernels"]
"""auto: compiled loops where numba is installed, the pattern is known to them, and there is enough to do."""

CHUNK = 1 << 22
"""Bytes that are counted together: some 20 ms of work for one thread."""
SMALL = 1 << 18
"""Bytes below which loading the compiled loops takes longer than counting without them."""

_SAFE_CUT = re.compile(r"[0-9A-Za-z](?= )")
"""Between an ASCII letter or digit and a blank every named pattern cuts, whatever stands around them."""


class CountedWords(NamedTuple):
    """Pre-tokens as the compiled learner takes them."""

    words: NDArray[Any]
    """uint8: their bytes, one after the other."""
    ends: NDArray[Any]
    """int64: where each ends."""
    counts: NDArray[Any]
    """int64: how often each occurs."""

    def items(self) -> Iterator[tuple[bytes, int]]:
        """Each pre-token and how often it occurs."""
        data = self.words.tobytes()
        for (start, end), count in zip(pairwise([0, *self.ends.tolist()]), self.counts.tolist(), strict=True):
            yield data[start:end], count


def count_words(
    texts: Iterable[str], splitter: Splitter, *, engine: Engine = "auto", n_threads: int | None = None
) -> dict[bytes, int] | CountedWords:
    """The pre-tokens of `texts`, read once; memory grows with the different ones and not with the text.

    n_threads: of the compiled loops; by default one for each processor. The counts do not depend on it.

    Raises:
        TokenizerError: the compiled loops are asked for and not there, or do not know the pattern.
    """
    pattern = next((name for name, known in PATTERNS.items() if known == splitter.regex), None)
    if pattern is None and engine == "kernels":
        raise TokenizerError(f"engine 'kernels' knows the patterns {', '.join(PATTERNS)} and no other; use 'auto'")
    chunks = _chunks(texts, may_cut=pattern is not None)
    first = next(chunks, [])
    chunks = chain([first], chunks)
    is_small = engine == "auto" and sum(map(len, first)) < SMALL
    if pattern is None or is_small or not has_kernels(engine):
        pieces: Counter[str] = Counter()
        for chunk in chunks:
            for text in chunk:
                pieces.update(splitter.split(text.decode("utf-8", "surrogatepass")))
        return {piece.encode("utf-8", "surrogatepass"): count for piece, count in pieces.items()}
    return CountedWords(*_count_in_threads(chunks, pattern, n_threads or cores()).arrays())


def has_kernels(engine: Engine) -> bool:
    """Whether compiled loops may and can be used.

    Raises:
        TokenizerError: they are asked for and not there.
    """
    if engine == "python":
        return False
    if is_there("count", "learn"):
        return True
    if engine == "kernels":
        raise TokenizerError("engine 'kernels' needs numba, which cannot be imported here; install it, or use 'auto'")
    return False


def _chunks(texts: Iterable[str], *, may_cut: bool) -> Iterator[list[bytes]]:
    """Texts as UTF-8 by CHUNK bytes; longer ones, if the pattern is a named one, in pieces that it cuts like the whole.

    No text is held longer than it takes to copy it: what is waiting to be counted is bytes.
    """
    chunk: list[bytes] = []
    size = 0
    for text in texts:
        for piece in _pieces(text) if may_cut else [text]:
            chunk.append(piece.encode("utf-8", "surrogatepass"))
            size += len(chunk[-1])
            if size >= CHUNK:
                yield chunk
                chunk, size = [], 0
    if chunk:
        yield chunk


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > CHUNK and (cut := _SAFE_CUT.search(text, start + CHUNK)):
        yield text[start : cut.end()]
        start = cut.end()
    yield text[start:] if start else text


def _count_in_threads(chunks: Iterable[list[bytes]], pattern: str, n_threads: int) -> "WordCounter":
    from legollm.kernels.count import WordCounter
    from legollm.kernels.scan_plain import SCANNED

    counters = [WordCounter(SCANNED[pattern]) for _ in range(n_threads)]
    idle: SimpleQueue[WordCounter] = SimpleQueue()
    for counter in counters:
        idle.put(counter)

    def count(chunk: list[bytes]) -> None:
        counter = idle.get()
        counter.add(chunk)
        idle.put(counter)

    if n_threads == 1:
        for chunk in chunks:
            count(chunk)
        return counters[0]
    with ThreadPoolExecutor(n_threads) as pool:
        running: deque[Future[None]] = deque()
        for chunk in chunks:
            running.append(pool.submit(count, chunk))
            if len(running) > n_threads + 1:  # no more of the text in memory than keeps all of them busy
                running.popleft().result()
        for future in running:
            future.result()
    for other in counters[1:]:
        counters[0].update(other)
    return counters[0]
