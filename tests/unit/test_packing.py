"""Packed documents: the loss of each alone, an order that can be continued, and no row wasted."""

import json
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from legollm.architectures import ARCHITECTURES, build
from legollm.data.loader import IGNORED, RowBatches, Windows
from legollm.data.packing import Packed, pack
from legollm.errors import DataError
from legollm.interfaces import Batch
from legollm.training.objective import NextToken

SMALL = {"vocab_size": 50, "max_seq_len": 16, "n_layers": 2, "n_heads": 2, "d_model": 16}
MODELS = {
    "gpt2": SMALL | {"dropout": 0.0},
    "qwen3": SMALL | {"n_kv_heads": 1, "d_head": 8, "d_ff": 24, "local_layers": (1,), "window": 4},
    "vanilla": SMALL | {"n_kv_heads": 2, "d_ff": 24, "positions": "alibi"},
    "mlp_lm": {"vocab_size": 50, "max_seq_len": 16, "window": 3, "d_model": 8, "d_ff": 16},
}


def corpus(lengths: list[int], seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Random ids of documents of so many tokens, and where each begins."""
    ids = np.random.RandomState(seed).randint(50, size=sum(lengths)).astype("<u2")
    return ids, (np.cumsum(lengths) - lengths).astype("<u8")


@pytest.mark.parametrize("arch", MODELS)
def test_loss_of_packed_rows_is_that_of_each_document_alone(arch: str) -> None:
    torch.manual_seed(0)
    model = build(arch, **MODELS[arch]).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    lengths = [7, 2, 12, 1, 5, 40, 3, 9, 17, 16, 4, 18]  # 40 and 18 are more than a row and are cut, 1 has no target
    ids, starts = corpus(lengths)
    rows = Packed(ids, starts, seq_len=16, seed=1)
    n_rows = len(rows.rows)
    assert n_rows % 4 == 0  # the epoch is whole batches
    objective, packed, n_packed = NextToken(), 0.0, 0
    for batch in islice(RowBatches(rows, batch_size=4), n_rows // 4):
        packed, n_packed = packed + objective(model, batch).item(), n_packed + objective.n_terms(batch)
    alone, n_alone = 0.0, 0
    for start, length in zip(starts.tolist(), lengths, strict=True):
        for first in range(start, start + length - 1, 16):
            piece = torch.from_numpy(ids[first : min(first + 17, start + length)].astype(np.int64))[None]
            one = Batch(piece[:, :-1], piece[:, 1:])
            alone, n_alone = alone + objective(model, one).item(), n_alone + objective.n_terms(one)
    assert n_packed == n_alone == sum(length - 1 for length in lengths)
    assert packed == pytest.approx(alone, rel=1e-9)


def test_table_of_models_holds_learned_relative_and_no_positions() -> None:
    assert set(MODELS) <= set(ARCHITECTURES)


def test_rows_are_filled_and_say_which_document_a_column_is_of() -> None:
    ids, starts = corpus([6, 3, 5])
    batch = next(RowBatches(Packed(ids, starts, seq_len=8, seed=0), batch_size=2))
    rows = {tuple(row) for row in batch.positions.tolist()}
    assert rows == {(0, 1, 2, 3, 4, 0, 1, 0), (0, 1, 2, 3, 0, 0, 0, 0)}
    assert {tuple(row) for row in batch.documents.tolist()} == {
        (0, 0, 0, 0, 0, 1, 1, -1),
        (0, 0, 0, 0, -1, -1, -1, -1),
    }
    assert torch.equal(batch.targets == IGNORED, batch.documents == -1)


def slow_pack(lengths: list[int], size: int) -> list[int]:
    """The room left in each row if every length, from the longest on, looks at all rows."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [i for i, room in enumerate(rooms) if room >= length]
        if fitting:
            rooms[min(fitting, key=lambda i: rooms[i])] -= length
        else:
            rooms.append(size - length)
    return sorted(rooms)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_best_fit_is_that_of_a_search_over_all_rows(size: int) -> None:
    for seed in range(20):
        lengths = np.random.RandomState(seed).randint(1, size + 1, size=60)
        rows = pack(lengths, size)
        assert sorted(i for row in rows for i in row) == list(range(60))
        assert sorted(size - int(lengths[row].sum()) for row in rows) == slow_pack(lengths.tolist(), size)


def test_hardly_a_column_is_wasted() -> None:
    ids, starts = corpus(np.random.RandomState(0).geometric(1 / 60, size=3000).tolist())
    assert Packed(ids, starts, seq_len=128, seed=0).share_filled > 0.99


def test_order_is_pinned() -> None:
    """A run must continue under another version of everything: these rows may never change."""
    ids, starts = corpus([9, 4, 30, 7, 5, 12, 3, 8])
    packed = Packed(ids, starts, seq_len=10, seed=2**40 + 7, look_ahead=4)
    rows = packed.take(7)
    assert [row.starts.tolist() for row in rows] == [[13], [70, 9], [65], [50], [0, 67], [23], [43]]


def test_resumed_in_the_middle_gives_the_same_batches() -> None:
    ids, starts = corpus([9, 4, 30, 7, 5, 12, 3, 8, 22] * 5)

    def source() -> RowBatches:
        return RowBatches(Packed(ids, starts, seq_len=10, seed=5, look_ahead=8), batch_size=3)

    whole = source()
    for n_before in range(60):
        state = json.loads(json.dumps(whole.state_dict()))
        resumed = source()
        resumed.load_state_dict(state)
        expected = next(whole)
        for mine, other in zip(next(resumed), expected, strict=True):
            assert torch.equal(mine, other), n_before
    assert whole.state_dict()["epoch"] >= 2


def test_state_of_other_documents_or_of_windows_is_refused() -> None:
    ids, starts = corpus([9, 4, 30])
    packed = Packed(ids, starts, seq_len=10, seed=5)
    state = packed.state_dict()
    for other, message in (
        (Packed(ids, starts[:2], seq_len=10, seed=5), "n_documents = 3, this run 2"),
        (Packed(ids, starts, seq_len=11, seed=5), "seq_len = 10, this run 11"),
        (Packed(ids, starts, seq_len=10, seed=5, look_ahead=9), "look_ahead = 4096, this run 9"),
    ):
        with pytest.raises(DataError, match=message):
            other.load_state_dict(state)
    with pytest.raises(DataError, match="n_documents = None, this run 3"):
        packed.load_state_dict(Windows(ids, seq_len=10, seed=5).state_dict())


def test_documents_without_a_target_are_refused() -> None:
    with pytest.raises(DataError, match="3 documents, and none has two tokens"):
        Packed(*corpus([1, 1, 1]), seq_len=4, seed=0)
    with pytest.raises(DataError, match="0 documents"):
        Packed(*corpus([]), seq_len=4, seed=0)


@pytest.mark.parametrize("look_ahead", [4, 4096])
def test_epochs_are_told(look_ahead: int) -> None:
    ids, starts = corpus([9, 4, 30, 7, 5, 12, 3, 8] * 4)
    packed = Packed(ids, starts, seq_len=10, seed=0, look_ahead=look_ahead)
    seen = [packed.figures()["epochs"]]
    while packed.epoch < 2:
        packed.take(1)
        seen.append(packed.figures()["epochs"])
    assert seen[0] == 0
    assert all(0 < b - a < 0.15 for a, b in pairwise(seen))
    assert 2 < seen[-1] < 2.15
    assert packed.figures_after(len(seen)) == {"epochs": pytest.approx(2, rel=0.3)}
