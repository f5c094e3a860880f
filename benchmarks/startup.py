"""What a start costs: wall seconds of a bare Python, torch, legollm and `legollm --help`, in new processes.

    python benchmarks/startup.py [ROUNDS]

The rounds are interleaved, so that a slow moment of the machine hits all rows alike; the first one only warms the
file cache. `over` is the median of a row less the median of the row it builds on.
"""

import statistics
import subprocess
import sys
import time

ROWS = {  # what it is: the words after `python`, and the row it builds on
    "nothing": (["-c", "pass"], None),
    "import legollm": (["-c", "import legollm"], "nothing"),
    "legollm --help": (["-m", "legollm", "--help"], "nothing"),
    "import torch": (["-c", "import torch"], "nothing"),
    "import torch, legollm": (["-c", "import torch, legollm"], "import torch"),
}


def seconds(words: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main(n_rounds: int) -> None:
    rounds = [{name: seconds(words) for name, (words, _) in ROWS.items()} for _ in range(n_rounds + 1)][1:]
    median = {name: statistics.median(times[name] for times in rounds) for name in ROWS}
    print(f"{'':22} {'median s':>9} {'fastest':>9} {'slowest':>9} {'over s':>9}   ratio to")
    for name, (_, base) in ROWS.items():
        row = [times[name] for times in rounds]
        line = f"{name:22} {median[name]:9.3f} {min(row):9.3f} {max(row):9.3f}"
        if base:
            line += f" {median[name] - median[base]:9.3f}   {median[name] / median[base]:.2f} x {base}"
        print(line)
    print(f"{n_rounds} interleaved rounds, Python {sys.version.split()[0]}, {sys.platform}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
