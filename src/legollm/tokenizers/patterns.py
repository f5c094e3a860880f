"""Where text is cut before any merging: the split patterns of GPT-2 and its successors, and any other regex.

Byte-pair merges never cross a cut, so a pattern decides which tokens can exist at all: with these, none spans a word
and the punctuation after it (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners").
"""

from collections.abc import Iterable, Iterator
from types import MappingProxyType

import regex

from legollm.errors import TokenizerError

# The patterns cut like the originals but are written without possessive quantifiers and without `$`: regex engines
# disagree about `{1,3}+` and about `$` before a newline, while these forms mean the same to all of them.
_END_OF_TEXT = r"(?![\s\S])"
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_PUNCTUATION = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_SPACE = r"\s+(?!\S)|\s+"  # a run before a word leaves its last space to the word
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"

PATTERNS = MappingProxyType(
    {
        "gpt2": rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|{_SPACE}",
        "gpt4": rf"{_CONTRACTION}|{_WORD}|\p{{N}}{{1,3}}|{_PUNCTUATION}|\s+{_END_OF_TEXT}|\s*[\r\n]+|{_SPACE}",
        "o200k": (
            rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTION}?"
            rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTION}?"
            rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|{_SPACE}"
        ),
        "llama3": rf"{_CONTRACTION}|{_WORD}|\p{{N}}{{1,3}}|{_PUNCTUATION}|\s*[\r\n]+|{_SPACE}",
        "qwen": rf"{_CONTRACTION}|{_WORD}|\p{{N}}|{_PUNCTUATION}|\s*[\r\n]+|{_SPACE}",
    }
)
"""Name -> regex. gpt4 is cl100k_base. `I'LL` is cut `I`, `'LL` by all but gpt2 and o200k: gpt2 knows lower-case
contractions only (`I`, `'`, `LL`), o200k keeps the contraction with its word. Digits go in threes (gpt2: any number,
qwen: one by one), and a word takes the space before it along."""

_KNOWN = frozenset(PATTERNS.values())

SECONDS = 5.0
"""What any other pattern may take for a text, and one more for every 100,000 characters."""


class Splitter:
    """Cuts text into pre-tokens; joined again they are the text, whatever the pattern."""

    def __init__(self, pattern: str) -> None:
        """pattern: a name in PATTERNS, or a regular expression in the syntax of the `regex` module.

        Raises:
            TokenizerError: neither a name nor a valid expression.
        """
        self.regex = PATTERNS.get(pattern, pattern)
        try:
            self._compiled = regex.compile(self.regex)
        except regex.error as error:
            names = ", ".join(PATTERNS)
            raise TokenizerError(f"pattern {pattern!r}: not one of {names}, and no valid regex: {error}") from error

    def split(self, text: str) -> Iterable[str]:
        """The pre-tokens of `text` in order, none empty.

        Raises:
            TokenizerError: a pattern of the user's own takes too long, as nested quantifiers can.
        """
        if self.regex in _KNOWN:  # these leave no gaps and take linear time
            return map(regex.Match.group, self._compiled.finditer(text))
        return self._split_guarded(text)

    def _split_guarded(self, text: str) -> Iterator[str]:
        seconds = SECONDS + len(text) / 100_000
        try:
            spans = [match.span() for match in self._compiled.finditer(text, timeout=seconds)]
        except TimeoutError as error:
            raise TokenizerError(
                f"pattern {self.regex!r}: more than {seconds:.1f} s for a text of {len(text)} characters; "
                "avoid nested quantifiers, or use one of " + ", ".join(PATTERNS)
            ) from error
        position = 0
        for start, end in spans:
            if position < start:
                yield text[position:start]  # what the pattern does not match is a pre-token, too
            if start < end:
                yield text[start:end]
            position = end
        if position < len(text):
            yield text[position:]
