"""Text out of a model token by token, in whole characters only."""

import codecs

from legollm.interfaces import Tokenizer


class DecodeStream:
    """Decodes ids one at a time; the pieces joined are `tokenizer.decode` of all ids.

    A character's bytes can be spread over several tokens: they are held back until the character is complete.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """The characters that this token completes; empty if there are none.

        Raises:
            TokenizerError: no such id.
        """
        return self._decoder.decode(self._tokenizer.decode_bytes([token_id], skip_special=self._skip_special))

    def flush(self) -> str:
        """What is left at the end: U+FFFD if a character was begun and never finished. Then the stream starts anew."""
        return self._decoder.decode(b"", final=True)
