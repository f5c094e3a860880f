"""Words in no order, said twice: what makes a small model learn to look back.

Nothing but the first time tells the second time, so the circuit that finds the last place a word was said and goes on
from there (an induction head, Olsson et al. 2022, arXiv:2209.11895) is the only thing to learn here; stories and
questions then find it ready. docs/log.md has what happens without.
"""

from collections.abc import Iterator

from legollm.data.world import lexicon
from legollm.data.world.draw import Draw

WORDS = tuple(
    sorted(
        {
            word
            for table in vars(lexicon).values()
            if isinstance(table, tuple)
            for text in table
            if isinstance(text, str)
            for word in text.split()
        }
    )
)
FEWEST, MOST = 4, 12
"""Words in a line: among a few, looking back pays early."""


def echo(draw: Draw) -> tuple[str, str]:
    """What is asked, and the line of different words to repeat."""
    line = " ".join(draw.sample(WORDS, FEWEST + draw.below(MOST - FEWEST + 1)))
    return f"Say after me: {line}.", line


def echoes(seed: int, start: int, stop: int) -> Iterator[tuple[str, str]]:
    """Lines number start .. stop - 1 of `seed` as asked and answered in a conversation."""
    for i in range(start, stop):
        yield echo(Draw(seed, "echo", i))
