"""Text <-> ids. Text comes in as str; lists of ids below `vocab_size` go out, to `data` and to generation.

Those in the table learn from text with `train`, save to one file, and give back what they were given; swap one for
another by name. WordPiece is here to open the vocabularies of encoders and learns nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from legollm.errors import TokenizerError
from legollm.interfaces import Tokenizer
from legollm.tokenizers.byte import ByteTokenizer
from legollm.tokenizers.char import CharTokenizer
from legollm.tokenizers.char_bpe import CharBPETokenizer
from legollm.tokenizers.files import FORMAT, read_json
from legollm.tokenizers.huggingface import check_roles, write_config
from legollm.tokenizers.huggingface_pieces import is_of_pieces
from legollm.tokenizers.naive_bpe import NaiveBPETokenizer
from legollm.tokenizers.regex_bpe import RegexBPETokenizer
from legollm.tokenizers.stream import DecodeStream
from legollm.tokenizers.unigram import UnigramTokenizer
from legollm.tokenizers.word import WordTokenizer
from legollm.tokenizers.wordpiece import WordPieceTokenizer

__all__ = [
    "TOKENIZERS",
    "ByteTokenizer",
    "CharBPETokenizer",
    "CharTokenizer",
    "DecodeStream",
    "NaiveBPETokenizer",
    "RegexBPETokenizer",
    "TrainableTokenizer",
    "UnigramTokenizer",
    "WordPieceTokenizer",
    "WordTokenizer",
    "load_tokenizer",
    "save_to_folder",
]


class TrainableTokenizer(Tokenizer, Protocol):
    """What every tokenizer of the table can do beyond the Protocol its consumers need."""

    @property
    def fingerprint(self) -> str: ...

    def train(
        self,
        texts: str | Iterable[str],
        *,
        vocab_size: int,
        special_tokens: Sequence[str] = (),
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Learn a vocabulary of at most vocab_size ids, the special tokens last."""
        ...

    def add_special_tokens(self, names: Sequence[str]) -> dict[str, int]:
        """New ids after the last one."""
        ...


TOKENIZERS: MappingProxyType[str, type[TrainableTokenizer]] = MappingProxyType(
    {
        "byte": ByteTokenizer,
        "char": CharTokenizer,
        "word": WordTokenizer,
        "naive_bpe": NaiveBPETokenizer,
        "bpe": RegexBPETokenizer,
        "char_bpe": CharBPETokenizer,
        "unigram": UnigramTokenizer,
    }
)

_KINDS: MappingProxyType[str, type[Tokenizer]] = MappingProxyType({**TOKENIZERS, "wordpiece": WordPieceTokenizer})
"""What our own files can hold."""


def load_tokenizer(path: Path | str) -> Tokenizer:
    """The tokenizer in a file or folder; a run whose text was prepared elsewhere has it in its newest checkpoint.

    Ours, Hugging Face's tokenizer.json (byte-level BPE, WordPiece, or what Unigram and BPE over characters wrote here)
    and the older files it replaced, or a published ranks file of tiktoken.

    Raises:
        TokenizerError: nothing there, or nothing that is known.
    """
    path = Path(path)
    if (path / "checkpoint" / "tokenizer.json").is_file() and not (path / "tokenizer.json").exists():
        path /= "checkpoint"
    file = path / "tokenizer.json" if path.is_dir() else path
    if path.is_dir() and not file.is_file():  # the older files
        return (WordPieceTokenizer if (path / "vocab.txt").is_file() else RegexBPETokenizer).from_huggingface(path)
    if file.suffix == ".tiktoken":
        return RegexBPETokenizer.from_tiktoken(file)
    if file.suffix == ".txt":
        return WordPieceTokenizer.from_vocab(file)
    document = read_json(file)
    if document.get("format") != FORMAT:
        return _reader_of(document).from_huggingface(file)
    kind = str(document.get("kind"))
    if kind not in _KINDS:
        raise TokenizerError(f"{file}: unknown kind of tokenizer {kind!r}; known are {', '.join(_KINDS)}")
    return _KINDS[kind].load(file)


def _reader_of(
    document: Mapping[str, Any],
) -> type[RegexBPETokenizer | CharBPETokenizer | UnigramTokenizer | WordPieceTokenizer]:
    """The kind that a tokenizer.json of Hugging Face holds."""
    if is_of_pieces(document, "Unigram"):
        return UnigramTokenizer
    if is_of_pieces(document, "BPE"):
        return CharBPETokenizer
    model = document.get("model")
    return WordPieceTokenizer if isinstance(model, dict) and model.get("type") == "WordPiece" else RegexBPETokenizer


def save_to_folder(
    tokenizer: Tokenizer,
    folder: Path | str,
    *,
    eos: str | None = None,
    bos: str | None = None,
    pad: str | None = None,
    chat_template: str | None = None,
) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja into a checkpoint folder.

    A RegexBPETokenizer is written in Hugging Face's format, every other kind in ours; load_tokenizer reads both.

    Raises:
        TokenizerError: eos, bos or pad is no special token of this tokenizer.
    """
    if isinstance(tokenizer, RegexBPETokenizer):
        tokenizer.to_huggingface(folder, eos=eos, bos=bos, pad=pad, chat_template=chat_template)
        return
    roles = check_roles(tokenizer.special_tokens, eos=eos, bos=bos, pad=pad)
    tokenizer.save(Path(folder) / "tokenizer.json")
    write_config(Path(folder), roles, chat_template)
