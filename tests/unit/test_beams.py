"""Beam search against trying out every answer there is, and its beams against reading everything again."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from legollm.architectures import build
from legollm.errors import ConfigError
from legollm.generation.beams import Beams, BeamSearch
from legollm.generation.complete import Completion, Decoding, complete
from legollm.generation.sampling import Sampling, next_token_probs
from legollm.generation.text import generate_texts
from legollm.tokenizers import ByteTokenizer

V, N = 4, 3
PROMPTS = [[0], [1, 2, 3], [3, 3, 0, 1, 2]]
PENALTIES: dict[str, Any] = {"repetition_penalty": 1.5, "frequency_penalty": 0.3, "no_repeat_ngram": 2}


def tiny(seed: int, vocab_size: int = V) -> nn.Module:
    model = build("llama3", vocab_size=vocab_size, n_layers=1, d_model=16, n_heads=2, d_ff=32, max_seq_len=16)
    rng = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        weight.data.add_(torch.randn(weight.shape, generator=rng) * 0.4)
    return model.double().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return tiny(3)


def search(beams: int, length_penalty: float = 1.0) -> BeamSearch:
    return BeamSearch(Beams(beams=beams, length_penalty=length_penalty))


def exhaustive(
    model: nn.Module, prompt: Sequence[int], sampling: Sampling, stops: set[int], length_penalty: float
) -> list[int]:
    """The best of all answers: those that end with a stop id, and those of full length."""
    best, found = -math.inf, []
    soft = Sampling(**{**PENALTIES, "temperature": 1.0}) if sampling.penalises else Sampling()
    for n in range(1, sampling.max_new_tokens + 1):
        for ids in itertools.product(range(V), repeat=n):
            if stops & set(ids[:-1]) or (n < sampling.max_new_tokens and ids[-1] not in stops):
                continue
            text = torch.tensor([[*prompt, *ids]])
            logits = model(text)[0]
            total = 0.0
            for at in range(len(prompt), text.size(1)):
                probs = next_token_probs(logits[at - 1 : at], soft, text[:, :at])
                total += probs[0, text[0, at]].log().item()
            if total / n**length_penalty > best:
                best, found = total / n**length_penalty, list(ids)
    return found


@pytest.mark.parametrize("length_penalty", [-0.5, 0.0, 1.0, 2.0])
@pytest.mark.parametrize("settings", [{}, PENALTIES], ids=["plain", "penalties"])
def test_enough_beams_find_the_likeliest_answer(
    model: nn.Module, settings: dict[str, Any], length_penalty: float
) -> None:
    sampling = Sampling(max_new_tokens=N, temperature=0.3, top_k=1, **settings)  # neither matters to a search
    for stops in (set(), {2}):
        done = complete(model, PROMPTS, sampling, stop_ids=stops, decoder=search(V ** (N - 1), length_penalty))
        for prompt, one in zip(PROMPTS, done, strict=True):
            ids = exhaustive(model, prompt, sampling, stops, length_penalty)
            assert [*one.ids, *([one.stop_id] if one.stop_id is not None else [])] == ids
            assert one.finish_reason == ("stop" if ids[-1] in stops else "length")


def naive(model: nn.Module, prompt: list[int], n_beams: int, n: int) -> list[int]:
    """The n tokens that a search of a few beams ends with, everything read again at each step."""
    beams = [(0.0, prompt)]
    for _ in range(n):
        longer = []
        for total, ids in beams:
            log_probs = model(torch.tensor([ids]))[0, -1].log_softmax(-1).tolist()
            longer += [(total + more, [*ids, token]) for token, more in enumerate(log_probs)]
        beams = sorted(longer, key=lambda beam: -beam[0])[:n_beams]
    return beams[0][1][len(prompt) :]


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("n_beams", [2, 3])
def test_few_beams_follow_the_naive_search_in_any_batch(n_beams: int, batch_size: int) -> None:
    """Of several models: with some, a beam that reads what another one has written goes on in the same way."""
    decoding = Decoding(batch_size=batch_size, prefill_chunk=2)
    for model in (tiny(seed, vocab_size=20) for seed in range(4)):
        done = complete(model, PROMPTS, Sampling(max_new_tokens=9), decoding=decoding, decoder=search(n_beams))
        assert [one.ids for one in done] == [naive(model, prompt, n_beams, 9) for prompt in PROMPTS]


def test_a_search_ends_at_the_window_and_may_go_on_beyond_it(model: nn.Module) -> None:
    sampling = Sampling(max_new_tokens=12)
    (short,) = complete(model, [[0]], sampling, decoding=Decoding(window=6), decoder=search(3))
    assert short == Completion(ids=naive(model, [0], 3, 6), finish_reason="context")
    decoding = Decoding(window=6, on_overflow="re-prefill")
    (long,) = complete(model, [[0]], sampling, decoding=decoding, decoder=search(3))
    assert (len(long.ids), long.ids[:6], long.finish_reason) == (12, short.ids, "length")


def test_texts_end_before_their_stop_text_and_hold_tokens_of_the_tokenizer_only() -> None:
    model = build("bigram", vocab_size=300)
    model.embed.weight.data.zero_()
    model.embed.weight.data[:, 299] = 9.0
    model.embed.weight.data[torch.arange(255), torch.arange(1, 256)] = 5.0
    (one,) = generate_texts(model, ByteTokenizer(), ["a"], Sampling(max_new_tokens=9, stop=("ef",)), decoder=search(2))
    assert (one.text, one.finish_reason) == ("bcd", "stop")


def test_what_cannot_be_searched_is_refused(model: nn.Module) -> None:
    with pytest.raises(ConfigError, match="beams: found 0; possible: 1 for no search, or more"):
        Beams(beams=0)
    with pytest.raises(ConfigError, match="length_penalty: found nan"):
        Beams(length_penalty=math.nan)
    with pytest.raises(ConfigError, match="cache: beams needs cache=full and cache_precision=model, found no cache"):
        complete(model, [[1]], Sampling(), decoding=Decoding(use_cache=False), decoder=search(2))
