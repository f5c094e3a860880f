"""Vectors of pairs and triples: against a loop over every token, and with caches that remember what came before."""

import pytest
import torch

from legollm.architectures import build
from legollm.components.ngram_embedding import NgramEmbedding
from legollm.components.positions import TokenEmbedding
from legollm.errors import ConfigError
from legollm.generation.cache import FullCache
from tiny_models import VOCAB, some_tokens, tiny_model

ROWS = (50, 70)


def test_each_token_gets_the_vectors_of_the_n_grams_that_end_there() -> None:
    """Against the definition, token by token; those before the first are a token of their own."""
    torch.manual_seed(0)
    embed = NgramEmbedding(TokenEmbedding(7, 4), ROWS)
    tokens = some_tokens(3, 9, vocab_size=7)
    found = embed(torch.cat([torch.full((3, 2), 5), tokens], 1), torch.arange(9))
    for row in range(3):
        ids = [7, 7, *tokens[row].tolist()]
        for t in range(9):
            one, two, three = ids[t + 2], ids[t + 1], ids[t]
            expected = (
                embed.tokens.weight[one]
                + embed.ngrams[0].weight[(one + 8 * two) % 50]
                + embed.ngrams[1].weight[(one + 8 * two + 64 * three) % 70]
            )
            torch.testing.assert_close(found[row, t], expected)


def test_rows_of_their_own_where_there_are_enough() -> None:
    """66 x 66 rows for 65 tokens: no two pairs share one."""
    embed = NgramEmbedding(TokenEmbedding(65, 1), (66 * 66,))
    rows = {(one + embed.base * two) % embed.n_rows[0] for one in range(65) for two in range(66)}
    assert len(rows) == 65 * 66


@pytest.mark.parametrize("cuts", [[1] * 12, [5, 1, 2, 4], [12]])
def test_cached_equals_uncached_in_any_pieces(cuts: list[int]) -> None:
    model = tiny_model("vanilla", ngram_rows=ROWS, dtype=torch.float64)
    tokens = some_tokens(2, 12)
    cache = FullCache.for_model(model, 2, 12)
    pieces = [model(piece, cache=cache) for piece in tokens.split(cuts, 1)]
    torch.testing.assert_close(torch.cat(pieces, 1), model(tokens), rtol=0, atol=1e-9)


def test_a_cache_that_forgot_and_changed_rows_still_knows_what_came_before() -> None:
    model = tiny_model("vanilla", ngram_rows=ROWS, positions="rope", dtype=torch.float64)
    tokens, others = some_tokens(2, 8), some_tokens(2, 3, seed=1)
    cache = FullCache.for_model(model, 2, 12)
    model(tokens, cache=cache)
    cache.truncate(5)
    cache.select([1, 0])
    text = torch.cat([tokens[[1, 0], :5], others], 1)
    torch.testing.assert_close(model(others, cache=cache), model(text)[:, 5:], rtol=0, atol=1e-9)


def test_ragged_rows_see_no_padding() -> None:
    model = tiny_model("vanilla", ngram_rows=ROWS, positions="rope", dtype=torch.float64)
    text = some_tokens(1, 6)
    padded = torch.cat([torch.full((1, 3), 9), text], 1)
    positions = torch.tensor([[-1, -1, -1, 0, 1, 2, 3, 4, 5]])
    torch.testing.assert_close(model(padded, positions)[:, 3:], model(text), rtol=0, atol=1e-9)
    cache = FullCache.for_model(model, 1, 12)
    first = model(padded[:, :5], positions[:, :5], cache)
    rest = model(padded[:, 5:], cache=cache)
    torch.testing.assert_close(torch.cat([first, rest], 1)[:, 3:], model(text), rtol=0, atol=1e-9)


def test_a_start_at_zero_says_nothing_and_learns_everywhere() -> None:
    """Every token is equally likely at first; after two steps each tensor has moved, as none is cut off for good."""
    model = build("vanilla", vocab_size=VOCAB, max_seq_len=16, n_layers=2, ngram_rows=ROWS, init="zero", ffn="swiglu")
    tokens = some_tokens(4, 16)
    assert float(model(tokens).detach().abs().max()) == 0.0
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimizer.step()
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"ngram_rows: .*at least one row, found \[0\]"):
        build("vanilla", ngram_rows=(0,))
    with pytest.raises(ConfigError, match="tie_embeddings=false"):
        build("vanilla", init="zero", tie_embeddings=True)
