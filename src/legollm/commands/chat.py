"""`legollm chat`: a conversation in the terminal."""

import sys
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import ClassVar

from legollm.checkpoints.loading import Loaded, load
from legollm.config import Resolved
from legollm.data.chat import Message
from legollm.errors import TokenizerError
from legollm.generation.complete import Decoding
from legollm.generation.sampling import Sampling
from legollm.generation.text import stream_text
from legollm.lowering.engine import Engine
from legollm.lowering.weights import Precision

HELP = "commands: /new forgets the conversation, /retry answers again, /system TEXT sets the scene, /quit ends"


@dataclass(frozen=True, kw_only=True)
class ChatRun(Sampling):
    """A model that was fine-tuned to answer, and how it chooses its words."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("model",)

    model: Path = Path("runs/demo/checkpoint")
    """A checkpoint or run folder, or a Hugging Face folder."""
    engine: Engine = "auto"
    """What runs the model: torch, cpu (compiled kernels), or auto: whichever is done sooner."""
    precision: Precision = "float32"
    """What weight matrices are kept in: float32, bfloat16 (half the memory), or with engine=cpu int8 and int4."""
    decoding: Decoding = field(default_factory=lambda: Decoding(on_overflow="crop"))
    system: str = ""
    """What the model is told before the conversation."""


def chat(run: Resolved[ChatRun]) -> None:
    """Talk to a model. A model without a chat template continues what you write instead."""
    cfg = run.value
    lm = load(cfg.model, engine=cfg.engine, precision=cfg.precision)
    lm.refuse_pairs()
    sampling = Sampling(**{one.name: getattr(cfg, one.name) for one in fields(Sampling)})
    if lm.chat_template is None:
        print("this model was not fine-tuned to answer: it continues what you write", file=sys.stderr)
    print(HELP, file=sys.stderr)
    Conversation(lm, sampling, lm.decoding(cfg.decoding), cfg.system).loop()


class Conversation:
    """What was said so far."""

    def __init__(self, lm: Loaded, sampling: Sampling, decoding: Decoding, system: str) -> None:
        self.lm, self.sampling, self.decoding = lm, sampling, decoding
        self.messages = [Message("system", system)] if system else []
        self.n_retries = 0

    def loop(self) -> None:
        """Read a line, answer it, until the input ends."""
        while True:
            try:
                line = input("you> " if sys.stdin.isatty() else "").strip()
            except EOFError:
                print()
                return
            if line == "/quit":
                return
            if line:
                self.take(line)

    def take(self, line: str) -> None:
        """One line: a command, or something to answer."""
        command, _, rest = line.partition(" ")
        if command == "/new":
            self.messages = [m for m in self.messages if m.role == "system"]
        elif command == "/system":
            self.messages = [Message("system", rest)] if rest else []
        elif command == "/retry":
            if self.messages and self.messages[-1].role == "assistant":
                self.messages.pop()
                self.n_retries += 1
                self.answer()
            else:
                print("nothing to answer again", file=sys.stderr)
        elif command.startswith("/"):
            print(HELP, file=sys.stderr)
        else:
            self.messages.append(Message("user", line))
            try:
                self.answer()
            except TokenizerError as error:  # a character that the vocabulary does not have
                self.messages.pop()
                print(error, file=sys.stderr)

    def answer(self) -> None:
        """Write the next turn as it comes; Ctrl-C ends the turn, not the conversation."""
        lm, stops = self.lm, self.lm.stop_ids()
        tokenizer = lm.text_side()
        if lm.chat_template is None:
            prompt = tokenizer.encode(self.messages[-1].content)
        else:
            prompt = lm.chat_prompt(self.fitting())
        sampling = replace(self.sampling, seed=self.sampling.seed + self.n_retries)
        stream = stream_text(
            lm.writer_of(sampling, n_answers=10, decoding=self.decoding),
            tokenizer,
            prompt,
            sampling,
            stop_ids=stops,
            decoding=self.decoding,
        )
        said = ""
        try:
            for piece in stream:
                print(piece, end="", flush=True)
                said += piece
        except KeyboardInterrupt:
            stream.close()
        print()
        self.messages.append(Message("assistant", said))

    def fitting(self) -> list[Message]:
        """The turns that leave half of the window for the answer; the oldest ones are forgotten first."""
        turns = list(self.messages)
        window = self.decoding.window or self.lm.config.max_seq_len
        room = window - min(self.sampling.max_new_tokens, window // 2)
        first = int(turns[0].role == "system")
        while len(turns) - first > 1 and len(self.lm.chat_prompt(turns)) > room:
            del turns[first : first + 2]  # a question and its answer
        if len(turns) < len(self.messages):
            print(
                f"(the window of {window} tokens is full; earlier turns are forgotten)",
                file=sys.stderr,
            )
        return turns
