"""Ranks files of tiktoken: one `base64-of-token rank` a line, where the rank is also the id."""

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from pathlib import Path

from legollm.errors import TokenizerError
from legollm.tokenizers.apply_merges import apply_merges
from legollm.tokenizers.bpe_model import BPEModel
from legollm.tokenizers.files import naming, read_bytes
from legollm.tokenizers.patterns import PATTERNS
from legollm.whole_file import write_whole

# What the published files leave out, by the SHA-256 of their content: pattern and control tokens.
_PUBLISHED: Mapping[str, tuple[str, Mapping[str, int]]] = {
    "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930": ("gpt2", {"<|endoftext|>": 50256}),
    "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7": (
        "gpt4",
        {
            "<|endoftext|>": 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
    ),
    "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d": (
        "o200k",
        {"<|endoftext|>": 199999, "<|endofprompt|>": 200018},
    ),
}


def read_ranks(
    path: Path | str, *, pattern: str | None = None, special_tokens: Mapping[str, int] | None = None
) -> BPEModel:
    """The model of a ranks file; what is not given is known for r50k_base, cl100k_base and o200k_base.

    Raises:
        TokenizerError: unreadable, ranks that no merging can produce, or an unknown file and no pattern.
    """
    content = read_bytes(path)
    known = _PUBLISHED.get(hashlib.sha256(content).hexdigest())
    if pattern is None and known is None:
        raise TokenizerError(
            f"{path}: a ranks file does not say how text is split; use RegexBPETokenizer.from_tiktoken(path, "
            f"pattern=...) with one of {', '.join(PATTERNS)} or a regex"
        )
    tokens: dict[int, bytes] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            encoded, digits = line.split()
            token, rank = b64decode(encoded, validate=True), int(digits)
        except ValueError as error:
            raise TokenizerError(f"{path}: line {number} is not `base64 rank`; the file is damaged") from error
        if rank in tokens:
            raise TokenizerError(f"{path}: line {number} gives rank {rank} to a second token; the file is damaged")
        tokens[rank] = token
    default_pattern, default_special = known if known is not None else ("", {})
    with naming(path):
        return BPEModel(
            pattern=default_pattern if pattern is None else pattern,
            tokens=tokens,
            merges=_recover_merges(tokens),
            special_tokens=default_special if special_tokens is None else special_tokens,
        )


def _recover_merges(tokens: Mapping[int, bytes]) -> list[tuple[bytes, bytes]]:
    """The last merge of each token: encoded with the merges before it, it falls into exactly two parts."""
    ids = {token: i for i, token in tokens.items()}
    ranks: dict[tuple[int, int], int] = {}
    products: list[int] = []
    merges: list[tuple[bytes, bytes]] = []
    for i in sorted(tokens):
        if len(tokens[i]) == 1:
            continue
        try:
            parts = apply_merges([ids[bytes([value])] for value in tokens[i]], ranks, products)
        except KeyError as error:
            raise TokenizerError(f"token {tokens[i]!r} needs the byte {error.args[0]!r}, which is no token") from error
        if len(parts) != 2:
            raise TokenizerError(f"token {i}, {tokens[i]!r}, is not the merge of two tokens of lower rank")
        left, right = parts
        ranks[left, right] = len(products)
        products.append(i)
        merges.append((tokens[left], tokens[right]))
    return merges


def write_ranks(path: Path | str, model: BPEModel) -> None:
    """Write the ordinary tokens of `model` as a ranks file.

    Raises:
        TokenizerError: its ids do not follow the order of its merges.
    """
    ids = {token: i for i, token in model.tokens.items()}
    merged = [ids[left + right] for left, right in model.merges]
    long = [i for i, token in sorted(model.tokens.items()) if len(token) > 1]
    if merged != long:
        raise TokenizerError("a ranks file needs ids in the order of the merges; this vocabulary's are not, use save")
    lines = [f"{b64encode(token).decode()} {i}\n" for i, token in sorted(model.tokens.items())]
    write_whole(Path(path), "".join(lines))
