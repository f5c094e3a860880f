"""What defines a byte-level BPE tokenizer, whichever file it came from."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from legollm.errors import TokenizerError

MAX_ID = (1 << 24) - 1
"""Sixty times the largest vocabulary in use; a greater id is a damaged file, and a table of that size no use."""


@dataclass(frozen=True, kw_only=True)
class BPEModel:
    """Pattern, tokens, merges and control tokens: the common ground of all file formats.

    Raises:
        TokenizerError: the parts do not fit each other.
    """

    pattern: str
    """Name or regex of the split pattern."""
    tokens: Mapping[int, bytes]
    """Id -> bytes of the ordinary tokens; all 256 single bytes are among them."""
    merges: Sequence[tuple[bytes, bytes]]
    """In rank order."""
    special_tokens: Mapping[str, int] = field(default_factory=dict)
    visible: Collection[str] = ()
    """Special tokens that are text to the reader, such as <think>: decoding never skips them."""
    nfc: bool = False
    """Text is brought into Unicode normal form C first, as Qwen does: decoding gives that form back."""
    whole_pieces: bool = False
    """A pre-token that is a token as it stands is not merged, as LLaMA 3 does ("ignore_merges")."""

    def __post_init__(self) -> None:
        for i in (*self.tokens, *self.special_tokens.values()):
            if not isinstance(i, int) or not 0 <= i <= MAX_ID:
                raise TokenizerError(f"the id {i!r} of a token is not a whole number from 0 to {MAX_ID}")
        known = set(self.tokens.values())
        if len(known) < len(self.tokens):
            raise TokenizerError("two ids stand for the same bytes; every token may occur only once")
        missing = sum(bytes([value]) not in known for value in range(256))
        if missing:
            raise TokenizerError(f"{missing} of the 256 single bytes are no tokens; only byte-level BPE can be read")
        if len(set(self.merges)) < len(self.merges):
            (pair, _) = Counter(self.merges).most_common(1)[0]
            raise TokenizerError(f"the merge of {pair[0]!r} and {pair[1]!r} is listed twice; it can have only one rank")
        for left, right in self.merges:
            if not {left, right, left + right} <= known:
                raise TokenizerError(f"the merge of {left!r} and {right!r} needs tokens that the vocabulary lacks")
