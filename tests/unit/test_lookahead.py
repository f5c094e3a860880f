"""How far to guess, on a clock of our own: good drafts are used, bad ones cost next to nothing."""

import random

import pytest

from legollm.generation.lookahead import Lookahead


def simulated(acceptance: float, guess: float, more: float, n_tokens: int, n_rows: int = 1, most: int = 8) -> float:
    """How much faster than plain steps n_tokens were written.

    A plain step takes 1; a guess takes `guess`, and each guess makes a check longer by `more`, all give or take 5 %.
    """
    rng, lookahead, written, seconds = random.Random(0), Lookahead(most, adapt=True), 0.0, 0.0
    lookahead.open()
    lookahead.saw([[]] * n_rows, [0] * n_rows, 0.0, 30.0)  # the prompt
    while written < n_tokens:
        n = lookahead.n_guesses(n_rows)
        rights = [next((i for i in range(n) if rng.random() >= acceptance), n) for _ in range(n_rows)]
        costs = n * guess * rng.uniform(0.95, 1.05), (1 + more * n) * rng.uniform(0.95, 1.05)
        lookahead.saw([[0] * n] * n_rows, rights, *costs)
        written += 1 + sum(rights) / n_rows
        seconds += sum(costs)
    return written / seconds


@pytest.mark.parametrize("guess", [0.02, 0.2, 0.6])
@pytest.mark.parametrize("more", [0.02, 0.3, 1.0])
@pytest.mark.parametrize("n_tokens", [80, 500])
def test_guesses_that_are_never_right_cost_at_most_five_percent(guess: float, more: float, n_tokens: int) -> None:
    assert simulated(0.0, guess, more, n_tokens) > 0.95
    assert simulated(0.3, guess, more, n_tokens) > 0.95


def test_guesses_that_pay_are_made_as_far_ahead_as_is_best() -> None:
    for acceptance, guess, more in ((0.9, 0.05, 0.05), (0.8, 0.15, 0.05), (0.6, 0.02, 0.1)):
        best = max(
            sum(acceptance**i for i in range(n + 1)) / (1 + n * (guess + more)) for n in range(9)
        )  # with the n that is best on average, always
        assert simulated(acceptance, guess, more, 2000) > 0.9 * best > 1.1


def test_a_draft_that_becomes_good_is_found_out() -> None:
    lookahead = Lookahead(4, adapt=True)
    lookahead.saw([[]], [0], 0.0, 9.0)
    for right in (0.0, 1.0):
        for _ in range(1000):
            n = lookahead.n_guesses(1)
            lookahead.saw([[0] * n], [round(right * n)], 0.1 * n, 1.0)
    assert lookahead.n_guesses(1) == 4 or lookahead.n_since_plain >= 32
    assert lookahead.acceptance > 0.95


def test_without_adapting_it_is_always_as_many() -> None:
    lookahead = Lookahead(5, adapt=False)
    assert lookahead.n_guesses(1) == 0, "the first pass reads the prompt"
    for _ in range(50):
        lookahead.saw([[0] * 5, [0] * 5], [0, 0], 5.0, 1.0)
        assert lookahead.n_guesses(2) == 5


def test_the_report_counts_what_was_judged() -> None:
    lookahead = Lookahead(4, adapt=False)
    lookahead.saw([[], []], [0, 0], 0.0, 9.0)
    lookahead.saw([[], []], [0, 0], 0.0, 1.0)
    lookahead.saw([[1, 2, 3], [4, 5]], [1, 2], 0.5, 1.5)
    lookahead.saw([[1], []], [0, 0], 0.5, 0.5)
    report = lookahead.report()
    assert (report["n_guessed"], report["n_accepted"], report["acceptance"]) == (6, 3, 0.5)
    assert report["accepted_lengths"] == [1, 1, 1]
    assert report["speed_up"] == round((1.0 + 2.5 + 1.0) / (1.0 + 1.5 + 1.0), 3)
    assert str(lookahead).startswith("guesses: 3 of 6 accepted (50 %), accepted:times 0:1 1:1 2:1; 1.29x")
