"""Unigram and BPE over characters in Hugging Face's tokenizer.json: models Unigram and BPE, with byte fallback.

The ids are ours: ASCII characters 0 to 127, the bytes `<0x80>` to `<0xFF>` that spell other characters, then pieces,
then special tokens. Files with another order, such as LLaMA 2's, which has all 256 bytes after `<unk>`, `<s>` and
`</s>`, are refused; so are pieces with half a surrogate pair, and pieces spelled like the name of a byte.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from legollm.errors import TokenizerError
from legollm.tokenizers.byte import BYTES
from legollm.tokenizers.files import naming, read_json
from legollm.tokenizers.huggingface import check_roles, write_config
from legollm.tokenizers.patterns import PATTERNS
from legollm.whole_file import write_whole

N_ASCII = 128
BYTE_NAMES = tuple(f"<0x{value:02X}>" for value in range(N_ASCII, len(BYTES)))
NAMES = (*map(chr, range(N_ASCII)), *BYTE_NAMES)
"""What the first 256 ids are called."""


class PieceFile(NamedTuple):
    """What such a file says: how text is cut, the pieces after the bytes, and the model in its own terms."""

    pattern: str
    pieces: list[str]
    special_tokens: dict[str, int]
    model: Mapping[str, Any]


def vocabulary_of(pieces: Sequence[str]) -> list[str]:
    """The names of all ordinary tokens by id.

    Raises:
        TokenizerError: a piece that the file cannot hold.
    """
    alone = {*NAMES[:N_ASCII], *(piece for piece in pieces if len(piece) == 1)}
    for piece in pieces:
        if any("\ud800" <= character <= "\udfff" for character in piece):
            raise TokenizerError(f"piece {piece!r} has half a surrogate pair, which no JSON text can hold; train anew")
        if piece in BYTE_NAMES:
            raise TokenizerError(f"piece {piece!r} is spelled like the name of a byte in tokenizer.json; train anew")
        if missing := set(piece) - alone:
            raise TokenizerError(f"piece {piece!r} has {min(missing)!r}, which is no token by itself; train anew")
    return [*NAMES, *pieces]


def byte_score(scores: Mapping[str, float]) -> float:
    """A score for the names of bytes that no text reaches: its six characters are more probable one by one."""
    return 7 * min(scores.values()) - 1


def write_pieces(
    folder: Path,
    model: Mapping[str, Any],
    *,
    n_ordinary: int,
    pattern: str,
    special_tokens: Mapping[str, int],
    eos: str | None,
    bos: str | None,
    pad: str | None,
    chat_template: str | None,
) -> None:
    """Write what `AutoTokenizer.from_pretrained(folder)` opens and `read_pieces` reads back.

    Raises:
        TokenizerError: special tokens that have no place in the file; eos, bos or pad is none of them.
    """
    roles = check_roles(special_tokens, eos=eos, bos=bos, pad=pad)
    ordered = sorted(special_tokens.items(), key=lambda item: item[1])
    if [i for _, i in ordered] != list(range(n_ordinary, n_ordinary + len(ordered))):
        raise TokenizerError(f"special tokens have the ids {[i for _, i in ordered]}; they follow the last piece's")
    for name in special_tokens.keys() & set(BYTE_NAMES):
        raise TokenizerError(f"special token {name!r} is the name of a byte in tokenizer.json; rename it")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    regex = {"Regex": PATTERNS.get(pattern, pattern)}
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": name, **flags} for name, i in ordered],
        "normalizer": None,
        "pre_tokenizer": {"type": "Split", "pattern": regex, "behavior": "Isolated", "invert": False},
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": model,
    }
    write_whole(folder / "tokenizer.json", json.dumps(document, ensure_ascii=False, indent=1) + "\n")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    write_config(folder, config | roles, chat_template)


def is_of_pieces(document: Mapping[str, Any], model_type: str) -> bool:
    """Whether a tokenizer.json has such a model: "Unigram", or "BPE" that falls back to bytes."""
    model = document.get("model")
    return isinstance(model, dict) and model.get("type") == model_type and bool(model.get("byte_fallback"))


def read_pieces(path: Path, model_type: str) -> PieceFile:
    """What a tokenizer.json, or the one in a folder, says.

    Raises:
        TokenizerError: another model, or one that works in a way that is not known here; names it.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    document = read_json(file)
    with naming(file):
        if not is_of_pieces(document, model_type):
            raise TokenizerError(f"no model of type {model_type!r} with byte_fallback in it; use load_tokenizer")
        model = document["model"]
        if document.get("normalizer") is not None:
            raise TokenizerError(f"normalizer {document['normalizer']['type']} is not supported; none can be read")
        split = document.get("pre_tokenizer") or {}
        if split.get("type") != "Split" or split["behavior"] != "Isolated" or split.get("invert"):
            raise TokenizerError(f"pre-tokenizer {split.get('type')} is not supported; Split, isolated, can be read")
        for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
            if model.get(option):
                raise TokenizerError(f"the model option {option} = {model[option]!r} is not supported")
        if model_type == "Unigram":
            names = [name for name, _ in model["vocab"]]
        else:
            names = sorted(model["vocab"], key=model["vocab"].__getitem__)
            if [model["vocab"][name] for name in names] != list(range(len(names))):
                raise TokenizerError("the ids of the vocabulary have holes or repeat; only 0, 1, 2 ... can be read")
        different = next((i for i, name in enumerate(NAMES) if names[i : i + 1] != [name]), None)
        if different is not None:
            raise TokenizerError(
                f"id {different} is {names[different : different + 1]}, not {NAMES[different]!r}; only files whose ids "
                "are ASCII, <0x80> to <0xFF>, pieces can be read"
            )
        special = {token["content"]: int(token["id"]) for token in document.get("added_tokens") or []}
        vocabulary_of(names[len(NAMES) :])
        return PieceFile(str(split["pattern"]["Regex"]), names[len(NAMES) :], special, model)
