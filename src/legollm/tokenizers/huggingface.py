"""Byte-level BPE in the files of the Hugging Face tools: tokenizer.json both ways, and older pairs of files to read."""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from legollm.errors import TokenizerError
from legollm.tokenizers.bpe_model import BPEModel
from legollm.tokenizers.files import naming, read_bytes, read_json
from legollm.tokenizers.patterns import PATTERNS
from legollm.whole_file import write_whole

log = logging.getLogger(__name__)


def _byte_alphabet() -> dict[int, str]:
    """A visible character for each byte, as GPT-2 chose them: itself if it prints, else the next from U+0100 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = [value for value in range(256) if value not in printable]
    return {value: chr(value) for value in printable} | {value: chr(256 + n) for n, value in enumerate(others)}


_TO_VISIBLE = MappingProxyType(_byte_alphabet())
_FROM_VISIBLE = MappingProxyType({letter: value for value, letter in _byte_alphabet().items()})

# How the tokenizer classes that come without tokenizer.json split text: pattern and whether NFC comes first.
_CLASSES = MappingProxyType({"GPT2Tokenizer": ("gpt2", False), "Qwen2Tokenizer": ("qwen", True)})


def _visible(token: bytes) -> str:
    return "".join([_TO_VISIBLE[value] for value in token])


def _bytes_of(token: str) -> bytes:
    try:
        return bytes([_FROM_VISIBLE[letter] for letter in token])
    except KeyError as error:
        raise TokenizerError(
            f"token {token!r} is not written in the byte alphabet of GPT-2; only that is known"
        ) from error


def read_huggingface(path: Path, *, pattern: str | None = None) -> BPEModel:
    """The model in a folder, or in a tokenizer.json.

    Raises:
        TokenizerError: no files that are known, or something in them that is not.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    if file.is_file() or not path.is_dir():
        document = read_json(file)
        with naming(file):
            return _parse_tokenizer_json(document, pattern)
    for vocab, merges in (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")):
        if (path / vocab).is_file() and (path / merges).is_file():
            return _read_pair(path / vocab, path / merges, pattern)
    raise TokenizerError(
        f"{path}: no tokenizer here; a folder has tokenizer.json, or vocab.json and merges.txt, or encoder.json and "
        "vocab.bpe"
    )


def _parse_tokenizer_json(document: Mapping[str, Any], pattern: str | None) -> BPEModel:
    model = document["model"]
    if model.get("type", "BPE") != "BPE" or model.get("byte_fallback") or "merges" not in model:
        raise TokenizerError(f"a model of type {model.get('type')!r}; only byte-level BPE can be read")
    for option in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(option):
            raise TokenizerError(
                f"the model option {option} = {model[option]!r} is not supported; only none can be read"
            )
    added = document.get("added_tokens") or []
    _warn_of_what_is_ignored(added, document.get("post_processor"))
    special = {token["content"]: token["id"] for token in added}
    return BPEModel(
        pattern=_pattern_of(document.get("pre_tokenizer")) if pattern is None else pattern,
        tokens=_by_id(model["vocab"], special),
        merges=[_merge(merge) for merge in model["merges"]],
        special_tokens=special,
        visible=[token["content"] for token in added if not token.get("special")],
        nfc=_is_nfc(document.get("normalizer")),
        whole_pieces=bool(model.get("ignore_merges")),
    )


def _warn_of_what_is_ignored(added: Sequence[Mapping[str, Any]], post_processor: Mapping[str, Any] | None) -> None:
    for token in added:
        flags = [flag for flag in ("lstrip", "rstrip", "single_word") if token.get(flag)]
        if flags:
            log.warning("special token %r: %s ignored, it is found exactly as written", token["content"], flags)
    steps = [] if post_processor is None else post_processor.get("processors", [post_processor])
    for step in steps:
        if step["type"] != "ByteLevel":
            log.warning("post-processor %s ignored: encode adds no special tokens by itself", step["type"])


def _by_id(vocab: Mapping[str, int], special: Collection[str]) -> dict[int, bytes]:
    tokens: dict[int, bytes] = {}
    for token, i in vocab.items():
        if token in special:
            continue
        if i in tokens:
            raise TokenizerError(f"two tokens have id {i}, {tokens[i]!r} and {_bytes_of(token)!r}; ids are unique")
        tokens[i] = _bytes_of(token)
    return tokens


def _merge(merge: str | Sequence[str]) -> tuple[bytes, bytes]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return _bytes_of(left), _bytes_of(right)


def _is_nfc(normalizer: Mapping[str, Any] | None) -> bool:
    if normalizer is None or (normalizer["type"] == "Sequence" and not normalizer["normalizers"]):
        return False
    if normalizer["type"] == "NFC":
        return True
    raise TokenizerError(f"normalizer {normalizer['type']} is not supported; NFC or none can be read")


def _pattern_of(pre_tokenizer: Mapping[str, Any] | None) -> str:
    """The regex of `ByteLevel` alone, which is GPT-2's, or of a `Split` before it."""
    steps = [] if pre_tokenizer is None else pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    kinds = [step["type"] for step in steps]
    if kinds in (["ByteLevel"], ["Split", "ByteLevel"]):
        *splits, byte_level = steps
        if byte_level.get("add_prefix_space"):
            raise TokenizerError("pre-tokenizer ByteLevel with add_prefix_space is not supported")
        if byte_level.get("use_regex", True) and not splits:
            return PATTERNS["gpt2"]
        if not byte_level.get("use_regex", True) and splits:
            (split,) = splits
            if split["behavior"] == "Isolated" and not split.get("invert") and "Regex" in split["pattern"]:
                return str(split["pattern"]["Regex"])
    raise TokenizerError(
        f"pre-tokenizer {' + '.join(kinds) or 'none'} with these options is not supported; "
        "ByteLevel, or Split (Regex, Isolated) + ByteLevel can be read"
    )


def _read_pair(vocab_file: Path, merges_file: Path, pattern: str | None) -> BPEModel:
    """vocab.json and merges.txt under either name, with what tokenizer_config.json says about them."""
    folder = vocab_file.parent
    vocab = read_json(vocab_file)
    lines = read_bytes(merges_file).decode("utf-8", "replace").splitlines()
    config = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    unnamed = "GPT2Tokenizer" if vocab_file.name == "encoder.json" else ""
    name = str(config.get("tokenizer_class", unnamed)).removesuffix("Fast")
    if pattern is None and name not in _CLASSES:
        raise TokenizerError(
            f"{folder}: nothing here says how text is split (tokenizer_class is {name!r}); use "
            f"RegexBPETokenizer.from_huggingface(folder, pattern=...) with one of {', '.join(PATTERNS)} or a regex"
        )
    default_pattern, nfc = _CLASSES.get(name, ("", False))
    with naming(folder):
        merges = [_merge(line) for line in lines if line and not line.startswith("#version")]
        built = {left + right for left, right in merges}
        listed = config.get("added_tokens_decoder", {})
        added = {token["content"]: int(i) for i, token in listed.items()}
        # An older folder does not list its control tokens: they are the entries of the vocabulary that no merge builds.
        long = {token: i for token, i in vocab.items() if len(token) > 1 and token not in added}
        unbuilt = {token: i for token, i in long.items() if _bytes_of(token) not in built}
        words = [token for token in unbuilt if token[0] + token[-1] not in ("<>", "[]")]
        if words:
            raise TokenizerError(
                f"{merges_file.name} builds {len(words)} tokens of the vocabulary not at all, such as {words[0]!r}; "
                "the file is damaged or belongs to another vocabulary"
            )
        special = added | unbuilt
        return BPEModel(
            pattern=default_pattern if pattern is None else pattern,
            tokens=_by_id(vocab, special),
            merges=merges,
            special_tokens=special,
            visible=[token["content"] for token in listed.values() if not token.get("special")],
            nfc=nfc,
        )


def write_huggingface(
    folder: Path, model: BPEModel, *, eos: str | None, bos: str | None, pad: str | None, chat_template: str | None
) -> None:
    """Write what `AutoTokenizer.from_pretrained(folder)` opens and `read_huggingface` reads back.

    Raises:
        TokenizerError: a special token that does not exist, or one spelled like an ordinary token.
    """
    vocab = {_visible(token): i for i, token in sorted(model.tokens.items())}
    for name in model.special_tokens.keys() & vocab.keys():
        raise TokenizerError(f"special token {name!r} is spelled like an ordinary one in tokenizer.json; rename it")
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": PATTERNS.get(model.pattern, model.pattern)}}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": name, **flags, "special": name not in model.visible}
            for name, i in sorted(model.special_tokens.items(), key=lambda item: item[1])
        ],
        "normalizer": {"type": "NFC"} if model.nfc else None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{**split, "behavior": "Isolated", "invert": False}, byte_level],
        },
        "post_processor": {**byte_level, "trim_offsets": False},
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": model.whole_pieces,
            # Special tokens are listed here as well, or ids that are not consecutive would be given out anew.
            "vocab": vocab | dict(model.special_tokens),
            "merges": [[_visible(left), _visible(right)] for left, right in model.merges],
        },
    }
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    names = check_roles(model.special_tokens, eos=eos, bos=bos, pad=pad)
    write_whole(folder / "tokenizer.json", json.dumps(document, ensure_ascii=False, indent=1) + "\n")
    write_config(folder, config | names, chat_template)


def check_roles(special_tokens: Mapping[str, int], **roles: str | None) -> dict[str, str | None]:
    """{"eos_token": ...} and so on, each a special token or None.

    Raises:
        TokenizerError: a role is given to a token that does not exist.
    """
    for role, name in roles.items():
        if name is not None and name not in special_tokens:
            has = ", ".join(special_tokens) or "none"
            raise TokenizerError(f"{role} = {name!r} is no special token of this tokenizer; it has {has}")
    return {f"{role}_token": name for role, name in roles.items()}


def write_config(folder: Path, config: Mapping[str, Any], chat_template: str | None) -> None:
    """tokenizer_config.json, and chat_template.jinja beside it if there is a template."""
    write_whole(folder / "tokenizer_config.json", json.dumps(config, ensure_ascii=False, indent=1) + "\n")
    if chat_template is not None:
        write_whole(folder / "chat_template.jinja", chat_template)
