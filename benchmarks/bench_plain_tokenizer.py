"""Plain Python against plain Python: `engine="python"` and byte-pair encoding as textbooks write it down.

    python benchmarks/bench_plain_tokenizer.py [--megabytes 1] [--vocab 1024] [--rounds 3]

The textbook cuts text by the same pattern. To learn, it counts the pairs of all pieces anew for each merge; to encode,
it looks for the lowest rank in each piece until there is none. What both do is checked to be the same. `cold` is a
tokenizer that has seen no word yet, `warm` one that has encoded the text before (the textbook remembers nothing). The
text is prose of LEGOLLM_DATA. Seconds are medians of so many rounds in turns; the textbook learns once, for minutes.
"""

import argparse
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from legollm.tokenizers import RegexBPETokenizer
from legollm.tokenizers.patterns import Splitter

DATA = Path(os.environ.get("LEGOLLM_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))
PATTERN = "gpt4"

Pair = tuple[int, int]


def count(ids: list[int], counts: Counter[Pair]) -> None:
    """Add the pairs of neighbours to `counts`."""
    for pair in pairwise(ids):
        counts[pair] += 1


def join(ids: list[int], pair: Pair, new: int) -> list[int]:
    """`ids` with `new` in the place of each pair, from left to right."""
    out = []
    i = 0
    while i < len(ids):
        if i + 1 < len(ids) and ids[i] == pair[0] and ids[i + 1] == pair[1]:
            out.append(new)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def textbook_learn(text: str, n_merges: int) -> list[tuple[bytes, bytes]]:
    """The most frequent pair, among equals the greatest pair of byte strings, of the whole text, again and again."""
    pieces = [list(piece.encode()) for piece in Splitter(PATTERN).split(text)]
    tokens = [bytes([value]) for value in range(256)]
    merges = []
    for _ in range(n_merges):
        counts: Counter[Pair] = Counter()
        for ids in pieces:
            count(ids, counts)
        highest = max(counts.values())
        pair = max((p for p in counts if counts[p] == highest), key=lambda p: (tokens[p[0]], tokens[p[1]]))
        pieces = [join(ids, pair, len(tokens)) for ids in pieces]
        merges.append((tokens[pair[0]], tokens[pair[1]]))
        tokens.append(tokens[pair[0]] + tokens[pair[1]])
    return merges


def textbook_encode(text: str, merges: dict[Pair, int]) -> list[int]:
    """merges: pair of ids -> id of both; a lower id was learned earlier."""
    found = []
    for piece in Splitter(PATTERN).split(text):
        ids = list(piece.encode())
        while len(ids) > 1:
            counts: Counter[Pair] = Counter()
            count(ids, counts)
            pair = min(counts, key=lambda p: merges.get(p, 1 << 30))
            if pair not in merges:
                break
            ids = join(ids, pair, merges[pair])
        found += ids
    return found


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=1)
    parser.add_argument("--vocab", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    words = parser.parse_args()
    data = (DATA / "text" / "tinyshakespeare.txt").read_bytes()
    text = data[: int(words.megabytes * 1e6)].decode(errors="ignore")

    ours = RegexBPETokenizer(PATTERN, engine="python")
    learning = statistics.median(
        [seconds(lambda: ours.train(text, vocab_size=words.vocab)) for _ in range(words.rounds)]
    )
    ids = {token: i for i, token in ours.vocab.items()}
    merges = {(ids[left], ids[right]): ids[left + right] for left, right in ours.merges}
    times: dict[str, list[float]] = {"textbook": [], "cold": [], "warm": []}
    for _ in range(words.rounds):
        fresh = RegexBPETokenizer(PATTERN, engine="python")
        fresh.train(text, vocab_size=words.vocab)  # a tokenizer that was just trained has an empty cache
        times["cold"].append(seconds(lambda: fresh.encode(text)))  # noqa: B023
        times["warm"].append(seconds(lambda: fresh.encode(text)))  # noqa: B023
        times["textbook"].append(seconds(lambda: textbook_encode(text, merges)))
    assert ours.encode(text) == textbook_encode(text, merges), "both are to find the same ids"
    textbook, cold, warm = (statistics.median(times[name]) for name in ("textbook", "cold", "warm"))
    print(f"{len(text.encode()) / 1e6:.2f} MB, {words.vocab} ids      seconds   x textbook")
    print(f"encode  textbook     {textbook:12.3f}")
    print(f"encode  python cold  {cold:12.3f} {textbook / cold:12.1f}")
    print(f"encode  python warm  {warm:12.3f} {textbook / warm:12.1f}")
    print(f"learn   python       {learning:12.3f}", flush=True)
    start = time.perf_counter()
    learned = textbook_learn(text, words.vocab - 256)
    slow = time.perf_counter() - start
    assert learned == ours.merges, "both are to learn the same merges"
    print(f"learn   textbook     {slow:12.3f} {slow / learning:12.1f}  (how many times the line above)")


if __name__ == "__main__":
    main()
