"""The tokenizer of GPT-2 and its successors: text is cut by a pattern, then bytes are merged inside each piece.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"; Sennrich, Haddow and Birch 2016,
arXiv:1508.07909. Same ids as tiktoken and as Hugging Face's tokenizers for the same vocabulary.
"""

import logging
import unicodedata
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
from numpy.typing import NDArray

from legollm.errors import TokenizerError
from legollm.tokenizers.apply_merges import apply_merges
from legollm.tokenizers.bpe_model import BPEModel
from legollm.tokenizers.byte import BYTES, room_beside_bytes
from legollm.tokenizers.count_words import Engine, count_words
from legollm.tokenizers.fast import (
    WORTH_BUILDING,
    WORTH_CALLING,
    WORTH_LOADING,
    FastEncoder,
    checked_text,
    cores,
    is_loaded,
    is_there,
    knows,
    text_bytes,
)
from legollm.tokenizers.files import naming
from legollm.tokenizers.huggingface import read_huggingface, write_huggingface
from legollm.tokenizers.learn_merges import learn_merges
from legollm.tokenizers.patterns import Splitter
from legollm.tokenizers.special import without_special
from legollm.tokenizers.tiktoken_ranks import read_ranks, write_ranks
from legollm.tokenizers.vocabulary import VocabularyTokenizer
from legollm.tokenizers.word_cache import WordCache

log = logging.getLogger(__name__)


class RegexBPETokenizer(VocabularyTokenizer):
    """256 bytes, the merges learned from a text, and control tokens after them; serves any text.

    pattern: gpt2, gpt4 (cl100k), o200k, llama3, qwen, or a regular expression of your own.
    """

    kind = "bpe"

    def __init__(self, pattern: str = "gpt4", *, engine: Engine = "auto") -> None:
        """engine: how texts are encoded, with the same ids: "kernels" is compiled code for the named patterns, "python"
        serves every pattern everywhere, and "auto" takes the compiled code where there is text enough to pay for it.

        Raises:
            TokenizerError: no such engine; or the pattern is neither a name nor a valid expression.
        """
        super().__init__()
        if engine not in get_args(Engine):
            raise TokenizerError(f"engine {engine!r} is not one of {', '.join(get_args(Engine))}")
        self.engine = engine
        self._adopt(BPEModel(pattern=pattern, tokens=dict(enumerate(BYTES)), merges=()))

    def train(
        self,
        texts: str | Iterable[str],
        *,
        vocab_size: int,
        special_tokens: Sequence[str] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Learn merges from `texts`, read once; memory grows with the different pre-tokens, not with the text.

        The most frequent pair is merged first, among equals the greatest pair of byte strings, so the result does not
        depend on the order of the texts. vocab_size is an upper bound: learning stops when no pair occurs twice.
        progress: called with merges learned and merges wanted.

        Raises:
            TokenizerError: vocab_size has no room for 256 bytes and the special tokens.
        """
        n_merges = room_beside_bytes(vocab_size, special_tokens)
        ordinary = map(self._normalize, without_special(texts, special_tokens))
        counts = count_words(ordinary, self._splitter, engine=self.engine)
        merges = learn_merges(counts, n_merges, progress=progress, engine=self.engine)
        if len(merges) < n_merges:
            log.warning("%d of %d merges learned: no pair occurs twice any more", len(merges), n_merges)
        tokens = [*BYTES, *(left + right for left, right in merges)]
        self._adopt(
            BPEModel(
                pattern=self._splitter.regex,
                tokens=dict(enumerate(tokens)),
                merges=merges,
                special_tokens={name: i for i, name in enumerate(special_tokens, start=len(tokens))},
                nfc=self._nfc,
            )
        )

    def _adopt(self, model: BPEModel) -> None:
        self._splitter = Splitter(model.pattern)
        self._nfc = model.nfc
        self._visible = sorted(model.visible)
        self._whole_pieces = model.whole_pieces
        self.merges = list(model.merges)
        self._set_vocabulary(model.tokens, model.special_tokens)
        ids = {token: i for i, token in model.tokens.items()}
        self._ids = ids
        self._byte_ids = [ids[byte] for byte in BYTES]
        self._ranks = {(ids[left], ids[right]): rank for rank, (left, right) in enumerate(self.merges)}
        self._products = [ids[left + right] for left, right in self.merges]
        self._cache = WordCache(self._encode_piece)
        self._fast: FastEncoder | None = None
        self._seen = 0  # characters, while there is no compiled encoder

    def _model(self) -> BPEModel:
        return BPEModel(
            pattern=self._splitter.regex,
            tokens=self._ordinary,
            merges=self.merges,
            special_tokens=self._special,
            visible=self._visible,
            nfc=self._nfc,
            whole_pieces=self._whole_pieces,
        )

    @classmethod
    def _from_model(cls, model: BPEModel) -> Self:
        tokenizer = cls(model.pattern)
        tokenizer._adopt(model)
        return tokenizer

    @property
    def pattern(self) -> str:
        """The regular expression that cuts text before any merging."""
        return self._splitter.regex

    def _normalize(self, text: str) -> str:
        return unicodedata.normalize("NFC", text) if self._nfc else text

    def _encode_ordinary(self, text: str) -> list[int]:
        if len(text) >= WORTH_CALLING or self.engine == "kernels":
            fast = self._fast_encoder(len(text))
            if fast is not None:
                ids: list[int] = fast.encode(self._to_bytes(text)).tolist()
                return ids
        return self._encode_plainly(text)

    def _fast_encoder(self, n_characters: int) -> FastEncoder | None:
        """The compiled encoder, if it is wanted, possible, and worth its start for so much text more."""
        if self.engine == "python" or self._fast is not None:
            return self._fast if self.engine != "python" else None
        if self.engine == "auto":
            self._seen += n_characters
            if self._seen < (WORTH_BUILDING if is_loaded() else WORTH_LOADING):
                return None
        self.compile()
        return self._fast

    def compile(self) -> bool:
        """Make the compiled encoder now and not only after some text; whether there is one.

        Raises:
            TokenizerError: the engine is "kernels" and there is none.
        """
        if self._fast is not None or self.engine == "python":
            return self.engine != "python"
        if knows(self._splitter.regex, self._ordinary, self.merges, self._whole_pieces) and is_there():
            self._fast = FastEncoder(self._splitter.regex, self._ordinary, self.merges, whole_pieces=self._whole_pieces)
        elif self.engine == "kernels":
            raise TokenizerError(
                "engine='kernels' needs numba, one of the named patterns and a vocabulary below two million tokens; "
                "use engine='auto'"
            )
        else:
            self.engine = "python"
        return self._fast is not None

    def _to_bytes(self, text: str | bytes, at: int = 0, *, is_utf8: bool = False) -> bytes:
        """The bytes that are cut and merged: UTF-8, in normal form C where the vocabulary asks for it.

        is_utf8: bytes were checked before.

        Raises:
            TokenizerError: bytes that are no UTF-8.
        """
        if isinstance(text, bytes):
            if text.isascii() or (is_utf8 and not self._nfc):
                return text
            characters = checked_text(text, at=at)
            return text_bytes(self._normalize(characters)) if self._nfc else text
        return text_bytes(self._normalize(text))

    def encode_to_numpy(self, text: str | bytes) -> NDArray[np.int32]:
        """`encode` of a text, or of its UTF-8 bytes, as an array; special tokens are never parsed.

        Raises:
            TokenizerError: bytes that are no UTF-8.
        """
        return self.encode_batch_to_numpy([text])[0]

    def encode_batch_to_numpy(
        self, texts: Sequence[str | bytes], *, threads: int = 1, is_utf8: bool = False
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The ids of all texts in a row, and where each text's begin: text i has ids[offsets[i] : offsets[i + 1]].

        threads: 0 for all cores; only the compiled engine uses more than one. is_utf8: bytes among the texts were
        checked before, and are not checked again; others would read as nonsense, or crash.

        Raises:
            TokenizerError: bytes that are no UTF-8.
        """
        fast = self._fast_encoder(sum(map(len, texts)))
        if fast is not None:
            data = [self._to_bytes(text, is_utf8=is_utf8) for text in texts]
            return fast.encode_batch(data, threads=threads or cores())
        lists = [self._encode_plainly(text if isinstance(text, str) else checked_text(text)) for text in texts]
        offsets = np.cumsum([0, *map(len, lists)], dtype=np.int64)
        return np.array([i for ids in lists for i in ids], np.int32), offsets

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, specials never parsed."""
        if self._fast_encoder(sum(map(len, texts))) is None:
            return [self._encode_plainly(text) for text in texts]
        ids, offsets = self.encode_batch_to_numpy(texts)
        return [ids[first:last].tolist() for first, last in pairwise(offsets.tolist())]

    def encode_file(self, path: Path | str, *, threads: int = 0) -> NDArray[np.int32]:
        """The ids of a UTF-8 file, line ends as they are; special tokens are never parsed.

        threads: 0 for all cores; only the compiled engine uses more than one, and it reads the file piece by piece.

        Raises:
            TokenizerError: no such file, or its bytes are no UTF-8.
        """
        path = Path(path)
        try:
            fast = self._fast_encoder(path.stat().st_size)
            if fast is None:
                return self.encode_to_numpy(path.read_bytes())
            return fast.encode_file(path, threads=threads or cores(), prepare=self._to_bytes)
        except OSError as error:
            raise TokenizerError(f"{path} cannot be read: {error.strerror}") from error

    def _encode_plainly(self, text: str) -> list[int]:
        """The definition: cut by the regular expression, merge each piece that is not in the cache."""
        return self._cache.encode(self._splitter.split(self._normalize(text)))

    def _encode_piece(self, text: str) -> list[int]:
        piece = text.encode("utf-8", "surrogatepass")
        if self._whole_pieces and piece in self._ids:
            return [self._ids[piece]]
        return apply_merges([self._byte_ids[value] for value in piece], self._ranks, self._products)

    @classmethod
    def from_tiktoken(
        cls, path: Path | str, *, pattern: str | None = None, special_tokens: Mapping[str, int] | None = None
    ) -> Self:
        """Read a ranks file of tiktoken. Pattern and special tokens of cl100k_base and o200k_base are known.

        Raises:
            TokenizerError: no such file, or another ranks file and no pattern given.
        """
        model = read_ranks(path, pattern=pattern, special_tokens=special_tokens)
        with naming(path):
            return cls._from_model(model)

    def to_tiktoken(self, path: Path | str) -> None:
        """Write a ranks file; pattern and special tokens have no place in it.

        Raises:
            TokenizerError: ids and ranks of this vocabulary are not in the same order.
        """
        write_ranks(path, self._model())

    @classmethod
    def from_huggingface(cls, folder: Path | str, *, pattern: str | None = None) -> Self:
        """Read tokenizer.json, or vocab.json and merges.txt, or GPT-2's encoder.json and vocab.bpe.

        pattern: for vocab.json and merges.txt, when tokenizer_config.json does not name a known tokenizer.

        Raises:
            TokenizerError: something in there works in a way that is not known here; names it.
        """
        model = read_huggingface(Path(folder), pattern=pattern)
        with naming(folder):
            return cls._from_model(model)

    def to_huggingface(
        self,
        folder: Path | str,
        *,
        eos: str | None = None,
        bos: str | None = None,
        pad: str | None = None,
        chat_template: str | None = None,
    ) -> None:
        """Write tokenizer.json, tokenizer_config.json and, if given, chat_template.jinja for `AutoTokenizer`.

        Raises:
            TokenizerError: eos, bos or pad is no special token of this tokenizer.
        """
        write_huggingface(Path(folder), self._model(), eos=eos, bos=bos, pad=pad, chat_template=chat_template)

    def _state(self) -> dict[str, Any]:
        ids = self._ids
        size = max(self._ordinary) + 1
        tokens = [self._ordinary.get(i) for i in range(size)]
        return {
            "kind": self.kind,
            "pattern": self._splitter.regex,
            "nfc": self._nfc,
            "whole_pieces": self._whole_pieces,
            "tokens": [None if token is None else b64encode(token).decode() for token in tokens],
            "merges": [[ids[left], ids[right]] for left, right in self.merges],
            "special_tokens": dict(self._special),
            "visible": list(self._visible),
        }

    @classmethod
    def _restore(cls, state: Mapping[str, Any]) -> Self:
        tokens = {i: b64decode(token) for i, token in enumerate(state["tokens"]) if token is not None}
        return cls._from_model(
            BPEModel(
                pattern=state["pattern"],
                tokens=tokens,
                merges=[(tokens[left], tokens[right]) for left, right in state["merges"]],
                special_tokens=state["special_tokens"],
                visible=state["visible"],
                nfc=bool(state["nfc"]),
                whole_pieces=bool(state["whole_pieces"]),
            )
        )
