# %% [markdown]
# # A model that is checked
#
# A model says what sounds right. It does not check. Here a few of its answers are checked by programs, one is mended
# in a second try, and the last cells show what happens when the checker itself errs.

# %%
import random
from collections.abc import Sequence

from legollm.alignment.feedback import Said, Solving, solve
from legollm.data.chat import Message
from legollm.data.world import Task
from legollm.verifiers import algebra, arithmetic, exact, number
from legollm.verifiers.fallible import NoisyVerifier

# %% [markdown]
# ## Questions, answers, verdicts
#
# A verifier is a function: question, answer and perhaps a reference go in; a score, a reason and, where it is known,
# the correction come out. `arithmetic` needs no reference: it finds the sum in the question and computes it.

# %%
EXAMPLES = [
    (arithmetic, "2+2", "5", None),
    (arithmetic, "2+2", "4", None),
    (arithmetic, "What is 27 + 58?", "27 + 58 = 85", None),
    (number, "What does it cost in dollars?", "It costs $1,200.50.", "1200.5"),
    (number, "How many minutes is that?", "The answer is 90 hours.", "90"),
    (algebra, "Add x to x.", "x^2", "2x"),
    (exact, "Where is the key?", "Answer: in the drawer.", "in the drawer"),
]
for verify, question, answer, reference in EXAMPLES:
    print(f"Q {question:<32}A {answer:<26}{verify(question, answer, reference).text}")

assert arithmetic("2+2", "5").text == "incorrect: 4"
assert arithmetic("2+2", "4").text == "correct"

# %% [markdown]
# **What to notice.** `90 hours` is wrong although the number is the expected one: the question asks for minutes. And
# the reason never holds the right answer, so it may be shown to whoever tries again.

# %%
verdict = arithmetic("2+2", "5")
print(verdict)
assert "4" not in verdict.reason

# %% [markdown]
# ## The loop: ask, check, ask again
#
# A stand-in for a model: at first it believes that 2+2 is 5; told why that is wrong, it thinks again. In its place
# `legollm solve model=FOLDER strategy=retry` puts a real one.


# %%
def stubborn(conversations: Sequence[Sequence[Message]], draw: int) -> list[Said]:
    """The next answer in each conversation."""
    return [Said("4" if "is not 5" in turns[-1].content else "5", 1, 1) for turns in conversations]


task = Task("2+2", "4", "number", key="")
(solved,) = solve([task], stubborn, lambda _: arithmetic, lambda _: number, Solving(strategy="retry"), max_new_tokens=1)
for attempt in solved.attempts:
    print(f"{attempt.said.text}: {attempt.verdict.text}")

assert [attempt.said.text for attempt in solved.attempts] == ["5", "4"]
assert solved.answer.is_right

# %% [markdown]
# Without the reason, the second answer is the first one again. What helps is not the second try but what was learned
# from the first.

# %%
silent = Solving(strategy="retry", feedback="none", tries=3)
(unhelped,) = solve([task], stubborn, lambda _: arithmetic, lambda _: number, silent, max_new_tokens=1)
print(" -> ".join(attempt.said.text for attempt in unhelped.attempts))
assert not unhelped.answer.is_right

# %% [markdown]
# ## A checker that errs
#
# Now a verifier accepts one wrong answer in five. A guesser is right one time in ten; each question gets 1, 4 or 16
# guesses, and the first one that is accepted counts. If it is right with probability p and wrong ones pass with
# probability f, an accepted answer is right with probability p / (p + (1 - p) f), however many there are to choose
# from.

# %%
draw = random.Random(0)
noisy = NoisyVerifier(number, false_accept=0.2)
right_at = {}
for n in (1, 4, 16):
    n_right = 0
    for i in range(400):
        question, right = f"What is number {i} of {n}?", str(i)
        guesses = [right if draw.random() < 0.1 else str(1000 + draw.randrange(9000)) for _ in range(n)]
        accepted = [guess for guess in guesses if noisy(question, guess, right).is_right]
        n_right += accepted[:1] == [right]
    right_at[n] = n_right / 400
    print(f"the first accepted of {n:>2}: right in {right_at[n]:.0%}")

ceiling = 0.1 / (0.1 + 0.9 * 0.2)
print(f"the ceiling: {ceiling:.0%}")
assert right_at[1] < right_at[4] < right_at[16] < ceiling + 0.05

# %% [markdown]
# **What to take along.** An exact verifier turns many poor answers into one good one. A verifier that errs is a
# ceiling, and a model that is trained against it learns to find the errors. So measure with another verifier than the
# one that chooses: [docs/verifiers.md](../docs/verifiers.md).
