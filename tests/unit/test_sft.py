"""Fine-tuning batches: who is a target, what padding does, every example once, resumed anywhere."""

from collections import Counter
from itertools import islice

import pytest
import torch

from legollm.architectures import build
from legollm.errors import DataError
from legollm.finetuning.sft import Example, ExampleBatches, in_order, packed, padded
from legollm.interfaces import Batch
from legollm.training.objective import IGNORED, NextToken


def example(name: int, n_prompt: int, n_answer: int) -> Example:
    """Ids that say which example they are of: name * 100, name * 100 + 1, ..."""
    n = n_prompt + n_answer
    return Example([100 * name + i for i in range(n)], [False] * n_prompt + [True] * n_answer)


EXAMPLES = [example(name, n_prompt=1 + name % 3, n_answer=1 + name % 4) for name in range(11)]


def names(batch: Batch) -> list[int]:
    return [int(row[0]) // 100 for row in batch.tokens]


def test_the_prompt_is_never_a_target_and_the_answer_always() -> None:
    tokens, targets = padded([example(1, 3, 2), example(2, 1, 1)])
    assert tokens.tolist() == [[100, 101, 102, 103], [200, 0, 0, 0]]
    assert targets.tolist() == [[IGNORED, IGNORED, 103, 104], [201, IGNORED, IGNORED, IGNORED]]
    assert NextToken().n_terms(Batch(tokens, targets)) == 3


def test_the_token_that_pads_is_still_learned_where_it_ends_an_answer() -> None:
    """Columns are filled up with id 0, which may as well be the end of a text."""
    ends = [Example([5, 6, 0], [False, True, True]), Example([7, 0, 8, 3, 0], [False, False, False, True, True])]
    tokens, targets = padded(ends)
    assert tokens.tolist() == [[5, 6, 0, 0], [7, 0, 8, 3]]
    assert targets.tolist() == [[6, 0, IGNORED, IGNORED], [IGNORED, IGNORED, 3, 0]]
    row = next(packed(ends, 1, seed=0, max_len=8))
    assert Counter(row.targets.flatten().tolist()) == {6: 1, 0: 2, 3: 1, IGNORED: 4}


def test_turns_in_between_are_masked() -> None:
    two_answers = Example([1, 2, 3, 4, 5, 6], [False, True, True, False, False, True])
    assert padded([two_answers]).targets.tolist() == [[2, 3, IGNORED, IGNORED, 6]]


@pytest.mark.parametrize("arch", ["gpt2", "llama3"])
def test_padding_does_not_change_loss_or_gradient(arch: str) -> None:
    model = build(arch, vocab_size=30, max_seq_len=64, n_layers=2, d_model=16, n_heads=2)
    rng = torch.Generator().manual_seed(0)

    def random_example(n: int) -> Example:
        return Example(torch.randint(30, (n,), generator=rng).tolist(), [i > n // 2 for i in range(n)])

    examples = [random_example(n) for n in (4, 60, 9, 33)]
    objective = NextToken()
    together: torch.Tensor = objective(model, padded(examples))
    gradient = torch.autograd.grad(together, list(model.parameters()))
    alone = sum(objective(model, padded([one])) for one in examples)
    assert isinstance(alone, torch.Tensor)
    expected = torch.autograd.grad(alone, list(model.parameters()))
    n_terms = sum(sum(one.is_target[1:]) for one in examples)
    assert objective.n_terms(padded(examples)) == n_terms
    assert together.item() / n_terms == pytest.approx(alone.item() / n_terms, abs=1e-6)
    for a, b in zip(gradient, expected, strict=True):
        torch.testing.assert_close(a / n_terms, b / n_terms, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("arch", ["gpt2", "llama3"])
def test_packed_rows_have_the_loss_of_padded_ones(arch: str) -> None:
    """Of the examples of an epoch, and of each of their targets: nobody sees another conversation."""
    torch.manual_seed(0)
    model = build(arch, vocab_size=1200, max_seq_len=24, n_layers=2, d_model=16, n_heads=2).eval()
    objective = NextToken()
    one_by_one = [padded([one]) for one in EXAMPLES]
    alone = sum(objective(model, batch).item() for batch in one_by_one)
    n_alone = sum(map(objective.n_terms, one_by_one))
    assert n_alone == sum(sum(one.is_target[1:]) for one in EXAMPLES)
    rows = packed(EXAMPLES, 1, seed=3, max_len=24)
    for epoch in (1, 2):
        batches = [next(rows) for _ in range(len(rows.rows.rows))]
        assert rows.figures()["epochs"] == epoch
        assert len(batches) < len(EXAMPLES) / 2
        assert sum(map(objective.n_terms, batches)) == n_alone
        together = sum(objective(model, batch).item() for batch in batches)
        assert together / n_alone == pytest.approx(alone / n_alone, abs=1e-6)
        targets = sorted(int(i) for batch in batches for i in batch.targets.flatten() if i != IGNORED)
        assert targets == sorted(i for one in EXAMPLES for i, wanted in zip(*one, strict=True) if wanted)


def test_packed_rows_refuse_what_padded_ones_refuse() -> None:
    for examples, said in ([], "no examples"), ([example(1, 20, 5)], "25 tokens, the model reads 24"):
        with pytest.raises(DataError, match=said):
            packed(examples, 1, seed=0, max_len=24)
    one, other = batches(1), packed(EXAMPLES, 1, seed=5, max_len=100)
    with pytest.raises(DataError, match="the saved place"):
        one.load_state_dict(other.state_dict())
    with pytest.raises(DataError, match="the saved place"):
        other.load_state_dict(one.state_dict())


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 11, 16])
def test_each_example_once_per_epoch_in_an_order_that_does_not_depend_on_the_batch_size(batch_size: int) -> None:
    one_by_one = [names(batch)[0] for batch in islice(batches(1), 44)]
    rows = [name for batch in islice(batches(batch_size), 44) for name in names(batch)][:44]
    assert rows == one_by_one
    epochs = [rows[i : i + 11] for i in range(0, 44, 11)]
    assert all(Counter(epoch) == Counter(range(11)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def batches(batch_size: int, seed: int = 5) -> "Endless":
    return Endless(EXAMPLES, batch_size, seed=seed, max_len=100)


class Endless(ExampleBatches):
    def __iter__(self) -> "Endless":
        return self


def test_another_seed_is_another_order() -> None:
    a, b = ([names(batch) for batch in islice(batches(11, seed), 1)] for seed in (1, 2))
    assert a != b


@pytest.mark.parametrize("n_done", [0, 1, 3, 4, 9])
def test_resumes_anywhere_also_with_another_batch_size(n_done: int) -> None:
    never_stopped, stopped = batches(3), batches(3)
    for _ in range(n_done):
        next(never_stopped)
        next(stopped)
    resumed = batches(3)
    next(resumed)  # a state that is restored later replaces what was there
    resumed.load_state_dict(stopped.state_dict())
    for _ in range(8):
        a, b = next(never_stopped), next(resumed)
        assert torch.equal(a.tokens, b.tokens)
        assert torch.equal(a.targets, b.targets)
    other_size = batches(1)
    other_size.load_state_dict(stopped.state_dict())
    rows = [names(next(other_size))[0] for _ in range(3)]
    assert rows == names(next(stopped))


@pytest.mark.parametrize("change", [{"seed": 6}, {"n_examples": 12}])
def test_a_state_about_other_examples_is_refused(change: dict[str, int]) -> None:
    state = batches(3).state_dict()
    (key, value), mine = next(iter(change.items())), batches(3)
    with pytest.raises(DataError, match=f"{key} = {value}, this run"):
        mine.load_state_dict(state | change)


def test_in_order_has_every_example_once_and_little_padding() -> None:
    lengths = [len(one.ids) for one in EXAMPLES]
    found = list(in_order(EXAMPLES, 4))
    assert sorted(name for batch in found for name in names(batch)) == list(range(11))
    assert [batch.tokens.size(1) for batch in found] == [sorted(lengths)[i] - 1 for i in (3, 7, 10)]


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        ([], "no examples to fine-tune on"),
        ([EXAMPLES[0], example(1, 80, 40)], "example 2: 120 tokens, the model reads 100"),
        ([Example([1, 2, 3], [False] * 3)], "example 1: no word of it is the assistant's"),
        ([Example([1, 2, 3], [True, False, False])], "example 1: no word of it is the assistant's"),
        ([Example([1], [True])], "example 1: no word of it is the assistant's"),
    ],
)
def test_examples_that_teach_nothing_or_do_not_fit_are_refused(examples: list[Example], said: str) -> None:
    with pytest.raises(DataError, match=said):
        ExampleBatches(examples, 2, seed=0, max_len=100)


def test_widths_are_rounded_up_but_never_beyond_what_the_model_reads() -> None:
    rows = [example(1, 30, 10), example(2, 5, 5)]
    assert padded(rows, max_len=256).tokens.shape == (2, 64)
    assert padded(rows, max_len=50).tokens.shape == (2, 50)
    assert padded(rows).tokens.shape == (2, 39)
    assert next(ExampleBatches(rows, 2, seed=0, max_len=256)).tokens.shape == (2, 64)
    objective, model = NextToken(), build("gpt2", vocab_size=300, max_seq_len=64, n_layers=1, d_model=16, n_heads=2)
    wide, narrow = objective(model, padded(rows, max_len=64)), objective(model, padded(rows))
    assert float(wide.detach()) == pytest.approx(float(narrow.detach()), rel=1e-6)
