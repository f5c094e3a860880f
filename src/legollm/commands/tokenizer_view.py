"""Tokens as one sees them: in colour on a terminal, between bars elsewhere, and as a page of HTML."""

import html
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.text import Text

from legollm.interfaces import Tokenizer
from legollm.tokenizers.inspect_merges import MergeTrees, readable, tree_lines

COLOURS = ("on blue", "on dark_green", "on dark_magenta", "on dark_cyan")
"""One after the other, so that neighbours differ."""


def print_pieces(tokens: Sequence[bytes]) -> None:
    """A text cut into tokens, on standard output."""
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        Console(highlight=False, soft_wrap=True).print(coloured(tokens))
    else:
        print("|".join(map(readable, tokens)))


def coloured(tokens: Iterable[bytes]) -> Text:
    """Each token on a colour; a line ends after the token that ends it."""
    view = Text()
    for i, token in enumerate(tokens):
        view.append(readable(token), f"white {COLOURS[i % len(COLOURS)]}")
        if token.endswith(b"\n"):
            view.append("\n")
    return view


STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --quiet: #656d76; --page: #ffffff; --line: #d0d7de;
  --c0: #cfe3ff; --c1: #c9efd2; --c2: #f3d6f7; --c3: #ffe3b8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --quiet: #9198a1; --page: #0d1117; --line: #3d444d;
  --c0: #17407a; --c1: #14532d; --c2: #5b2467; --c3: #6b4309; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: var(--ink); background: var(--page); }
h1 { font-size: 1.5rem; } .note { color: var(--quiet); }
code, pre, .cut { font: 15px/1.7 ui-monospace, monospace; } pre { margin: .3rem 0; line-height: 1.35; }
.cut { white-space: pre-wrap; overflow-wrap: anywhere; } .cut span { border-radius: 3px; }
.c0 { background: var(--c0); } .c1 { background: var(--c1); } .c2 { background: var(--c2); }
.c3 { background: var(--c3); }
table { border-collapse: collapse; } th { text-align: left; }
td, th { padding: .2rem 1rem .2rem 0; vertical-align: top; border-bottom: 1px solid var(--line); }
.n { text-align: right; font-variant-numeric: tabular-nums; } summary { cursor: pointer; }
code { white-space: pre-wrap; }
"""


def page(tokenizer: Tokenizer, name: str, ids: Sequence[int]) -> str:
    """A text cut into tokens, and each different token with its bytes and its tree of merges; nothing is fetched."""
    trees = MergeTrees(tokenizer)
    tokens = {token_id: tokenizer.token_bytes(token_id) for token_id in ids}
    n_bytes = sum(len(tokens[token_id]) for token_id in ids)
    title = html.escape(f"Tokens of {name}")
    figures = (
        f"{len(ids):,} tokens, {n_bytes:,} bytes, {n_bytes / max(1, len(ids)):.2f} bytes per token, "
        f"{len(tokens):,} of {tokenizer.vocab_size:,} ids used. Kind: {tokenizer.kind}."
    )
    spans = "".join(span(i, token_id, tokens[token_id], trees) for i, token_id in enumerate(ids))
    rows = [
        row(token_id, tokens[token_id], times, trees) for token_id, times in Counter(ids).items()
    ]  # in the order of the text
    head = '<tr><th class="n">id</th><th>token</th><th>bytes</th><th class="n">merge</th><th class="n">times</th></tr>'
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>",
            f'<p class="note">{html.escape(figures)}</p>\n<div class="cut">{spans}</div>',
            "<h2>The tokens, in the order of the text</h2>",
            '<p class="note">Open a token to see the merges that made it; lower numbers were learned earlier.</p>',
            "<table>",
            head,
            *rows,
            "</table>\n</body>\n</html>\n",
        ]
    )


def span(i: int, token_id: int, token: bytes, trees: MergeTrees) -> str:
    """One token of the text; resting on it shows what it is."""
    rank = trees.rank(token)
    made = "" if rank is None else f", merge {rank}"
    shown = html.escape(readable(token)) + ("\n" if token.endswith(b"\n") else "")
    return f'<span class="c{i % len(COLOURS)}" title="id {token_id}{made}: {token.hex(" ")}">{shown}</span>'


def row(token_id: int, token: bytes, times: int, trees: MergeTrees) -> str:
    """One line of the table; a token that was merged opens to its tree."""
    rank = trees.rank(token)
    name = f'<code class="c0">{html.escape(readable(token))}</code>'
    if rank is not None:
        tree = html.escape("\n".join(tree_lines(trees.tree(token))))
        name = f"<details><summary>{name}</summary><pre>{tree}</pre></details>"
    return (
        f'<tr><td class="n">{token_id}</td><td>{name}</td><td><code>{token.hex(" ")}</code></td>'
        f'<td class="n">{"" if rank is None else rank}</td><td class="n">{times}</td></tr>'
    )
