"""Any checkpoint folder as a model that generates: ours or Hugging Face's, verified where there is a manifest."""

import copy
import dataclasses
import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, overload

import torch
from torch import nn

from legollm.architectures.scored import REWARD, ScoredConfig
from legollm.checkpoints.adapter import base_of, is_adapter, put_adapters, refuse_adapter
from legollm.checkpoints.huggingface import CONFIG, load_hf_folder
from legollm.checkpoints.manifest import MANIFEST, latest, steps, verify
from legollm.checkpoints.quantized import load_quantized, quantization_of
from legollm.checkpoints.reader import inside, read_json
from legollm.data.chat import Message, encode_chat, end_of_turn
from legollm.data.templates import CHATML, template_of_folder
from legollm.errors import CheckpointError, ConfigError, IntegrityError
from legollm.generation.beams import Beams, BeamSearch
from legollm.generation.cache import GenerativeModel
from legollm.generation.complete import DEFAULT_DECODING, BatchDecoder, Decoding, decode, open_rows
from legollm.generation.drafts import ModelDraft, PromptLookup
from legollm.generation.sampling import Sampling
from legollm.generation.speculative import Speculation, Speculator
from legollm.generation.text import TextStream, generate_text, stream_text
from legollm.interfaces import Tokenizer
from legollm.lowering.engine import Engine, lowering_for
from legollm.lowering.weights import Precision
from legollm.tokenizers import load_tokenizer
from legollm.transforms.lora import dissolve

TORCH_HAS = ("float32", "bfloat16")
"""Precisions of weights for which no kernels are needed."""
END_OF_TEXT = "<|endoftext|>"
USED_BY = {
    "transformer": "legollm seq2seq write",
    "t5": "legollm seq2seq write",
    "encoder_classifier": "legollm classify label",
}
"""The command for models that do not continue a text."""


@dataclass(frozen=True)
class Loaded:
    """A model with its tokenizer, ready to write."""

    model: nn.Module
    tokenizer: Tokenizer | None
    """None where the folder has none; prompts are then lists of ids."""
    config: Any
    """The architecture's own configuration."""
    arch: str
    folder: Path
    chat_template: str | None = None
    """The Jinja template of a model that was fine-tuned to answer."""
    engine: Engine = "auto"
    """What runs the model when it writes: torch, cpu (compiled kernels), or whichever is done sooner."""
    precision: Precision = "float32"
    """Of the weights when it writes: float32, bfloat16, or with the kernels int8 and int4."""
    writers: dict[Engine, GenerativeModel] = dataclasses.field(default_factory=dict, repr=False, compare=False)
    """What writes in place of the model, once it did: with cpu its lowering, with torch its copy in bfloat16."""
    base: Path | None = None
    """Of an adapter: the folder of the model it belongs to."""
    drafts: dict[str, "Loaded"] = dataclasses.field(default_factory=dict, repr=False, compare=False)
    """The models that guessed for it, by their folders."""

    def generate(self, prompt: str | Sequence[int], **settings: Any) -> str:
        """The continuation of a prompt, without the prompt.

        settings: temperature, top_k, top_p, min_p, max_new_tokens, stop, seed, ... as in `Sampling`; on_overflow (by
        itself "crop"), window, cache, ... as in `Decoding`; draft, lookahead and adapt as in `Speculation`;
        beams and length_penalty as in `Beams`.

        Raises:
            ConfigError: an unknown or impossible setting.
            ContextError: the prompt does not fit, and on_overflow is "error".
        """
        wanted, decoding, decoder = self.settings_of(settings)
        completion = generate_text(
            self.writer_of(wanted, decoding=decoding),
            self.text_side(),
            prompt,
            wanted,
            stop_ids=self.stop_ids(),
            decoding=decoding,
            decoder=decoder,
        )
        return completion.text

    @overload
    def stream(self, prompt: str | Sequence[int], *, as_ids: Literal[False] = ..., **settings: Any) -> TextStream: ...
    @overload
    def stream(self, prompt: str | Sequence[int], *, as_ids: Literal[True], **settings: Any) -> Iterator[int]: ...
    def stream(
        self, prompt: str | Sequence[int], *, as_ids: bool = False, **settings: Any
    ) -> TextStream | Iterator[int]:
        """The continuation piece by piece: whole characters only, or with as_ids the tokens."""
        wanted, decoding, decoder = self.settings_of(settings)
        if as_ids:
            return self.ids(prompt, wanted, decoding, decoder)
        return stream_text(
            self.writer_of(wanted, decoding=decoding),
            self.text_side(),
            prompt,
            wanted,
            stop_ids=self.stop_ids(),
            decoding=decoding,
            decoder=decoder,
        )

    def ids(
        self, prompt: str | Sequence[int], sampling: Sampling, decoding: Decoding, decoder: BatchDecoder | None = None
    ) -> Iterator[int]:
        ids = self.text_side().encode(prompt) if isinstance(prompt, str) else prompt
        model = self.writer_of(sampling, decoding=decoding)
        (row,) = open_rows(model, [ids], sampling, decoding)
        n_ids = self.tokenizer.vocab_size if self.tokenizer else None  # the tokens of the text, no others
        steps = decode(
            model,
            [row],
            sampling,
            stop_ids=self.stop_ids(),
            decoding=decoding,
            n_ids=n_ids,
            decoder=decoder,
        )
        for _, token in steps:
            if token != row.stop_id:
                yield token

    def chat_prompt(self, messages: Sequence[Message]) -> list[int]:
        """The ids after which the assistant answers; what looks like a control token in a message is plain text."""
        return encode_chat(self.text_side(), messages, self.chat_template or CHATML, add_generation_prompt=True)

    def stop_ids(self) -> tuple[int, ...]:
        """The ids that end a text or an answer."""
        if self.tokenizer is None or not self.tokenizer.special_tokens:
            return ()
        ends = {self.tokenizer.special_tokens.get(END_OF_TEXT)}
        if self.chat_template:
            ends.add(end_of_turn(self.tokenizer, self.chat_template))
        return tuple(sorted(end for end in ends if end is not None))

    def decoding(self, settings: Decoding) -> Decoding:
        """Where no window is set it is the length the model was trained at, also where positions reach further."""
        return replace(settings, window=settings.window or self.config.max_seq_len)

    def settings_of(self, settings: dict[str, Any]) -> tuple[Sampling, Decoding, BatchDecoder | None]:
        """Keyword arguments, told apart.

        Raises:
            ConfigError: a name that is no setting, with the near miss; or a value that is not possible.
        """
        parts: list[dict[str, Any]] = []
        for kind in (Decoding, Speculation, Beams):
            parts.append({name: settings[name] for name in settings.keys() & names_of(kind)})
        own, guessing, searching = parts
        wanted = sampling_of(
            {name: value for name, value in settings.items() if name not in own | guessing | searching}
        )
        decoding = self.decoding(Decoding(**{"on_overflow": "crop"} | own))
        return wanted, decoding, self.decoder_of(Speculation(**guessing), Beams(**searching), wanted)

    def decoder_of(self, speculation: Speculation, beams: Beams, sampling: Sampling) -> BatchDecoder | None:
        """What writes in another way than token by token; None if nothing is said.

        Raises:
            ConfigError: both are wanted; or see `speculator`.
            CheckpointError: see `speculator`.
        """
        if beams.beams == 1:
            return self.speculator(speculation, sampling)
        if speculation.draft is not None:
            raise ConfigError("beams: a search has no use for guesses; leave out either beams or draft")
        return BeamSearch(beams)

    def speculator(self, settings: Speculation, sampling: Sampling) -> Speculator | None:
        """What guesses ahead; None if nothing is to.

        Raises:
            CheckpointError: no such folder, or a model that does not continue a text.
            ConfigError: the other model has other tokens.
        """
        if settings.draft is None:
            return None
        if settings.draft == "prompt":
            return Speculator(PromptLookup(), settings)
        folder = str(settings.draft)
        if folder not in self.drafts:
            self.drafts[folder] = load(folder, engine=self.engine, precision=self.precision)
        draft = self.drafts[folder]
        if draft.vocabulary != self.vocabulary:
            raise ConfigError(
                f"draft: {folder} has another tokenizer ({draft.config.vocab_size:,} ids) than {self.folder} "
                f"({self.config.vocab_size:,} ids), so its guesses mean something else; give a model trained with "
                f"tokenizer={self.folder}"
            )
        return Speculator(ModelDraft(draft.writer_of(sampling)), settings)

    @property
    def vocabulary(self) -> str | int:
        """What two models have in common if their ids mean the same."""
        return self.config.vocab_size if self.tokenizer is None else self.tokenizer.fingerprint

    @property
    def writer(self) -> GenerativeModel:
        """The model as one that continues a text.

        Raises:
            CheckpointError: it is of another kind; names the command for it.
        """
        self.refuse_pairs()
        return cast(GenerativeModel, self.model)

    def writer_of(
        self, sampling: Sampling, n_answers: int = 1, decoding: Decoding = DEFAULT_DECODING
    ) -> GenerativeModel:
        """What writes so many answers soonest, with this engine, in this precision and with such a cache.

        Raises:
            CheckpointError: see `writer`.
            ConfigError, LoweringError: the engine has no such precision, or no lowering for the model.
        """
        model, n_tokens = self.writer, n_answers * sampling.max_new_tokens
        only_torch = self.engine == "auto" and decoding.cache_precision != "model" and self.precision in TORCH_HAS
        if "cpu" in self.writers and not only_torch:
            return self.writers["cpu"]
        engine = "torch" if only_torch else self.engine
        if lowered := lowering_for(self.model, engine, self.precision, n_tokens):
            return self.writers.setdefault("cpu", lowered)
        if self.precision == "float32":
            return model
        if "torch" not in self.writers:
            self.writers["torch"] = cast(GenerativeModel, copy.deepcopy(self.model).to(torch.bfloat16))
        return self.writers["torch"]

    def refuse_pairs(self) -> None:
        """
        Raises:
            CheckpointError: the model does not continue a text; names the command for it.
        """
        if use := use_of(self.arch, self.config):
            raise CheckpointError(f"{self.folder}: {self.arch} does not continue texts; `{use}` uses it")

    def text_side(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            CheckpointError: the folder has none.
        """
        if self.tokenizer is None:
            raise CheckpointError(f"{self.folder}: has no tokenizer.json, so it reads and writes ids, not text")
        return self.tokenizer


def use_of(arch: str, config: Any) -> str | None:
    """The command for a model that does not continue a text; None if it does."""
    if isinstance(config, ScoredConfig):
        return "legollm reward" if config.labels == REWARD else "legollm classify label"
    return USED_BY.get(arch)


def sampling_of(settings: dict[str, Any]) -> Sampling:
    """Sampling out of keyword arguments.

    Raises:
        ConfigError: a name that is no setting, with the near miss; or a value that is not possible.
    """
    names = names_of(Sampling)
    for name in settings:
        if name not in names:
            close = difflib.get_close_matches(
                name, [*names, *names_of(Decoding), *names_of(Speculation), *names_of(Beams)], n=1
            )
            raise ConfigError(
                f"{name}: no such setting; " + (f"did you mean {close[0]}?" if close else ", ".join(names))
            )
    if isinstance(settings.get("stop"), str):
        settings = settings | {"stop": (settings["stop"],)}
    if isinstance(settings.get("logit_bias"), dict):
        biases = settings["logit_bias"].items()
        settings = settings | {"logit_bias": tuple(f"{token}={bias:f}" for token, bias in biases)}
    return Sampling(**settings)


def names_of(settings: type[Sampling | Decoding | Speculation | Beams]) -> list[str]:
    return [field.name for field in dataclasses.fields(settings)]


def load(
    folder: Path | str,
    *,
    engine: Engine = "auto",
    precision: Precision = "float32",
    base: Path | None = None,
    merged: bool = True,
) -> Loaded:
    """Open a checkpoint folder, a run folder (its newest whole checkpoint), a Hugging Face folder, or an adapter.

    engine, precision: what runs the model when it writes, and of which weights; see `Loaded`. base: where the model of
    an adapter is; None is where it was. merged: whether an adapter becomes part of the weights, or stays beside them.

    Raises:
        CheckpointError: no such folder, not a model that legollm knows, or a tokenizer with more ids than it; or the
            base of an adapter is missing, or is another.
        IntegrityError: a file is not what the manifest beside it says.
    """
    path = whole_folder(Path(folder))
    if is_adapter(path):
        base = whole_folder(base) if base else base_of(path)
        arch, config, model = open_model(base)
        arch, config = put_adapters(path, base, arch, config, model)
        if merged:
            dissolve(model)
    else:
        base = None
        arch, config, model = open_model(path)
    with_text = text_folder(path, base)
    tokenizer = load_tokenizer(with_text) if has_tokenizer(with_text) else None
    if tokenizer is not None and tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(
            f"{path}: the tokenizer has {tokenizer.vocab_size} ids and the model rows for {config.vocab_size}; "
            "put the tokenizer beside it that it was trained with"
        )
    roles = inside(with_text, "tokenizer_config.json")
    chat_template = template_of_folder(
        inside(with_text, "chat_template.jinja"), read_json(roles) if roles.exists() else {}
    )
    return Loaded(model.eval(), tokenizer, config, arch, path, chat_template, engine, precision, base=base)


def whole_folder(folder: Path) -> Path:
    """The folder that holds a model or an adapter, its files as the manifest says, where there is one.

    Raises:
        CheckpointError, IntegrityError: see `load`.
    """
    path = resolve_folder(folder, adapters=True)
    if (path / MANIFEST).exists():
        try:
            verify(path)
        except IntegrityError as error:
            whole = latest(path.resolve().parent)
            hint = f"; use {whole} instead" if whole else ""
            raise IntegrityError(f"{error}{hint}") from error
    return path


def open_model(path: Path) -> tuple[str, Any, nn.Module]:
    """Architecture, configuration and model of a folder, of floats or of whole numbers."""
    quantization = quantization_of(read_json(path / CONFIG))
    return load_quantized(path, quantization) if quantization else load_hf_folder(path)


def text_folder(path: Path, base: Path | None) -> Path:
    """Where the tokenizer lies: with an adapter, or else with its base."""
    return path if base is None or has_tokenizer(path) else base


def has_tokenizer(path: Path) -> bool:
    return any(inside(path, name).exists() for name in ("tokenizer.json", "vocab.json"))


def resolve_folder(path: Path, *, adapters: bool = False) -> Path:
    """The folder that holds the model: the path itself, or the newest whole checkpoint of a run.

    adapters: whether it may hold an adapter instead.

    Raises:
        CheckpointError: no such folder, nothing in it that is wanted, or only what is damaged.
    """
    found = newest_in(path)
    if not adapters:
        refuse_adapter(found)
    return found


def newest_in(path: Path) -> Path:
    if (path / "config.json").exists() or is_adapter(path):
        return path
    run = path.parent if path.name == "checkpoint" and not path.exists() else path
    if (run / "checkpoints").is_dir() and (newest := latest(run / "checkpoints")):
        return newest
    if steps(run / "checkpoints"):
        raise CheckpointError(f"{run}: no checkpoint in it is whole; restore its files from a copy, or train it again")
    if not path.exists():
        near = difflib.get_close_matches(
            path.name, [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else [], n=1
        )
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise CheckpointError(f"{path}: no such folder{hint}")
    raise CheckpointError(f"{path}: no config.json in it, so no model; give a checkpoint or a run folder")
