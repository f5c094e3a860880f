"""Compiled inner loops: plain loops over arrays, written in Python and compiled by numba.

Text comes in as UTF-8 bytes: `scan` cuts it into pre-tokens with the classes of `characters`, `words` remembers the ids
of pre-tokens seen before, `merging` works out the others with the tables of `rules`, `encode` drives these. `count` and
`learn` are the trainer. `machine` holds the few instructions that Python has no word for. The plain definitions that
these loops equal are in `legollm.tokenizers`; who uses a kernel imports it inside a function, because numba takes a
while to import and may be missing.
"""
