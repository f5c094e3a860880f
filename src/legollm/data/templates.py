"""How a conversation is laid out as text: five chat templates, and which of them a tokenizer can write.

A template is a small Jinja program, as `transformers` runs it. Ours grow turn by turn, so that what a model reads
before it answers is exactly what it was trained to answer; and they say with `{% generation %}` what the assistant
writes, its end included, so that whoever trains with them knows what is to be learned.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from legollm.errors import ConfigError, DataError
from legollm.interfaces import Tokenizer

MAX_TEMPLATE_BYTES = 65_536

CHATML = r"""
{%- for message in messages -%}
    {{- '<|im_start|>' + message.role + '\n' -}}
    {%- if message.role == 'assistant' -%}
        {%- generation -%}{{- message.content + '<|im_end|>' -}}{%- endgeneration -%}
    {%- else -%}
        {{- message.content + '<|im_end|>' -}}
    {%- endif -%}
    {{- '\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\n' -}}
{%- endif -%}
"""
"""OpenAI's ChatML, the layout of many models."""

QWEN = r"""
{%- if not messages or messages[0].role != 'system' -%}
    {{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' -}}
{%- endif -%}
{%- for message in messages -%}
    {%- if message.role == 'tool' -%}
        {%- if loop.previtem is undefined or loop.previtem.role != 'tool' -%}
            {{- '<|im_start|>user' -}}
        {%- endif -%}
        {{- '\n<tool_response>\n' + message.content + '\n</tool_response>' -}}
        {%- if loop.nextitem is undefined or loop.nextitem.role != 'tool' -%}
            {{- '<|im_end|>\n' -}}
        {%- endif -%}
    {%- else -%}
        {{- '<|im_start|>' + message.role + '\n' -}}
        {%- if message.role == 'assistant' -%}
            {%- generation -%}{{- message.content + '<|im_end|>' -}}{%- endgeneration -%}
        {%- else -%}
            {{- message.content + '<|im_end|>' -}}
        {%- endif -%}
        {{- '\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\n' -}}
{%- endif -%}
"""
"""ChatML as Qwen 2 and 2.5 write it: a system turn always, and what tools return as the user's words."""

LLAMA3 = r"""
{{- '<|begin_of_text|>' -}}
{%- for message in messages -%}
    {%- set role = 'ipython' if message.role == 'tool' else message.role -%}
    {{- '<|start_header_id|>' + role + '<|end_header_id|>\n\n' -}}
    {%- if message.role == 'assistant' -%}
        {%- generation -%}{{- message.content | trim + '<|eot_id|>' -}}{%- endgeneration -%}
    {%- else -%}
        {{- message.content | trim + '<|eot_id|>' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}
{%- endif -%}
"""
"""LLaMA 3 (arXiv:2407.21783), which drops white space around what is said."""

ALPACA = r"""
{%- set titles = {'user': 'Instruction', 'tool': 'Input', 'assistant': 'Response'} -%}
{%- for message in messages -%}
    {%- if message.role == 'system' -%}
        {{- message.content -}}
    {%- else -%}
        {{- '### ' + titles[message.role] + ':\n' -}}
        {%- if message.role == 'assistant' -%}
            {%- generation -%}{{- message.content + '<|endoftext|>' -}}{%- endgeneration -%}
        {%- else -%}
            {{- message.content -}}
        {%- endif -%}
    {%- endif -%}
    {{- '\n\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '### Response:\n' -}}
{%- endif -%}
"""
"""Stanford Alpaca's headings (Taori et al. 2023). The sentence that it puts in front is a system turn here."""

PLAIN = r"""
{%- for message in messages -%}
    {{- message.role | capitalize + ':\n' -}}
    {%- if message.role == 'assistant' -%}
        {%- generation -%}{{- message.content + '<|endoftext|>' -}}{%- endgeneration -%}
    {%- else -%}
        {{- message.content -}}
    {%- endif -%}
    {{- '\n\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- 'Assistant:\n' -}}
{%- endif -%}
"""
"""Who speaks, and what is said, for tokenizers without control tokens."""

TEMPLATES = {"chatml": CHATML, "qwen": QWEN, "llama3": LLAMA3, "alpaca": ALPACA, "plain": PLAIN}

ENDS_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")
"""Names of the token that ends a text; `alpaca` and `plain` take the one that the tokenizer has."""
NAMES = ("bos_token", "eos_token", "pad_token", "unk_token")
"""Variables by which templates call the special tokens that tokenizer_config.json lists."""
OURS = frozenset(
    text.replace(ENDS_OF_TEXT[0], name) if ENDS_OF_TEXT[0] in text else text
    for text in TEMPLATES.values()
    for name in ENDS_OF_TEXT
)
"""Templates that need no guard, because they were written here."""


def template_for(tokenizer: Tokenizer, name: str | None, own: str | None = None) -> str:
    """The template of that name, or the one in that file, as the tokenizer writes it.

    Without a name it is the model's own, and CHATML where it has none.

    Raises:
        ConfigError: no such name and no such file.
        DataError: a file that is too large or no text; or a tokenizer without a token that ends a text.
    """
    if name is None:
        return own or CHATML
    if name not in TEMPLATES:
        return read_template(Path(name))
    template = TEMPLATES[name]
    if ENDS_OF_TEXT[0] not in template:
        return template
    for end in ENDS_OF_TEXT:
        if end in tokenizer.special_tokens:
            return template.replace(ENDS_OF_TEXT[0], end)
    raise DataError(
        f"the template {name} ends an answer with the token that ends a text, and the tokenizer has none of "
        f"{', '.join(ENDS_OF_TEXT)} as a special token; train it with {ENDS_OF_TEXT[0]}"
    )


def read_template(path: Path) -> str:
    """A file with a template.

    Raises:
        ConfigError: there is none.
        DataError: more than MAX_TEMPLATE_BYTES, or no UTF-8.
    """
    if not path.is_file():
        raise ConfigError(f"template: {str(path)!r} is neither a file nor one of {', '.join(TEMPLATES)}")
    with path.open("rb") as file:
        data = file.read(MAX_TEMPLATE_BYTES + 1)
    if len(data) > MAX_TEMPLATE_BYTES:
        raise DataError(f"{path}: a chat template has at most {MAX_TEMPLATE_BYTES:,} bytes, this file more")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte 0x{data[error.start]:02x} at {error.start} is not UTF-8") from error


def template_of_folder(path: Path, tokenizer_config: Mapping[str, Any]) -> str | None:
    """The template of a model's folder, from its own file or, as older folders have it, from tokenizer_config.json.

    What it calls `bos_token` and so on is written into it, so that it is whole without that file.

    Raises:
        DataError: see `read_template`.
    """
    template = read_template(path) if path.exists() else tokenizer_config.get("chat_template")
    if not isinstance(template, str):
        return None
    for name in NAMES:
        value = tokenizer_config.get(name)
        value = value.get("content") if isinstance(value, Mapping) else value  # both forms are found
        if isinstance(value, str) and re.search(rf"(?<!set )\b{name}\b", template) and f"set {name} " not in template:
            template = f"{{%- set {name} = {json.dumps(value)} -%}}{template}"
    return template
