"""Training that goes on from a model, as a user types it: whole, in part, by adapters, and among several processes."""

import shutil
from pathlib import Path

import pytest
import torch

from legollm.checkpoints.adapter import read_tensors
from legollm.checkpoints.loading import load
from legollm.cli import main
from legollm.training.metrics import read_rows
from processes import command, ended, start

TEXT = (
    "".join(f"{name} has the {thing}.\n" for name in ("Mira", "Tom", "Ada") for thing in ("key", "lamp", "ball")) * 12
)
LOOP = ["train.precision=float32", "train.log_every=1", "train.eval_every=0", "optim.warmup_steps=2"]


def text_in(folder: Path) -> str:
    (folder / "text.txt").write_text(TEXT)
    return f"data.source={folder / 'text.txt'}"


def base_in(folder: Path, seed: int = 1) -> Path:
    sizes = [f"model.{size}" for size in ("n_layers=2", "d_model=16", "n_heads=2", "max_seq_len=32")]
    words = ["train", text_in(folder), "tokenizer=char", "model.arch=gpt2", *sizes, *LOOP, f"run={folder / 'base'}"]
    assert main([*words, f"seed={seed}", "train.max_steps=2", "train.batch_size=4"]) == 0
    return folder / "base"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_in(tmp_path_factory.mktemp("home"))


def words_of(base: Path, run: Path, *more: str, n_steps: int = 4, batch_size: int = 4) -> list[str]:
    loop = [
        *LOOP,
        f"train.max_steps={n_steps}",
        f"train.batch_size={batch_size}",
        "train.save_every=2",
        "optim.lr=0.01",
    ]
    return ["train", f"start_from={base}", text_in(base.parent), f"run={run}", *loop, *more]


def test_the_first_loss_is_that_of_the_model_and_frozen_parts_stay(base: Path, tmp_path: Path) -> None:
    before = load(base)
    runs = {"all": [], "part": ["freeze=embed,blocks.0"], "adapters": ["lora.rank=2"]}
    firsts = []
    for name, more in runs.items():
        assert main(words_of(base, tmp_path / name, *more)) == 0
        firsts.append(next(row["loss"] for row in read_rows(tmp_path / name / "metrics.jsonl") if "loss" in row))
        after = load(tmp_path / name)
        assert after.vocabulary == before.vocabulary
        changed = {
            ".".join(key.split(".")[:2])
            for key, tensor in after.model.state_dict().items()
            if not torch.equal(tensor, before.model.state_dict()[key])
        }
        assert changed >= ({"blocks.0", "blocks.1"} if name != "part" else {"blocks.1", "norm.weight"})
        assert ("blocks.0" in changed) == (name != "part")
        assert ("embed.tokens" in changed) == (name == "all")
    assert firsts[0] == firsts[1] == firsts[2]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["model.n_layers=3"], "model.n_layers: start_from="),
        (["tokenizer=byte"], "tokenizer.kind: start_from="),
        (["size=1M"], "size: start_from="),
        (["lora.rank=2", "lora.targets=q"], "lora.targets: 'q' matches no linear map; there are"),
        (["freeze=block"], "freeze: 'block' matches nothing; there are"),
        (["start_from=null", "lora.rank=2"], "lora.rank: random weights have nothing to keep; give start_from=FOLDER"),
        (["start_from=null", "freeze=embed"], "freeze: random weights have nothing to keep; give start_from=FOLDER"),
    ],
)
def test_what_cannot_be_is_one_line(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], problem: str
) -> None:
    assert main(words_of(base, tmp_path / "run", *words)) == 2
    assert problem in capsys.readouterr().err


def test_a_run_of_adapters_is_not_continued_on_another_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = base_in(tmp_path)
    assert main(words_of(base, tmp_path / "run", "lora.rank=2", n_steps=2)) == 0
    shutil.rmtree(base)
    assert base_in(tmp_path, seed=2) == base
    assert main(words_of(base, tmp_path / "run", "lora.rank=2", n_steps=4)) == 1
    assert "was trained on other weights than those of" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_adapters_of_two_processes_are_those_of_one(base: Path, tmp_path: Path, parallel: str) -> None:
    """The run of two is begun by one, so that its adapters are also divided anew."""
    more = ["lora.rank=2", "lora.kind=dora", "lora.quantize=int8", "lora.also=norm", "lora.targets=v_proj,ffn.*"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(words_of(base, one, *more, n_steps=6)) == 0
    assert main(words_of(base, two, *more, n_steps=2)) == 0
    words = words_of(base, two, *more, f"train.parallel={parallel}", n_steps=6, batch_size=2)
    assert ended(start(2, command, words, tmp_path / "said")) == [0, 0], (tmp_path / "said-0").read_text()
    found, wanted = (read_tensors(run / "checkpoint") for run in (two, one))
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-5, msg=name)
