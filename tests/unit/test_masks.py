"""Masks: what each says, and that a model under it computes what it should."""

import pytest
import torch
from torch import Tensor

from legollm.components.block_sparse import BlockSparse
from legollm.components.decoder import Decoder
from legollm.components.masks import Causal, Documents, Everything, Prefix, Ragged, SparseMask
from legollm.errors import ContextError
from tiny_models import some_tokens, tiny_model

CPU = torch.device("cpu")


def table(mask: Tensor) -> list[str]:
    return ["".join("x" if seen else "." for seen in row) for row in mask.tolist()]


def test_everything_hides_padding_only() -> None:
    assert table(Everything(CPU).allowed(2, 3)) == ["xxx", "xxx"]
    ragged = Everything(CPU, torch.tensor([[-1, 0, 1], [-1, -1, -1]])).allowed(2, 3)
    assert ragged.shape == (2, 1, 2, 3)
    assert table(ragged[0, 0]) == [".xx", ".xx"]
    assert table(ragged[1, 0]) == ["xxx", "xxx"]  # nothing to see would be NaN


def test_documents_are_strangers() -> None:
    mask = Documents(torch.tensor([[0, 0, 1, 1, 0]]))
    assert table(mask.allowed(5, 5)[0, 0]) == ["x....", "xx...", "..x..", "..xx.", "xx..x"]
    assert table(mask.allowed(2, 5)[0, 0]) == ["..xx.", "xx..x"]
    with pytest.raises(ContextError, match="documents: ids of 5 columns for 6 tokens; give one to each"):
        mask.allowed(6, 6)


def test_a_prefix_sees_itself() -> None:
    mask = Prefix(torch.tensor([2, 0]))
    assert table(mask.allowed(4, 4)[0, 0]) == ["xx..", "xx..", "xxx.", "xxxx"]
    assert table(mask.allowed(4, 4)[1, 0]) == ["x...", "xx..", "xxx.", "xxxx"]
    assert table(mask.allowed(2, 4)[0, 0]) == ["xxx.", "xxxx"]


def test_only_a_sparse_mask_computes_by_itself() -> None:
    assert isinstance(BlockSparse.strided(2, 2, stride=1), SparseMask)
    for mask in (Causal(), Everything(CPU), Prefix(torch.tensor([1]))):
        assert not isinstance(mask, SparseMask)


@pytest.mark.parametrize("name", ["gpt2", "llama3", "qwen3"])
def test_packed_documents_are_as_if_each_were_alone(name: str) -> None:
    model = tiny_model(name, dtype=torch.float64)
    documents = [some_tokens(1, n, seed=n) for n in (4, 1, 6)]
    ids = torch.tensor([[0] * 4 + [1] + [2] * 6])
    again = torch.cat([torch.arange(n) for n in (4, 1, 6)])
    packed = model(torch.cat(documents, 1), again[None], mask=Documents(ids))
    alone = torch.cat([model(document) for document in documents], 1)
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-9)
    if name != "gpt2":  # rotary positions need not start again
        running = model(torch.cat(documents, 1), mask=Documents(ids))
        torch.testing.assert_close(running, alone, rtol=0, atol=1e-9)
    assert not torch.allclose(model(torch.cat(documents, 1)), alone)


def test_a_prefix_is_read_in_both_directions_and_the_rest_is_causal() -> None:
    model, tokens = tiny_model("llama3"), some_tokens(1, 8)
    mask = Prefix(torch.tensor([4]))
    before = model(tokens, mask=mask)

    def changed(place: int) -> Tensor:
        other = tokens.clone()
        other[0, place] += 1
        return (model(other, mask=mask) != before).any(-1)[0]

    assert changed(3).tolist() == [True] * 8
    assert changed(5).tolist() == [False] * 5 + [True] * 3


def test_the_mask_that_is_given_replaces_the_usual_one_wherever_it_is_given() -> None:
    model, tokens = tiny_model("qwen3"), some_tokens(1, 6)
    mask = Prefix(torch.tensor([6]))
    logits = model(tokens, mask=mask)
    assert isinstance(model, Decoder)
    assert torch.equal(model.lm_head(model.hidden(tokens, mask=mask)), logits)
    assert torch.equal(model(tokens, torch.arange(6)[None], mask=mask), logits)
    assert not torch.equal(model(tokens), logits)


def test_ragged_rows_and_everything_agree_about_padding() -> None:
    positions = torch.tensor([[-1, 0, 1]])
    causal, whole = Ragged(positions, positions).allowed(3, 3), Everything(CPU, positions).allowed(3, 3)
    assert not (causal & ~whole)[0, 0, 1:].any()
