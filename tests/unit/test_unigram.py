"""Unigram: each clever sum over segmentations equals the plain one over a list of all of them."""

import logging
import math
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from legollm.errors import TokenizerError
from legollm.tokenizers import UnigramTokenizer, unigram_lattice
from legollm.tokenizers.pieces import frequent_characters, training_words
from legollm.tokenizers.unigram_lattice import best_path, best_paths, edges, longest_by_first, sample_path
from legollm.tokenizers.unigram_training import (
    Lattice,
    _shrinking,
    learn_pieces,
    log_probabilities,
    losses,
    seed_pieces,
)

UNKNOWN = -20.0
CORPUS = "the cat sat on the mat, the other cat sat on that hat; whether that is the cat's hat nobody said. " * 3


def segmentations(word: str, pieces: dict[str, float]) -> list[list[str]]:
    """All of them, by trying every piece at the front; a character that is no piece stands for itself."""
    if not word:
        return [[]]
    fronts = [word[:n] for n in range(1, len(word) + 1) if n == 1 or word[:n] in pieces]
    return [[front, *rest] for front in fronts for rest in segmentations(word[len(front) :], pieces)]


def score_of(path: list[str], pieces: dict[str, float]) -> float:
    return sum(pieces.get(piece, UNKNOWN) for piece in path)


def random_pieces(rng: random.Random) -> dict[str, float]:
    """A vocabulary over a, b and c that may lack any of them; small whole scores, so that there are ties."""
    strings = {"".join(rng.choices("abc", k=rng.randrange(1, 5))) for _ in range(rng.randrange(1, 14))}
    return {string: -float(rng.randrange(1, 9)) for string in strings}


def test_the_best_path_is_the_best_of_all() -> None:
    rng = random.Random(1)
    for _ in range(400):
        pieces = random_pieces(rng)
        word = "".join(rng.choices("abcd", k=rng.randrange(0, 9)))
        path = best_path(word, pieces, longest_by_first(pieces), UNKNOWN)
        everything = segmentations(word, pieces)
        best = max(score_of(other, pieces) for other in everything)
        assert "".join(path) == word
        assert path in everything
        assert score_of(path, pieces) == best
        equals = [other for other in everything if score_of(other, pieces) == best]
        assert not word or len(path[-1]) == max(len(other[-1]) for other in equals)  # how ties are decided


def test_the_n_best_paths_are_the_best_of_all() -> None:
    rng = random.Random(4)
    for _ in range(400):
        pieces = random_pieces(rng)
        word = "".join(rng.choices("abcd", k=rng.randrange(0, 8)))
        n = rng.randrange(1, 12)
        found = best_paths(word, pieces, longest_by_first(pieces), UNKNOWN, n)
        scores = sorted((score_of(path, pieces) for path in segmentations(word, pieces)), reverse=True)
        assert [score for score, _ in found] == scores[:n]
        assert [score_of(path, pieces) for _, path in found] == scores[:n]
        assert len({tuple(path) for _, path in found}) == len(found)
        assert all("".join(path) == word for _, path in found)
        assert found[0][1] == best_path(word, pieces, longest_by_first(pieces), UNKNOWN)


def test_the_n_best_of_a_text_are_the_best_of_all_combinations() -> None:
    tokenizer = UnigramTokenizer("gpt2")
    tokenizer.train(CORPUS, vocab_size=290)
    text = "the cat, héhe"
    found = tokenizer.n_best(text, 40)
    everything = tokenizer.n_best(text, 1_000_000)
    assert len(everything) < 1_000_000
    assert found == everything[:40]
    assert found[0][0] == tokenizer.encode(text)
    assert len({tuple(ids) for ids, _ in everything}) == len(everything)
    assert {tokenizer.decode(ids) for ids, _ in everything} == {text}
    assert [score for _, score in everything] == sorted((score for _, score in everything), reverse=True)
    scores = tokenizer.scores
    whole = tokenizer.n_best("the cat", 3)
    assert all(score == pytest.approx(sum(scores[i] for i in ids)) for ids, score in whole)
    with pytest.raises(TokenizerError, match="0 segmentations found"):
        tokenizer.n_best(text, 0)


def test_edges_of_long_words_are_those_of_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(9)
    words = ["".join(rng.choices("abcd", k=20)) * 50 + "".join(rng.choices("abcd", k=7)) for _ in range(100)]
    cases = [(word, random_pieces(rng)) for word in words]
    plain = [list(edges(word, pieces, longest_by_first(pieces), UNKNOWN)) for word, pieces in cases]
    monkeypatch.setattr(unigram_lattice, "LONG", 100)
    monkeypatch.setattr(unigram_lattice, "MAX_WINDOWS", 5)
    looked_up = 0

    class Counting(dict[str, float]):
        def __contains__(self, piece: object) -> bool:
            nonlocal looked_up
            looked_up += 1
            return super().__contains__(piece)

    for (word, pieces), expected in zip(cases, plain, strict=True):
        assert list(edges(word, Counting(pieces), longest_by_first(pieces), UNKNOWN)) == expected
    monkeypatch.setattr(unigram_lattice, "MAX_WINDOWS", 1 << 16)
    looked_up = 0
    assert len(list(edges("a" * 10_000, Counting(a=0.0, aaa=0.0), {"a": 3}, UNKNOWN))) == 19_998
    assert looked_up < 30


def test_samples_have_the_probability_that_the_model_gives_them() -> None:
    pieces = {"a": -1.0, "b": -2.0, "ab": -2.0, "ba": -2.5, "aba": -4.0, "bab": -4.5}
    longest, word, n = longest_by_first(pieces), "ababda", 10_000
    for alpha in (1.0, 0.3, 0.0):
        rng = random.Random(7)
        drawn = Counter(tuple(sample_path(word, pieces, longest, UNKNOWN, alpha=alpha, rng=rng)) for _ in range(n))
        weights = {tuple(p): math.exp(alpha * score_of(p, pieces)) for p in segmentations(word, pieces)}
        assert drawn.keys() <= weights.keys()
        for path, weight in weights.items():
            p = weight / sum(weights.values())
            assert abs(drawn[path] - n * p) < 5 * math.sqrt(n * p * (1 - p)) + 1  # five standard deviations


def test_expected_counts_are_those_of_a_list_of_all_segmentations() -> None:
    rng = random.Random(2)
    for _ in range(30):
        pieces = sorted({*"abc", *random_pieces(rng)})
        scores = np.log(np.array([rng.uniform(0.1, 1.0) for _ in pieces]))
        words = sorted({"".join(rng.choices("abc", k=rng.randrange(1, 8))) for _ in range(6)})
        weights = np.array([float(rng.randrange(1, 5)) for _ in words])
        table = dict(zip(pieces, scores.tolist(), strict=True))
        expected = dict.fromkeys(pieces, 0.0)
        log_likelihood = 0.0
        for word, weight in zip(words, weights, strict=True):
            paths = segmentations(word, table)
            total = sum(math.exp(score_of(path, table)) for path in paths)
            log_likelihood += weight * math.log(total)
            for path in paths:
                for piece in path:
                    expected[piece] += weight * math.exp(score_of(path, table)) / total
        found, found_likelihood = Lattice.of(words, pieces).expected_counts(scores, weights)
        assert found.tolist() == pytest.approx(list(expected.values()), rel=1e-12, abs=1e-12)
        assert found_likelihood == pytest.approx(log_likelihood, rel=1e-12)


def test_the_likelihood_never_falls_while_probabilities_are_estimated() -> None:
    words = training_words(UnigramTokenizer()._count_words(CORPUS, ()), ())
    pieces = sorted(seed_pieces(words, 10_000))
    lattice = Lattice.of(list(words), pieces)
    weights = np.array(list(words.values()), dtype=np.float64)
    scores = np.full(len(pieces), -math.log(len(pieces)))
    likelihoods = []
    for _ in range(8):
        expected, likelihood = lattice.expected_counts(scores, weights)
        likelihoods.append(likelihood)
        scores = np.log(np.maximum(expected, 1e-12) / expected.sum())
    assert all(later >= earlier for earlier, later in pairwise(likelihoods))
    assert likelihoods[-1] > likelihoods[0] + 50


def test_the_loss_of_a_piece_is_what_its_best_other_spelling_costs() -> None:
    pieces = ["a", "ab", "abab", "b"]
    scores = np.log(np.array([0.4, 0.2, 0.1, 0.3]))
    lost = losses(np.array([5.0, 3.0, 2.0, 4.0]), scores, Lattice.of(pieces, pieces).without_whole())
    assert lost[0] == lost[3] == math.inf
    assert lost[1] == pytest.approx(3 * (math.log(0.2) - math.log(0.4 * 0.3)))
    assert lost[2] == pytest.approx(2 * (math.log(0.1) - 2 * math.log(0.2)))
    dropped = scores.copy()
    dropped[1] = -math.inf
    lost = losses(np.array([5.0, 0.0, 2.0, 4.0]), dropped, Lattice.of(pieces, pieces).without_whole())
    assert lost[1] == -math.inf
    assert lost[2] == pytest.approx(2 * (math.log(0.1) - 2 * math.log(0.4 * 0.3)))


def test_seeds_are_the_substrings_that_occur_twice() -> None:
    counts = {"abcab": 1, "bc": 3, "xyz": 1}
    substrings: Counter[str] = Counter()
    for word, count in counts.items():
        for begin in range(len(word)):
            for end in range(begin + 1, len(word) + 1):
                substrings[word[begin:end]] += count
    expected = {piece: count for piece, count in substrings.items() if count > 1 or len(piece) == 1}
    assert seed_pieces(counts, 100) == expected
    assert seed_pieces(counts, 7) == {piece: substrings[piece] for piece in [*"abcxyz", "bc"]}


def test_probabilities_sum_to_one_and_dropped_pieces_have_none() -> None:
    logs = log_probabilities(np.array([3.0, 0.0, 5.0, 9.0]), np.array([True, True, True, False]))
    assert np.exp(logs).sum() == pytest.approx(1)
    assert logs[3] == -math.inf
    assert logs[1] > -math.inf


def test_training_keeps_every_character_and_as_many_pieces_as_are_wanted() -> None:
    words = training_words(UnigramTokenizer()._count_words(CORPUS, ()), ())
    n_characters = len(set("".join(words)))
    for n_pieces in (n_characters, n_characters + 10, n_characters + 40):
        learned = learn_pieces(words, n_pieces)
        assert len(learned) == n_pieces
        assert set("".join(words)) <= learned.keys()
        assert sum(map(math.exp, learned.values())) == pytest.approx(1)
    assert {" the", " cat"} <= learned.keys()
    assert list(_shrinking(100, 60)) == [75, 60]
    assert list(_shrinking(10, 60)) == []


def test_rare_characters_are_spelled_in_bytes() -> None:
    text = "ä" * 3_000 + " ö" * 1_500 + " ü"  # the last is less than 1 in 2,000
    assert frequent_characters({text: 1}, room=100) == ["ä", "ö"]
    assert frequent_characters({text: 1}, room=3) == ["ä"]  # half the room is for longer pieces
    assert training_words({"aäüb": 2, "ä" * 300: 1}, "ä") == {"aä": 2, "b": 2, "ä" * 256: 1, "ä" * 44: 1}
    tokenizer = UnigramTokenizer()
    tokenizer.train(text, vocab_size=300)
    assert tokenizer.encode("ü") == list("ü".encode())
    assert len(tokenizer.encode("ö")) == 1


def test_the_space_marker_of_sentencepiece_is_a_character_like_any_other() -> None:
    tokenizer = UnigramTokenizer()
    tokenizer.train("\u2581a a\u2581 b \u2581" * 50, vocab_size=280)
    for text in ("\u2581", " \u2581 ", "a\u2581b a b", "\u2581\u2581 \u2581"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode(" a") != tokenizer.encode("\u2581a")


def test_samples_spell_the_text_and_repeat_with_their_seed() -> None:
    tokenizer = UnigramTokenizer()
    tokenizer.train(CORPUS, vocab_size=320, special_tokens=["<|x|>"])
    text = "that other hat, ünder the \ud800 mat <|x|>"
    samples = [tokenizer.sample(text, alpha=0.1, seed=seed) for seed in range(20)]
    assert samples == [tokenizer.sample(text, alpha=0.1, seed=seed) for seed in range(20)]
    assert len({tuple(ids) for ids in samples}) > 10
    for ids in samples:
        assert tokenizer.decode_bytes(ids) == text.encode("utf-8", "surrogatepass")
        assert tokenizer.special_tokens["<|x|>"] not in ids
    assert tokenizer.sample(text, alpha=1000.0, seed=1) == tokenizer.encode(text)
    for alpha in (-1.0, math.nan, math.inf):
        with pytest.raises(TokenizerError, match="alpha"):
            tokenizer.sample(text, alpha=alpha, seed=1)


def test_a_vocabulary_without_room_is_refused() -> None:
    with pytest.raises(TokenizerError, match=r"no room for 256 bytes and 1 special tokens; use 257 or more"):
        UnigramTokenizer().train("text", vocab_size=256, special_tokens=["<|x|>"])
    smallest = UnigramTokenizer()
    smallest.train("text", vocab_size=257, special_tokens=["<|x|>"])
    assert smallest.vocab_size == 257
    assert smallest.encode("text") == list(b"text")


def test_a_text_with_few_substrings_warns(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = UnigramTokenizer()
    with caplog.at_level(logging.WARNING):
        tokenizer.train("ab ab", vocab_size=300)
    assert "fewer" in caplog.text
    assert tokenizer.vocab_size < 300


def test_scores_are_log_probabilities_and_survive_the_file(tmp_path: Path) -> None:
    tokenizer = UnigramTokenizer("gpt2")
    tokenizer.train(CORPUS, vocab_size=300)
    used = {i: score for i, score in tokenizer.scores.items() if i >= 256 or chr(i) in CORPUS}
    assert sum(map(math.exp, used.values())) == pytest.approx(1)
    assert not [i for i in range(128, 256) if i in tokenizer.scores]
    tokenizer.save(tmp_path / "tok.json")
    assert UnigramTokenizer.load(tmp_path / "tok.json").scores == tokenizer.scores
