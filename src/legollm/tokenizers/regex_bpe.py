"""The tokenizer of GPT-2 and its successors: text is cut by a pattern, then bytes are merged inside each piece.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"; Sennrich, Haddow and Birch 2016,
arXiv:1508.07909. Same ids as tiktoken and as Hugging Face's tokenizers for the same vocabulary.
"""

import logging
import unicodedata
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from legollm.errors import TokenizerError
from legollm.tokenizers.apply_merges import apply_merges
from legollm.tokenizers.bpe_model import BPEModel
from legollm.tokenizers.byte import BYTES
from legollm.tokenizers.files import naming
from legollm.tokenizers.huggingface import read_huggingface, write_huggingface
from legollm.tokenizers.learn_merges import learn_merges
from legollm.tokenizers.patterns import Splitter
from legollm.tokenizers.special import without_special
from legollm.tokenizers.tiktoken_ranks import read_ranks, write_ranks
from legollm.tokenizers.vocabulary import VocabularyTokenizer

log = logging.getLogger(__name__)

MAX_CACHED_PIECES = 1 << 17
MAX_CACHED_LENGTH = 32
"""Longer pieces rarely come back; with both bounds the cache stays below some 40 MB."""


class RegexBPETokenizer(VocabularyTokenizer):
    """256 bytes, the merges learned from a text, and control tokens after them; serves any text.

    pattern: gpt2, gpt4 (cl100k), o200k, llama3, qwen, or a regular expression of your own.
    """

    kind = "bpe"

    def __init__(self, pattern: str = "gpt4") -> None:
        super().__init__()
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
        n_merges = vocab_size - len(BYTES) - len(special_tokens)
        if n_merges < 0:
            raise TokenizerError(
                f"vocab_size {vocab_size} has no room for 256 bytes and {len(special_tokens)} special tokens; "
                f"use {vocab_size - n_merges} or more"
            )
        pieces: Counter[str] = Counter()
        for text in without_special(texts, special_tokens):
            pieces.update(self._splitter.split(self._normalize(text)))
        counts = {piece.encode("utf-8", "surrogatepass"): count for piece, count in pieces.items()}
        merges = learn_merges(counts, n_merges, progress=progress)
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
        self._cache: dict[str, list[int]] = {}

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

    def _normalize(self, text: str) -> str:
        return unicodedata.normalize("NFC", text) if self._nfc else text

    def _encode_ordinary(self, text: str) -> list[int]:
        cache = self._cache
        ids: list[int] = []
        for piece in self._splitter.split(self._normalize(text)):
            known = cache.get(piece)
            if known is None:
                known = self._encode_piece(piece.encode("utf-8", "surrogatepass"))
                if len(piece) <= MAX_CACHED_LENGTH:
                    if len(cache) >= MAX_CACHED_PIECES:
                        cache.clear()
                    cache[piece] = known
            ids += known
        return ids

    def _encode_piece(self, piece: bytes) -> list[int]:
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
