"""The recipes: a configuration goes in, a Decoder comes out; data and training know it as a LanguageModel.

| name   | file      | what is particular                                          |
| ------ | --------- | ----------------------------------------------------------- |
| bigram | bigram.py | a table: the least that predicts a next token               |
| gpt2   | gpt2.py   | LayerNorm, learned positions, GELU, biases                  |
| llama3 | llama3.py | RMSNorm, rotary positions, grouped queries, SwiGLU          |
| qwen3  | qwen3.py  | as LLaMA 3, with a free head width and norms on q and k     |

Each file holds the configuration, the published sizes, the function that puts the bricks together, and the names its
weights have in a Hugging Face checkpoint. To add one, write the file and its row in ARCHITECTURES.
"""

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from legollm.architectures import bigram, gpt2, llama3, qwen3
from legollm.architectures.weight_map import HuggingFace
from legollm.components.decoder import Decoder
from legollm.errors import ConfigError


@dataclass(frozen=True)
class Architecture:
    """One row of the table."""

    config: type[Any]
    build: Callable[..., Decoder]
    """(config, seed=0) -> the model."""
    presets: Mapping[str, Any]
    """Published sizes by name, as configurations."""
    hugging_face: HuggingFace


ARCHITECTURES: Mapping[str, Architecture] = {
    "bigram": Architecture(bigram.BigramConfig, bigram.bigram, bigram.PRESETS, bigram.HUGGING_FACE),
    "gpt2": Architecture(gpt2.GPT2Config, gpt2.gpt2, gpt2.PRESETS, gpt2.HUGGING_FACE),
    "llama3": Architecture(llama3.Llama3Config, llama3.llama3, llama3.PRESETS, llama3.HUGGING_FACE),
    "qwen3": Architecture(qwen3.Qwen3Config, qwen3.qwen3, qwen3.PRESETS, qwen3.HUGGING_FACE),
}


def build(name: str, preset: str | None = None, seed: int = 0, **overrides: Any) -> Decoder:
    """The model of that name: `build("llama3", preset="llama-3.2-1b", n_layers=4)`.

    preset: a published size to start from; None starts from the small defaults of the configuration.

    Raises:
        ConfigError: an unknown name, preset or setting, or an impossible value.
    """
    architecture = ARCHITECTURES[known("name", name, ARCHITECTURES)]
    cfg = architecture.config()
    if preset is not None:
        cfg = architecture.presets[known("preset", preset, architecture.presets)]
    for key in overrides:
        known("setting", key, [field.name for field in dataclasses.fields(cfg)])
    with torch.random.fork_rng(devices=[]):  # making modules draws numbers that nobody sees
        return architecture.build(dataclasses.replace(cfg, **overrides), seed)


def known(what: str, name: str, possible: Iterable[str]) -> str:
    """`name`, if it is possible.

    Raises:
        ConfigError: it is not; names the nearest, or all.
    """
    names = list(possible)
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"possible: {', '.join(names) or 'none'}"
    raise ConfigError(f"{what}: {name!r} does not exist; {hint}")
