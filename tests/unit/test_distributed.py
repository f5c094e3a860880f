"""Two processes that share each step are one process with all the rows: copies (DDP) and parts (FSDP2)."""

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

import legollm
from legollm.architectures import ARCHITECTURES
from legollm.checkpoints.state import load_state
from legollm.commands.fit import fit, team_of
from legollm.data.loader import IGNORED
from legollm.errors import ConfigError
from legollm.interfaces import Batch
from legollm.parts import is_divided
from legollm.team import ALONE, Team, check_same
from legollm.training.distributed import Parallel, shared
from legollm.training.metrics import read_rows
from processes import ended, start
from tiny_run import MODEL, TinyRun, open_job, tiny_run

ENGINES: tuple[Parallel, ...] = ("ddp", "fsdp")
PLAIN = replace(MODEL, dropout=0.0, n_layers=2)


class Ragged:
    """Batches in which some rows have many targets and others few."""

    def __init__(self, batches: Any) -> None:
        self.batches = batches

    def __next__(self) -> Batch:
        tokens, targets = next(self.batches)
        return Batch(tokens, targets.masked_fill((tokens % 3 == 0) | (tokens[:, :1] % 2 == 0), IGNORED))

    def state_dict(self) -> dict[str, Any]:
        return self.batches.state_dict()

    def load_state_dict(self, state: Any) -> None:
        self.batches.load_state_dict(state)


def trained(cfg: TinyRun, team: Team | None = None) -> None:
    job = open_job(cfg, **({"team": team} if team else {}))
    fit(replace(job, batches=Ragged(job.batches)))


def tiny(folder: Path, **loop: Any) -> TinyRun:
    """eps: a key's bias has no gradient but what is rounded, and an AdamW without it would make full steps of that."""
    cfg = tiny_run(folder, **({"max_steps": 6, "eval_every": 3, "grad_accum": 2} | loop))
    return replace(cfg, model=PLAIN, optim=replace(cfg.optim, eps=1e-4))


def both_engines(root: Path) -> None:
    """What each of two processes does."""
    cfgs = [tiny(root / parallel, batch_size=2, parallel=parallel) for parallel in ENGINES]
    with team_of(cfgs[0]) as team:
        for cfg in cfgs:
            trained(cfg, team)
        cfg = tiny(root / "muon", batch_size=2, parallel="fsdp", recompute="full")
        trained(replace(cfg, optim=replace(cfg.optim, name="muon")), team)
        looked_at(team)
        with pytest.raises(ConfigError, match=r"^b: process 0 has 0, process 1 has 1; start all processes"):
            check_same(team, {"a": 1, "b": team.rank})
        counts = {parallel: [n_exchanges(team, parallel, n) for n in (1, 3)] for parallel in ENGINES}
        (root / f"exchanges-{team.rank}.json").write_text(json.dumps(counts))
        (root / f"{team.rank}.json").write_text(json.dumps([team.sums(team.rank, 0.5), team.any(team.leads)]))


def n_exchanges(team: Team, parallel: Parallel, n_micro_batches: int) -> int:
    """How often a step exchanges gradients."""
    engine = shared(ARCHITECTURES["gpt2"].build(PLAIN, seed=0), parallel, team)
    names = [name for name in dir(torch.distributed) if name.startswith(("all_reduce", "reduce_scatter"))]
    with ExitStack() as patched:
        calls = [
            patched.enter_context(patch.object(torch.distributed, name, wraps=getattr(torch.distributed, name)))
            for name in names
        ]
        for i in range(n_micro_batches):
            with engine.passes(is_last=i == n_micro_batches - 1):
                engine.model(torch.zeros(1, 4, dtype=torch.int64)).sum().backward()
    return sum(call.call_count for call in calls)


def looked_at(team: Team) -> None:
    """A look at the validation set leaves the weights divided: an objective decides by that what it may call."""
    model = ARCHITECTURES["gpt2"].build(PLAIN, seed=0)
    engine = shared(model, "fsdp", team)
    with torch.no_grad():
        engine.model(torch.zeros(1, 4, dtype=torch.int64))
    assert all(map(is_divided, model.parameters()))
    with engine.writing():
        assert not is_divided(model.lm_head.weight)
    assert all(map(is_divided, model.parameters()))


def losses(folder: Path) -> list[float]:
    rows = read_rows(folder / "metrics.jsonl")
    return [row[key] for row in rows for key in ("loss", "grad_norm", "val_loss") if key in row]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("distributed")
    processes = start(2, both_engines, root)
    trained(tiny(root / "one", batch_size=4))
    cfg = tiny(root / "one-muon", batch_size=4)
    trained(replace(cfg, optim=replace(cfg.optim, name="muon")))
    assert ended(processes) == [0, 0]
    return root


@pytest.mark.parametrize("parallel", ENGINES)
def test_two_processes_equal_one(root: Path, parallel: str) -> None:
    assert losses(root / parallel) == pytest.approx(losses(root / "one"), abs=1e-6)
    mine, one = (legollm.load(root / name).model.state_dict() for name in (parallel, "one"))
    for name in one:
        torch.testing.assert_close(mine[name], one[name], rtol=0, atol=1e-6, msg=name)


def test_an_optimizer_that_needs_whole_matrices_gets_them(root: Path) -> None:
    """Less close: what bfloat16 rounds up in one of them, it may round down in the other."""
    assert losses(root / "muon") == pytest.approx(losses(root / "one-muon"), abs=1e-4)


def test_a_divided_checkpoint_holds_what_a_whole_one_does(root: Path) -> None:
    files = {path.name for path in (root / "fsdp" / "checkpoint").iterdir()}
    assert {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"} < files
    divided, whole = (load_state(root / name / "checkpoint") for name in ("fsdp", "ddp"))
    mine, other = (dict(state.values["loop"]) | {"seconds": 0} for state in (divided, whole))
    for name in ("losses", "norms"):
        assert mine.pop(name) == pytest.approx(other.pop(name), abs=1e-5)
    assert mine == pytest.approx(other, abs=1e-6)
    assert divided.values["batches"] == whole.values["batches"]
    assert divided.tensors.keys() == whole.tensors.keys()
    assert "rng.cpu.1" in whole.tensors
    for name in whole.tensors.keys() - {"rng.cpu", "rng.cpu.1"}:
        torch.testing.assert_close(divided.tensors[name], whole.tensors[name], rtol=0, atol=1e-6, msg=name)


def test_numbers_of_all_processes_come_to_each(root: Path) -> None:
    assert [json.loads((root / f"{rank}.json").read_text()) for rank in (0, 1)] == [[[1.0, 1.0], True]] * 2


def test_gradients_are_exchanged_once_per_step_however_many_micro_batches_it_has(root: Path) -> None:
    for rank in (0, 1):
        counts = json.loads((root / f"exchanges-{rank}.json").read_text())
        assert counts["ddp"] == [1, 1]  # all of so small a model at once
        assert counts["fsdp"] == [3, 3]  # two blocks, and what lies around them


def test_one_process_says_that_it_divides_nothing(caplog: pytest.LogCaptureFixture) -> None:
    model = torch.nn.Linear(2, 2)
    assert shared(model, "fsdp", ALONE).model is model
    assert "nothing to divide among one process" in caplog.text
