"""The memory that `legollm plan` foretells is that of a real process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REAL = """
import sys
from pathlib import Path
from legollm.cli import main
assert main(["train", *sys.argv[1:]]) == 0
facts = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(f"\\n{int(facts['VmHWM'].split()[0]) << 10}")
"""


def printed(*words: str) -> str:
    return subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells how much memory a process had")
@pytest.mark.parametrize(
    "words",
    [
        "model.arch=gpt2 model.n_layers=3 model.d_model=96 model.n_heads=4 train.batch_size=32 train.precision=float32",
        "model.arch=llama3 model.n_layers=4 model.d_model=384 model.n_heads=6 model.n_kv_heads=2 model.d_ff=1024 "
        "train.batch_size=2 train.precision=float32 train.grad_accum=2 optim.name=sgd",
        "preset=small train.batch_size=8 train.precision=bfloat16 optim.name=muon",
    ],
)
def test_a_process_takes_as_much_as_was_planned(words: str, tmp_path: Path) -> None:
    run = [*words.split(), "model.max_seq_len=128", "tokenizer=byte", "data.read.world_bytes=100_000"]
    run += ["train.max_steps=3", "train.eval_every=0", "train.device=cpu"]
    predicted = json.loads(printed("-m", "legollm", "plan", *run, "--json"))["peak_bytes"]["total"]
    measured = int(printed("-c", REAL, *run, f"run={tmp_path / 'run'}").splitlines()[-1])
    assert predicted == pytest.approx(measured, rel=0.15)
