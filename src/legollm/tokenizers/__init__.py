"""Text <-> ids. Text comes in as str; lists of ids below `vocab_size` go out, to `data` and to generation.

All learn from text with `train`, save to one file, and give back what they were given; swap one for another by name.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from legollm.errors import TokenizerError
from legollm.interfaces import Tokenizer
from legollm.tokenizers.byte import ByteTokenizer
from legollm.tokenizers.char import CharTokenizer
from legollm.tokenizers.files import FORMAT, read_json
from legollm.tokenizers.huggingface import check_roles, write_config
from legollm.tokenizers.naive_bpe import NaiveBPETokenizer
from legollm.tokenizers.regex_bpe import RegexBPETokenizer
from legollm.tokenizers.stream import DecodeStream
from legollm.tokenizers.word import WordTokenizer

__all__ = [
    "TOKENIZERS",
    "ByteTokenizer",
    "CharTokenizer",
    "DecodeStream",
    "NaiveBPETokenizer",
    "RegexBPETokenizer",
    "TrainableTokenizer",
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
    }
)


def load_tokenizer(path: Path | str) -> TrainableTokenizer:
    """The tokenizer in a file or folder: ours, Hugging Face's tokenizer.json, or a published ranks file of tiktoken.

    Raises:
        TokenizerError: nothing there, or nothing that is known.
    """
    path = Path(path)
    file = path / "tokenizer.json" if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        return RegexBPETokenizer.from_huggingface(path)  # the older pairs of files
    if file.suffix == ".tiktoken":
        return RegexBPETokenizer.from_tiktoken(file)
    document = read_json(file)
    if document.get("format") != FORMAT:
        return RegexBPETokenizer.from_huggingface(file)
    kind = str(document.get("kind"))
    if kind not in TOKENIZERS:
        raise TokenizerError(f"{file}: unknown kind of tokenizer {kind!r}; known are {', '.join(TOKENIZERS)}")
    return TOKENIZERS[kind].load(file)


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
