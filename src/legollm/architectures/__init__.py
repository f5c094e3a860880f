"""The recipes: a configuration goes in, a model comes out, a Decoder if nothing else is said; data and training know
it as a LanguageModel.

| name               | file                  | what is particular                                                  |
| ------------------ | --------------------- | ------------------------------------------------------------------- |
| ngram              | ngram.py              | counts of what followed the last few tokens; no gradients           |
| bigram             | bigram.py             | a table: the least that predicts a next token                       |
| mlp_lm             | mlp_lm.py             | the last few tokens side by side, then an MLP                       |
| vanilla            | vanilla.py            | every brick is a setting; from one attention head to a modern model |
| gpt2               | gpt2.py               | LayerNorm, learned positions, GELU, biases                          |
| llama3             | llama3.py             | RMSNorm, rotary positions, grouped queries, SwiGLU                  |
| qwen3              | qwen3.py              | as LLaMA 3, with a free head width and norms on q and k             |
| mixtral            | mixtral.py            | LLaMA with eight feed-forwards, two of them per token               |
| qwen3_moe          | qwen3_moe.py          | Qwen 3 with many small feed-forwards, a few per token               |
| moe                | moe.py                | any routing: one expert, several, all; capacity; shared experts     |
| transformer        | transformer.py        | the first one: an encoder reads a source, a decoder writes a target |
| t5                 | t5.py                 | encoder-decoder whose scores know distances                         |
| encoder_classifier | encoder_classifier.py | reads in both directions and labels a text, as BERT does            |

Each file holds the configuration, the published sizes, the function that puts the bricks together, and the names its
weights have in a Hugging Face checkpoint. To add one, write the file and its row in ARCHITECTURES.
"""

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch

from legollm.architectures import (
    bigram,
    encoder_classifier,
    gpt2,
    llama3,
    mixtral,
    mlp_lm,
    moe,
    ngram,
    qwen3,
    qwen3_moe,
    t5,
    transformer,
    vanilla,
)
from legollm.architectures.scored import CLASS, SUFFIX, ScoredConfig, scored_hugging_face, with_scores
from legollm.architectures.sizes import sized
from legollm.architectures.weight_map import HuggingFace
from legollm.components.decoder import Decoder
from legollm.components.outside import make_brick
from legollm.errors import ConfigError


@dataclass(frozen=True)
class Architecture:
    """One row of the table."""

    config: type[Any]
    build: Callable[..., Any]
    """(config, seed=0) -> the model."""
    presets: Mapping[str, Any]
    """Published sizes by name, as configurations."""
    hugging_face: HuggingFace
    learns: Literal["steps", "counts", "pairs"] = "steps"
    """How a text becomes its weights: by steps of gradient descent on next tokens, by counting them once, or not from
    text alone but from pairs of an input and an answer. `legollm train` takes the first two."""


ARCHITECTURES: Mapping[str, Architecture] = {
    "ngram": Architecture(ngram.NGramConfig, ngram.ngram, ngram.PRESETS, ngram.HUGGING_FACE, learns="counts"),
    "bigram": Architecture(bigram.BigramConfig, bigram.bigram, bigram.PRESETS, bigram.HUGGING_FACE),
    "mlp_lm": Architecture(mlp_lm.MlpLmConfig, mlp_lm.mlp_lm, mlp_lm.PRESETS, mlp_lm.HUGGING_FACE),
    "vanilla": Architecture(
        vanilla.VanillaConfig, partial(vanilla.vanilla, outside=make_brick), vanilla.PRESETS, vanilla.HUGGING_FACE
    ),
    "gpt2": Architecture(gpt2.GPT2Config, gpt2.gpt2, gpt2.PRESETS, gpt2.HUGGING_FACE),
    "llama3": Architecture(llama3.Llama3Config, llama3.llama3, llama3.PRESETS, llama3.HUGGING_FACE),
    "qwen3": Architecture(qwen3.Qwen3Config, qwen3.qwen3, qwen3.PRESETS, qwen3.HUGGING_FACE),
    "moe": Architecture(moe.MoEConfig, moe.moe, moe.PRESETS, moe.HUGGING_FACE),
    "mixtral": Architecture(mixtral.MixtralConfig, mixtral.mixtral, mixtral.PRESETS, mixtral.HUGGING_FACE),
    "qwen3_moe": Architecture(qwen3_moe.Qwen3MoEConfig, qwen3_moe.qwen3_moe, qwen3_moe.PRESETS, qwen3_moe.HUGGING_FACE),
    "transformer": Architecture(
        transformer.TransformerConfig, transformer.transformer, transformer.PRESETS, transformer.HUGGING_FACE, "pairs"
    ),
    "t5": Architecture(t5.T5Config, t5.t5, t5.PRESETS, t5.HUGGING_FACE, "pairs"),
    "encoder_classifier": Architecture(
        encoder_classifier.EncoderClassifierConfig,
        encoder_classifier.encoder_classifier,
        encoder_classifier.PRESETS,
        encoder_classifier.HUGGING_FACE,
        "pairs",
    ),
}


def architecture(name: str) -> Architecture:
    """The row of that name; of `llama3+score` the one of llama3 with a head for scores, see scored.py.

    Raises:
        ConfigError: an unknown name.
    """
    if not name.endswith(SUFFIX):
        return ARCHITECTURES[known("name", name, ARCHITECTURES)]
    base = ARCHITECTURES[known("name", name.removesuffix(SUFFIX), ARCHITECTURES)]

    def scored(cfg: ScoredConfig, seed: int = 0) -> Decoder:
        return with_scores(base.build(cfg.base, seed), len(cfg.labels), seed)

    return Architecture(ScoredConfig, scored, {}, scored_hugging_face(base.hugging_face), learns="pairs")


def name_in(config: Mapping[str, Any]) -> str | None:
    """Which architecture a config.json describes; None for one that is not ours."""
    kind = config.get("model_type")
    name = next((name for name, row in ARCHITECTURES.items() if row.hugging_face.model_type == kind), None)
    classes = config.get("architectures")
    scores = isinstance(classes, list) and any(str(one).endswith(CLASS) for one in classes)
    return f"{name}{SUFFIX}" if name and scores and ARCHITECTURES[name].learns == "steps" else name


def build(name: str, preset: str | None = None, seed: int = 0, size: str | None = None, **overrides: Any) -> Decoder:
    """The model of that name: `build("llama3", preset="llama-3.2-1b", n_layers=4)`.

    preset: a published size to start from; None starts from the small defaults of the configuration.
    size: about how many parameters it shall have, such as "25M"; sizes.py says what follows from that.

    Raises:
        ConfigError: an unknown name, preset or setting, or an impossible value.
    """
    row = ARCHITECTURES[known("name", name, ARCHITECTURES)]
    cfg = row.config()
    if preset is not None:
        cfg = row.presets[known("preset", preset, row.presets)]
    for key in overrides:
        known("setting", key, [field.name for field in dataclasses.fields(cfg)])
    with torch.random.fork_rng(devices=[]):  # making modules draws numbers that nobody sees
        if size is None:
            cfg = dataclasses.replace(cfg, **overrides)
        else:
            start = dataclasses.replace(cfg, vocab_size=overrides.get("vocab_size", cfg.vocab_size))
            cfg = sized(start, row.build, size, overrides).config
        model: Decoder = row.build(cfg, seed)
    return model


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
