"""WordPiece, for loading encoders of BERT's kind: each word is cut greedily into the longest pieces there are.

Schuster and Nakajima 2012, "Japanese and Korean Voice Search"; Wu et al. 2016, arXiv:1609.08144; Devlin et al. 2019,
arXiv:1810.04805. A vocabulary is read, not learned. It is not lossless: a word that cannot be cut is `[UNK]`, and white
space, and in most models case and accents, are not kept.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from legollm.errors import TokenizerError
from legollm.tokenizers.bert_text import BertText
from legollm.tokenizers.files import naming, read_bytes, read_json
from legollm.tokenizers.offsets import Span
from legollm.tokenizers.vocabulary import VocabularyTokenizer

UNKNOWN = "[UNK]"
CONTINUES = "##"
"""Marks the pieces that continue a word."""
SPECIAL = ("[PAD]", UNKNOWN, "[CLS]", "[SEP]", "[MASK]")
"""Control tokens of a vocab.txt, which does not mark them."""
MAX_CHARACTERS = 100
"""Longer words are unknown."""


class WordPieceTokenizer(VocabularyTokenizer):
    """Ids of BERT and its relatives. Encoding adds no [CLS] and [SEP]: they are special tokens like any other.

    The bytes of a piece that begins a word begin with the space before that word.
    """

    kind = "wordpiece"

    def __init__(
        self,
        vocab: Mapping[str, int],
        *,
        text: BertText | None = None,
        special_tokens: Mapping[str, int] | None = None,
        unknown: str = UNKNOWN,
        continues: str = CONTINUES,
        max_characters: int = MAX_CHARACTERS,
    ) -> None:
        """vocab: piece -> id, special tokens included. special_tokens: None takes those of SPECIAL that it has.

        Raises:
            TokenizerError: no `unknown` in it, or two pieces of the same id.
        """
        super().__init__()
        if unknown not in vocab:
            raise TokenizerError(f"the vocabulary has no {unknown!r}, which stands for unknown words; name it right")
        if special_tokens is None:
            special_tokens = {name: vocab[name] for name in SPECIAL if name in vocab}
        self._vocab = dict(vocab)
        self._text = BertText() if text is None else text
        self._unknown = unknown
        self._continues = continues
        self._max_characters = max_characters
        self._longest = max(map(len, vocab))
        ordinary = {i: self._bytes_of(piece) for piece, i in vocab.items() if piece not in special_tokens}
        if len(ordinary) + len(vocab.keys() & special_tokens.keys()) < len(vocab):
            raise TokenizerError("two pieces have the same id; every id may occur only once")
        self._set_vocabulary(ordinary, special_tokens)

    @classmethod
    def from_vocab(cls, path: Path | str, *, text: BertText | None = None) -> Self:
        """Read a vocab.txt: one piece a line, the first of id 0.

        text: None takes lower case without accents, unless the tokenizer_config.json beside it says otherwise.

        Raises:
            TokenizerError: no such file, or no vocabulary of this kind.
        """
        path = Path(path)
        with naming(path):
            pieces = read_bytes(path).decode("utf-8").splitlines()
            vocab = {piece: i for i, piece in enumerate(pieces)}
            if len(vocab) < len(pieces):
                raise TokenizerError("a piece stands on two lines; every piece may occur only once")
        config = path.with_name("tokenizer_config.json")
        if text is None and config.is_file():
            options = read_json(config)
            with naming(config):
                text = _text_of(
                    lowercase=options.get("do_lower_case", True),
                    strip_accents=options.get("strip_accents"),
                    cjk_words=options.get("tokenize_chinese_chars", True),
                )
        with naming(path):
            return cls(vocab, text=text)

    @classmethod
    def from_huggingface(cls, path: Path | str) -> Self:
        """Read a tokenizer.json whose model is WordPiece; a folder with vocab.txt alone will do as well.

        Raises:
            TokenizerError: something in there works in a way that is not known here; names it.
        """
        path = Path(path)
        file = path / "tokenizer.json" if path.is_dir() else path
        if path.is_dir() and not file.is_file():
            return cls.from_vocab(path / "vocab.txt")
        document = read_json(file)
        with naming(file):
            model = document["model"]
            if model.get("type") != "WordPiece":
                raise TokenizerError(f"a model of type {model.get('type')!r}, not 'WordPiece'; use load_tokenizer")
            for part, known in (("normalizer", "BertNormalizer"), ("pre_tokenizer", "BertPreTokenizer")):
                found = (document.get(part) or {}).get("type")
                if found != known:
                    raise TokenizerError(f"{part} {found} is not supported; {known} can be read")
            options = document["normalizer"]
            added = {token["content"]: int(token["id"]) for token in document.get("added_tokens") or []}
            return cls(
                {piece: int(i) for piece, i in model["vocab"].items()},
                text=_text_of(
                    clean_text=options["clean_text"],
                    cjk_words=options["handle_chinese_chars"],
                    strip_accents=options["strip_accents"],
                    lowercase=options["lowercase"],
                ),
                special_tokens=added,
                unknown=model["unk_token"],
                continues=model["continuing_subword_prefix"],
                max_characters=model["max_input_chars_per_word"],
            )

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """The words of `ids` with a space between them, also before punctuation.

        Raises:
            TokenizerError: an id that no token has.
        """
        return super().decode(ids, skip_special=skip_special).removeprefix(" ")

    def _bytes_of(self, piece: str) -> bytes:
        if piece.startswith(self._continues):
            return piece[len(self._continues) :].encode()
        return f" {piece}".encode()

    def _encode_ordinary(self, text: str) -> list[int]:
        return [i for word in self._text.words(text) for i, _ in self._cut(word)]

    def _spans(self, text: str, ids: Sequence[int]) -> list[Span]:
        """The characters that each piece was made from; marks that were dropped at its end are not among them."""
        spans = []
        for word, origins in self._text.words_with_origins(text):
            begin = 0
            for _, end in self._cut(word):
                spans.append((origins[begin], origins[end - 1] + 1))
                begin = end
        assert len(spans) == len(ids), "both cut the same words"
        return spans

    def oov_rate(self, texts: str | Iterable[str]) -> float:
        """The share of words, punctuation marks among them, that cannot be cut into known pieces."""
        unknown = self._vocab[self._unknown]
        words = lost = 0
        for text in [texts] if isinstance(texts, str) else texts:
            for word in self._text.words(text):
                words += 1
                lost += self._cut(word)[0][0] == unknown
        return lost / max(1, words)

    def _cut(self, word: str) -> list[tuple[int, int]]:
        """The longest piece that begins the word, the longest that continues it, and so on; or else one unknown.

        Each with where it ends in the word.
        """
        unknown = [(self._vocab[self._unknown], len(word))]
        if len(word) > self._max_characters:
            return unknown
        pieces: list[tuple[int, int]] = []
        begin = 0
        while begin < len(word):
            prefix = self._continues if begin else ""
            for end in range(min(len(word), begin + self._longest), begin, -1):
                known = self._vocab.get(prefix + word[begin:end])
                if known is not None:
                    pieces.append((known, end))
                    begin = end
                    break
            else:
                return unknown
        return pieces

    def _state(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "vocab": self._vocab,
            "clean_text": self._text.clean_text,
            "cjk_words": self._text.cjk_words,
            "strip_accents": self._text.strip_accents,
            "lowercase": self._text.lowercase,
            "unknown": self._unknown,
            "continues": self._continues,
            "max_characters": self._max_characters,
            "special_tokens": dict(self._special),
        }

    @classmethod
    def _restore(cls, state: Mapping[str, Any]) -> Self:
        return cls(
            state["vocab"],
            text=BertText(
                clean_text=bool(state["clean_text"]),
                cjk_words=bool(state["cjk_words"]),
                strip_accents=bool(state["strip_accents"]),
                lowercase=bool(state["lowercase"]),
            ),
            special_tokens=state["special_tokens"],
            unknown=state["unknown"],
            continues=state["continues"],
            max_characters=state["max_characters"],
        )


def _text_of(*, lowercase: bool, strip_accents: bool | None, cjk_words: bool, clean_text: bool = True) -> BertText:
    """The options of either file; accents that nobody decided about go where case goes."""
    return BertText(
        clean_text=bool(clean_text),
        cjk_words=bool(cjk_words),
        strip_accents=bool(lowercase if strip_accents is None else strip_accents),
        lowercase=bool(lowercase),
    )
