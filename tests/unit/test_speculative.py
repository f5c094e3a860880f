"""Guessing ahead changes nothing: the tokens of greedy decoding, and of sampling the distribution of the model."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from legollm.architectures import build
from legollm.architectures.ngram import NGramConfig, counted
from legollm.errors import ConfigError
from legollm.generation.cache import FullCache
from legollm.generation.complete import Completion, Decoding, Row, complete
from legollm.generation.drafts import Draft, Drafter, ModelDraft, PromptLookup
from legollm.generation.sampling import Sampling, next_token_probs
from legollm.generation.speculative import Speculation, Speculator, accepted
from legollm.generation.text import generate_texts, stream_text
from legollm.interfaces import Cache
from legollm.tokenizers import ByteTokenizer

V, WINDOW = 40, 32
PROMPTS = [[1, 2, 3, 1, 2], [4], [5, 6, 7, 8, 9, 10, 11], [12, 13, 14, 12, 13, 14]]
GREEDY = Sampling(temperature=0, max_new_tokens=20)
HISTORY: dict[str, Any] = {"repetition_penalty": 1.3, "frequency_penalty": 0.2, "penalty_window": 9}
SEED = 7


def tiny(noise: float, vocab_size: int = V, max_seq_len: int = WINDOW) -> nn.Module:
    """A model in float64 with large weights; with `noise`, one that resembles it."""
    model = build("llama3", vocab_size=vocab_size, n_layers=1, d_model=16, n_heads=2, d_ff=32, max_seq_len=max_seq_len)
    rng = torch.Generator().manual_seed(1)
    for scale in (0.2, noise):
        for weight in model.parameters():
            weight.data.add_(torch.randn(weight.shape, generator=rng) * scale)
    return model.double().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def target() -> nn.Module:
    return tiny(0)


@pytest.fixture(scope="module")
def drafters(target: nn.Module) -> dict[str, Drafter]:
    text = torch.randint(V, (400,), generator=torch.Generator().manual_seed(0))
    return {
        "itself": ModelDraft(target),
        "alike": ModelDraft(tiny(0.05), chunk=2),
        "lookup": PromptLookup(longest=3, shortest=1),
        "counts": ModelDraft(counted(NGramConfig(vocab_size=V, order=3), text)[1]),
    }


def fixed(drafter: Drafter, n: int) -> Speculator:
    return Speculator(drafter, Speculation(lookahead=n, adapt=False))


@pytest.mark.parametrize("name", ["itself", "alike", "lookup", "counts"])
@pytest.mark.parametrize("settings", [{}, HISTORY], ids=["plain", "history"])
@pytest.mark.parametrize(("batch_size", "on_overflow"), [(4, "error"), (1, "re-prefill"), (3, "re-prefill")])
def test_greedy_writes_what_it_writes_without_guesses(
    target: nn.Module,
    drafters: dict[str, Drafter],
    name: str,
    settings: dict[str, Any],
    batch_size: int,
    on_overflow: Any,
) -> None:
    sampling = Sampling(temperature=0, max_new_tokens=14, **settings)
    decoding = Decoding(batch_size=batch_size, window=15, prefill_chunk=3, on_overflow=on_overflow)
    expected = complete(target, PROMPTS, sampling, decoding=decoding)
    speculator = fixed(drafters[name], 4)
    assert complete(target, PROMPTS, sampling, decoding=decoding, decoder=speculator) == expected
    report = speculator.lookahead.report()
    assert report["n_accepted"] == sum(n * count for n, count in enumerate(report["accepted_lengths"]))
    assert name not in ("itself", "alike") or report["n_accepted"] > 0
    assert name != "itself" or report["n_accepted"] == report["n_guessed"]


class Table(nn.Module):
    """The next token depends on the latest, by a table of logits. It notes how many tokens each pass read."""

    kv_shapes: Sequence[tuple[int, int]] = ()
    max_seq_len = None
    lm_head = nn.Identity()

    def __init__(self, n_ids: int, seed: int, scale: float = 1.0) -> None:
        super().__init__()
        table = torch.randn(n_ids, n_ids, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.table = nn.Parameter(scale * table, requires_grad=False)
        self.sizes: list[tuple[int, ...]] = []

    def hidden(self, tokens: Tensor, positions: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        self.sizes.append(tuple(tokens.shape))
        if cache is not None:
            cache.place(tokens.size(1), positions)
            cache.advance(tokens.size(1))
        return self.table[tokens]

    forward = hidden


def distribution(model: Table, start: int, sampling: Sampling, n: int) -> Iterator[tuple[tuple[int, ...], float]]:
    """Every sequence of n tokens after `start` and its probability, by multiplying out."""
    n_ids = len(model.table)
    for ids in itertools.product(range(n_ids), repeat=n):
        probability, text = 1.0, [start]
        for token in ids:
            probs = next_token_probs(model.table[text[-1]][None], sampling, torch.tensor([text]))
            probability *= probs[0, token].item()
            text.append(token)
        yield ids, probability


SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.7, "top_p": 0.8},
    {"top_k": 3, "min_p": 0.1, "temperature": 1.4},
    {"repetition_penalty": 1.8, "presence_penalty": 0.5, "frequency_penalty": 0.4},
    {"no_repeat_ngram": 2, "dry_multiplier": 0.5, "dry_length": 1, "typical_p": 0.95, "logit_bias": ("1=0.7",)},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: " ".join(settings) or "plain")
def test_samples_are_distributed_as_the_model_says(settings: dict[str, Any]) -> None:
    """Chi-square of 1,500 answers of 3 tokens, at a level of about 1 in 10,000; sequences that are rare are one."""
    n, sampling = 1500, Sampling(max_new_tokens=3, seed=SEED, **settings)
    model, draft = Table(4, seed=0), Table(4, seed=1)
    speculator = fixed(ModelDraft(draft), 2)
    done = complete(model, [[0]] * n, sampling, decoding=Decoding(batch_size=750), decoder=speculator)
    found = Counter(tuple(one.ids) for one in done)
    assert 0.2 < speculator.lookahead.report()["acceptance"] < 0.98
    rare_expected, rare_found, statistic, freedom = 0.0, 0, 0.0, 0
    for ids, probability in distribution(model, 0, sampling, 3):
        if probability * n < 5:
            rare_expected, rare_found = rare_expected + probability * n, rare_found + found[ids]
        else:
            statistic += (found[ids] - probability * n) ** 2 / (probability * n)
            freedom += 1
    if rare_expected > 0:
        statistic += (rare_found - rare_expected) ** 2 / max(rare_expected, 1)
    else:
        assert rare_found == 0
    spread = (2 * freedom) ** 0.5
    assert statistic < freedom + 4.5 * spread


@pytest.mark.parametrize("settings", [{}, {**HISTORY, "top_p": 0.9}], ids=["plain", "history"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_guesses_for_certain_leave_every_draw_as_it_was(
    target: nn.Module, settings: dict[str, Any], batch_size: int
) -> None:
    sampling = Sampling(temperature=0.5, max_new_tokens=20, seed=3, **settings)
    decoding = Decoding(batch_size=batch_size)
    speculator = fixed(PromptLookup(longest=2, shortest=1), 3)
    expected = complete(target, PROMPTS, sampling, decoding=decoding)
    assert complete(target, PROMPTS, sampling, decoding=decoding, decoder=speculator) == expected
    assert speculator.lookahead.report()["n_accepted"] > 0


def test_a_row_does_not_depend_on_its_neighbours(target: nn.Module, drafters: dict[str, Drafter]) -> None:
    sampling = Sampling(temperature=1.2, top_p=0.9, max_new_tokens=16, seed=5)
    batches = [
        complete(target, PROMPTS, sampling, decoding=Decoding(batch_size=n), decoder=fixed(drafters["alike"], 3))
        for n in (1, 2, 4)
    ]
    assert batches[0] == batches[1] == batches[2]


def test_a_guess_is_kept_as_often_as_both_distributions_overlap() -> None:
    """4,000 guesses: kept with probability sum min(p, q), 0.6; five standard deviations are 0.04."""
    p, q = torch.tensor([[0.5, 0.3, 0.2]] * 2), torch.tensor([[0.2, 0.2, 0.6]])
    rng = torch.Generator().manual_seed(0)
    guesses = torch.multinomial(q[0], 4000, replacement=True, generator=rng).tolist()
    assert abs(sum(len(accepted(p, q, [guess], rng)) == 2 for guess in guesses) / 4000 - 0.6) < 0.04


def test_stop_ids_and_stop_texts_end_within_a_run() -> None:
    """Each letter follows the one before, which the draft knows, so that a run goes past the end."""
    model = Table(256, seed=0, scale=0.0)
    model.table[torch.arange(255), torch.arange(1, 256)] = 9.0
    sampling = Sampling(temperature=0, max_new_tokens=20, stop_ids=(ord("k"),))
    (done,) = complete(model, [[ord("a")]], sampling, decoder=fixed(ModelDraft(model), 4))
    assert done == Completion(ids=list(b"bcdefghij"), finish_reason="stop", stop_id=ord("k"))
    tokenizer, sampling = ByteTokenizer(), Sampling(temperature=0, max_new_tokens=20, stop=("hi",))
    stream = stream_text(model, tokenizer, "a", sampling, decoder=fixed(ModelDraft(model), 4))
    assert ("".join(stream), stream.ids, stream.finish_reason) == ("bcdefg", list(b"bcdefghi"), "stop")
    texts = generate_texts(model, tokenizer, ["a", "e"], sampling, decoder=fixed(ModelDraft(model), 4))
    assert [(one.text, one.finish_reason) for one in texts] == [("bcdefg", "stop"), ("fg", "stop")]


def test_the_answer_ends_exactly_at_max_new_tokens_and_one_pass_checks_all_guesses() -> None:
    model, draft = Table(256, seed=0), Table(256, seed=0)
    (done,) = complete(model, [[1, 2]], Sampling(temperature=0, max_new_tokens=10), decoder=fixed(ModelDraft(draft), 4))
    assert (len(done.ids), done.finish_reason) == (10, "length")
    assert model.sizes == [(1, 2), (1, 5), (1, 4)]  # 1 token, 5 tokens, 4 tokens
    assert draft.sizes == [(1, 3), (1, 1), (1, 1), (1, 1), (1, 2), (1, 1), (1, 1)]


def test_only_ids_of_the_tokenizer_are_guessed_and_chosen() -> None:
    model = Table(300, seed=0, scale=0.0)
    model.table[:, 299] = 5.0
    sampling = Sampling(max_new_tokens=12, temperature=1.0)
    texts = generate_texts(model, ByteTokenizer(), ["a", "bc"], sampling, decoder=fixed(ModelDraft(model), 4))
    assert max(max(one.ids) for one in texts) < ByteTokenizer().vocab_size


def test_a_draft_with_a_wider_or_narrower_head_fits() -> None:
    """Rows of a head beyond the tokenizer differ from model to model, and are never chosen."""
    wide, narrow = Table(9, seed=0), Table(7, seed=1)
    wide.table[:, 7:] = -torch.inf
    for model, draft in ((wide, narrow), (narrow, wide)):
        rows = complete(model, [[0], [1]], Sampling(max_new_tokens=9), decoder=fixed(ModelDraft(draft), 2))
        assert {len(row.ids) for row in rows} == {9}


def test_a_draft_that_reads_less_far_falls_silent(target: nn.Module) -> None:
    sampling = Sampling(temperature=0, max_new_tokens=20)
    speculator = fixed(ModelDraft(tiny(0, max_seq_len=12)), 3)
    assert complete(target, PROMPTS, sampling, decoder=speculator) == complete(target, PROMPTS, sampling)
    assert speculator.lookahead.report()["n_accepted"] > 0


class InTurns(PromptLookup):
    """Knows the answers, and says them to one row at a time; the others hear something wrong."""

    def __init__(self, answers: dict[int, list[int]]) -> None:
        super().__init__()
        self.answers, self.turn = answers, 0

    def guess(self, rows: Sequence[Row], n: Sequence[int], sampling: Sampling, n_ids: int | None) -> Draft:
        self.turn = (self.turn + 1) % len(self.answers)
        ids = []
        for row, most in zip(rows, n, strict=True):
            right = self.answers[row.ids[0]][len(row.ids) - row.n_prompt :][:most]
            ids.append(right if row.ids[0] == self.turn else [(token + 1) % V for token in right])
        return Draft(ids)


def test_rows_are_read_again_where_padding_has_filled_the_cache(
    target: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each round some row takes all of its guesses and the others none: most columns become padding in most rows."""
    prompts, sampling = [[i, i + 1, i] for i in range(7)], Sampling(temperature=0, max_new_tokens=25)
    expected = complete(target, prompts, sampling)
    n_resets = []
    monkeypatch.setattr(FullCache, "reset", lambda cache, reset=FullCache.reset: n_resets.append(reset(cache)))
    speculator = fixed(InTurns({i: one.ids for i, one in enumerate(expected)}), 6)
    assert complete(target, prompts, sampling, decoder=speculator) == expected
    assert n_resets


def test_forgotten_columns_are_padding_or_free() -> None:
    model = tiny(0)
    tokens = torch.randint(V, (2, 9), generator=torch.Generator().manual_seed(0))
    cache = FullCache.for_model(model, 2, WINDOW)
    model(tokens[:, :6], cache=cache)
    cache.forget([1, 3])
    assert cache.length == 5
    rest = model(tokens[:, 6:], positions=torch.tensor([[5, 6, 7], [3, 4, 5]]), cache=cache)
    for row, n in enumerate((5, 3)):
        alone = model(torch.cat([tokens[row, :n], tokens[row, 6:]])[None])
        torch.testing.assert_close(rest[row], alone[0, n:])


def test_what_cannot_be_is_refused(target: nn.Module) -> None:
    with pytest.raises(ConfigError, match="lookahead: found 0; possible: 1 or more"):
        Speculation(lookahead=0)
    for decoding, found in (
        (Decoding(use_cache=False), "no cache"),
        (Decoding(cache="sinks"), "cache=sinks cache_precision=model"),
        (Decoding(cache_precision="int8"), "cache=full cache_precision=int8"),
    ):
        with pytest.raises(ConfigError, match=f"cache: draft needs cache=full .*, found {found}"):
            complete(target, [[1]], GREEDY, decoding=decoding, decoder=fixed(PromptLookup(), 2))
