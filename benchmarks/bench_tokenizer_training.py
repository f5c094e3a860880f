"""What training a byte-pair vocabulary costs, here and with other trainers: seconds, processor seconds and memory.

    python benchmarks/bench_tokenizer_training.py [--megabytes 100] [--vocab 32768] [--cores 1 2] [--peers NAME ...]

The corpus is what a machine has: the texts of LEGOLLM_DATA (prose and many languages), then the documentation of the
installed packages, the standard library and the packages' sources, each file once. Nothing is repeated to reach the
size, because a text that comes twice costs a trainer that counts words next to nothing.

Each trainer runs in a process of its own, bound to so many processors, after imports and with the texts in memory; the
memory is what the peak rises above that (Linux only). All cut with GPT-2's pattern. Trainers break ties in
different ways, so that their merges differ after the first hundreds. One that is not installed is named and left out.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

DATA = Path(os.environ.get("LEGOLLM_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))
SEPARATOR = "\0"


def corpus(n_bytes: int) -> Iterator[str]:
    """Different texts of n_bytes of UTF-8 together, or of all there are."""
    packages, library = Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("stdlib"))
    prose, code = {".txt", ".md", ".rst"}, {".py"}
    seen: set[bytes] = set()
    for folder, kinds in [(DATA / "text", prose), (packages, prose), (library, prose | code), (packages, code)]:
        for path in sorted(path for path in folder.rglob("*") if path.suffix in kinds):
            if folder == library and packages in path.parents:
                continue
            data = path.read_bytes()
            digest = hashlib.sha256(data).digest()
            try:
                text = data.decode()
            except UnicodeDecodeError:
                continue
            if not text or digest in seen or SEPARATOR in text:
                continue
            seen.add(digest)
            yield text
            n_bytes -= len(data)
            if n_bytes <= 0:
                return


Trainer = Callable[[list[str], int], int]  # the texts and the size of the vocabulary -> the number of merges


def legollm() -> Trainer:
    import legollm.kernels.count
    import legollm.kernels.learn  # noqa: F401
    from legollm.tokenizers.regex_bpe import RegexBPETokenizer

    def train(texts: list[str], vocab_size: int) -> int:
        tokenizer = RegexBPETokenizer("gpt2")
        tokenizer.train(texts, vocab_size=vocab_size)
        return len(tokenizer.merges)

    return train


def rustbpe() -> Trainer:
    import rustbpe

    from legollm.tokenizers.patterns import PATTERNS

    def train(texts: list[str], vocab_size: int) -> int:
        tokenizer = rustbpe.Tokenizer()
        tokenizer.train_from_iterator(iter(texts), vocab_size, pattern=PATTERNS["gpt2"])
        return len(tokenizer.get_mergeable_ranks()) - 256

    return train


def gigatoken() -> Trainer:
    import gigatoken

    def train(texts: list[str], vocab_size: int) -> int:
        data = SEPARATOR.join(texts).encode()
        return len(gigatoken.train_bpe(data, vocab_size, [], separator=SEPARATOR.encode())[1])

    return train


def tokenizers() -> Trainer:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    def train(texts: list[str], vocab_size: int) -> int:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
        return tokenizer.get_vocab_size() - 256

    return train


TRAINERS = {"legollm": legollm, "rustbpe": rustbpe, "gigatoken": gigatoken, "tokenizers": tokenizers}


def kilobytes(field: str) -> int:
    """VmRSS, the memory this process has, or VmHWM, the most it had."""
    return int(Path("/proc/self/status").read_text().split(field + ":")[1].split()[0])


def measure_here(name: str, path: str, vocab_size: int) -> None:
    train = TRAINERS[name]()
    texts = Path(path).read_bytes().decode().split(SEPARATOR)
    before = kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far, from reading the corpus, is forgotten
    wall, processor = time.perf_counter(), time.process_time()
    n_merges = train(texts, vocab_size)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    megabytes = (kilobytes("VmHWM") - before) / 1024
    print(json.dumps({"wall": wall, "cpu": processor, "megabytes": megabytes, "merges": n_merges}))


def measure(name: str, path: str, vocab_size: int, n_cores: int) -> dict[str, float]:
    """One row of the table, from a new process."""
    words = [sys.executable, __file__, "--measure", name, path, str(vocab_size)]
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:n_cores]))
    environment = os.environ | {"RAYON_NUM_THREADS": str(n_cores), "TOKENIZERS_PARALLELISM": "true"}
    done = subprocess.run(["taskset", "-c", cores, *words], check=True, stdout=subprocess.PIPE, env=environment)
    row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--vocab", type=int, default=32768)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--peers", nargs="*", default=[name for name in TRAINERS if name != "legollm"])
    words = parser.parse_args()
    for name in [name for name in words.peers if find_spec(name) is None]:
        print(f"{name} is not installed and left out")
        words.peers.remove(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "corpus")
        texts = list(corpus(int(words.megabytes * 1e6)))
        n_bytes = path.write_bytes(SEPARATOR.join(texts).encode())
        print(f"{n_bytes / 1e6:.1f} MB in {len(texts)} texts, {words.vocab} tokens, Python {sys.version.split()[0]}")
        measure("legollm", str(path), words.vocab, 1)  # compiles, or fills the file cache
        print(f"{'trainer':12} {'cores':>5} {'wall s':>8} {'cpu s':>8} {'MB':>7} {'merges':>7}   wall, cpu: x legollm")
        for n_cores in words.cores:
            ours = None
            for name in ["legollm", *words.peers]:
                row = measure(name, str(path), words.vocab, n_cores)
                ours = ours or row
                print(
                    f"{name:12} {n_cores:5} {row['wall']:8.2f} {row['cpu']:8.2f} {row['megabytes']:7.0f} "
                    f"{row['merges']:7.0f}   {row['wall'] / ours['wall']:.1f}, {row['cpu'] / ours['cpu']:.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure_here(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main()
