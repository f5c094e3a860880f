"""The figures of `compare`, where they can be known beforehand."""

import pytest

from legollm.errors import TokenizerError
from legollm.tokenizers import ByteTokenizer, CharTokenizer, WordTokenizer
from legollm.tokenizers.compare import compare


def test_figures_of_a_text_one_can_count() -> None:
    char, word = CharTokenizer(), WordTokenizer()
    char.train("über den")
    word.train("über")
    rows = {row.name: row for row in compare({"b": ByteTokenizer(), "c": char, "w": word}, ["über", "den", ""])}
    assert list(rows) == ["b", "c", "w"]
    assert [row.kind for row in rows.values()] == ["byte", "char", "word"]
    assert [row.n_tokens for row in rows.values()] == [8, 7, 2]
    assert [row.n_bytes for row in rows.values()] == [8, 8, 8]
    assert rows["c"].bytes_per_token == pytest.approx(8 / 7)
    assert rows["c"].tokens_per_word == 3.5
    assert [row.oov_rate for row in rows.values()] == [0.0, 0.0, 0.5]
    assert [row.vocab_size for row in rows.values()] == [256, 7, 2]
    assert all(row.megabytes_per_s > 0 for row in rows.values())


def test_no_text_no_figures() -> None:
    with pytest.raises(TokenizerError, match="nothing to compare on"):
        compare({"b": ByteTokenizer()}, [""])
