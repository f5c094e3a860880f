"""Text as BERT's tokenizer sees it: cleaned, perhaps without case and accents, cut into words and punctuation.

Devlin et al. 2019, arXiv:1810.04805, and the rules of its "basic tokenization". All of this loses something: what is
decoded is readable, not the text that was given.
"""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import regex

# White space as Unicode defines it. str.isspace also counts U+001C to U+001F, which are control characters here.
_SPACE = regex.compile(r"\s")

# Ideographs are words of their own. Korean and the two Japanese syllabaries are written otherwise and not among them.
_CJK = regex.compile(
    r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002b81f"
    r"\U0002b820-\U0002ceaf\U0002f800-\U0002fa1f]"
)

# Every visible ASCII character that is no letter or digit, also those that Unicode calls symbols, such as $ and ^.
_PUNCTUATION = r"[!-/:-@\[-`{-~\p{P}]"
_WORD = regex.compile(rf"{_PUNCTUATION}|(?:(?!{_PUNCTUATION})\S)+")

_REMOVED = frozenset({"Cc", "Cf", "Co"})


@dataclass(frozen=True, kw_only=True)
class BertText:
    """What happens to text before it is looked up."""

    clean_text: bool = True
    """Drop control characters and U+FFFD, and make every white space a plain one."""
    cjk_words: bool = True
    """Each Chinese character is a word."""
    strip_accents: bool = True
    lowercase: bool = True

    def words(self, text: str) -> Iterator[str]:
        """Words and single punctuation characters; white space only separates."""
        return map(regex.Match.group, _WORD.finditer(self.normalize(text)))

    def words_with_origins(self, text: str) -> Iterator[tuple[str, list[int]]]:
        """The `words`, each with the index in `text` of what each of its characters was made from."""
        pairs = self._traced(text)
        for match in _WORD.finditer("".join(character for character, _ in pairs)):
            yield match.group(), [i for _, i in pairs[match.start() : match.end()]]

    def _traced(self, text: str) -> list[tuple[str, int]]:
        """`normalize` one character at a time, each with the index of the one it comes from."""
        pairs = [
            (c, i) for i, character in enumerate(text) for c in (_clean(character) if self.clean_text else character)
        ]
        if self.cjk_words:
            pairs = [(c, i) for character, i in pairs for c in _CJK.sub(r" \g<0> ", character)]
        if self.strip_accents:
            pairs = [(c, i) for character, i in pairs for c in unicodedata.normalize("NFD", character)]
            # the normal form also sorts the marks of a letter by their class
            runs = groupby(pairs, key=lambda pair: unicodedata.combining(pair[0]) > 0)
            pairs = [pair for _, run in runs for pair in sorted(run, key=lambda pair: unicodedata.combining(pair[0]))]
            pairs = [(c, i) for c, i in pairs if unicodedata.category(c) != "Mn"]
        if self.lowercase:
            pairs = [(c, i) for character, i in pairs for c in character.lower()]
        return pairs

    def normalize(self, text: str) -> str:
        if self.clean_text:
            text = "".join(map(_clean, text))
        if self.cjk_words:
            text = _CJK.sub(r" \g<0> ", text)
        if self.strip_accents:
            text = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
        if self.lowercase:
            text = "".join(map(str.lower, text))  # one by one: the lower case of a whole word knows a final sigma
        return text


def _clean(character: str) -> str:
    if character in "\t\n\r":
        return " "
    if character == "\ufffd" or unicodedata.category(character) in _REMOVED:
        return ""  # among them the rarer white space of ASCII, such as the form feed, which then separates nothing
    return " " if _SPACE.match(character) else character
