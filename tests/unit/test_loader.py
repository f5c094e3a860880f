"""Batches from token files: what is in them, in which order, and that the order survives everything."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from legollm.data.loader import IGNORED, Chained, TokenFile, WindowBatches, validation_batches
from legollm.data.prepare import PrepareOptions, prepare
from legollm.data.readers import SourceOptions
from legollm.data.sources import open_source
from legollm.errors import DataError
from legollm.interfaces import Batch
from legollm.tokenizers import ByteTokenizer


def ids(n: int) -> np.ndarray[Any, Any]:
    """Tokens that tell their place."""
    return np.arange(n, dtype="<u4")


def targets(batch: Batch) -> list[int]:
    return batch.targets[batch.targets != IGNORED].tolist()


def rows_of_one_epoch(loader: WindowBatches) -> list[list[int]]:
    """The targets of each window until the epoch is over, batch size 1."""
    rows = [targets(next(loader))]
    while loader.rows.cursor < len(loader.rows.order):
        rows.append(targets(next(loader)))
    return rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text("0123456789" * 100)
    source = open_source(str(tmp_path / "a.txt"), SourceOptions())
    return prepare(source, ByteTokenizer(), tmp_path / "out", options=PrepareOptions()).folder


def test_targets_are_the_tokens_that_follow() -> None:
    loader = WindowBatches(ids(1000), batch_size=4, seq_len=16, seed=0)
    for _ in range(40):
        batch = next(loader)
        assert batch.tokens.shape == batch.targets.shape == (4, 16)
        assert batch.tokens.dtype == batch.targets.dtype == torch.int64
        counts = batch.targets != IGNORED
        assert torch.equal(batch.targets[counts], batch.tokens[counts] + 1)
        assert counts[:, 0].all()  # only the end of a row is filled up
        assert (counts.int().diff(dim=1) <= 0).all()


@pytest.mark.parametrize(("n_tokens", "seq_len"), [(1000, 16), (161, 16), (17, 16), (18, 16), (50, 1), (49, 7)])
def test_no_token_is_lost_or_repeated_at_epoch_borders(n_tokens: int, seq_len: int) -> None:
    """A buffer that was refilled at the end of the data once lost some tokens and served others twice."""
    loader = WindowBatches(ids(n_tokens), batch_size=1, seq_len=seq_len, seed=3)
    for _ in range(4):
        rows = rows_of_one_epoch(loader)
        assert sorted(token for row in rows for token in row) == list(range(1, n_tokens))


def test_batch_across_an_epoch_border_holds_the_end_of_one_and_the_start_of_the_next() -> None:
    single = WindowBatches(ids(100), batch_size=1, seq_len=16, seed=1)
    wide = WindowBatches(ids(100), batch_size=5, seq_len=16, seed=1)
    for _ in range(6):
        expected = torch.cat([next(single).tokens for _ in range(5)])
        assert torch.equal(next(wide).tokens, expected)
    assert wide.state_dict() == single.state_dict()
    assert wide.state_dict()["epoch"] > 1


def test_epochs_differ_in_cut_and_order_and_seeds_differ() -> None:
    loader = WindowBatches(ids(2000), batch_size=1, seq_len=16, seed=1)
    epochs = [rows_of_one_epoch(loader) for _ in range(4)]
    assert len({tuple(map(tuple, sorted(rows))) for rows in epochs}) > 1  # another shift
    assert all(rows != sorted(rows) for rows in epochs)
    other = WindowBatches(ids(2000), batch_size=1, seq_len=16, seed=2)
    assert rows_of_one_epoch(other) != epochs[0]
    again = WindowBatches(ids(2000), batch_size=1, seq_len=16, seed=1)
    assert rows_of_one_epoch(again) == epochs[0]


def test_order_is_pinned() -> None:
    """A run must continue under another version of everything: these starts may never change."""
    loader = WindowBatches(ids(1000), batch_size=1, seq_len=100, seed=2**40 + 7)
    assert [next(loader).tokens[0, 0].item() for _ in range(6)] == [937, 137, 737, 37, 537, 837]


def test_resumed_in_the_middle_gives_the_same_batches() -> None:
    loader = WindowBatches(ids(500), batch_size=3, seq_len=16, seed=5)
    for _ in range(25):
        next(loader)
    state = json.loads(json.dumps(loader.state_dict()))
    expected = [next(loader) for _ in range(30)]
    resumed = WindowBatches(ids(500), batch_size=3, seq_len=16, seed=5)
    resumed.load_state_dict(state)
    for batch in expected:
        found = next(resumed)
        assert torch.equal(found.tokens, batch.tokens)
        assert torch.equal(found.targets, batch.targets)


@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 8), (2, 4), (4, 2), (8, 1)])
def test_ranks_share_one_order_and_may_change_in_number(world_size: int, batch_size: int) -> None:
    def ranks() -> list[WindowBatches]:
        return [
            WindowBatches(ids(999), batch_size=batch_size, seq_len=16, seed=5, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]

    alone = WindowBatches(ids(999), batch_size=8, seq_len=16, seed=5)
    first = ranks()
    for _ in range(5):
        assert torch.equal(torch.cat([next(loader).tokens for loader in first]), next(alone).tokens)
    resumed = ranks()
    for loader in resumed:
        loader.load_state_dict(alone.state_dict())
    for _ in range(15):
        assert torch.equal(torch.cat([next(loader).tokens for loader in resumed]), next(alone).tokens)


def test_state_of_another_corpus_or_cut_is_refused() -> None:
    state = WindowBatches(ids(500), batch_size=3, seq_len=16, seed=5).state_dict()
    for loader, key in (
        (WindowBatches(ids(501), batch_size=3, seq_len=16, seed=5), "n_tokens = 500, this run 501"),
        (WindowBatches(ids(500), batch_size=3, seq_len=17, seed=5), "seq_len = 16, this run 17"),
        (WindowBatches(ids(500), batch_size=3, seq_len=16, seed=6), "seed = 5, this run 6"),
    ):
        with pytest.raises(DataError, match=key):
            loader.load_state_dict(state)


def test_too_few_tokens_say_how_many_there_are_and_what_to_lower() -> None:
    WindowBatches(ids(17), batch_size=1, seq_len=16, seed=0)
    with pytest.raises(DataError, match=r"16 tokens are fewer than the 17 .*set train.seq_len to at most 15"):
        WindowBatches(ids(16), batch_size=1, seq_len=16, seed=0)
    with pytest.raises(DataError, match="1 tokens to validate on"):
        next(validation_batches(ids(1), batch_size=1, seq_len=16))


@pytest.mark.parametrize("n_tokens", [2, 16, 17, 18, 33, 100, 161])
def test_validation_has_every_target_once_in_order(n_tokens: int) -> None:
    batches = list(validation_batches(ids(n_tokens), batch_size=3, seq_len=16))
    assert [token for batch in batches for token in targets(batch)] == list(range(1, n_tokens))
    assert all(batch.tokens.shape[1] == 16 for batch in batches)
    for batch in batches:
        counts = batch.targets != IGNORED
        assert torch.equal(batch.targets[counts], batch.tokens[counts] + 1)


def test_loss_over_validation_is_the_loss_of_the_whole_split() -> None:
    """Whatever the batch size: the sum over counted targets divided by their number."""
    table = torch.randn(300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for batch_size in (1, 4, 50):
        total = n = 0
        for batch in validation_batches(ids(300), batch_size=batch_size, seq_len=16):
            found = batch.targets[batch.targets != IGNORED]
            total, n = total + table[found].sum().item(), n + len(found)
        assert n == 299
        assert total == pytest.approx(table[1:].sum().item(), abs=1e-12)


def test_files_are_mapped_not_read(folder: Path) -> None:
    tokens = TokenFile(folder, "train")
    assert isinstance(tokens.ids, np.memmap)
    assert not tokens.ids.flags.writeable
    assert len(tokens) == 900
    assert tokens.n_bytes == 900
    assert tokens.document_starts.tolist() == [0]
    assert bytes(tokens.ids[:10].tolist()) == b"0123456789"


def test_folder_that_cannot_be_used_says_why(folder: Path) -> None:
    with pytest.raises(DataError, match=r"no meta\.json, so not \(or not completely\) prepared"):
        TokenFile(folder / "nowhere", "train")
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "val.bin").write_bytes(b"123")
    with pytest.raises(DataError, match=r"val\.bin: 3 bytes where meta\.json promises 200; prepare again"):
        TokenFile(folder, "val")
    (folder / "meta.json").write_text(json.dumps(meta | {"format_version": 99}))
    with pytest.raises(DataError, match="not legollm-tokens version 1"):
        TokenFile(folder, "train")
    (folder / "meta.json").write_text("{")
    with pytest.raises(DataError, match=r"meta\.json: not JSON"):
        TokenFile(folder, "train")


@pytest.mark.parametrize("n_taken", [0, 1, 3, 4, 7])
def test_one_source_after_another_can_be_continued_anywhere(n_taken: int) -> None:
    def chained() -> Chained:
        first = WindowBatches(ids(40), batch_size=1, seq_len=4, seed=1)
        return Chained(first, 3, WindowBatches(100 + ids(40), batch_size=2, seq_len=8, seed=2))

    whole = chained()
    expected = [next(whole).tokens for _ in range(8)]
    assert [len(tokens) for tokens in expected] == [1, 1, 1, 2, 2, 2, 2, 2]
    assert all(tokens.max() < 100 for tokens in expected[:3])
    one, other = chained(), chained()
    for _ in range(n_taken):
        next(one)
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for tokens in expected[n_taken:]:
        assert torch.equal(next(other).tokens, tokens)
