"""What holds of sampling for any logits and any settings."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from legollm.generation.sampling import Sampling, keep_top_k, keep_top_p, next_token_probs

LOGITS = st.lists(
    st.one_of(st.floats(-1e4, 1e4, width=32, allow_subnormal=False), st.sampled_from([0.0, 1.0, -math.inf])),
    min_size=1,
    max_size=40,
).filter(lambda row: max(row) > -math.inf)
FRACTIONS = st.floats(0.001, 1)


@settings(max_examples=150, deadline=None)
@given(
    row=LOGITS,
    temperature=st.floats(0, 1e3),
    top_k=st.none() | st.integers(1, 50),
    top_p=FRACTIONS,
    min_p=st.floats(0, 1),
    penalty=st.floats(0.1, 10),
)
def test_every_setting_leaves_a_distribution_with_the_likeliest_token_in_it(
    row: list[float], temperature: float, top_k: int | None, top_p: float, min_p: float, penalty: float
) -> None:
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=penalty)
    logits = torch.tensor([row])
    probs = next_token_probs(logits, sampling)
    assert (probs >= 0).all()
    assert abs(probs.sum().item() - 1) < 1e-5
    assert probs[0, logits.argmax()] > 0
    assert probs[logits == -math.inf].sum() == 0


@settings(max_examples=150, deadline=None)
@given(row=LOGITS, k=st.integers(1, 50))
def test_top_k_leaves_exactly_k_of_those_that_are_possible(row: list[float], k: int) -> None:
    n_possible = sum(x > -math.inf for x in row)
    assert keep_top_k(torch.tensor([row]), k).isfinite().sum() == min(k, n_possible)


@settings(max_examples=150, deadline=None)
@given(row=LOGITS, p=FRACTIONS)
def test_a_nucleus_reaches_p_and_loses_it_with_any_member(row: list[float], p: float) -> None:
    logits = torch.tensor([row], dtype=torch.float64)
    inside = logits.softmax(-1)[keep_top_p(logits, p).isfinite()]
    assert inside.sum() >= p - 1e-12
    assert inside.sum() - inside.min() < p + 1e-12


@settings(max_examples=50, deadline=None)
@given(
    rows=st.integers(2, 5).flatmap(lambda n: st.lists(st.lists(st.floats(-9, 9), min_size=n, max_size=n), min_size=2)),
    top_p=FRACTIONS,
    top_k=st.integers(1, 6),
)
def test_a_row_does_not_depend_on_its_neighbours(rows: list[list[float]], top_p: float, top_k: int) -> None:
    sampling = Sampling(top_p=top_p, top_k=top_k, min_p=0.05)
    logits = torch.tensor(rows, dtype=torch.float64)
    alone = torch.cat([next_token_probs(row[None], sampling) for row in logits])
    torch.testing.assert_close(next_token_probs(logits, sampling), alone)
