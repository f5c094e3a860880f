"""A byte-level BPE tokenizer as the keys of a GGUF file."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from legollm.checkpoints.gguf import Value
from legollm.checkpoints.reader import inside, read_json
from legollm.errors import CheckpointError
from legollm.interfaces import Tokenizer
from legollm.tokenizers import RegexBPETokenizer
from legollm.tokenizers.patterns import PATTERNS

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
SPLITS: Mapping[str, str] = {"gpt2": "gpt-2", "gpt4": "dbrx", "llama3": "dbrx", "o200k": "gpt-4o", "qwen": "qwen2"}
"""Our name of the pattern that text is split by -> the container's; the two that are called dbrx split alike."""


def tokenizer_keys(source: Path, tokenizer: Tokenizer, vocab_size: int, ids: Mapping[str, Any]) -> dict[str, Value]:
    """The metadata of a folder's tokenizer. vocab_size: of the model, whose further ids become unused tokens.

    ids: bos_token_id and so on, as config.json names them.

    Raises:
        CheckpointError: a kind of tokenizer or a split pattern that the container has no name for.
    """
    if not isinstance(tokenizer, RegexBPETokenizer):
        raise CheckpointError(
            f"{source}: GGUF has no place for a tokenizer of kind {tokenizer.kind}, only for byte-level BPE; "
            "give tokenizer=false to write the model alone"
        )
    with tempfile.TemporaryDirectory() as folder:  # the one form that all of its files have in common
        tokenizer.to_huggingface(folder)
        document = read_json(Path(folder, "tokenizer.json"))
    model = document["model"]
    tokens = [f"[PAD{i}]" for i in range(vocab_size)]
    types = [UNUSED] * vocab_size
    for token, i in model["vocab"].items():
        tokens[i], types[i] = token, NORMAL
    for added in document["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    keys: dict[str, Value] = {
        "model": "gpt2",
        "pre": split_name(source, document),
        "tokens": tokens,
        "token_type": types,
        "merges": [" ".join(pair) for pair in model["merges"]],
        "add_bos_token": starts_with_bos(source),
    }
    for key, name in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        found = ids.get(f"{key}_token_id")
        first = found[0] if isinstance(found, list) and found else found  # several may end a text; here, one
        if isinstance(first, int) and 0 <= first < vocab_size:
            keys[f"{name}_token_id"] = first
    metadata = {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
    template = inside(source, "chat_template.jinja")
    if template.is_file():
        metadata["tokenizer.chat_template"] = template.read_text(encoding="utf-8")
    return metadata


def split_name(source: Path, document: Mapping[str, Any]) -> str:
    """How the container calls the pattern in a tokenizer.json."""
    regex = document["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    name = next((name for name, known in PATTERNS.items() if known == regex), None)
    if name is None:
        raise CheckpointError(
            f"{source}: GGUF has no name for the pattern this tokenizer splits text by, only for those of "
            f"{', '.join(SPLITS)}; give tokenizer=false to write the model alone"
        )
    whole = document["model"]["ignore_merges"]  # a piece that is a token stays whole, as in LLaMA 3
    return "llama-bpe" if whole and SPLITS[name] == "dbrx" else SPLITS[name]


def starts_with_bos(source: Path) -> bool:
    """Whether the folder's own programs put a token before each text."""
    path = inside(source, "tokenizer.json")
    return path.is_file() and "TemplateProcessing" in json.dumps(read_json(path).get("post_processor"))
