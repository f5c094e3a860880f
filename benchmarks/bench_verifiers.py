"""What checking brings: a small model, a verifier trained on its answers, and every way to choose among several.

A model of 140,000 weights learns which of two numbers is larger, then answers 2,500 questions four times each; on
these answers a verifier is trained. Questions that neither has seen are answered with every strategy.

    python benchmarks/bench_verifiers.py [FOLDER]
"""

import contextlib
import io
import json
import sys
import tempfile
from itertools import islice
from pathlib import Path

from legollm.cli import main
from legollm.data import world

KIND = "larger"
BASE = """
    tokenizer=byte model.arch=llama3 model.n_layers=2 model.n_heads=4 model.n_kv_heads=4 model.max_seq_len=64
    train.max_steps=800 train.batch_size=32 train.eval_every=800 train.save_every=800 optim.lr=3e-3
"""
JUDGE = "train.max_steps=2500 train.batch_size=64 train.eval_every=500 train.save_every=2500 optim.lr=7e-4"
ANSWERS = 'max_new_tokens=6 stop=["\\n"] decoding.batch_size=128'
STRATEGIES = {
    "one answer": "strategy=best_of n=1",
    "retry, at most 4": "strategy=retry tries=4",
    "vote of 8": "strategy=vote n=8",
    "best of 8, truth": "strategy=best_of n=8",
    "best of 8, truth, 20 % of wrong accepted": "strategy=best_of n=8 false_accept=0.2",
    "best of 8, trained": "strategy=best_of n=8 verifier={judge}",
    "weighted vote of 8, trained": "strategy=weighted n=8 verifier={judge}",
    "best of 8, the model itself": "strategy=best_of n=8 verifier=self",
    "weighted vote of 8, a smaller model": "strategy=weighted n=8 verifier={small_judge}",
}


def run(*words: str) -> str:
    """What a command prints; it has to succeed."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        status = main([word for part in words for word in part.split()])
    assert status == 0, words
    return printed.getvalue()


def print_judge(name: str, printed: str) -> None:
    line = next(line for line in printed.splitlines() if line.startswith("held-out"))
    print(f"{name:<42}{line}", flush=True)


def measure(folder: Path) -> None:
    sums = world.problems(1, 0, 400_000, kinds=(KIND,), difficulty=2, split="train")
    text = folder / "sums.txt"
    text.write_text("".join(f"{one.prompt} {one.answer}\n" for one in islice(sums, 9000)), encoding="utf-8")
    base, judge, small, small_judge = (folder / name for name in ("base", "judge", "small", "small-judge"))
    run("train", f"data.source={text} run={base} model.d_model=64 model.d_ff=192", BASE)
    asked = f"solve model={base} source=world:{KIND} difficulty=2 {ANSWERS}"
    results = folder / "answers" / "results.jsonl"
    if not results.exists():  # in a folder that is used again
        run(asked, f"split=train n_questions=2500 n=4 run={folder / 'answers'}")
    print_judge("trained verifier", run("verifier train", f"data.source={results} model={base} run={judge}", JUDGE))
    run("train", f"data.source={text} run={small} model.d_model=32 model.d_ff=96", BASE)
    trained = run("verifier train", f"data.source={results} model={small} run={small_judge}", JUDGE)
    print_judge("from a smaller model", trained)
    for name, words in STRATEGIES.items():
        figures = json.loads(
            run(
                asked,
                f"n_questions=200 --json run={folder / 'out'}",
                words.format(judge=judge, small_judge=small_judge),
            )
        )
        right = figures["right"].replace(" interval", "")
        print(f"{name:<42}{right}, {figures['tokens_written']:,} tokens", flush=True)
    print(run("demo verifiers", f"results={results} run={folder / 'demo'}"))


if __name__ == "__main__":
    if sys.argv[1:]:
        measure(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as name:
            measure(Path(name))
