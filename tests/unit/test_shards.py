"""Several arrays as one: equal to the array they were cut from."""

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from legollm.data import loader
from legollm.data.loader import WindowBatches
from legollm.data.shards import Shards, joined, let_go


@pytest.mark.parametrize("cuts", [(), (5,), (1, 2, 3), (4, 4, 9), (0, 10)])
def test_slices_and_gathers_are_those_of_the_whole(cuts: tuple[int, ...]) -> None:
    whole = np.arange(100, 110, dtype=np.uint16)
    shards = Shards(np.split(whole, cuts))
    assert len(shards) == 10
    for start in (None, 0, 3, 5, 10, -4, 99):
        for stop in (None, 0, 4, 5, 9, -1, 99):
            assert shards[start:stop].tolist() == whole[start:stop].tolist()
    rng = random.Random(0)
    places = np.array([[rng.randrange(10) for _ in range(7)] for _ in range(20)])
    assert np.array_equal(shards[places], whole[places])
    assert shards[places].dtype == np.uint16


def test_one_part_is_itself() -> None:
    part = np.arange(3)
    assert joined([part]) is part
    assert isinstance(joined([part, part]), Shards)


def resident_megabytes() -> float:
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssFile"].split()[0]) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory of files is read from /proc")
def test_pages_that_were_read_are_given_back(tmp_path: Path) -> None:
    path = tmp_path / "ids.bin"
    np.arange(16 << 20, dtype=np.uint16).tofile(path)
    ids = Shards([np.memmap(path, np.uint16, mode="r"), np.zeros(4, np.uint16)])
    before = resident_megabytes()
    assert int(ids[:].sum()) > 0
    assert resident_megabytes() - before > 25
    let_go(ids)
    assert resident_megabytes() - before < 5
    assert ids[1000:1003].tolist() == [1000, 1001, 1002]  # and read again when they are wanted


def test_giving_back_leaves_the_batches_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.arange(5000, dtype=np.uint16).tofile(tmp_path / "ids.bin")
    mapped = np.memmap(tmp_path / "ids.bin", np.uint16, mode="r")
    given: list[int] = []
    monkeypatch.setattr(loader, "ROWS_HELD", 10)
    monkeypatch.setattr(loader, "let_go", lambda ids: (given.append(1), let_go(ids)))
    batches = WindowBatches(mapped, batch_size=4, seq_len=16, seed=1)
    plain = WindowBatches(np.asarray(mapped).copy(), batch_size=4, seq_len=16, seed=1)
    for _ in range(50):
        assert torch.equal(next(batches).tokens, next(plain).tokens)
    assert len(given) == 2 * 16  # both of them, after every third batch
