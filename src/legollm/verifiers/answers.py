"""Which part of what was said is the answer, and whether it is the expected text."""

import re

from legollm.verifiers.verdict import RIGHT, Verdict, needed

MAX_CHARACTERS = 20_000
"""Of what was said, the end is read: no more than this."""

MARKS = re.compile(
    r"####|\bfinal answer:|\banswer:|\b(?:the|my)(?: final)? answer is:?|\\boxed\s*(?=\{)", re.IGNORECASE
)
"""What stands in front of an answer proper: GSM8K's four signs, words, or LaTeX's box."""


def final_answer(said: str) -> str:
    """What stands after the last mark of an answer, up to the end of its line; all of it where there is no mark.

    The last one counts: whoever says two answers has said the second.
    """
    said = said[-MAX_CHARACTERS:]
    marks = list(MARKS.finditer(said))
    if not marks:
        return said.strip()
    found = marks[-1]
    rest = said[found.end() :].strip()
    if found[0].startswith("\\boxed"):
        return braced(rest)
    return rest.partition("\n")[0].strip()


def braced(text: str) -> str:
    """What stands between the first brace and the one that closes it."""
    depth = 0
    for i, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[1:i].strip()
    return text[1:].strip()


def normal(text: str) -> str:
    """Without what does not change an answer: capitals, white space around and doubled, the last full stop."""
    return " ".join(text.split()).rstrip(".").rstrip().casefold()


def exact(question: str, answer: str, reference: str | None = None) -> Verdict:
    """The words of the reference and no others; capitals, white space and a last full stop do not count."""
    wanted, given = needed(reference, "exact"), final_answer(answer)
    if normal(given) == normal(wanted):
        return RIGHT
    return Verdict(0.0, f"{shortened(given)} is not the expected answer", wanted)


def shortened(text: str, n: int = 60) -> str:
    """An answer as a reason quotes it."""
    text = " ".join(text.split())
    return repr(text if len(text) <= n else text[: n - 3] + "...")
