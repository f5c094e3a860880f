"""How fast texts become ids, here and with other tokenizers: the vocabulary of GPT-2, megabytes of text a second.

    python benchmarks/bench_tokenizers.py [--megabytes 10] [--rounds 5]

Kinds of text: prose and text in many languages from LEGOLLM_DATA, code from the standard library, and single runs of a
million characters. `cold` is the first text of a new tokenizer, which has seen no word yet; `warm` the same text once
more. Both are medians of rounds in which the engines take turns. Imports and tables are made before. One thread, arrays
where the tokenizer has them; the row `to lists` is legollm's `encode`. `ids` says whether they are those of tiktoken,
or of legollm's plain Python where tiktoken is missing. A peer that is not installed is named and left out.
"""

import argparse
import os
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from legollm.tokenizers.fast import is_there
from legollm.tokenizers.patterns import PATTERNS
from legollm.tokenizers.regex_bpe import RegexBPETokenizer

DATA = Path(os.environ.get("LEGOLLM_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))
PYTHON_BYTES = 1_000_000  # of each text are enough for the slow rows
RUN = 1_000_000

Encode = Callable[[str], Sequence[int]]


def texts(n_bytes: int) -> dict[str, str]:
    """Kind -> text of up to n_bytes of UTF-8, nothing in it repeated to reach that size."""

    def joined(paths: list[Path]) -> str:
        data = bytearray()
        for path in paths:
            data += path.read_bytes()
            if len(data) >= n_bytes:
                break
        return data[:n_bytes].decode(errors="ignore")

    folder = DATA / "text"
    many = [folder / "udhr-multilingual.txt", folder / "neko-ja.txt"]
    return {
        "prose": joined([path for path in sorted(folder.glob("*.txt")) if path not in many]),
        "code": joined(sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))),
        "many languages": joined(many),
    }


def pathological() -> dict[str, str]:
    """Name -> text that makes careless tokenizers quadratic."""
    runs = {"a": "a", "blank": " ", "newline": "\n", "digit": "7", "sign": "!", "combining": "\u0301", "CJK": "\u4e2d"}
    return {name: character * RUN for name, character in runs.items()} | {"blanks, a": " " * RUN + "a"}


def engines(folder: Path) -> dict[str, Callable[[], Encode]]:
    """Name -> what makes a new tokenizer, without any word in its cache."""
    gpt2 = DATA / "tokenizers" / "gpt2"
    ours = RegexBPETokenizer.from_huggingface(gpt2)
    ours.to_huggingface(folder)
    tokenizer_json, ranks_file = str(folder / "tokenizer.json"), str(folder / "gpt2.tiktoken")
    ours.to_tiktoken(ranks_file)

    def legollm(engine: Any) -> RegexBPETokenizer:
        tokenizer = RegexBPETokenizer.from_huggingface(gpt2)
        tokenizer.engine = engine
        return tokenizer

    def kernels() -> Encode:
        tokenizer = legollm("kernels")
        tokenizer.encode_to_numpy("a")
        return tokenizer.encode_to_numpy

    def to_lists() -> Encode:
        tokenizer = legollm("kernels")
        tokenizer.encode("a")
        return tokenizer.encode

    def tiktoken() -> Encode:
        from tiktoken import Encoding

        ranks = {bytes(token): i for i, token in ours._ordinary.items()}
        return Encoding("gpt2", pat_str=PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens={}).encode_ordinary

    def tokenizers() -> Encode:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(tokenizer_json)
        tokenizer.encode_special_tokens = True  # as ordinary text
        return lambda text: tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids

    def gigatoken() -> Encode:
        from gigatoken import Tokenizer

        return Tokenizer.from_tiktoken(ranks_file, pretokenizer="gpt2").encode

    makers: dict[str, Callable[[], Encode]] = {
        "legollm": kernels,
        "to lists": to_lists,
        "python": lambda: legollm("python").encode,
        "tiktoken": tiktoken,
        "tokenizers": tokenizers,
        "gigatoken": gigatoken,
    }
    if not is_there():
        print("numba is not installed: only the plain Python tokenizer is measured")
        del makers["legollm"], makers["to lists"]
    for name in ("tiktoken", "tokenizers", "gigatoken"):
        if find_spec(name) is None:
            print(f"{name} is not installed and left out")
            del makers[name]
    return makers


def seconds(encode: Encode, text: str) -> tuple[float, Sequence[int]]:
    start = time.perf_counter()
    ids = encode(text)
    return time.perf_counter() - start, ids


def compare(kind: str, text: str, makers: dict[str, Callable[[], Encode]], n_rounds: int) -> None:
    """Print the rows of one kind of text."""
    part = text.encode()[:PYTHON_BYTES].decode(errors="ignore")
    their = {name: part if name == "python" else text for name in makers}
    judge = "tiktoken" if "tiktoken" in makers else "python"
    expected = {sample: list(makers[judge]()(sample)) for sample in {part, their[judge]}}
    colds: dict[str, list[float]] = {name: [] for name in makers}
    warms: dict[str, list[float]] = {name: [] for name in makers}
    same = {}
    for _ in range(n_rounds):
        for name, make in makers.items():
            encode = make()
            first, ids = seconds(encode, their[name])
            colds[name].append(first)
            warms[name].append(seconds(encode, their[name])[0])
            same[name] = list(ids) == expected.get(their[name])
    cold = {name: median(times) for name, times in colds.items()}
    warm = {name: median(times) for name, times in warms.items()}
    rates = {name: len(their[name].encode()) / 1e6 for name in makers}
    base = rates[judge] / cold[judge], rates[judge] / warm[judge]
    for name in makers:
        first, later = rates[name] / cold[name], rates[name] / warm[name]
        ratios = f"{first / base[0]:6.1f} {later / base[1]:6.1f}"
        print(
            f"{kind:15} {name:11} {first:8.1f} {later:8.1f}   {ratios}   {'equal' if same[name] else 'DIFFER'}",
            flush=True,
        )


def survive(makers: dict[str, Callable[[], Encode]]) -> None:
    """Print milliseconds for each pathological text."""
    rows = pathological()
    print(f"\n{'ms for 1 M of':15}" + "".join(f"{name:>12}" for name in makers))
    for kind, text in rows.items():
        line = f"{kind:15}"
        for make in makers.values():
            try:
                line += f"{1000 * seconds(make(), text)[0]:12.0f}"
            except BaseException as error:  # Rust panics are no ordinary exceptions
                if isinstance(error, KeyboardInterrupt):
                    raise
                line += f"{'fails':>12}"
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    words = parser.parse_args()
    os.environ |= {"RAYON_NUM_THREADS": "1", "RUST_BACKTRACE": "0"}  # one thread; tiktoken panics at runs of blanks
    with tempfile.TemporaryDirectory() as folder:
        makers = engines(Path(folder))
        print(f"{'text':15} {'engine':11} {'MB/s cold':>9} {'warm':>7}   x tiktoken    ids")
        for kind, text in texts(int(words.megabytes * 1e6)).items():
            compare(kind, text, makers, words.rounds)
        survive(makers)


if __name__ == "__main__":
    main()
