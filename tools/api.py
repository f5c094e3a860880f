"""What programs use of this package, as docs/api.md: names, what they take, and what they say of themselves.

python tools/api.py
"""

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "api.md"
HEAD = """# Python

What programs use, room by room, with what each name says of itself. Shapes are letters: B rows, T tokens, D width, V
ids; [the walk](index.md) shows the rooms. `legollm config VERB` has every setting of the command line. This page is
written by `python tools/api.py` out of the code.
"""
NAMES = {
    "A model": ["legollm:load", "legollm.checkpoints.loading:Loaded"],
    "Text and ids": [
        "legollm.interfaces:Tokenizer",
        "legollm.tokenizers:load_tokenizer",
        "legollm.tokenizers:ByteTokenizer",
        "legollm.tokenizers:CharTokenizer",
        "legollm.tokenizers:WordTokenizer",
        "legollm.tokenizers:RegexBPETokenizer",
        "legollm.tokenizers:UnigramTokenizer",
        "legollm.tokenizers:DecodeStream",
    ],
    "Data": [
        "legollm.data.sources:open_source",
        "legollm.data.prepare:prepare",
        "legollm.data.loader:TokenFile",
        "legollm.data.loader:WindowBatches",
        "legollm.data.chat:Message",
        "legollm.data.chat:encode_chat",
    ],
    "Architectures and bricks": [
        "legollm.architectures:build",
        "legollm.components.decoder:Decoder",
        "legollm.components.attention:Attention",
        "legollm.components.attention:attend",
        "legollm.components.positions:RotaryEmbedding",
        "legollm.components.blocks:PreNormBlock",
        "legollm.components.outside:brick_from",
    ],
    "Training": [
        "legollm.training.train:train",
        "legollm.training.objective:NextToken",
        "legollm.training.optim:build_optimizer",
        "legollm.checkpoints.state:save_model",
    ],
    "Generation": [
        "legollm.generation.sampling:next_token_probs",
        "legollm.generation.generate:generate",
        "legollm.generation.text:generate_texts",
        "legollm.generation.cache:FullCache",
    ],
    "Transforms": [
        "legollm.transforms.quantize:QuantizeConfig",
        "legollm.transforms.quantize:quantize",
        "legollm.transforms.lora:LoraConfig",
        "legollm.transforms.lora:add_lora",
        "legollm.transforms.lora:merge",
    ],
    "Preferences, rewards, verifiers": [
        "legollm.alignment.preferences:PreferenceLoss",
        "legollm.alignment.policy:PolicyGradient",
        "legollm.alignment.advantages:group_normalised",
        "legollm.alignment.advantages:generalised",
        "legollm.verifiers:verifier",
        "legollm.verifiers.verdict:Verdict",
    ],
    "Evaluation": [
        "legollm.evaluation.loss:mean_loss",
        "legollm.evaluation.questions:answer_all",
        "legollm.evaluation.intervals:share",
        "legollm.evaluation.intervals:mean_interval",
    ],
}


def page() -> str:
    """The whole of it."""
    parts = [HEAD]
    for room, names in NAMES.items():
        parts.append(f"## {room}\n")
        parts += [entry(name) for name in names]
    return "\n".join(parts)


def entry(name: str) -> str:
    """One name: where it is imported from, its call, its documentation; of a class also those of its methods."""
    module, _, attribute = name.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    code = f"from {module} import {attribute}\n\n{call(attribute, found)}"
    text = f"### {attribute}\n\n```text\n{code}\n```\n\n{told(found)}\n"
    listed = "".join(methods(found)) if inspect.isclass(found) else ""
    return f"{text}\n{listed}" if listed else text


def methods(owner: type) -> Iterator[str]:
    """A line for each public method that says what it does, in the order of the code."""
    for name, member in vars(owner).items():
        plain = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if name.startswith("_") or not (inspect.isfunction(plain) or isinstance(plain, property)):
            continue
        if first := (inspect.getdoc(plain) or "").partition("\n\n")[0]:
            shown = f"`.{name}`" if isinstance(plain, property) else f"`.{call(name, plain)}`"
            yield f"- {shown}: {joined(first)}\n"


def call(name: str, what: Any) -> str:
    """A name with its parameters, without annotations: the documentation has the shapes."""
    try:
        signature = inspect.signature(what)
    except ValueError:
        return name
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()]
    shown = [shortened(one) for one in bare if one.name not in ("self", "cls")]
    return f"{name}{inspect.Signature(shown)}"


class Something:
    """A default that is too long to show."""

    def __repr__(self) -> str:
        return "..."


def shortened(one: inspect.Parameter) -> inspect.Parameter:
    value = repr(one.default)
    is_long = one.default is not inspect.Parameter.empty and (len(value) > 40 or value.startswith("<"))
    return one.replace(default=Something()) if is_long else one


def told(what: Any) -> str:
    """The documentation as paragraphs of this page."""
    text = inspect.getdoc(what) or ""
    return "\n\n".join(joined(part) for part in re.split(r"\n\s*\n", text) if part)


def joined(text: str) -> str:
    return " ".join(text.replace("Raises:", "Raises").split()).replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
