"""Counting, against the formulas written out with dictionaries."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

import legollm
from legollm.architectures import ARCHITECTURES, build
from legollm.architectures.ngram import NGram, NGramConfig, counted
from legollm.checkpoints.state import save_model
from legollm.errors import ConfigError, TokenizerError
from legollm.generation.complete import Decoding, complete
from legollm.generation.sampling import Sampling
from legollm.tokenizers import CharTokenizer

V = 6
METHODS = ("kneser_ney", "absolute", "add_k")
Probability = Callable[[tuple[int, ...], int], float]


def text_of(n: int, seed: int = 0) -> Tensor:
    """Text with repetitions in which the last id never occurs."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(V - 1, (n,), generator=generator) * torch.randint(2, (n,), generator=generator)


def by_hand(ids: Sequence[int], order: int, method: str, discount: float, k: float) -> Probability:
    """p(word | context) straight from the papers."""
    raw: dict[int, Counter[tuple[int, ...]]] = {
        n: Counter(tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)) for n in range(1, order + 1)
    }
    counts = dict(raw)
    if method == "kneser_ney":
        for n in range(1, order):
            counts[n] = Counter(gram[1:] for gram in raw[n + 1])
            counts[n][tuple(ids[:n])] += 1  # the text starts with it
    after: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for grams in counts.values():
        for gram, count in grams.items():
            after[gram[:-1]][gram[-1]] += count

    def probability(context: tuple[int, ...], word: int) -> float:
        context = context[len(context) - min(len(context), order - 1) :]
        followers = after.get(context)
        if not followers:
            return probability(context[1:], word) if context else 1 / V
        if method == "add_k":
            return (followers[word] + k) / (followers.total() + k * V)
        shorter = probability(context[1:], word) if context else 1 / V
        kept = max(followers[word] - discount, 0)
        return (kept + discount * len(followers) * shorter) / followers.total()

    return probability


def model_of(ids: Tensor, order: int, method: str, **more: float) -> NGram:
    return counted(NGramConfig(vocab_size=V, order=order, smoothing=method, **more), ids)[1]  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("order", [1, 2, 3, 5, 7])
def test_logits_are_the_formula(order: int, method: str) -> None:
    ids = text_of(90)
    model = model_of(ids, order, method, discount=0.6, k=0.3)
    probability = by_hand(ids.tolist(), order, method, 0.6, 0.3)
    other = torch.cat([text_of(25, seed=1), torch.tensor([V - 1]), text_of(8, seed=2), ids[-order:]])
    found = model(other[None])[0].exp()
    for t in range(len(other)):
        expected = [probability(tuple(other[: t + 1].tolist()), word) for word in range(V)]
        assert found[t].tolist() == pytest.approx(expected, rel=1e-5)
        assert sum(found[t].tolist()) == pytest.approx(1)
    exact = model.log_probs(other[None])[0].exp()
    expected = [probability(tuple(other[:t].tolist()), int(other[t])) for t in range(len(other))]
    assert exact.tolist() == pytest.approx(expected, rel=1e-12)


def test_the_discount_is_estimated_from_what_was_seen_once_and_twice() -> None:
    ids = torch.tensor([0, 1, 2, 3, 4, 0, 1, 0])  # pairs: 01 twice; 12, 23, 34, 40, 10 once
    model = model_of(ids, 2, "absolute")
    assert model.levels[1].passed_on[4].item() == pytest.approx(5 / (5 + 2 * 1))  # one follower, seen once
    assert model_of(torch.zeros(9, dtype=torch.int64), 1, "absolute").levels[0].passed_on.item() == 0.75 / 9


def test_before_counting_nothing_is_known() -> None:
    model = build("ngram", vocab_size=V, order=4)
    assert model(text_of(5)[None]).exp().flatten().tolist() == pytest.approx([1 / V] * 5 * V)


def test_kneser_ney_is_best_on_text_it_has_not_seen(shared_data: Path) -> None:
    text = (shared_data / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")[:300_000]
    tokenizer = CharTokenizer()
    tokenizer.train([text])
    ids = torch.tensor(tokenizer.encode(text))
    train, val = ids[:270_000], ids[270_000:]
    losses = {}
    for method in METHODS:
        model = counted(NGramConfig(vocab_size=tokenizer.vocab_size, order=5, smoothing=method), train)[1]
        losses[method] = -model.log_probs(val[None]).mean().item()
    assert losses["kneser_ney"] < losses["absolute"] < losses["add_k"]
    orders = [counted(NGramConfig(vocab_size=tokenizer.vocab_size, order=n), train)[1] for n in (1, 2, 3, 4, 5)]
    falling = [-model.log_probs(val[None]).mean().item() for model in orders]
    assert falling == sorted(falling, reverse=True)


def test_decoding_with_a_cache_is_decoding_without() -> None:
    model = model_of(text_of(300), 4, "kneser_ney")
    prompts = [text_of(n, seed=n).tolist() for n in (1, 2, 9, 5)]
    sampling = Sampling(max_new_tokens=12, temperature=1.0, seed=3)
    written = [
        [one.ids for one in complete(model, prompts, sampling, decoding=decoding)]
        for decoding in (Decoding(), Decoding(use_cache=False), Decoding(prefill_chunk=2), Decoding(batch_size=1))
    ]
    assert written[0] == written[1] == written[2] == written[3]
    assert len({tuple(ids) for ids in written[0]}) == 4


def test_rows_do_not_see_padding() -> None:
    model, row = model_of(text_of(300), 4, "kneser_ney"), text_of(6, seed=5)
    tokens = torch.cat([torch.tensor([3, 3]), row])[None]
    positions = torch.tensor([[-1, -1, 0, 1, 2, 3, 4, 5]])
    assert torch.equal(model(tokens, positions)[:, 2:], model(row[None]))
    at = positions >= 3
    assert torch.equal(model(tokens, positions, at=at), model(row[None])[0, 3:])


def test_saved_and_loaded(tmp_path: Path) -> None:
    cfg, model = counted(NGramConfig(vocab_size=V, order=3, discount=0.5), text_of(200))
    save_model(tmp_path / "model", model, "ngram", cfg, None)
    lm = legollm.load(tmp_path / "model")
    assert lm.config == cfg
    tokens = text_of(20, seed=4)[None]
    assert torch.equal(lm.model(tokens), model(tokens))
    assert len(list(lm.stream([0, 1], max_new_tokens=5, as_ids=True))) == 5


def test_a_million_tokens_stay_small() -> None:
    generator = torch.Generator().manual_seed(0)
    ids = (torch.rand(1_000_000, generator=generator) ** 3 * 2048).long()
    cfg, model = counted(NGramConfig(vocab_size=2048, order=4), ids)
    size = sum(p.nbytes for p in model.parameters())
    assert size < 24 * sum(cfg.n_grams)
    assert math.isfinite(model.log_probs(ids[None, :5000]).sum().item())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": 8}, "order: from 1 to 7, found 8"),
        ({"order": 0}, "order: expected a whole number from 1, found 0"),
        ({"discount": 1.5}, "discount: above 0 and at most 1, or null, found 1.5"),
        ({"k": 0.0}, "k: must be above 0, or what was never seen would be impossible; found 0.0"),
        ({"n_grams": (1, 2)}, "n_grams: expected 3 numbers, one per length, found 2"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ARCHITECTURES["ngram"].config(**settings)
    assert str(caught.value) == message


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ConfigError, match="order: 3 needs a text of as many tokens, found 2"):
        counted(NGramConfig(order=3), torch.tensor([1, 2]))
    with pytest.raises(TokenizerError, match="token 6 is not among the model's ids 0 to 5"):
        build("ngram", vocab_size=V)(torch.tensor([[1, 6]]))
