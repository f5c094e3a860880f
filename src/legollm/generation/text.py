"""Text in, text out: whole characters only, ended by stop texts that may span tokens."""

from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass

from legollm.generation.cache import GenerativeModel
from legollm.generation.complete import (
    DEFAULT_DECODING,
    BatchDecoder,
    Completion,
    Decoding,
    FinishReason,
    Row,
    decode,
    open_rows,
)
from legollm.generation.sampling import Sampling
from legollm.interfaces import Tokenizer
from legollm.tokenizers.stream import DecodeStream


@dataclass(frozen=True, kw_only=True)
class TextCompletion(Completion):
    """What was generated after one prompt, as text."""

    text: str
    """Up to the stop text, if one was met; `ids` are all tokens that were generated on the way."""


class TextStream(Iterator[str]):
    """The pieces of an answer as they are decided; closing it ends the generation and frees the cache."""

    def __init__(self, pieces: Generator[str, None, None], row: Row) -> None:
        self._pieces, self._row = pieces, row

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        self._pieces.close()

    @property
    def ids(self) -> list[int]:
        """The tokens generated so far, without the stop id."""
        return self._row.new_ids

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the answer ended; None while it has not, or if it was closed before."""
        return self._row.finish_reason


def stream_text(
    model: GenerativeModel,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    sampling: Sampling,
    *,
    stop_ids: Collection[int] = (),
    decoding: Decoding = DEFAULT_DECODING,
    decoder: BatchDecoder | None = None,
) -> TextStream:
    """Continue a prompt piece by piece. What might become a stop text is held back until it is decided.

    Pieces are whole characters; the bytes of a character that was never completed are not text and left out. A prompt
    in text is encoded as plain text: what looks like a special token is none. Only ids of the tokenizer are chosen,
    also where the model has more.

    Raises:
        ConfigError, ContextError: see `complete`; before the first piece is asked for.
    """
    (row,) = open_rows(model, [ids_of(prompt, tokenizer)], sampling, decoding)

    def pieces() -> Generator[str, None, None]:
        transcript = Transcript(tokenizer, sampling.stop)
        n_ids = tokenizer.vocab_size
        steps = decode(model, [row], sampling, stop_ids=stop_ids, decoding=decoding, n_ids=n_ids, decoder=decoder)
        for _, token in steps:
            if piece := transcript.push(row, token):
                yield piece

    return TextStream(pieces(), row)


def generate_texts(
    model: GenerativeModel,
    tokenizer: Tokenizer,
    prompts: Sequence[str | Sequence[int]],
    sampling: Sampling,
    *,
    stop_ids: Collection[int] = (),
    decoding: Decoding = DEFAULT_DECODING,
    decoder: BatchDecoder | None = None,
) -> list[TextCompletion]:
    """Continue many prompts in batches; each text is what `stream_text` with seed + i gives.

    Raises:
        ConfigError, ContextError: see `complete`.
    """
    rows = open_rows(model, [ids_of(prompt, tokenizer) for prompt in prompts], sampling, decoding)
    transcripts = {row: Transcript(tokenizer, sampling.stop) for row in rows}
    texts = dict.fromkeys(rows, "")
    n_ids = tokenizer.vocab_size
    steps = decode(model, rows, sampling, stop_ids=stop_ids, decoding=decoding, n_ids=n_ids, decoder=decoder)
    for row, token in steps:
        texts[row] += transcripts[row].push(row, token)
    return [TextCompletion(text=texts[row], **vars(row.completion())) for row in rows]


def generate_text(
    model: GenerativeModel,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    sampling: Sampling,
    *,
    stop_ids: Collection[int] = (),
    decoding: Decoding = DEFAULT_DECODING,
    decoder: BatchDecoder | None = None,
) -> TextCompletion:
    """Continue one prompt.

    Raises:
        ConfigError, ContextError: see `complete`.
    """
    (completion,) = generate_texts(
        model, tokenizer, [prompt], sampling, stop_ids=stop_ids, decoding=decoding, decoder=decoder
    )
    return completion


def ids_of(prompt: str | Sequence[int], tokenizer: Tokenizer) -> Sequence[int]:
    """The tokens of a prompt that may be text."""
    return tokenizer.encode(prompt) if isinstance(prompt, str) else prompt


class Transcript:
    """What one row says, turned into text token by token."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        self.characters, self.before = DecodeStream(tokenizer), Before(stop)

    def push(self, row: Row, token: int) -> str:
        """The text decided by `token`, which its row has just taken; a stop text ends the row."""
        piece = "" if token == row.stop_id else self.before.push(self.characters.push(token))
        if self.before.met:
            row.finish_reason = "stop"
        elif row.finish_reason is not None:
            piece += self.before.flush()
        return piece


class Before:
    """Lets text through up to the stop text that is complete first, however the text is cut into pieces."""

    def __init__(self, stop: Sequence[str]) -> None:
        self.stop = stop
        self.held = ""
        self.met = False

    def push(self, piece: str) -> str:
        """What is certain now; the rest, which may be the beginning of a stop text, is held back."""
        self.held += piece
        found = [(start + len(text), start) for text in self.stop if (start := self.held.find(text)) >= 0]
        if found:
            self.met = True
            return self.held[: min(found)[1]]
        n_held = max((n for text in self.stop for n in range(1, len(text)) if self.held.endswith(text[:n])), default=0)
        n_out = len(self.held) - n_held
        out, self.held = self.held[:n_out], self.held[n_out:]
        return out

    def flush(self) -> str:
        """What was held back, now that nothing follows."""
        out, self.held = self.held, ""
        return out
