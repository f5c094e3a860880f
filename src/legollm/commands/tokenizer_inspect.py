"""`legollm tokenizer inspect`."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from legollm.commands.tokenizer_view import page, print_pieces
from legollm.config import Resolved
from legollm.errors import ConfigError
from legollm.interfaces import Tokenizer
from legollm.tokenizers import load_tokenizer
from legollm.tokenizers.inspect_merges import MergeTrees, find_token, readable, tree_lines
from legollm.whole_file import write_whole


@dataclass(frozen=True, kw_only=True)
class InspectRun:
    """A tokenizer, and a text or one token to look at."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("tokenizer", "text")

    tokenizer: Path
    """A tokenizer file, or a folder such as a checkpoint."""
    text: str | None = None
    """What to look at; null reads standard input unless a token is given."""
    token: str | None = None
    """One token instead: its id, or its text; shows the merges that made it."""
    html: Path | None = None
    """A page to write: the text in colour, and the merges behind every token."""
    allow_special: bool = False
    """Let special tokens written in the text become their ids."""


def inspect(run: Resolved[InspectRun]) -> None:
    """Look into a tokenizer: a text in colour with the merge behind each of its tokens, or one token as a tree.

    Control characters, line ends and bytes that are no whole character are shown as \\n, \\x1b, \\u200b.
    """
    cfg = run.value
    if cfg.token is not None and (cfg.text is not None or cfg.html is not None):
        raise ConfigError("token: shows one token on the terminal; leave out text and html, or token")
    tokenizer = load_tokenizer(cfg.tokenizer)
    if cfg.token is not None:
        print_tree(tokenizer, find_token(tokenizer, cfg.token))
        return
    text = sys.stdin.read() if cfg.text is None else cfg.text
    ids = tokenizer.encode(text, allowed_special="all" if cfg.allow_special else ())
    if cfg.html is not None:
        write_whole(cfg.html, page(tokenizer, readable(str(cfg.tokenizer).encode("utf-8", "surrogatepass")), ids))
        print(f"{cfg.html}: {len(ids):,} tokens, {len(set(ids)):,} different ones; open it in a browser")
        return
    print_pieces([tokenizer.token_bytes(token_id) for token_id in ids])
    print_tokens(tokenizer, ids)


def print_tree(tokenizer: Tokenizer, token_id: int) -> None:
    """One token, and below it the merges that made it."""
    token = tokenizer.token_bytes(token_id)
    special = ", special" if token_id in tokenizer.special_tokens.values() else ""
    print(f"id {token_id}{special}, {len(token)} bytes: {token.hex(' ')}")
    for line in tree_lines(MergeTrees(tokenizer).tree(token)):
        print(line)


def print_tokens(tokenizer: Tokenizer, ids: Sequence[int]) -> None:
    """A line for each different token, in the order of the text."""
    trees = MergeTrees(tokenizer)
    print(f"\n{'id':>8}{'merge':>8}{'times':>8}  token")
    for token_id, times in Counter(ids).items():
        token = tokenizer.token_bytes(token_id)
        rank = trees.rank(token)
        print(f"{token_id:>8}{'-' if rank is None else rank:>8}{times:>8}  '{readable(token)}'")
    n_bytes = sum(len(tokenizer.token_bytes(token_id)) for token_id in ids)
    print(f"{len(ids):,} tokens, {n_bytes:,} bytes, {n_bytes / max(1, len(ids)):.2f} bytes/token")
