"""Unigram, BPE over characters and WordPiece give the same ids as Hugging Face's tokenizers."""

import random
import unicodedata
from pathlib import Path

import pytest
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

from legollm.tokenizers import CharBPETokenizer, UnigramTokenizer, WordPieceTokenizer, load_tokenizer
from legollm.tokenizers.bert_text import BertText
from legollm.tokenizers.pieces import PieceTokenizer
from text_samples import BAG, random_texts

CORPUS = [*BAG, *random_texts(seed=6, n=300), "the cat sat on the mat, the dog didn't; they'll see. 2024 2025\n" * 5]
TEXTS = [*BAG, *random_texts(seed=8, n=5_000), "a" * 3_000, " " * 500 + "x"]
PATTERN = r"\s*\S+|\s+"  # words with all the space before them: longer than the default's, so there is more to decide


def names_of(ours: PieceTokenizer) -> list[str]:
    """What Hugging Face calls our ids. A byte that is an ASCII character has two names there; ours is the character."""
    table = ours.vocab
    return [f"<0x{i:02X}>" if 128 <= i < 256 else table[i].decode() for i in sorted(table)]


def wrap(model: models.Model) -> tokenizers.Tokenizer:
    theirs = tokenizers.Tokenizer(model)
    theirs.pre_tokenizer = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    theirs.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return theirs


def assert_equal(ours: PieceTokenizer, theirs: tokenizers.Tokenizer) -> None:
    expected = [encoding.ids for encoding in theirs.encode_batch(TEXTS, add_special_tokens=False)]
    differing = [t for t, ids, other in zip(TEXTS, ours.encode_batch(TEXTS), expected, strict=True) if ids != other]
    assert differing == []
    for text in BAG:
        assert theirs.decode(ours.encode(text), skip_special_tokens=False) == ours.decode(ours.encode(text)) == text


@pytest.mark.parametrize("vocab_size", [256, 300, 1_000])
def test_unigram(vocab_size: int) -> None:
    ours = UnigramTokenizer(PATTERN)
    ours.train(CORPUS, vocab_size=vocab_size)
    scores = ours.scores
    least = min(scores.values())
    # Bytes are never found in text, so their score says nothing; the least one leaves that of unknown characters alone.
    vocab = [(name, scores.get(i, least)) for i, name in enumerate(names_of(ours))]
    assert_equal(ours, wrap(models.Unigram(vocab, 128, True)))


@pytest.mark.parametrize("fuse_unk", [False, True])
@pytest.mark.parametrize("vocab_size", [256, 300, 1_000])
def test_bpe_over_characters(vocab_size: int, fuse_unk: bool) -> None:
    ours = CharBPETokenizer(PATTERN)
    ours.train(CORPUS, vocab_size=vocab_size)
    vocab = {name: i for i, name in enumerate(names_of(ours))}
    merges = [(left.decode(), right.decode()) for left, right in ours.merges]
    assert_equal(ours, wrap(models.BPE(vocab, merges, byte_fallback=True, fuse_unk=fuse_unk, unk_token="<0x80>")))


def wordpiece_vocab(words: list[str]) -> dict[str, int]:
    """Pieces of the words that the corpus has, and some of its characters: enough to be known, not all of them."""
    rng = random.Random(3)
    pieces = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    for word in words:
        cut = rng.randrange(1, len(word) + 1)
        pieces |= {word[:cut], "##" + word[cut:]} - {"##"}
        pieces |= {prefix + character for character in word for prefix in ("", "##") if rng.random() < 0.9}
    return {piece: i for i, piece in enumerate(sorted(pieces))}


def known_alike(text: str) -> bool:
    """Whether the two know the characters of `text` equally: their tables of Unicode are some versions older."""
    theirs = pre_tokenizers.BertPreTokenizer()
    return all(
        unicodedata.category(c) not in ("Cf", "Mn", "Mc")
        and (unicodedata.category(c)[0] == "P") <= (theirs.pre_tokenize_str(f"a{c}b")[-1][0] == "b")
        and not 0x2B820 <= ord(c) < 0x2B920  # ideographs that they leave out
        for c in unicodedata.normalize("NFD", text)
        if not c.isascii()
    )


@pytest.mark.parametrize("clean_text", [True, False])
@pytest.mark.parametrize("cjk_words", [True, False])
@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("strip_accents", [True, False, None])
def test_wordpiece(
    clean_text: bool, cjk_words: bool, lowercase: bool, strip_accents: bool | None, tmp_path: Path
) -> None:
    texts = [text for text in TEXTS[:2_000] if known_alike(text)]
    assert len(texts) > 700
    plain = BertText(lowercase=lowercase, strip_accents=lowercase if strip_accents is None else strip_accents)
    vocab = wordpiece_vocab([word for text in CORPUS for word in plain.words(text)])
    theirs = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=20))
    theirs.normalizer = normalizers.BertNormalizer(
        clean_text=clean_text, handle_chinese_chars=cjk_words, strip_accents=strip_accents, lowercase=lowercase
    )
    theirs.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    theirs.decoder = decoders.WordPiece(cleanup=False)
    theirs.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = load_tokenizer(tmp_path)
    assert isinstance(ours, WordPieceTokenizer)
    for text in [*texts, "[CLS]the cat[SEP] the[MASK]"]:
        encoding = theirs.encode(text, add_special_tokens=False)
        expected = encoding.ids
        assert ours.encode(text, allowed_special="all") == expected, text
        offsets = ours.encode_with_offsets(text, allowed_special="all")
        assert offsets == (expected, encoding.offsets), text
        assert ours.decode(expected, skip_special=True) == theirs.decode(expected)
