"""Each step of sampling against its definition, written out for one row of a small vocabulary."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from legollm.errors import ConfigError, DivergedError
from legollm.generation.sampling import (
    Sampling,
    cut_eta,
    draw,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_typical,
    next_token_probs,
    next_tokens,
    penalise_repeats,
    repeated_lengths,
    row_generators,
    rule_out_ngrams,
    token_counts,
)

V = 7


def random_logits(n_rows: int, *, ties: bool) -> Tensor:
    logits = torch.randn(n_rows, V, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
    return logits.round() if ties else logits


def ranking(scores: list[float]) -> list[int]:
    """Ids from the largest score down, the lower id first among equals."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))


def softmax(logits: list[float]) -> list[float]:
    weights = [math.exp(x) for x in logits]
    return [w / sum(weights) for w in weights]


def kept_ids(logits: Tensor) -> list[set[int]]:
    return [set(row.isfinite().nonzero().flatten().tolist()) for row in logits]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("k", [1, 2, 5, V, V + 3])
def test_top_k_keeps_exactly_k_and_the_lower_ids_of_a_tie(k: int, ties: bool) -> None:
    logits = random_logits(200, ties=ties)
    assert kept_ids(keep_top_k(logits, k)) == [set(ranking(row)[:k]) for row in logits.tolist()]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("p", [1e-9, 0.3, 0.7, 0.95, 1 - 1e-9])
def test_top_p_keeps_the_smallest_nucleus(p: float, ties: bool) -> None:
    logits = random_logits(200, ties=ties)
    for row, kept in zip(logits.tolist(), kept_ids(keep_top_p(logits, p)), strict=True):
        probs, order = softmax(row), ranking(row)
        n = next(n for n in range(1, V + 1) if sum(probs[i] for i in order[:n]) >= p)
        assert kept == set(order[:n])


def test_top_p_takes_no_more_once_the_sum_is_exactly_p() -> None:
    assert kept_ids(keep_top_p(torch.zeros(1, 2), 0.5)) == [{0}]


def test_top_p_ranks_the_whole_vocabulary_where_its_head_is_not_enough() -> None:
    kept = keep_top_p(torch.zeros(1, 5000, dtype=torch.float64), 0.49995)
    assert kept.isfinite().sum() == 2500
    assert kept[0, :2500].isfinite().all()


@pytest.mark.parametrize("min_p", [0.01, 0.3, 1.0])
def test_min_p_is_relative_to_the_likeliest(min_p: float) -> None:
    logits = random_logits(200, ties=False)
    for row, kept in zip(logits.tolist(), kept_ids(keep_min_p(logits, min_p)), strict=True):
        probs = softmax(row)
        assert kept == {i for i in range(V) if probs[i] >= min_p * max(probs)}


def test_penalties_follow_their_formulas_also_for_negative_logits() -> None:
    logits, history = torch.tensor([[2.0, -2.0, 1.0, 0.5]]), torch.tensor([[-1, 0, 1, 1]])
    sampling = Sampling(repetition_penalty=2.0, presence_penalty=0.25, frequency_penalty=0.5)
    expected = torch.tensor([[2.0 / 2 - 0.25 - 0.5, -2.0 * 2 - 0.25 - 2 * 0.5, 1.0, 0.5]])
    torch.testing.assert_close(next_token_probs(logits, sampling, history), expected.softmax(-1))


def test_penalties_do_not_look_behind_their_window() -> None:
    logits, history = torch.zeros(1, 4), torch.tensor([[3, 2, 1]])
    probs = next_token_probs(logits, Sampling(presence_penalty=1.0, penalty_window=2), history)[0]
    assert probs[0] == probs[3] > probs[1] == probs[2]


def test_penalties_without_any_history_do_nothing() -> None:
    logits = random_logits(3, ties=False)
    sampling = Sampling(repetition_penalty=2.0, frequency_penalty=1.0)
    for history in (None, torch.empty(3, 0, dtype=torch.int64), torch.full((3, 2), -1)):
        torch.testing.assert_close(next_token_probs(logits, sampling, history), logits.softmax(-1))


def test_counts_leave_padding_out() -> None:
    assert token_counts(torch.tensor([[-1, 0, 2], [2, 2, 2]]), 3).tolist() == [[1, 0, 1], [0, 0, 3]]


@pytest.mark.parametrize("p", [1e-9, 0.3, 0.7, 0.95, 1 - 1e-9])
def test_typical_keeps_what_is_nearest_to_the_entropy(p: float) -> None:
    logits = random_logits(200, ties=False)
    logits[:, 2] = -torch.inf
    for row, kept in zip(logits.tolist(), kept_ids(keep_typical(logits, p)), strict=True):
        probs = softmax(row)
        entropy = -sum(q * math.log(q) for q in probs if q > 0)
        order = sorted((i for i in range(V) if probs[i] > 0), key=lambda i: abs(-math.log(probs[i]) - entropy))
        n = next(n for n in range(1, V + 1) if sum(probs[i] for i in order[:n]) >= min(p, sum(probs) - 1e-12))
        assert kept == set(order[:n])


def test_typical_need_not_keep_the_likeliest() -> None:
    """A surprise is expected here: the entropy is far above the information of the first token."""
    probs = torch.tensor([[0.36, *[0.04] * 16]])
    assert kept_ids(keep_typical(probs.log(), 0.1)) == [{1, 2, 3}]


@pytest.mark.parametrize("epsilon", [0.001, 0.1, 0.4])
def test_eta_cuts_what_is_less_likely_than_the_entropy_lets_expect(epsilon: float) -> None:
    logits = random_logits(200, ties=False)
    for row, kept in zip(logits.tolist(), kept_ids(cut_eta(logits, epsilon)), strict=True):
        probs = softmax(row)
        eta = min(epsilon, epsilon**0.5 * math.exp(sum(q * math.log(q) for q in probs)))
        assert kept == {i for i in range(V) if probs[i] >= eta or probs[i] == max(probs)}


def random_histories(n: int) -> Tensor:
    """Of three different tokens, so that sequences repeat; the last ones begin with padding."""
    history = torch.randint(3, (n, 9), generator=torch.Generator().manual_seed(4))
    history[n // 2 :, :4] = -1
    return history


@pytest.mark.parametrize("n", [1, 2, 3, 9, 12])
def test_no_ngram_occurs_twice(n: int) -> None:
    logits = random_logits(100, ties=False)
    histories = random_histories(100)
    for row, kept in zip(histories.tolist(), kept_ids(rule_out_ngrams(logits, histories, n)), strict=True):
        ids = [token for token in row if token >= 0]
        seen = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
        end = ids[len(ids) - n + 1 :]
        assert kept == {token for token in range(V) if len(end) < n - 1 or (*end, token) not in seen}


def test_where_every_token_would_repeat_none_is_ruled_out() -> None:
    logits, history = torch.tensor([[0.0, 1.0, -torch.inf]] * 2), torch.tensor([[0, 1], [0, 0]])
    probs = next_token_probs(logits, Sampling(no_repeat_ngram=1), history)
    torch.testing.assert_close(probs, torch.stack([logits[0].softmax(-1), torch.tensor([0.0, 1.0, 0.0])]))


def test_dry_penalises_by_how_long_the_repeated_sequence_is() -> None:
    """Against the definition: the longest end of the history that occurred before, followed by the token."""
    logits, histories = random_logits(100, ties=False), random_histories(100)
    sampling = Sampling(dry_multiplier=0.8, dry_base=1.5, dry_length=2)
    expected = logits.clone()
    for i, row in enumerate(histories.tolist()):
        ids = [token for token in row if token >= 0]
        for token in range(V):
            places = [end for end in range(1, len(ids)) if ids[end] == token]
            length = max(
                (n for n in range(1, len(ids)) for end in places if n <= end and ids[end - n : end] == ids[-n:]),
                default=0,
            )
            if length >= 2:
                expected[i, token] -= 0.8 * 1.5 ** (length - 2)
    assert (expected != logits).any(1).sum() > 30
    torch.testing.assert_close(next_token_probs(logits, sampling, histories), expected.softmax(-1))


def test_biases_are_added_to_their_tokens_and_to_no_others() -> None:
    logits = random_logits(3, ties=False)
    expected = logits.clone()
    expected[:, 2] += 1.5
    expected[:, 0] -= 100
    probs = next_token_probs(logits, Sampling(logit_bias=("2=1.5", " 0 = -100")))
    torch.testing.assert_close(probs, expected.softmax(-1))
    with pytest.raises(ConfigError, match="logit_bias: token 7 does not exist; there are 0 to 6"):
        next_token_probs(logits, Sampling(logit_bias=("7=1",)))


def test_greedy_heeds_bias_and_penalties_and_no_set() -> None:
    logits, history = torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[0]])
    assert next_tokens(logits, Sampling(temperature=0, typical_p=0.01), [], history).tolist() == [0]
    assert next_tokens(logits, Sampling(temperature=0, no_repeat_ngram=1), [], history).tolist() == [1]
    assert next_tokens(logits, Sampling(temperature=0, logit_bias=("2=9",)), [], history).tolist() == [2]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_temperature_divides_the_logits(temperature: float) -> None:
    logits = random_logits(50, ties=False)
    probs = next_token_probs(logits, Sampling(temperature=temperature))
    torch.testing.assert_close(probs, (logits / temperature).softmax(-1))


def test_a_vanishing_temperature_is_greedy_and_does_not_overflow() -> None:
    logits = random_logits(50, ties=False).float()
    greedy = next_token_probs(logits, Sampling(temperature=0))
    for temperature in (1e-6, 1e-40, 5e-324):
        assert torch.equal(next_token_probs(logits, Sampling(temperature=temperature)), greedy)


def test_greedy_takes_the_lowest_id_of_a_tie() -> None:
    logits = torch.zeros(1, 100_000)  # long enough for a reduction in several parts
    logits[0, [70_001, 70_000, 99_999]] = 1.0
    assert next_tokens(logits, Sampling(temperature=0), row_generators(0, 1)).tolist() == [70_000]
    assert next_token_probs(logits, Sampling(temperature=0)).nonzero().tolist() == [[0, 70_000]]


def test_the_order_is_bias_penalties_temperature_and_the_sets() -> None:
    logits = random_logits(100, ties=False)
    history = torch.randint(3, (100, 6), generator=torch.Generator().manual_seed(1))
    steps = logits.clone()
    steps[:, 4] += 2
    steps = steps - 1.5 * (token_counts(history, V) > 0)
    steps = penalise_repeats(steps, repeated_lengths(history, V), 1.0, 1.5, 1)
    steps = keep_top_p(keep_top_k(rule_out_ngrams(steps, history, 2) / 1.7, 5), 0.9)
    expected = cut_eta(keep_typical(keep_min_p(steps, 0.2), 0.95), 0.2).softmax(-1)
    sampling = Sampling(
        temperature=1.7,
        top_k=5,
        top_p=0.9,
        min_p=0.2,
        typical_p=0.95,
        eta_cutoff=0.2,
        presence_penalty=1.5,
        dry_multiplier=1.0,
        dry_base=1.5,
        dry_length=1,
        no_repeat_ngram=2,
        logit_bias=("4=2",),
    )
    torch.testing.assert_close(next_token_probs(logits, sampling, history), expected)


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.8}, {"min_p": 0.1}])
def test_draws_follow_the_distribution(settings: dict[str, Any]) -> None:
    """Chi-square of 20,000 draws; 27.9 is the 99.99 % quantile with 6 degrees of freedom, the most there are here."""
    n = 20_000
    probs = next_token_probs(random_logits(1, ties=False), Sampling(**settings))
    rng = torch.Generator().manual_seed(5)
    counts = torch.bincount(draw(probs.expand(n, V), [rng] * n), minlength=V)
    possible = probs[0] > 0
    assert counts[~possible].sum() == 0
    expected = n * probs[0][possible]
    assert ((counts[possible] - expected) ** 2 / expected).sum() < 27.9


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 1), (0.25, 3), (1 - 2**-24, 3)])
def test_a_token_of_probability_zero_is_never_drawn(
    monkeypatch: pytest.MonkeyPatch, uniform: float, token: int
) -> None:
    """Not by the least and not by the largest number a generator gives, nor by one exactly between two tokens."""
    monkeypatch.setattr(torch, "rand", lambda *size, **kwargs: torch.full(size, uniform))
    assert draw(torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]]), row_generators(0, 1)).tolist() == [token]


def test_rows_draw_alone_what_they_draw_in_a_batch() -> None:
    logits, sampling = random_logits(6, ties=False), Sampling(seed=40)
    batch = [next_tokens(logits, sampling, rngs) for rngs in [row_generators(40, 6)] for _ in range(20)]
    for i in range(6):
        rngs = row_generators(40 + i, 1)
        alone = [next_tokens(logits[i : i + 1], sampling, rngs) for _ in range(20)]
        assert [step[i].item() for step in batch] == [step.item() for step in alone]


def test_half_precision_logits_are_widened() -> None:
    probs = next_token_probs(torch.randn(2, V, dtype=torch.bfloat16), Sampling(top_p=0.9))
    assert probs.dtype == torch.float32
    torch.testing.assert_close(probs.sum(-1), torch.ones(2))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_are_an_error(value: float, temperature: float) -> None:
    with pytest.raises(DivergedError, match="not finite"):
        next_token_probs(torch.tensor([[0.0, value]]), Sampling(temperature=temperature))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("top_k", 0),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("typical_p", 0.0),
        ("eta_cutoff", 1.0),
        ("no_repeat_ngram", 0),
        ("dry_multiplier", -1.0),
        ("dry_base", 0.5),
        ("dry_length", 0),
        ("logit_bias", ("5",)),
        ("logit_bias", ("5=nan",)),
        ("repetition_penalty", 0.0),
        ("presence_penalty", math.inf),
        ("frequency_penalty", math.nan),
        ("penalty_window", 0),
        ("max_new_tokens", 0),
        ("seed", -1),
        ("stop", "no list"),
        ("stop", ("",)),
        ("stop_ids", (-1,)),
    ],
)
def test_impossible_settings_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}: found .*; possible: "):
        Sampling(**{name: value})
