"""Log-likelihoods against a forward pass for each token; windows against what the rule gives each token."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from legollm.architectures.ngram import NGramConfig, counted
from legollm.errors import ContextError, DataError
from legollm.evaluation import likelihood
from legollm.evaluation.likelihood import Continuation, Likelihood, fitted, in_turn, log_likelihoods
from legollm.evaluation.prompts import Prompts
from legollm.evaluation.windows import windows, windows_apart, windows_of_documents
from legollm.tokenizers import ByteTokenizer, RegexBPETokenizer
from tiny_models import TINY, some_tokens, tiny_model


def slowly(model: Any, asked: Continuation) -> Likelihood:
    """One forward pass for each token of the continuation, alone in its batch."""
    total, greedy, read = 0.0, True, list(asked.context)
    for token in asked.ids:
        with torch.no_grad():
            log_probs = model(torch.tensor([read]))[0, -1].double().log_softmax(-1)
        total += float(log_probs[token])
        greedy &= int(log_probs.argmax()) == token
        read.append(token)
    return Likelihood(total, greedy)


def some_questions() -> list[Continuation]:
    """Contexts with several continuations of unequal length, and some that share nothing."""
    ids = some_tokens(400).tolist()
    found = []
    for i, (n_context, lengths) in enumerate([(9, (1, 1, 1)), (17, (3, 1, 6, 2)), (1, (2, 2)), (5, (4,)), (12, (5,))]):
        context = ids[20 * i : 20 * i + n_context]
        found += [Continuation(context, ids[200 + 9 * j + i : 200 + 9 * j + i + n]) for j, n in enumerate(lengths)]
    return [*found, found[4]]


@pytest.mark.parametrize("arch", TINY)
def test_equal_to_one_token_at_a_time(arch: str) -> None:
    model = tiny_model(arch, dtype=torch.float64)
    asked = some_questions()
    slow = [slowly(model, one) for one in asked]
    for batch_size in (1, 3, 64):
        found = log_likelihoods(model, asked, batch_size=batch_size)
        assert [one.log_prob for one in found] == pytest.approx([one.log_prob for one in slow], abs=1e-9)
        assert [one.is_greedy for one in found] == [one.is_greedy for one in slow]


def test_counts_are_a_model_like_others() -> None:
    """Padding between a shared context and its continuations once ended what an n-gram model sees."""
    _, model = counted(NGramConfig(vocab_size=97, order=3), some_tokens(1, 3000)[0])
    asked = some_questions()
    found = log_likelihoods(model, asked, batch_size=5)
    assert [one.log_prob for one in found] == pytest.approx([slowly(model, one).log_prob for one in asked], abs=1e-4)


def test_what_greedy_decoding_writes_is_greedy() -> None:
    model, written = tiny_model("llama3"), some_tokens(7).tolist()
    for _ in range(5):
        written.append(int(model(torch.tensor([written]))[0, -1].argmax()))
    other = [*written[:-1], (written[-1] + 1) % 97]
    found = log_likelihoods(model, [Continuation(ids[:7], ids[7:]) for ids in (written, other)])
    assert [one.is_greedy for one in found] == [True, False]
    assert found[0].log_prob > found[1].log_prob


def test_who_knows_nothing_is_as_unsure_as_the_vocabulary_is_large() -> None:
    model = tiny_model("gpt2", dtype=torch.float64)
    torch.nn.init.zeros_(model.lm_head.weight)
    asked = some_questions()
    for one, found in zip(asked, log_likelihoods(model, asked), strict=True):
        assert found.log_prob == pytest.approx(-len(one.ids) * math.log(97))


def test_logits_in_parts_and_many_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = tiny_model("qwen3", dtype=torch.float64), some_questions() * 2
    whole = log_likelihoods(model, asked)
    monkeypatch.setattr(likelihood, "MAX_LOGITS", 3 * 97)
    parts = list(in_turn(model, iter(asked), batch_size=2, n_ahead=3))
    assert [one.log_prob for one in parts] == pytest.approx([one.log_prob for one in whole], abs=1e-12)


def test_a_context_is_cut_from_the_left() -> None:
    assert fitted(Continuation([1, 2, 3, 4], [5, 6]), 3) == (Continuation([3, 4], [5, 6]), 2)  # the last is not read
    assert fitted(Continuation([1, 2], [5, 6]), 3)[1] == 0
    assert fitted(Continuation([1, 2, 3], [5]), None)[1] == 0
    with pytest.raises(ContextError, match="a continuation has 4 tokens, and the model reads at most 3"):
        fitted(Continuation([1], [5, 6, 7, 8]), 3)


@pytest.mark.parametrize(("n_ids", "seq_len", "stride"), [(40, 8, 3), (40, 8, 8), (9, 8, 1), (41, 8, 1), (3, 8, 5)])
def test_every_token_is_predicted_once_with_enough_before_it(n_ids: int, seq_len: int, stride: int) -> None:
    seen: list[int] = []
    for window in windows(n_ids, seq_len=seq_len, stride=stride):
        assert window.stop - 1 - window.start <= seq_len
        for place in range(window.first, window.stop):
            seen.append(place)
            assert place - window.start >= min(place, seq_len - stride + 1)
    assert seen == list(range(1, n_ids))
    assert list(windows(1, seq_len=seq_len, stride=stride)) == []


def text_loss(model: Any, asked: Sequence[tuple[int, Continuation]]) -> dict[int, float]:
    found: dict[int, float] = {}
    for (number, _), one in zip(asked, log_likelihoods(model, [one for _, one in asked], batch_size=4), strict=True):
        found[number] = found.get(number, 0.0) - one.log_prob
    return found


@pytest.mark.parametrize("stride", [1, 3, 8])
@pytest.mark.parametrize("begin", [None, 7])
def test_strided_windows_equal_a_forward_pass_per_token(stride: int, begin: int | None) -> None:
    """The oracle knows no windows: it asks for each token how much context the rule gives it, in its own document."""
    model, ids, starts = tiny_model("llama3", dtype=torch.float64), some_tokens(60).numpy(), np.array([0, 1, 23, 31])
    seq_len = 8
    found = text_loss(model, list(windows_of_documents(ids, starts, begin=begin, seq_len=seq_len, stride=stride)))
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(ids)], strict=True)):
        text = [*([] if begin is None else [begin]), *ids[start:end].tolist()]
        nats = 0.0
        for place in range(1, len(text)):
            turn = max(0, place - 1 - seq_len) // stride + (place > seq_len)  # 0 is the first window
            last = min(seq_len + turn * stride, len(text) - 1)  # what its window predicts last
            nats -= slowly(model, Continuation(text[max(0, last - seq_len) : place], text[place : place + 1])).log_prob
        assert found.get(number, 0.0) == pytest.approx(nats, abs=1e-9)


def test_stride_one_gives_every_token_the_longest_context() -> None:
    ids = some_tokens(30).numpy()
    asked = [one for _, one in windows_of_documents(ids, np.array([0]), begin=None, seq_len=6, stride=1)]
    assert [len(one.ids) for one in asked] == [6, *[1] * 23]
    assert all(len(one.context) == 6 for one in asked[1:])


def test_windows_apart_are_those_of_training() -> None:
    found = list(windows_apart(np.arange(12), seq_len=5))
    assert found == [([0], [1, 2, 3, 4, 5]), ([5], [6, 7, 8, 9, 10]), ([10], [11])]


def bpe() -> RegexBPETokenizer:
    tokenizer = RegexBPETokenizer("gpt4")
    tokenizer.train("the cat sat on the mat and the rat ran " * 9, vocab_size=300, special_tokens=["<|endoftext|>"])
    return tokenizer


def test_context_and_continuation_are_one_text() -> None:
    tokenizer = bpe()
    prompts = Prompts(tokenizer, tokenizer.special_tokens["<|endoftext|>"])
    (plain,) = prompts.pairs("the cat", [" sat"])
    assert plain == (tokenizer.encode("the cat"), tokenizer.encode(" sat"))
    spaced, more = prompts.pairs("the cat ", ["sat", "ran"])  # the space goes to the word after it
    assert (spaced, more[1]) == (plain, tokenizer.encode(" ran"))
    (joined,) = prompts.pairs("the c", ["at sat on"])  # not the ids of `at sat`, but what of the text is left
    assert joined.ids == tokenizer.encode("the cat sat on")[len(tokenizer.encode("the c")) :]
    (alone,) = prompts.pairs("", ["the cat"])
    assert alone == ([prompts.begin], tokenizer.encode("the cat"))
    first = Prompts(tokenizer, 5, puts_begin=True)
    assert first.pairs("the cat", [" sat"]) == [([5, *plain.context], plain.ids)]
    assert first.pairs("", ["the cat"]) == [([5], alone.ids)]


def test_nothing_to_ask_about_is_said() -> None:
    with pytest.raises(ContextError, match="the model has no token that begins a text"):
        Prompts(ByteTokenizer()).pairs("", ["x"])
    with pytest.raises(DataError, match="the continuation '' has no token of its own"):
        Prompts(ByteTokenizer(), 3).pairs("x", ["y", ""])
