"""The decode loop and its batches against loops that read everything again for every token."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from legollm.architectures import build
from legollm.errors import ConfigError, ContextError
from legollm.generation.cache import FullCache
from legollm.generation.complete import CacheKind, Completion, Decoding, closed_up, complete
from legollm.generation.generate import generate, left_padded
from legollm.generation.ring_cache import RingCache
from legollm.generation.sampling import Sampling, next_tokens, row_generators
from legollm.interfaces import Cache
from tiny_models import tiny_model

V, WINDOW = 40, 16
GREEDY = Sampling(temperature=0, max_new_tokens=8)
WILD = Sampling(temperature=1.5, top_p=0.95, max_new_tokens=8, seed=3)
PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11], [12, 13, 14], [15, 16, 17, 18], [19, 20], [1, 2, 3]]


@pytest.fixture(scope="module", params=["gpt2", "llama3"])
def model(request: pytest.FixtureRequest) -> nn.Module:
    """A tiny model in float64, once with learned and once with rotary positions, with large weights."""
    model = build(request.param, vocab_size=V, n_layers=2, d_model=32, n_heads=4, max_seq_len=WINDOW)
    rng = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        weight.data.add_(torch.randn(weight.shape, generator=rng) * 0.2)
    return model.double().eval().requires_grad_(False)


class Successor(nn.Module):
    """A model without memory: token i is followed by i + 1. It writes down how many rows it was given."""

    kv_shapes: Sequence[tuple[int, int]] = ()
    max_seq_len = None
    lm_head = nn.Identity()

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.sizes: list[tuple[int, ...]] = []

    def hidden(self, tokens: Tensor, positions: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        self.sizes.append(tuple(tokens.shape))
        if cache is not None:
            cache.place(tokens.size(1), positions)
            cache.advance(tokens.size(1))
        return nn.functional.one_hot((tokens + 1) % V, V).double()

    forward = hidden


def naive(
    model: nn.Module, prompt: Sequence[int], sampling: Sampling, *, window: int = WINDOW, slide: bool = False
) -> list[int]:
    """What one prompt is continued with, everything read again for every token, until the window is full."""
    (rng,) = row_generators(sampling.seed, 1)
    seen, ids = list(prompt), list(prompt)
    while len(ids) - len(prompt) < sampling.max_new_tokens:
        if len(seen) > window and not slide:
            break
        if len(seen) > window:
            seen = seen[-(window - window // 2) :]
        history = torch.tensor([ids if sampling.penalty_includes_prompt else ids[len(prompt) :]])
        token = next_tokens(model(torch.tensor([seen]))[:, -1], sampling, [rng], history.long()).item()
        seen.append(int(token))
        ids.append(int(token))
    return ids[len(prompt) :]


def rows_of(steps: Iterator[Tensor]) -> list[list[int]]:
    return torch.stack(list(steps), 1).tolist()


@pytest.mark.parametrize("sampling", [GREEDY, WILD], ids=["greedy", "wild"])
@pytest.mark.parametrize("prefill_chunk", [None, 1, 3])
def test_rows_of_one_length_are_continued_as_the_naive_loop_does(
    model: nn.Module, sampling: Sampling, prefill_chunk: int | None
) -> None:
    prompt = torch.randint(V, (3, 7), generator=torch.Generator().manual_seed(0))
    expected = [naive(model, row, replace(sampling, seed=sampling.seed + i)) for i, row in enumerate(prompt.tolist())]
    cache = FullCache.for_model(model, 3, WINDOW)
    assert rows_of(generate(model, prompt, sampling, cache=cache, prefill_chunk=prefill_chunk)) == expected
    assert cache.length == 7 + 8 - 1, "the last token is not read"
    assert rows_of(generate(model, prompt, sampling, cache=None)) == expected


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("prefill_chunk", [None, 2])
def test_rows_of_unequal_length_are_continued_as_alone(
    model: nn.Module, use_cache: bool, prefill_chunk: int | None
) -> None:
    tokens, positions = left_padded(PROMPTS)
    cache = FullCache.for_model(model, len(PROMPTS), WINDOW) if use_cache else None
    sampling = replace(WILD, presence_penalty=-4.0)  # draws what occurred, which padding has not
    steps = generate(model, tokens, sampling, cache=cache, positions=positions, prefill_chunk=prefill_chunk)
    expected = [naive(model, row, replace(sampling, seed=WILD.seed + i)) for i, row in enumerate(PROMPTS)]
    assert rows_of(steps) == expected


def test_a_finished_row_repeats_its_stop_id_until_all_are_finished() -> None:
    tokens, positions = left_padded([[1, 2], [5]])
    for cache in (FullCache((), 2, 20), None):
        sampling = replace(GREEDY, stop_ids=(9,))
        steps = generate(Successor(), tokens, sampling, cache=cache, positions=positions, stop_ids=[7])
        assert rows_of(steps) == [[3, 4, 5, 6, 7], [6, 7, 7, 7, 7]]
    steps = generate(Successor(), torch.tensor([[1], [7]]), sampling, cache=FullCache((), 2, 20))
    assert rows_of(steps)[1] == [8, 9, 9, 9, 9, 9, 9, 9]


def test_a_finished_row_does_not_run_out_of_positions(model: nn.Module) -> None:
    """Learned positions end at WINDOW: a long row that has finished must not end the short ones."""
    short = naive(model, [4], GREEDY)
    firsts = {fill: naive(model, [fill] * (WINDOW - 1), GREEDY)[0] for fill in range(V)}
    fill, first = next((fill, first) for fill, first in firsts.items() if first not in short)
    tokens, positions = left_padded([[fill] * (WINDOW - 1), [4]])
    cache = FullCache.for_model(model, 2, 2 * WINDOW)
    assert rows_of(generate(model, tokens, GREEDY, cache=cache, positions=positions, stop_ids=[first]))[1] == short


def test_generation_goes_on_from_the_tokens_yielded_last(model: nn.Module) -> None:
    prompt = torch.tensor([[1, 2, 3], [4, 5, 6]])
    cache, short = FullCache.for_model(model, 2, WINDOW), replace(WILD, max_new_tokens=4)
    rngs = row_generators(WILD.seed, 2)
    first = rows_of(generate(model, prompt, short, cache=cache, rngs=rngs))
    last = torch.tensor([row[-1:] for row in first])
    second = rows_of(generate(model, last, short, cache=cache, rngs=rngs))
    whole = rows_of(generate(model, prompt, WILD, cache=FullCache.for_model(model, 2, WINDOW)))
    assert [a + b for a, b in zip(first, second, strict=True)] == whole


def test_a_cache_that_is_full_is_an_error(model: nn.Module) -> None:
    with pytest.raises(ContextError, match="holds 4 tokens per row and has 4; 1 more"):
        list(generate(model, torch.tensor([[1, 2]]), GREEDY, cache=FullCache.for_model(model, 1, 4)))


PENALTIES: list[dict[str, Any]] = [
    {"repetition_penalty": 1.5},
    {"presence_penalty": 1.0, "frequency_penalty": 0.5, "penalty_includes_prompt": False},
    {"frequency_penalty": 2.0, "penalty_window": 3},
]


@pytest.mark.parametrize("settings", [{}, *PENALTIES])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_completions_do_not_depend_on_their_batch(model: nn.Module, batch_size: int, settings: dict[str, Any]) -> None:
    sampling = replace(WILD, **settings)
    expected = [naive(model, row, replace(sampling, seed=sampling.seed + i)) for i, row in enumerate(PROMPTS)]
    for use_cache in (True, False):
        done = complete(
            model, PROMPTS, sampling, decoding=Decoding(batch_size=batch_size, use_cache=use_cache, prefill_chunk=2)
        )
        assert [c.ids for c in done] == expected
        assert {c.finish_reason for c in done} == {"length"}


@pytest.mark.parametrize("prefill_chunk", [None, 2])
def test_rows_that_share_a_prompt_read_it_once(model: nn.Module, prefill_chunk: int | None) -> None:
    """Prompts of unequal length, mixed up, and the last token of each in a pass of its own."""
    prompts = [PROMPTS[i] for i in (2, 0, 2, 4, 0, 2, 4, 4)]
    expected = [naive(model, row, replace(WILD, seed=WILD.seed + i)) for i, row in enumerate(prompts)]
    done = complete(model, prompts, WILD, decoding=Decoding(prefill_chunk=prefill_chunk))
    assert [c.ids for c in done] == expected
    watched = Successor()
    complete(watched, prompts, replace(GREEDY, max_new_tokens=2))
    assert watched.sizes == [(3, 6), (8, 1), (8, 1)]


def test_stop_ids_end_each_row_by_itself(model: nn.Module) -> None:
    expected = [naive(model, row, replace(WILD, seed=WILD.seed + i)) for i, row in enumerate(PROMPTS)]
    stops = {expected[0][3], expected[2][0], expected[4][5]}
    done = complete(model, PROMPTS, replace(WILD, stop_ids=tuple(stops)), decoding=Decoding(batch_size=4))
    for completion, ids in zip(done, expected, strict=True):
        n = next((n for n, token in enumerate(ids) if token in stops), None)
        if n is None:
            assert completion == Completion(ids=ids, finish_reason="length")
        else:
            assert completion == Completion(ids=ids[:n], finish_reason="stop", stop_id=ids[n])
    assert {c.finish_reason for c in done} == {"stop", "length"}


def test_finished_rows_are_not_computed_any_more() -> None:
    model = Successor()
    done = complete(model, [[9], [5], [1], [7]], replace(GREEDY, max_new_tokens=20), stop_ids=[10])
    assert [len(c.ids) for c in done] == [0, 4, 8, 2]
    assert [n_rows for n_rows, _ in model.sizes] == [4, 3, 3, 2, 2, 1, 1, 1, 1]


def test_prompts_are_read_in_pieces_of_prefill_chunk() -> None:
    for max_new_tokens, following in ((1, []), (3, [(1, 1), (1, 1)])):
        model = Successor()
        complete(model, [[1] * 7], replace(GREEDY, max_new_tokens=max_new_tokens), decoding=Decoding(prefill_chunk=3))
        assert model.sizes == [(1, 3), (1, 3), (1, 1), *following]


def test_gaps_are_closed_by_moving_the_last_rows() -> None:
    assert closed_up([0, 1, 2]) == [0, 1, 2]
    assert closed_up([0, 2, 3]) == [0, 3, 2]
    assert closed_up([4]) == [4]
    assert sorted(closed_up([1, 3, 5, 6])) == [1, 3, 5, 6]
    assert closed_up([]) == []


LONG = [[7] * 3 + [n] for n in range(4)] + [list(range(WINDOW - 2)), list(range(WINDOW))]


@pytest.mark.parametrize("window", [WINDOW, 5])
def test_error_policy_ends_answers_at_the_window(model: nn.Module, window: int) -> None:
    sampling = replace(GREEDY, max_new_tokens=100)
    prompts = LONG if window == WINDOW else LONG[:4]
    done = complete(model, prompts, sampling, decoding=Decoding(window=window))
    assert [c.ids for c in done] == [naive(model, row, sampling, window=window) for row in prompts]
    assert {c.finish_reason for c in done} == {"context"}


def test_the_window_is_that_of_the_model_and_never_larger() -> None:
    model = build("gpt2", vocab_size=V, n_layers=1, d_model=8, n_heads=2, max_seq_len=WINDOW).eval()
    (completion,) = complete(model, [[1]], replace(GREEDY, max_new_tokens=100))
    assert (len(completion.ids), completion.finish_reason) == (WINDOW, "context")
    with pytest.raises(ConfigError, match=f"window: found 20, .* {WINDOW} positions"):
        complete(model, [[1]], GREEDY, decoding=Decoding(window=20))


def test_error_policy_refuses_a_prompt_that_is_too_long(model: nn.Module) -> None:
    with pytest.raises(ContextError, match=r"prompt 1 has 17 tokens, the window holds 16; shorten it, or set on_over"):
        complete(model, [[1], [1] * 17], GREEDY, decoding=Decoding(window=WINDOW))


@pytest.mark.parametrize(("max_new_tokens", "kept"), [(5, WINDOW - 5), (100, WINDOW // 2)])
def test_crop_policy_keeps_the_newest_tokens_and_room_for_the_answer(
    model: nn.Module, max_new_tokens: int, kept: int
) -> None:
    sampling = replace(WILD, max_new_tokens=max_new_tokens)
    prompts = [list(range(n)) for n in (3, 11, 12, 30)]
    done = complete(model, prompts, sampling, decoding=Decoding(on_overflow="crop", window=WINDOW))
    assert done == complete(model, [row[-kept:] for row in prompts], sampling, decoding=Decoding(window=WINDOW))


@pytest.mark.parametrize("window", [WINDOW, 7, 1])
@pytest.mark.parametrize("use_cache", [True, False])
def test_re_prefill_policy_forgets_the_oldest_half_and_goes_on(model: nn.Module, window: int, use_cache: bool) -> None:
    sampling = replace(WILD, max_new_tokens=3 * WINDOW, frequency_penalty=0.1)
    prompts = [list(range(n)) for n in (3, 14, 30)]
    done = complete(
        model,
        prompts,
        sampling,
        decoding=Decoding(on_overflow="re-prefill", window=window, use_cache=use_cache, batch_size=2),
    )
    for i, (prompt, completion) in enumerate(zip(prompts, done, strict=True)):
        expected = naive(model, prompt, replace(sampling, seed=3 + i), window=window, slide=True)
        assert completion == Completion(ids=expected, finish_reason="length")


def streamed(model: nn.Module, prompt: Sequence[int], sampling: Sampling, cache: RingCache) -> list[int]:
    """What one prompt is continued with, every token read by itself."""
    (rng,) = row_generators(sampling.seed, 1)
    ids = list(prompt)
    for token in ids[:-1]:
        model(torch.tensor([[token]]), cache=cache)
    for _ in range(sampling.max_new_tokens):
        logits = model(torch.tensor([ids[-1:]]), cache=cache)[:, -1]
        ids.append(int(next_tokens(logits, sampling, [rng], None)))
    return ids[len(prompt) :]


@pytest.mark.parametrize(("cache", "n_sinks"), [("rolling", 0), ("sinks", 2)])
@pytest.mark.parametrize("prefill_chunk", [None, 3])
def test_a_cache_that_forgets_goes_on_without_end(cache: CacheKind, n_sinks: int, prefill_chunk: int | None) -> None:
    model = tiny_model("llama3", dtype=torch.float64)
    sampling = replace(WILD, max_new_tokens=40)
    prompts = [list(range(n)) for n in (3, 14, 30, 8)]
    decoding = Decoding(cache=cache, window=8, sinks=2, batch_size=3, prefill_chunk=prefill_chunk)
    for i, (prompt, done) in enumerate(
        zip(prompts, complete(model, prompts, sampling, decoding=decoding), strict=True)
    ):
        own = RingCache.for_model(model, 1, 8, n_sinks)
        expected = streamed(model, prompt, replace(sampling, seed=sampling.seed + i), own)
        assert done == Completion(ids=expected, finish_reason="length")


def test_learned_positions_end_also_for_a_cache_that_forgets() -> None:
    model = tiny_model("gpt2", max_seq_len=WINDOW)
    decoding = Decoding(cache="rolling", window=4)
    (done,) = complete(model, [[1, 2]], replace(GREEDY, max_new_tokens=40), decoding=decoding)
    assert (len(done.ids), done.finish_reason) == (WINDOW - 1, "context")
    with pytest.raises(ConfigError, match=r"sinks: they have to move .*use cache=full with on_overflow=re-prefill"):
        complete(model, [[1, 2]], GREEDY, decoding=replace(decoding, cache="sinks", sinks=1))


def test_a_seed_repeats_and_another_one_does_not(model: nn.Module) -> None:
    assert complete(model, PROMPTS, WILD) == complete(model, PROMPTS, WILD)
    assert complete(model, PROMPTS, WILD) != complete(model, PROMPTS, replace(WILD, seed=4))


def test_no_prompts_no_completions(model: nn.Module) -> None:
    assert complete(model, [], GREEDY) == []


def test_what_cannot_be_generated_is_refused(model: nn.Module) -> None:
    with pytest.raises(ContextError, match="prompt 1 is empty"):
        complete(model, [[1], []], GREEDY)
    with pytest.raises(ConfigError, match=r"stop: found .*stop_ids or generate_texts"):
        complete(model, [[1]], replace(GREEDY, stop=("\n",)))
    with pytest.raises(ConfigError, match=r"on_overflow: 'slide' is none of error, crop, re-prefill"):
        Decoding(on_overflow="slide")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="cache: 'sliding' is none of full, rolling, sinks"):
        Decoding(cache="sliding")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="sinks: must be at least 1, found 0; without any, use cache=rolling"):
        Decoding(cache="sinks", sinks=0)
    with pytest.raises(ConfigError, match="cache_precision: 'int4' is none of model, bfloat16, int8"):
        Decoding(cache_precision="int4")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="cache_precision: int8 goes with cache=full, found rolling"):
        Decoding(cache="rolling", cache_precision="int8")
    with pytest.raises(ConfigError, match="use_cache: cache=sinks is one"):
        Decoding(cache="sinks", use_cache=False)
    with pytest.raises(ConfigError, match="window: cache=rolling keeps that many tokens, and this model has no limit"):
        complete(tiny_model("llama3"), [[1]], GREEDY, decoding=Decoding(cache="rolling"))
    for name in ("batch_size", "prefill_chunk", "window"):
        with pytest.raises(ConfigError, match=f"{name}: must be at least 1, found 0"):
            Decoding(**{name: 0})
