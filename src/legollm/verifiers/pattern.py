"""The form of an answer: a regular expression it has to match as a whole.

A pattern may come from a file, and some patterns take time that doubles with each character; so one search has a
deadline, after which the answer counts as not matching.
"""

import regex

from legollm.errors import VerifierError
from legollm.verifiers.answers import MAX_CHARACTERS, shortened
from legollm.verifiers.verdict import RIGHT, Verdict, needed

SECONDS = 0.2
"""For one answer."""
MAX_PATTERN = 2000


def pattern(question: str, answer: str, reference: str | None = None) -> Verdict:
    """The whole answer matches the reference, a regular expression; white space around it does not count.

    Raises:
        VerifierError: the reference is no regular expression, or a very long one.
    """
    wanted = needed(reference, "pattern")
    if len(wanted) > MAX_PATTERN:
        raise VerifierError(f"verifier pattern: a pattern of {len(wanted):,} characters; at most {MAX_PATTERN:,}")
    try:
        compiled = regex.compile(wanted)
    except regex.error as error:
        raise VerifierError(f"verifier pattern: {shortened(wanted)} is no regular expression: {error}") from error
    given = answer.strip()
    if len(given) > MAX_CHARACTERS:
        return Verdict(0.0, f"longer than {MAX_CHARACTERS:,} characters")
    try:
        found = compiled.fullmatch(given, timeout=SECONDS)
    except TimeoutError:
        return Verdict(0.0, f"no match within {SECONDS} s")
    return RIGHT if found else Verdict(0.0, f"{shortened(given)} has not the form that is asked for")
