"""Byte-pair encoding over characters, with bytes for the characters it does not know: the kind of LLaMA 1 and 2.

Sennrich, Haddow and Birch 2016, arXiv:1508.07909; byte fallback as in Touvron et al. 2023, arXiv:2302.13971. Merges
never build a token that ends inside a character, which those of the byte-level kind do in many scripts; the price is
that a character without a token of its own costs as many tokens as it has bytes.
"""

import logging
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from legollm.errors import TokenizerError
from legollm.tokenizers.apply_merges import apply_merges
from legollm.tokenizers.byte import room_beside_bytes
from legollm.tokenizers.character_merges import learn_character_merges
from legollm.tokenizers.files import naming
from legollm.tokenizers.huggingface_pieces import read_pieces, vocabulary_of, write_pieces
from legollm.tokenizers.pieces import PieceTokenizer, frequent_characters, training_words

log = logging.getLogger(__name__)


class CharBPETokenizer(PieceTokenizer):
    """256 bytes, the frequent characters, the merges learned from a text, and control tokens; serves any text.

    pattern: gpt2, gpt4 (cl100k), o200k, llama3, qwen, or a regular expression of your own; no merge crosses its cuts.
    """

    kind = "char_bpe"

    def __init__(self, pattern: str = "gpt4") -> None:
        super().__init__(pattern)
        self._set_merges([])

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
        room = room_beside_bytes(vocab_size, special_tokens)
        counts = self._count_words(texts, special_tokens)
        characters = frequent_characters(counts, room)
        n_merges = room - len(characters)
        merges = learn_character_merges(training_words(counts, characters), n_merges, progress=progress)
        if len(merges) < n_merges:
            log.warning("%d of %d merges learned: no pair occurs twice any more", len(merges), n_merges)
        # Two merges can build the same string, as "a" + "bc" and "ab" + "c" do: it is one token, and both are kept.
        pieces = dict.fromkeys([*characters, *(left + right for left, right in merges)])
        self._set_pieces(list(pieces), special_tokens)
        self._set_merges(merges)

    def _set_merges(self, merges: Sequence[tuple[str, str]]) -> None:
        ids = self._ids
        for left, right in merges:
            if not {left, right, left + right} <= ids.keys():
                raise TokenizerError(f"the merge of {left!r} and {right!r} needs tokens that the vocabulary lacks")
        self._merges = list(merges)
        self._ranks = {(ids[left], ids[right]): rank for rank, (left, right) in enumerate(merges)}
        self._products = [ids[left + right] for left, right in merges]

    @property
    def merges(self) -> list[tuple[bytes, bytes]]:
        """The pairs of tokens that are joined, in rank order."""
        return [(self._ordinary[self._ids[left]], self._ordinary[self._ids[right]]) for left, right in self._merges]

    def _encode_word(self, word: str) -> list[int]:
        return apply_merges(self._spell_all(word), self._ranks, self._products)

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
            TokenizerError: eos, bos or pad is no special token of this tokenizer; or a piece the file cannot hold.
        """
        names = vocabulary_of(self._pieces)
        model = {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {name: i for i, name in enumerate(names)},
            "merges": [list(pair) for pair in self._merges],
        }
        write_pieces(
            Path(folder), model, n_ordinary=len(names), pattern=self._splitter.regex, special_tokens=self._special,
            eos=eos, bos=bos, pad=pad, chat_template=chat_template,
        )  # fmt: skip

    @classmethod
    def from_huggingface(cls, folder: Path | str) -> Self:
        """Read a tokenizer.json that `to_huggingface` wrote, or one that is laid out like that.

        Raises:
            TokenizerError: something in there works in a way that is not known here; names it.
        """
        file = read_pieces(Path(folder), "BPE")
        with naming(folder):
            merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in file.model["merges"]]
            tokenizer = cls(file.pattern)
            tokenizer._set_pieces(file.pieces, ())
            tokenizer._set_merges([(str(left), str(right)) for left, right in merges])
            tokenizer._set_vocabulary(tokenizer._ordinary, file.special_tokens)
            return tokenizer

    def _state(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "pattern": self._splitter.regex,
            "pieces": [b64encode(piece.encode("utf-8", "surrogatepass")).decode() for piece in self._pieces],
            "merges": [[self._ids[left], self._ids[right]] for left, right in self._merges],
            "special_tokens": dict(self._special),
        }

    @classmethod
    def _restore(cls, state: Mapping[str, Any]) -> Self:
        tokenizer = cls(state["pattern"])
        tokenizer._set_pieces([b64decode(piece).decode("utf-8", "surrogatepass") for piece in state["pieces"]], ())
        spelled = {i: piece for piece, i in tokenizer._ids.items()}
        tokenizer._set_merges([(spelled[left], spelled[right]) for left, right in state["merges"]])
        tokenizer._set_vocabulary(tokenizer._ordinary, state["special_tokens"])
        return tokenizer
