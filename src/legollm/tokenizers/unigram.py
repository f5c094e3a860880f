"""Unigram language model: a text is cut into the pieces that make it most probable.

Kudo 2018, "Subword Regularization", arXiv:1804.10959. Each piece has a probability and pieces follow each other
independently, so a segmentation is as probable as the product of its pieces. Where byte-pair encoding replays its
merges, this looks at all segmentations; and it can draw one at random, so that a model sees a word in many spellings.
"""

import logging
import math
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Self

from legollm.errors import TokenizerError
from legollm.tokenizers.byte import room_beside_bytes
from legollm.tokenizers.files import naming
from legollm.tokenizers.huggingface_pieces import BYTE_NAMES, byte_score, read_pieces, vocabulary_of, write_pieces
from legollm.tokenizers.pieces import PieceTokenizer, frequent_characters, training_words
from legollm.tokenizers.unigram_lattice import best_path, best_paths, longest_by_first, sample_path
from legollm.tokenizers.unigram_training import learn_pieces

log = logging.getLogger(__name__)

UNKNOWN_PENALTY = 10.0
"""Nats that a character spelled in bytes costs more than the least probable piece, as in SentencePiece."""

DECIMALS = 12
"""Of a score that is learned: with more digits the Rust tools read another number from tokenizer.json than was written
there, in the last bit, and decide otherwise between segmentations that are equally probable."""

_ASCII = [chr(value) for value in range(128)]


class UnigramTokenizer(PieceTokenizer):
    """256 bytes, the most useful pieces of a text, and control tokens after them; serves any text.

    pattern: gpt2, gpt4 (cl100k), o200k, llama3, qwen, or a regular expression of your own; no piece crosses its cuts.
    """

    kind = "unigram"

    def __init__(self, pattern: str = "gpt4") -> None:
        super().__init__(pattern)
        self._set_scores(dict.fromkeys(_ASCII, round(-math.log(len(_ASCII)), DECIMALS)))

    @property
    def scores(self) -> dict[int, float]:
        """Log probability of each piece in nats; bytes from 128 on, which only spell unknown characters, have none."""
        return {self._ids[piece]: score for piece, score in self._scores.items()}

    def train(
        self,
        texts: str | Iterable[str],
        *,
        vocab_size: int,
        special_tokens: Sequence[str] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Learn pieces from `texts`, read once; memory grows with the different pre-tokens, not with the text.

        The result does not depend on the order of the texts. vocab_size is an upper bound: a short text has fewer
        substrings. progress: called with rounds done and rounds in all.

        Raises:
            TokenizerError: vocab_size has no room for 256 bytes and the special tokens.
        """
        room = room_beside_bytes(vocab_size, special_tokens)
        counts = self._count_words(texts, special_tokens)
        words = training_words(counts, frequent_characters(counts, room))
        n_ascii = len({character for word in words for character in word if character.isascii()})
        learned = learn_pieces(words, room + n_ascii, progress=progress)
        learned = {piece: round(score, DECIMALS) for piece, score in learned.items()}
        if len(learned) < room + n_ascii:
            log.warning("%d pieces fewer than there is room for: the text has no more", room + n_ascii - len(learned))
        least = min(learned.values(), default=0.0)
        scores = dict.fromkeys(_ASCII, least) | learned  # an ASCII character that the text lacks is a token, too
        pieces = sorted(learned.keys() - set(_ASCII), key=lambda piece: (-learned[piece], piece))
        self._set_pieces(pieces, special_tokens)
        self._set_scores(scores)

    def sample(self, text: str, *, alpha: float = 0.2, seed: int) -> list[int]:
        """Ids of a segmentation drawn at random, with probability proportional to its own to the power of alpha.

        alpha: 1 draws as the model believes, 0 makes all segmentations alike, a large one approaches `encode`. What
        looks like a special token is plain text.

        Raises:
            TokenizerError: alpha is negative or no number.
        """
        if not 0 <= alpha < math.inf:
            raise TokenizerError(f"alpha: {alpha} found; use 0 (all segmentations alike) or more, such as 0.2")
        rng = Random(seed)
        return [
            i
            for word in self._splitter.split(text)
            for piece in sample_path(word, self._scores, self._longest, self._unknown, alpha=alpha, rng=rng)
            for i in self._spell(piece)
        ]

    def n_best(self, text: str, n: int) -> list[tuple[list[int], float]]:
        """The n most probable segmentations, each with its log probability in nats; fewer if there are no more.

        The first is that of `encode`. What looks like a special token is plain text.

        Raises:
            TokenizerError: n is below 1.
        """
        if n < 1:
            raise TokenizerError(f"n: {n} segmentations found; use 1 or more")
        best: list[tuple[float, Any]] = [(0.0, None)]  # a score; the way to the word before, and the word's pieces
        for word in self._splitter.split(text):
            ends = best_paths(word, self._scores, self._longest, self._unknown, n)
            both = [(before + score, (i, path)) for i, (before, _) in enumerate(best) for score, path in ends]
            both.sort(key=lambda way: -way[0])
            best = [(score, (best[i][1], path)) for score, (i, path) in both[:n]]
        found = []
        for score, way in best:
            paths = []
            while way is not None:
                way, path = way
                paths.append(path)
            found.append((self._spell_all([piece for path in reversed(paths) for piece in path]), score))
        return found

    def _encode_word(self, word: str) -> list[int]:
        return self._spell_all(best_path(word, self._scores, self._longest, self._unknown))

    def _set_scores(self, scores: Mapping[str, float]) -> None:
        self._scores = dict(scores)
        self._longest = longest_by_first(scores)
        self._unknown = min(scores.values()) - UNKNOWN_PENALTY

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
        unreachable = byte_score(self._scores)
        model = {
            "type": "Unigram",
            "unk_id": len(_ASCII),  # the first byte; unknown characters are spelled, so no text is given this id for it
            "vocab": [[name, self._scores.get(name, unreachable)] for name in names],
            "byte_fallback": True,
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
        file = read_pieces(Path(folder), "Unigram")
        with naming(folder):
            scores = {str(name): float(score) for name, score in file.model["vocab"] if name not in BYTE_NAMES}
            return cls._of(file.pattern, file.pieces, scores, file.special_tokens)

    @classmethod
    def _of(
        cls, pattern: str, pieces: Sequence[str], scores: Mapping[str, float], special_tokens: Mapping[str, int]
    ) -> Self:
        tokenizer = cls(pattern)
        tokenizer._set_pieces(pieces, ())
        tokenizer._set_scores(scores)
        tokenizer._set_vocabulary(tokenizer._ordinary, special_tokens)
        return tokenizer

    def _state(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "pattern": self._splitter.regex,
            "ascii_scores": [self._scores[character] for character in _ASCII],
            "pieces": [
                [b64encode(piece.encode("utf-8", "surrogatepass")).decode(), self._scores[piece]]
                for piece in self._pieces
            ],
            "special_tokens": dict(self._special),
        }

    @classmethod
    def _restore(cls, state: Mapping[str, Any]) -> Self:
        scored = {b64decode(token).decode("utf-8", "surrogatepass"): float(score) for token, score in state["pieces"]}
        ascii_scores = dict(zip(_ASCII, map(float, state["ascii_scores"]), strict=True))
        return cls._of(state["pattern"], list(scored), ascii_scores | scored, state["special_tokens"])
