"""Conversations as token ids, in a form whose control tokens only the template can write.

A chat template is a Jinja program that comes with a model, often from a stranger: it is rendered in a sandbox. The
messages come from users: what could be read as a special token, or as the beginning of one that the next message
completes, is marked with a private character in front of each of its letters before rendering. The rendered text is
cut at the control tokens without that mark, and the marks are taken out again.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from legollm.errors import DataError, TokenizerError
from legollm.interfaces import Tokenizer

CHATML = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""
"""The layout of OpenAI's ChatML, used by Qwen and many others."""

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""What a tokenizer needs for CHATML; <|im_end|> ends an answer."""

MAX_TEMPLATE_BYTES = 65_536
PRIVATE = range(0xF0000, 0xFFFFE)  # code points without a meaning of their own
CONTROL_LIKE = re.compile(r"<\|\w+\|>")  # how control tokens are spelled in nearly all templates


class Message(NamedTuple):
    """One turn of a conversation."""

    role: str
    """system, user, assistant or tool."""
    content: str


def encode_chat(
    tokenizer: Tokenizer, messages: Sequence[Message], template: str = CHATML, *, add_generation_prompt: bool = False
) -> list[int]:
    """The ids of a conversation. With add_generation_prompt they end where the assistant is to answer.

    Raises:
        DataError: the template fails, or spells a control token that the tokenizer does not have.
    """
    specials = dict(tokenizer.special_tokens)
    if unknown := sorted(set(CONTROL_LIKE.findall(template)) - specials.keys()):
        raise DataError(
            f"the chat template writes {', '.join(unknown)}, which the tokenizer does not have as special tokens "
            f"(it has {', '.join(specials) or 'none'}); train it with them, or use the template it came with"
        )
    if not specials:
        return tokenizer.encode(render(template, messages, add_generation_prompt))
    mark = free_character(template, *(part for message in messages for part in message))
    risky = re.compile(alternatives(specials) + "|(?:" + alternatives(beginnings(specials)) + r")(?=\s*\Z)")
    marked = [
        Message(*(risky.sub(lambda found: "".join(mark + letter for letter in found[0]), part) for part in message))
        for message in messages
    ]
    text = render(template, marked, add_generation_prompt)
    ids: list[int] = []
    position = 0
    for found in re.finditer(f"(?<!{mark})(?:{alternatives(specials)})", text):
        ids += tokenizer.encode(text[position : found.start()].replace(mark, ""))
        ids.append(specials[found[0]])
        position = found.end()
    return ids + tokenizer.encode(text[position:].replace(mark, ""))


def alternatives(names: Iterable[str]) -> str:
    """A regular expression for any of them, the longest first."""
    return "|".join(map(re.escape, sorted(names, key=len, reverse=True)))


def beginnings(names: Iterable[str]) -> set[str]:
    """Every proper beginning of every name."""
    return {name[:n] for name in names for n in range(1, len(name))}


def free_character(*texts: str) -> str:
    """A private character that none of the texts has.

    Raises:
        DataError: they have them all, which no honest text does.
    """
    used = set().union(*texts)
    for code in PRIVATE:
        if chr(code) not in used:
            return chr(code)
    raise DataError(f"the messages use all {len(PRIVATE):,} private characters; one is needed to keep them apart")


def encode_example(
    tokenizer: Tokenizer, messages: Sequence[Message], template: str = CHATML
) -> tuple[list[int], list[bool]]:
    """The ids of a conversation, and for each whether the assistant wrote it: its words and the token that ends them.

    Raises:
        DataError: the template is not one that grows turn by turn, so what belongs to whom cannot be told.
    """
    ids = encode_chat(tokenizer, messages, template)
    ends = set(tokenizer.special_tokens.values())
    written = [False] * len(ids)
    for i, message in enumerate(messages):
        if message.role != "assistant":
            continue
        prompt = encode_chat(tokenizer, messages[:i], template, add_generation_prompt=True)
        through = encode_chat(tokenizer, messages[: i + 1], template)
        if through[: len(prompt)] != prompt or ids[: len(through)] != through:
            raise DataError("the chat template changes earlier turns when one is added; no answer can be marked in it")
        stop = len(through)
        while stop > len(prompt) and ends and through[stop - 1] not in ends:
            stop -= 1  # what the template writes after the end of the turn is not the assistant's
        written[len(prompt) : stop] = [True] * (stop - len(prompt))
    return ids, written


def end_of_turn(tokenizer: Tokenizer) -> int:
    """The id that ends an answer.

    Raises:
        TokenizerError: the tokenizer has no such token.
    """
    for name in ("<|im_end|>", "<|eot_id|>", "<|endoftext|>"):
        if name in tokenizer.special_tokens:
            return tokenizer.special_tokens[name]
    raise TokenizerError(
        "the tokenizer has no token that ends a turn; train it with special_tokens=['<|im_end|>', ...]"
    )


def render(template: str, messages: Sequence[Message], add_generation_prompt: bool) -> str:
    if len(template.encode()) > MAX_TEMPLATE_BYTES:
        raise DataError(
            f"the chat template has {len(template.encode()):,} bytes; at most {MAX_TEMPLATE_BYTES:,} are run"
        )
    turns = [{"role": role, "content": content} for role, content in messages]
    try:
        return sandboxed(template)(messages=turns, add_generation_prompt=add_generation_prompt)
    except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise DataError(f"the chat template fails: {error}") from error  # a program: it can do wrong what programs do


@lru_cache(maxsize=8)  # translating a template takes ten times as long as filling it in
def sandboxed(template: str) -> Callable[..., str]:
    return ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(template).render
