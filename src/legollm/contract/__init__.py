"""The contract: what every model and every brick promises, as plain functions that measure it.

A module goes in, verdicts come out: a name, whether it holds, and what was measured. `check_model` and `check_brick`
run all that apply; `legollm check my_bricks:MyFFN` prints them as a card, and the tests run them over every
architecture and every brick of this package.

Reading order: verdict, samples, list_cache, learning (what a model promises to who trains it), models (what it promises
to who calls it), studs (the places for a brick, and what stands around it), bricks.
"""

from legollm.contract.bricks import check_brick
from legollm.contract.models import check_model
from legollm.contract.verdict import Outcome, Verdict

__all__ = ["Outcome", "Verdict", "check_brick", "check_model"]
