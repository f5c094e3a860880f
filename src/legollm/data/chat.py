"""Conversations as token ids, in a form whose control tokens only the template can write.

A chat template is a Jinja program that comes with a model, often from a stranger: it is rendered in a sandbox, and in a
process of its own if it is none of ours. The messages come from users: what could be read as a special token, or as the
beginning of one that the next message completes, is marked with a private character in front of each of its letters
before rendering. The rendered text is cut at the control tokens without that mark, and the marks are taken out again.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from legollm.data.confined import fill_confined
from legollm.data.rendering import BEGINS, ENDS, FAILURES, fill, reason_of
from legollm.data.templates import CHATML, MAX_TEMPLATE_BYTES, OURS
from legollm.errors import DataError, TokenizerError
from legollm.interfaces import Tokenizer

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""What a tokenizer needs for CHATML; <|im_end|> ends an answer."""
ROLES = ("system", "user", "assistant", "tool")
"""Who may speak. Some templates make control tokens of these words; of other words they cannot."""

PRIVATE = range(0xF0000, 0xFFFFE)  # code points without a meaning of their own
CONTROL_LIKE = re.compile(r"<\|\w+\|>")  # how control tokens are spelled in nearly all templates
NO_END = "the chat template ends no answer with a special token, so a model could not learn to stop; use another one"
GENERATION = re.compile(r"\{%[-+]?\s*generation\b")


class Message(NamedTuple):
    """One turn of a conversation."""

    role: str
    """system, user, assistant or tool."""
    content: str


class Marks(NamedTuple):
    """Three characters that occur nowhere else."""

    text: str
    """Stands in front of letters that are nothing but text."""
    begins: str
    """Stands where the assistant's words begin."""
    ends: str
    """Stands where they end."""


def encode_chat(
    tokenizer: Tokenizer, messages: Sequence[Message], template: str = CHATML, *, add_generation_prompt: bool = False
) -> list[int]:
    """The ids of a conversation. With add_generation_prompt they end where the assistant is to answer.

    Raises:
        DataError: the template fails, or spells a control token that the tokenizer does not have.
    """
    marks, render = prepared(tokenizer, messages, template)
    text = render(len(messages), add_generation_prompt)
    return [i for ids, _ in cut(text, marks, tokenizer) for i in ids]


def encode_example(
    tokenizer: Tokenizer, messages: Sequence[Message], template: str = CHATML
) -> tuple[list[int], list[bool]]:
    """The ids of a conversation, and for each whether the assistant wrote it: its words and the token that ends them.

    Raises:
        DataError: as for `encode_chat`; or no special token ends an answer; or the template neither says what the
            assistant writes nor grows turn by turn, so that it cannot be told.
    """
    marks, render = prepared(tokenizer, messages, template)
    text = render(len(messages), False)
    if not GENERATION.search(template):
        controls = [found.end() for found in control_tokens(tuple(tokenizer.special_tokens), marks.text).finditer(text)]
        for begin, end in reversed(list(answers(messages, text, render))):  # from the back: places in front stay
            last = max((place for place in controls if begin < place <= end), default=end)  # no line feed after it
            text = f"{text[:begin]}{marks.begins}{text[begin:last]}{marks.ends}{text[last:]}"
    ids, written, specials = list[int](), list[bool](), set(tokenizer.special_tokens.values())
    for part, is_answer in cut(text, marks, tokenizer):
        if written and written[-1] and not is_answer and ids[-1] not in specials:
            if part[0] not in specials:
                raise DataError(NO_END)
            is_answer = True  # the token that ends the answer, which this template leaves outside of it
        ids += part
        written += [is_answer] * len(part)
    if written and written[-1] and ids[-1] not in specials:
        raise DataError(NO_END)
    return ids, written


Render = Callable[[int, bool], str]
"""The text of the first n messages, with marks; and whether the assistant is to answer."""


def prepared(tokenizer: Tokenizer, messages: Sequence[Message], template: str) -> tuple[Marks, Render]:
    """Marks for a conversation, and what renders it with them.

    Raises:
        DataError: see `encode_chat`.
    """
    specials = tokenizer.special_tokens
    if unknown := sorted(set(CONTROL_LIKE.findall(template)) - specials.keys()):
        raise DataError(
            f"the chat template writes {', '.join(unknown)}, which the tokenizer does not have as special tokens "
            f"(it has {', '.join(specials) or 'none'}); train it with them, or take a template that does without: "
            "alpaca and plain need only a token that ends a text"
        )
    size = len(template.encode("utf-8", "surrogatepass"))
    if size > MAX_TEMPLATE_BYTES:
        raise DataError(f"the chat template has {size:,} bytes; at most {MAX_TEMPLATE_BYTES:,} are run")
    marks = free_characters(template, *(part for message in messages for part in message))
    turns = [
        {"role": role if role in ROLES else spelled(role, marks), "content": guarded(content, specials, marks)}
        for role, content in messages
    ]

    def render(n: int, add_generation_prompt: bool) -> str:
        variables = {"messages": turns[:n], "add_generation_prompt": add_generation_prompt}
        variables |= {BEGINS: marks.begins, ENDS: marks.ends}
        if template not in OURS:
            return fill_confined(template, variables)
        try:
            return fill(template, variables)
        except FAILURES as error:
            raise DataError(f"the chat template fails: {reason_of(error)}") from error

    return marks, render


def spelled(text: str, marks: Marks) -> str:
    """A text of which every letter is nothing but text."""
    return "".join(marks.text + letter for letter in text)


def guarded(text: str, specials: Iterable[str], marks: Marks) -> str:
    """A text in which no control token stands, and at its end none begins."""
    return risky(tuple(specials)).sub(lambda found: spelled(found[0], marks), text)


@lru_cache(maxsize=8)  # tokenizers have hundreds of special tokens, and messages are many
def risky(specials: tuple[str, ...]) -> re.Pattern[str]:
    """Finds what is a control token, or the beginning of one at the end of a text."""
    return re.compile(f"{alternatives(specials)}|(?:{alternatives(beginnings(specials))})(?=\\s*\\Z)")


def alternatives(names: Iterable[str]) -> str:
    """A regular expression for any of them, the longest first; for nothing where there are none."""
    return "|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "(?!)"


def beginnings(names: Iterable[str]) -> set[str]:
    """Every proper beginning of every name."""
    return {name[:n] for name in names for n in range(1, len(name))}


def free_characters(*texts: str) -> Marks:
    """Private characters that none of the texts has.

    Raises:
        DataError: they have them all, which no honest text does.
    """
    used = set().union(*texts)
    free = list(islice((char for char in map(chr, PRIVATE) if char not in used), 3))
    if len(free) < 3:
        raise DataError(
            f"the messages use all {len(PRIVATE):,} private characters; three are needed to keep them apart"
        )
    return Marks(*free)


@lru_cache(maxsize=8)
def control_tokens(specials: tuple[str, ...], mark: str) -> re.Pattern[str]:
    """Finds the control tokens that the template wrote."""
    return re.compile(f"(?<!{mark})(?:{alternatives(specials)})")


@lru_cache(maxsize=8)
def places_to_cut(specials: tuple[str, ...], marks: Marks) -> re.Pattern[str]:
    """Finds control tokens, where the assistant begins and ends, and the end of the text."""
    return re.compile(f"{control_tokens(specials, marks.text).pattern}|[{marks.begins}{marks.ends}]|\\Z")


def cut(text: str, marks: Marks, tokenizer: Tokenizer) -> Iterator[tuple[list[int], bool]]:
    """The ids of a rendered text in parts, and of each whether the assistant wrote it.

    A word never lies across the place where the assistant begins: when it answers, it begins there as well.
    """
    specials = tokenizer.special_tokens
    at, is_answer = 0, False
    for stop in places_to_cut(tuple(specials), marks).finditer(text):
        if words := text[at : stop.start()].replace(marks.text, ""):
            yield tokenizer.encode(words), is_answer
        if stop[0] in specials:
            yield [specials[stop[0]]], is_answer
        elif stop[0]:
            is_answer = stop[0] == marks.begins
        at = stop.end()


def answers(messages: Sequence[Message], text: str, render: Render) -> Iterator[tuple[int, int]]:
    """Where the assistant's turns begin and end in the text of a template that does not say it.

    Raises:
        DataError: the template is not one that grows turn by turn, so what belongs to whom cannot be told.
    """
    for i, message in enumerate(messages):
        if message.role != "assistant":
            continue
        before, through = render(i, True), render(i + 1, False)
        if not (through.startswith(before) and text.startswith(through)):
            raise DataError(
                "the chat template changes earlier turns when one is added, and does not mark answers with "
                "{% generation %}; so none can be told from the rest: use another template"
            )
        yield len(before), len(through)


def end_of_turn(tokenizer: Tokenizer, template: str) -> int:
    """The id with which the template ends an answer.

    Raises:
        TokenizerError: it ends with no special token, or the tokenizer does not have it.
    """
    try:
        ids, written = encode_example(tokenizer, [Message("user", "?"), Message("assistant", "!")], template)
        last = [i for i, wanted in zip(ids, written, strict=True) if wanted][-1:]
    except DataError:  # of templates that cannot be trained with; a model that writes may still use them
        last = []
    if last and last[0] in tokenizer.special_tokens.values():
        return last[0]
    for name in ("<|im_end|>", "<|eot_id|>", "<|endoftext|>"):
        if name in tokenizer.special_tokens:
            return tokenizer.special_tokens[name]
    raise TokenizerError(
        "the tokenizer has no token that ends a turn; train it with special_tokens=['<|im_end|>', ...]"
    )
