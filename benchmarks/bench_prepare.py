"""How fast text files become token files, against the encoder alone: seconds and the share of its rate that is reached.

    python benchmarks/bench_prepare.py [--megabytes 200] [--rounds 3] [--workers 1 2]

The corpus is the texts of LEGOLLM_DATA again and again, in one file in a temporary folder; the vocabulary is GPT-2's.
`encoder` reads that file into one array of ids (`encode_file`) on as many threads; `prepare` hashes it, divides it,
encodes it and writes train.bin and val.bin with their hashes, safe on disk. Medians of rounds in turns; compiled code
is loaded before.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from legollm.data.prepare import PrepareOptions, prepare
from legollm.data.readers import SourceOptions
from legollm.data.sources import open_source
from legollm.tokenizers import RegexBPETokenizer

DATA = Path(os.environ.get("LEGOLLM_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(file: Path, n_workers: int, n_rounds: int) -> None:
    """Print the line of so many workers."""
    tokenizer = RegexBPETokenizer.from_huggingface(DATA / "tokenizers" / "gpt2")
    source = open_source(str(file), SourceOptions())
    options = PrepareOptions(n_workers=n_workers)
    out = file.parent / "out"
    tokenizer.encode_file(file, threads=n_workers)
    encoder, prepared = [], []
    for _ in range(n_rounds):
        encoder.append(seconds(lambda: tokenizer.encode_file(file, threads=n_workers)))
        prepared.append(seconds(lambda: prepare(source, tokenizer, out, options=options)))
        shutil.rmtree(out)
    one, other = statistics.median(encoder), statistics.median(prepared)
    size = file.stat().st_size / 1e6
    print(f"{n_workers:7} {one:9.2f} {size / one:7.0f} {other:9.2f} {size / other:7.0f} {one / other:8.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    words = parser.parse_args()
    texts = b"".join(path.read_bytes() for path in sorted((DATA / "text").glob("*.txt")))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "corpus.txt"
        with file.open("wb") as corpus:
            for _ in range(round(words.megabytes * 1e6 / len(texts))):
                corpus.write(texts)
        print("workers encoder s    MB/s prepare s    MB/s    share")
        for n_workers in words.workers:
            compare(file, n_workers, words.rounds)


if __name__ == "__main__":
    main()
