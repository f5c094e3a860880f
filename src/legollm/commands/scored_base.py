"""What the verbs share that put a head for scores on a decoder."""

from legollm.interfaces import Tokenizer


def padding_of(tokenizer: Tokenizer, end: int | None) -> int | None:
    """A control token that ends no row, so that other programs may pad with it; None where there is no other."""
    others = [token for name, token in sorted(tokenizer.special_tokens.items()) if token != end]
    return next(iter(others), None)
