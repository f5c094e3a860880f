"""What the verbs over pairs of texts share: where the pairs come from, and a tokenizer that knows where a text ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from legollm.commands.material import TokenizerConfig, train_tokenizer
from legollm.data.prepare import END_OF_TEXT
from legollm.errors import ConfigError, DataError
from legollm.interfaces import Tokenizer
from legollm.tokenizers import TOKENIZERS, ByteTokenizer, CharTokenizer, load_tokenizer


@dataclass(frozen=True, kw_only=True)
class PairTokenizer:
    """A tokenizer and the id of its token that ends a text."""

    tokenizer: Tokenizer

    @property
    def end_id(self) -> int:
        return self.tokenizer.special_tokens[END_OF_TEXT]

    def ids(self, text: str, max_len: int) -> list[int]:
        """A text as ids, ended.

        Raises:
            DataError: more of them than the model is built for.
        """
        ids = [*self.tokenizer.encode(text), self.end_id]
        if len(ids) > max_len:
            raise DataError(
                f"the text that starts with {text[:40]!r} has {len(ids)} tokens, its end included, and "
                f"model.max_seq_len is {max_len}; shorten it or set that larger"
            )
        return ids


def pair_tokenizer(cfg: TokenizerConfig, texts: Sequence[str], path: Path) -> PairTokenizer:
    """The tokenizer at `path` if an earlier start trained it, else one that learned from the texts, saved there.

    Raises:
        ConfigError: a tokenizer that has no token to end a text with.
    """
    if cfg.kind not in TOKENIZERS or path.exists():
        tokenizer = load_tokenizer(path if path.exists() else Path(cfg.kind))
        if END_OF_TEXT not in tokenizer.special_tokens:
            raise ConfigError(f"tokenizer: {cfg.kind} has no special token {END_OF_TEXT}, which ends a text; train one")
        return PairTokenizer(tokenizer=tokenizer)
    if cfg.kind in (ByteTokenizer.kind, CharTokenizer.kind):
        plain = ByteTokenizer() if cfg.kind == ByteTokenizer.kind else CharTokenizer()
        plain.train(texts, special_tokens=[END_OF_TEXT])
        tokenizer = plain
    else:
        tokenizer = train_tokenizer(cfg, texts)
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(path)
    return PairTokenizer(tokenizer=tokenizer)
