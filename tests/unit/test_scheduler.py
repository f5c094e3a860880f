"""Continuous batching: what a request gets is what it gets alone, whatever comes and goes beside it."""

import random
from functools import cache

import pytest

from legollm.errors import ConfigError, ContextError
from legollm.generation.cache import GenerativeModel
from legollm.generation.complete import complete
from legollm.generation.sampling import Sampling
from legollm.generation.scheduler import Request, Scheduler, Scheduling
from legollm.lowering.decoder import LoweredDecoder
from tiny_models import tiny_model

SAMPLINGS = [
    Sampling(temperature=0, max_new_tokens=9),
    Sampling(temperature=0, max_new_tokens=3, repetition_penalty=1.7),
    Sampling(max_new_tokens=6, seed=3, top_k=20),
    Sampling(max_new_tokens=12, seed=4, frequency_penalty=0.5, penalty_includes_prompt=False),
    Sampling(max_new_tokens=5, seed=5, stop_ids=tuple(range(40))),
    Sampling(max_new_tokens=1),
]


@cache
def model_of(name: str) -> GenerativeModel:
    """Of float64, so that no two tokens are nearly equal in one batch and not in another."""
    found: GenerativeModel = tiny_model(name).double()  # type: ignore[assignment]
    return found


@cache
def alone(name: str, prompt: tuple[int, ...], sampling: Sampling, n_stops: int) -> tuple[list[int], str]:
    (found,) = complete(model_of(name), [prompt], sampling, stop_ids=range(n_stops))
    return found.ids, found.finish_reason


def some_prompt(rng: random.Random) -> tuple[int, ...]:
    """Half of them begin alike."""
    start = [5, 9, 2, 7, 1, 3] * 2 if rng.random() < 0.5 else []
    return tuple(start + [rng.randrange(60) for _ in range(rng.randint(1, 9))])


def follow(name: str, seed: int) -> int:
    """Random requests at random times through a scheduler of random sizes; returns how often memory was out."""
    rng = random.Random(seed)
    block_size = rng.choice((1, 3, 4))
    cfg = Scheduling(
        max_rows=rng.randint(2, 5),
        n_blocks=-(-rng.randint(36, 60) // block_size),  # room for one of the longest alone
        block_size=block_size,
        prefill_chunk=rng.randint(1, 8),
    )
    scheduler = Scheduler(model_of(name), cfg)
    coming = [(some_prompt(rng), rng.choice(SAMPLINGS), rng.choice((0, 4))) for _ in range(rng.randint(1, 7))]
    wanted: dict[Request, tuple[list[int], str]] = {}
    cancelled: set[Request] = set()
    n_steps = 0
    while coming or scheduler.has_work:
        while coming and rng.random() < 0.4:
            prompt, sampling, n_stops = coming.pop()
            wanted[scheduler.submit(prompt, sampling, range(n_stops))] = alone(name, prompt, sampling, n_stops)
        if wanted and rng.random() < 0.03:
            scheduler.cancel(gone := rng.choice(list(wanted)))
            cancelled.add(gone)
        for request, token in scheduler.step():
            assert request not in cancelled or request.finish_reason is not None
            assert request.ids[-1] == token
        assert len(scheduler.running) <= cfg.max_rows
        n_steps += 1
        assert n_steps < 2000, "some request waits for ever"
    for request, (ids, reason) in wanted.items():
        if request not in cancelled:
            assert (request.new_ids, request.finish_reason) == (ids, reason)
    assert scheduler.cache.pool.n_free == cfg.n_blocks
    assert not scheduler.cache.texts
    return scheduler.n_preempted


@pytest.mark.parametrize("name", ["gpt2", "qwen3"])
def test_random_schedules_give_what_each_request_gets_alone(name: str) -> None:
    assert sum(follow(name, seed) for seed in range(25)) > 0


@pytest.mark.slow
def test_a_thousand_schedules() -> None:
    assert sum(follow("llama3", seed) for seed in range(1000)) > 100


def test_kernels_give_the_same_bits_in_any_company() -> None:
    model = LoweredDecoder(tiny_model("qwen3"))
    prompts = [some_prompt(random.Random(i)) for i in range(7)]
    sampling = Sampling(max_new_tokens=8, seed=2)
    wanted = [complete(model, [prompt], sampling)[0].ids for prompt in prompts]
    scheduler = Scheduler(model, Scheduling(max_rows=5, n_blocks=24, block_size=4, prefill_chunk=5))
    requests = [scheduler.submit(prompt, sampling) for prompt in prompts]
    for _ in scheduler.run():
        pass
    assert [request.new_ids for request in requests] == wanted


def test_a_long_prompt_does_not_hold_up_the_others() -> None:
    scheduler = Scheduler(model_of("qwen3"), Scheduling(prefill_chunk=4))
    short = scheduler.submit([1, 2, 3], SAMPLINGS[0])
    scheduler.step()
    long = scheduler.submit([7] * 30, SAMPLINGS[0])
    for n_written in range(2, 9):
        scheduler.step()
        assert len(short.new_ids) == n_written
    assert not long.new_ids
    scheduler.step()
    assert len(long.new_ids) == 1


def test_the_first_come_is_the_first_served() -> None:
    scheduler = Scheduler(model_of("qwen3"), Scheduling(max_rows=1))
    requests = [scheduler.submit([i + 1], Sampling(temperature=0, max_new_tokens=2)) for i in range(4)]
    assert [request for request, _ in scheduler.run()] == [one for one in requests for _ in range(2)]


def test_who_had_to_give_memory_back_goes_on_before_those_who_never_had_any() -> None:
    scheduler = Scheduler(model_of("qwen3"), Scheduling(max_rows=2, n_blocks=6, block_size=4))
    sampling = Sampling(temperature=0, max_new_tokens=12)
    first, second, third = (scheduler.submit([i] * 8, sampling) for i in (1, 2, 3))
    ended = [request for request, _ in scheduler.run() if request.finish_reason]
    assert scheduler.n_preempted > 0
    assert ended == [first, second, third]


def test_a_beginning_that_is_known_is_not_read_again() -> None:
    scheduler = Scheduler(model_of("qwen3"), Scheduling(block_size=4))
    for last in (1, 2):
        scheduler.submit([*range(16), last], Sampling(temperature=0, max_new_tokens=1))
        for _ in scheduler.run():
            pass
    assert scheduler.cache.usage().reused == 16 / 34


def test_a_request_alone_ends_where_memory_does() -> None:
    scheduler = Scheduler(model_of("qwen3"), Scheduling(n_blocks=4, block_size=4))
    request = scheduler.submit([1] * 10, Sampling(temperature=0, max_new_tokens=20))
    assert len(list(scheduler.run())) == 7  # the last one need not be read
    assert request.finish_reason == "context"
    assert scheduler.cache.pool.n_free == 4


def test_what_cannot_be_is_refused() -> None:
    model = model_of("gpt2")
    scheduler = Scheduler(model, Scheduling(n_blocks=2, block_size=4, max_waiting=1))
    with pytest.raises(ContextError, match="an empty prompt"):
        scheduler.submit([], Sampling())
    with pytest.raises(ContextError, match="does not fit the cache's 8; raise n_blocks"):
        scheduler.submit([1] * 9, Sampling())
    with pytest.raises(ContextError, match=f"the model knows {model.max_seq_len} positions"):
        scheduler.submit([1] * 1000, Sampling())
    with pytest.raises(ConfigError, match="ids hold no text"):
        scheduler.submit([1], Sampling(stop=("x",)))
    scheduler.submit([1], Sampling())
    with pytest.raises(ContextError, match="1 requests wait already; come back later"):
        scheduler.submit([1], Sampling())
    with pytest.raises(ConfigError, match="max_rows: must be at least 1, found 0"):
        Scheduling(max_rows=0)
