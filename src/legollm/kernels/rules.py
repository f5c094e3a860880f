"""The merges of a vocabulary as tables to look things up in, and how characters begin.

A character of several bytes need not be put together anew in every word: it can begin as its own token, or as the two
tokens that it stops at, if nothing else can happen to its bytes. `fill_characters` takes a step of putting a character
together in advance if two things hold, and then the ids are those of merging bytes:

- Merges happen in rank order, because none makes a token that one of lower rank uses.
- Whatever else takes the character's first or last part ranks after that step. Before the character that is a merge
  whose left token ends like another character of several bytes (after ASCII a character begins as its bytes, because
  many vocabularies join a blank to a first byte early), behind it a merge whose right token starts a character.
"""

from typing import NamedTuple

import numpy as np

from legollm.kernels.machine import (
    I32S,
    I64,
    I64S,
    NOTHING,
    TEXT,
    Array,
    at,
    find8,
    kernel,
    out_of_line,
    put,
    record,
    shift_right,
    wrap_multiply,
)

ID_BITS = 21
"""An entry of the pair table is left id, right id and rank, with so many bits each."""
NO_ID = (1 << ID_BITS) - 1
"""Stands for the token before or after the only one, which no merge has."""
NEVER = 0x7FFFFFFF
"""The rank of a pair that is no merge."""
EMPTY = -1
"""An entry of a table that says nothing."""
BUCKET = 8
"""Entries of the pair table that lie in one cache line and are compared at once."""
N_CHARACTERS = 1 << 16
"""Characters that may begin as a token: those of two and three bytes, which are nearly all there are in texts."""
SECOND_AT = 32
"""The lowest bit of the second id in an entry of `characters`; NO_ID stands there if one is all."""
STARTS_CHARACTER, ENDS_IN_ASCII = 1, 2
"""What `fill_characters` is told of each token."""
TWO_BYTES, THREE_BYTES, FOUR_BYTES = 0xC0, 0xE0, 0xF0
"""The least first bytes of characters of several bytes; below are ASCII and the bytes that continue a character."""
_CONTINUES = 0x80
_LOW_SIX = 0x3F
_K = -7046029254386353131
"""2**64 over the golden ratio, signed: products with it are mixed in their upper bits."""


class Rules(NamedTuple):
    """The merges of a vocabulary."""

    pairs: Array
    """int64, BUCKET for each bucket: a merge is in the bucket of its pair, or after it if that was full."""
    characters: Array
    """int64, N_CHARACTERS: code point -> the one or two ids that it begins as, or EMPTY."""
    byte_ids: Array
    """int32, 256."""
    products: Array
    """int32: rank -> id of the merged token."""
    shift: int
    """How far to move a pair's hash down for its bucket."""


RULES = record([I64S, I64S, I32S, I32S, I64], Rules)


@kernel(I64(I64S, I64, I64, I64))
def rank_of(pairs: Array, shift: int, left: int, right: int) -> int:
    """The rank of the merge of two ids, or NEVER; the first two are parts of `Rules`.

    Whether there is such a merge is no branch here: nobody can guess it, and a wrong guess costs more than the search.
    """
    key = left << ID_BITS | right
    bucket = BUCKET * shift_right(wrap_multiply(key, _K), shift)
    while True:
        found = find8(pairs, bucket, key, ID_BITS)
        if found < BUCKET or at(pairs, bucket + BUCKET - 1) == EMPTY:
            break
        bucket += BUCKET
    entry = at(pairs, bucket + (found & (BUCKET - 1)))
    return entry & NO_ID if found < BUCKET else NEVER


@kernel(I64(RULES, I32S, I32S))
def fill_pairs(rules: Rules, lefts: Array, rights: Array) -> int:
    """Enter the merges of lefts[rank] and rights[rank] into an empty table; 0 if it has too few spare buckets."""
    out_of_line()
    pairs, shift = rules.pairs, rules.shift
    for rank in range(len(lefts)):
        key = at(lefts, rank) << ID_BITS | at(rights, rank)
        place = BUCKET * shift_right(wrap_multiply(key, _K), shift)
        while at(pairs, place) != EMPTY:
            place += 1
        if place >= len(pairs) - BUCKET:  # the last bucket stays empty: every search ends
            return 0
        put(pairs, place, key << ID_BITS | rank)
    return 1


@kernel(I64(RULES, I32S, I32S, I32S, I32S, I32S))
def first_meetings(
    rules: Rules, lefts: Array, rights: Array, edges: Array, with_before: Array, with_behind: Array
) -> int:
    """By id, the lowest rank of a merge of this token with another character's part before it, and behind it.

    Returns 0 if merges may happen in another order than by rank.
    """
    used = np.zeros(len(edges), np.uint8)
    for rank in range(len(lefts)):
        left, right = at(lefts, rank), at(rights, rank)
        if at(used, at(rules.products, rank)):
            return 0
        put(used, left, 1)
        put(used, right, 1)
        if not at(edges, left) & ENDS_IN_ASCII and at(with_before, right) == NEVER:
            put(with_before, right, rank)
        if at(edges, right) & STARTS_CHARACTER and at(with_behind, left) == NEVER:
            put(with_behind, left, rank)
    return 1


@kernel(NOTHING(RULES, I32S, I32S, I32S))
def fill_characters(rules: Rules, lefts: Array, rights: Array, edges: Array) -> None:
    """Enter how characters begin; edges: by id, STARTS_CHARACTER and ENDS_IN_ASCII added up."""
    out_of_line()
    pairs, shift, products = rules.pairs, rules.shift, rules.products
    with_before, with_behind = np.full(len(edges), NEVER, np.int32), np.full(len(edges), NEVER, np.int32)
    if not first_meetings(rules, lefts, rights, edges, with_before, with_behind):
        return
    for character in range(_CONTINUES, N_CHARACTERS):
        of_three = character >> 11 != 0
        first = at(rules.byte_ids, THREE_BYTES | character >> 12 if of_three else TWO_BYTES | character >> 6)
        last = at(rules.byte_ids, _CONTINUES | character & _LOW_SIX)
        if of_three:
            middle = at(rules.byte_ids, _CONTINUES | character >> 6 & _LOW_SIX)
            head, tail = rank_of(pairs, shift, first, middle), rank_of(pairs, shift, middle, last)
            if min(head, tail) >= min(at(with_before, first), at(with_behind, last)):
                continue
            if head < tail:
                first = at(products, head)
            else:
                last = at(products, tail)
        rank = rank_of(pairs, shift, first, last)
        if rank < min(at(with_before, first), at(with_behind, last)):
            put(rules.characters, character, at(products, rank) | NO_ID << SECOND_AT)
        elif of_three:
            put(rules.characters, character, first | last << SECOND_AT)


@kernel(I64(TEXT, I64, I64))
def code_point(text: Array, start: int, first: int) -> int:
    """The number of the character at `start`, which has two or three bytes, `first` being the first of them."""
    second = at(text, start + 1) & _LOW_SIX
    if first < THREE_BYTES:
        return (first & 0x1F) << 6 | second
    return (first & 0x0F) << 12 | second << 6 | at(text, start + 2) & _LOW_SIX


@kernel(I64(RULES, TEXT, I64, I64, I32S, I64))
def read_pieces(rules: Rules, text: Array, start: int, n: int, ids: Array, first: int) -> int:
    """Write what the n bytes at `start`, whole characters, begin as to ids[first:]; returns how many pieces that are.

    A place after them may be overwritten, too.
    """
    here, end, m = start, start + n, first
    while here < end:
        byte = at(text, here)
        if TWO_BYTES <= byte < FOUR_BYTES and (here == start or at(text, here - 1) >= _CONTINUES):
            known = at(rules.characters, code_point(text, here, byte))
            if known != EMPTY:
                put(ids, m, known)
                put(ids, m + 1, known >> SECOND_AT)
                m += 1 if known >> SECOND_AT == NO_ID else 2
                here += 2 if byte < THREE_BYTES else 3
                continue
        put(ids, m, at(rules.byte_ids, byte))
        m += 1
        here += 1
    return m - first
