"""Micro-batches that do not fit are divided: the same rows, in the same order and step, the same gradient."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from legollm.architectures import ARCHITECTURES
from legollm.checkpoints.state import load_state
from legollm.data.pairs import LabelBatch
from legollm.errors import TooLargeError
from legollm.interfaces import Batch
from legollm.team import Team
from legollm.training.memory import divided, within_memory
from legollm.training.metrics import read_rows
from legollm.training.objective import NextToken
from tiny_run import MODEL, go

LOOP = {"batch_size": 8, "grad_accum": 2, "precision": "float32", "save_every": 5}


class Fits(NextToken):
    """NextToken on a device that takes at most n rows at a time, from the given pass on (counted from 0)."""

    def __init__(self, n: int, since: int = 0) -> None:
        self.n, self.since, self.rows = n, since, list[Tensor]()

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        if not model.training:
            return super().__call__(model, batch)
        loss = super().__call__(model, batch)
        self.rows.append(batch.tokens)
        if len(self.rows) > self.since and batch.tokens.size(0) > self.n:
            raise torch.OutOfMemoryError("injected")
        return loss


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_rows(folder / "metrics.jsonl") if "loss" in row]


def final(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "checkpoint" / "model.safetensors")


def without_dropout(objective: NextToken) -> dict[str, Any]:
    """Parts of a job: dropout draws differently for parts of another shape, and without it the numbers compare."""
    config = replace(MODEL, dropout=0.0)
    model = ARCHITECTURES["gpt2"].build(config, seed=1)
    return {"model_config": config, "model": model, "objective": objective}


@pytest.mark.parametrize(("n", "max_rows"), [(4, 4), (3, 2), (1, 1)])
def test_half_as_many_rows_until_they_fit_and_the_same_gradient(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, n: int, max_rows: int
) -> None:
    go(tmp_path / "whole", job=without_dropout(NextToken()), **LOOP)
    objective = Fits(n, since=5)  # in the second micro-batch of the third step, when half of its gradient is there
    with caplog.at_level(logging.WARNING):
        state = go(tmp_path / "divided", job=without_dropout(objective), **LOOP)
    assert state.max_rows == max_rows
    lines = [record.getMessage() for record in caplog.records if "out of memory" in record.getMessage()]
    assert lines[0].startswith("out of memory with micro-batches of 8 rows; from now on they are divided into parts of")
    assert f"train.batch_size={max_rows} with train.grad_accum={16 // max_rows} says so from the start" in lines[-1]
    assert losses(tmp_path / "divided") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)
    for (name, a), b in zip(final(tmp_path / "divided").items(), final(tmp_path / "whole").values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=name)


def test_the_same_rows_in_the_same_order(tmp_path: Path) -> None:
    whole, parts = Fits(99), Fits(3)
    go(tmp_path / "whole", job={"objective": whole}, **LOOP)
    go(tmp_path / "divided", job={"objective": parts}, **LOOP)
    fitting = [rows for rows in parts.rows if len(rows) <= 3]
    assert torch.equal(torch.cat(fitting), torch.cat(whole.rows))


def test_it_is_remembered_in_the_checkpoint(tmp_path: Path) -> None:
    objective = Fits(4)
    go(tmp_path, job={"objective": objective}, max_steps=6, **LOOP)
    assert load_state(tmp_path / "checkpoint").values["loop"]["max_rows"] == 4
    again = Fits(4)
    go(tmp_path, job={"objective": again}, **LOOP)
    assert {len(rows) for rows in again.rows} == {4}  # not tried and failed once more


def test_a_single_row_that_does_not_fit_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TooLargeError, match=r"out of memory with a single row; give train\.recompute=full") as caught:
        go(tmp_path, job={"objective": Fits(0)})
    assert caught.value.exit_status == 1


def test_no_memory_elsewhere_is_one_line_too(tmp_path: Path) -> None:
    class EvaluatesTooMuch(NextToken):
        def __call__(self, model: nn.Module, batch: Any) -> Tensor:
            if not model.training:
                raise torch.OutOfMemoryError("injected here\nand a long table")
            return super().__call__(model, batch)

    with pytest.raises(TooLargeError, match=r"^step 5: out of memory outside of the passes .*\(injected here\)$"):
        go(tmp_path, job={"objective": EvaluatesTooMuch()})


def test_any_kind_of_batch_is_divided_by_rows() -> None:
    batch = LabelBatch(torch.arange(10).view(5, 2), torch.zeros(5, 2), torch.arange(5))
    parts = divided(batch, 2)
    assert [type(part) for part in parts] == [LabelBatch] * 3
    assert [part.labels.tolist() for part in parts] == [[0, 1], [2, 3], [4]]
    assert divided(batch, 5) == divided(batch, None) == [batch]


def test_one_of_several_processes_cannot_divide_alone() -> None:
    def too_much(parts: list[Any]) -> Tensor:
        raise torch.OutOfMemoryError("injected")

    batches = [Batch(torch.zeros(8, 4), torch.zeros(8, 4))] * 2
    with pytest.raises(TooLargeError, match=r"rows; give train\.batch_size=4 with train\.grad_accum=4, the same step"):
        within_memory(too_much, nn.Linear(1, 1), batches, None, Team(rank=0, size=2))
