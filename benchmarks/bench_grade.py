"""What the verifier of numbers says of all worked answers of GSM8K, and of the same with another number at the end.

python benchmarks/bench_grade.py FOLDER    (test.jsonl and train.jsonl, as `legollm data get gsm8k` leaves them)
"""

import json
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from legollm.verifiers import verifier

OTHERS: dict[str, Callable[[Fraction], Fraction]] = {
    "one more": lambda value: value + 1,
    "ten times as much": lambda value: 10 * value if value else Fraction(10),
    "the other sign": lambda value: -value if value else Fraction(-1),
}
"""Numbers that are wrong, whatever the right one is."""


def measure(folder: Path) -> None:
    check = verifier("number")
    for path in sorted(folder.glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        n_right, n_wrong = 0, dict.fromkeys(OTHERS, 0)
        for row in rows:
            question, worked = row["question"], row["answer"]
            steps, _, last = worked.rpartition("####")
            n_right += check(question, worked, worked).is_right
            for name, other in OTHERS.items():
                spoilt = f"{steps}#### {other(Fraction(last.strip().replace(',', '')))}"
                n_wrong[name] += not check(question, spoilt, worked).is_right
        print(f"{path.name:<14}{n_right:,} of {len(rows):,} worked answers accepted")
        for name, n in n_wrong.items():
            print(f"{'':<14}{n:,} of {len(rows):,} rejected with {name}")


if __name__ == "__main__":
    measure(Path(sys.argv[1]))
