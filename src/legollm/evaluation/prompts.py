"""Where a context ends and its continuation begins, in tokens.

Both are tokenised as one text, and what is left after the tokens of the context alone is the continuation: a word then
has the tokens it has in a text. White space at the end of a context goes to the continuation, since tokens begin with
it. This is the rule of lm-evaluation-harness, so that figures compare.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from legollm.errors import ContextError, DataError
from legollm.evaluation.likelihood import Continuation
from legollm.interfaces import Tokenizer


@dataclass(frozen=True)
class Prompts:
    """Texts as a model reads them."""

    tokenizer: Tokenizer
    begin: int | None = None
    """The id that a text begins with; None if the model knows none."""
    puts_begin: bool = False
    """Whether it stands before every text, as with LLaMA 3; otherwise only where there would be nothing."""

    def ids(self, text: str) -> list[int]:
        """The ids of a text, never empty.

        Raises:
            ContextError: no text, and nothing to begin with.
        """
        ids = self.tokenizer.encode(text)
        if self.begin is not None and (self.puts_begin or not ids):
            return [self.begin, *ids]
        if not ids:
            raise ContextError("the context is empty, and the model has no token that begins a text; give some text")
        return ids

    def pairs(self, context: str, continuations: Sequence[str]) -> list[Continuation]:
        """Each continuation after the same context.

        Raises:
            ContextError: see `ids`.
            DataError: a continuation without a token of its own.
        """
        kept = context.rstrip()
        before = self.ids(kept)
        n_begin = len(before) - len(self.tokenizer.encode(kept))
        found = []
        for continuation in continuations:
            whole = self.tokenizer.encode(kept + context[len(kept) :] + continuation)
            ids = whole[len(before) - n_begin :]
            if not ids:
                raise DataError(
                    f"after {context[-30:]!r} the continuation {continuation!r} has no token of its own, so that its "
                    "likelihood is nothing; give some text"
                )
            found.append(Continuation(before, ids))
        return found
