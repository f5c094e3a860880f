"""WordPiece: what a vocabulary of BERT's kind makes of text, and the files it comes in."""

import json
from pathlib import Path

import pytest

from legollm.errors import TokenizerError
from legollm.tokenizers import WordPieceTokenizer, load_tokenizer
from legollm.tokenizers.bert_text import BertText

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##aff", "##able", "run", "##ning", "the", ",", ".", "日"]
VOCAB = {piece: i for i, piece in enumerate(PIECES)}


def pieces_of(tokenizer: WordPieceTokenizer, text: str) -> list[str]:
    return [PIECES[i] for i in tokenizer.encode(text)]


def test_words_are_cut_into_the_longest_pieces() -> None:
    tokenizer = WordPieceTokenizer(VOCAB)
    assert pieces_of(tokenizer, "Unaffable, running.") == ["un", "##aff", "##able", ",", "run", "##ning", "."]
    assert pieces_of(tokenizer, "unaffably the") == ["[UNK]", "the"]  # one end that fails loses the whole word
    assert pieces_of(tokenizer, "日日") == ["日", "日"]
    assert tokenizer.encode("") == []
    greedy = WordPieceTokenizer(VOCAB | {"u": 14, "##n": 15, "##affa": 16})
    assert greedy.encode("unn unaff") == [5, 15, 5, 6]
    assert greedy.encode("unaffable") == [1]  # nothing is taken back: after ##affa the rest is no piece


def test_long_words_are_unknown() -> None:
    tokenizer = WordPieceTokenizer(VOCAB | {"##un": 14}, max_characters=4)
    assert tokenizer.encode("unun") == [5, 14]
    assert tokenizer.encode("ununun") == [1]


def test_case_and_accents() -> None:
    assert BertText().normalize("Éa\u0301 ΑΣ") == "ea ασ"  # character by character: no final sigma
    assert BertText(strip_accents=False).normalize("É") == "é"
    assert BertText(lowercase=False, strip_accents=False).normalize("É") == "É"


def test_cleaning() -> None:
    assert BertText().normalize("a\x00\x0c\u200b\ufffdb\t\u2003c") == "ab  c"
    assert BertText(clean_text=False).normalize("a\x00b") == "a\x00b"
    assert list(BertText().words("don't $5 \u201cx\u201d")) == ["don", "'", "t", "$", "5", "“", "x", "”"]


def test_decoding_puts_words_apart_and_pieces_together() -> None:
    tokenizer = WordPieceTokenizer(VOCAB)
    ids = [2, *tokenizer.encode("the unaffable, running."), 3]
    assert tokenizer.decode(ids, skip_special=True) == "the unaffable , running ."
    assert tokenizer.decode_bytes([7]) == b"able"
    with pytest.raises(TokenizerError, match="no token has id 99"):
        tokenizer.decode([99])


def test_special_tokens_come_from_text_only_when_allowed() -> None:
    tokenizer = WordPieceTokenizer(VOCAB)
    assert 4 not in tokenizer.encode("the [MASK]")
    assert tokenizer.encode("the [MASK]", allowed_special="all") == [10, 4]
    assert tokenizer.special_tokens == {name: VOCAB[name] for name in PIECES[:5]}


def test_saved_is_loaded_the_same(tmp_path: Path) -> None:
    tokenizer = WordPieceTokenizer(VOCAB, text=BertText(lowercase=False), max_characters=7)
    tokenizer.save(tmp_path / "tok.json")
    for loaded in (WordPieceTokenizer.load(tmp_path / "tok.json"), load_tokenizer(tmp_path / "tok.json")):
        assert loaded.fingerprint == tokenizer.fingerprint
        assert loaded.encode("The unaffable unununun") == tokenizer.encode("The unaffable unununun")


def test_vocab_txt_is_read_with_the_options_beside_it(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    for path in (tmp_path, tmp_path / "vocab.txt"):
        assert load_tokenizer(path).encode("The rùnning") == [10, 8, 9]
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false, "strip_accents": true}')
    assert load_tokenizer(tmp_path).encode("The rùnning") == [1, 8, 9]
    explicit = WordPieceTokenizer.from_vocab(tmp_path / "vocab.txt", text=BertText(strip_accents=False))
    assert explicit.encode("The rùnning") == [10, 1]


@pytest.mark.parametrize(
    ("lines", "cause"), [(["a", "b"], "no '\\[UNK\\]'"), (["[UNK]", "a", "a"], "on two lines"), ([], "no '\\[UNK\\]'")]
)
def test_broken_vocab_txt(tmp_path: Path, lines: list[str], cause: str) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(lines))
    with pytest.raises(TokenizerError, match=rf"vocab\.txt: .*{cause}"):
        load_tokenizer(tmp_path / "vocab.txt")


def test_what_tokenizer_json_asks_for_and_is_not_known_is_named(tmp_path: Path) -> None:
    model = {
        "type": "WordPiece",
        "vocab": VOCAB,
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
    }
    bert = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None}
    good = {
        "model": model,
        "normalizer": bert | {"lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "added_tokens": [{"id": 4, "content": "[MASK]", "special": True}],
    }
    file = tmp_path / "tokenizer.json"
    for wrong, cause in (
        ({}, None),
        ({"normalizer": None}, "normalizer None"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer Whitespace"),
        ({"normalizer": bert}, "lowercase"),
        ({"model": model | {"vocab": {"a": 0}}}, "UNK"),
        ({"model": model | {"vocab": {"[UNK]": 0, "a": 0}}}, "same id"),
    ):
        file.write_text(json.dumps(good | wrong))
        if cause is None:
            assert load_tokenizer(file).special_tokens == {"[MASK]": 4}
            assert load_tokenizer(tmp_path).encode("Ünning Inning") == [5, 9, 1]
        else:
            with pytest.raises(TokenizerError, match=rf"tokenizer\.json: .*{cause}"):
                load_tokenizer(file)
