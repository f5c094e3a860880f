"""Trying again, choosing and voting, with models whose answers are written down."""

from collections.abc import Sequence

import pytest

from legollm.alignment.feedback import Attempt, Said, Solving, accuracy_at, agreed, choose, solve, told
from legollm.data.chat import Message
from legollm.data.world import Task
from legollm.errors import ConfigError
from legollm.verifiers import Verdict, Verifier, arithmetic, number
from legollm.verifiers.fallible import NoisyVerifier, contains, draw, longer

SUMS = [Task(f"What is {a} + {b}?", str(a + b), "number", "") for a in range(6) for b in range(5)]


class Scripted:
    """Writes what it was given for each question, the next answer at each draw, and keeps what it read."""

    def __init__(self, answers: dict[str, Sequence[str]]) -> None:
        self.answers, self.read = answers, [[]]

    def __call__(self, conversations: Sequence[Sequence[Message]], draw: int) -> list[Said]:
        self.read.append([list(turns) for turns in conversations])
        said = [self.answers[turns[0].content][draw] for turns in conversations]
        return [Said(text, 10, len(text)) for text in said]


def always(verifier: Verifier):  # type: ignore[no-untyped-def]
    return lambda task: verifier


def test_the_second_try_sees_the_reason_and_no_third_is_made() -> None:
    write = Scripted({"2+2": ["5", "4", "3"]})
    task = Task("2+2", "4", "number", "")
    (solved,) = solve([task], write, always(arithmetic), always(number), Solving(strategy="retry"), max_new_tokens=5)
    assert [one.said.text for one in solved.attempts] == ["5", "4"]
    assert solved.attempts[0].verdict.text == "incorrect: 4"
    assert solved.answer.said.text == "4"
    assert [[turn.content for turn in turns] for turns in write.read[2]] == [
        ["2+2", "5", "That is not right: 2+2 is not 5. Try again."]
    ]
    assert [turn.role for turn in write.read[2][0]] == ["user", "assistant", "user"]


def test_a_silent_try_is_asked_as_if_for_the_first_time() -> None:
    write = Scripted({"2+2": ["5", "4"]})
    task, cfg = Task("2+2", "4", "number", ""), Solving(strategy="retry", feedback="silent")
    (solved,) = solve([task], write, always(number), always(number), cfg, max_new_tokens=5)
    assert [one.said.text for one in solved.attempts] == ["5", "4"]
    assert all([turn.content for turn in turns] == ["2+2"] for call in write.read for turns in call)


def test_what_the_next_try_is_told() -> None:
    verdict = Verdict(0.0, "2 + 2 is not 5", "4")
    assert told(verdict, "none") == "That is not right. Try again."
    assert told(verdict, "reason") == "That is not right: 2 + 2 is not 5. Try again."
    assert told(verdict, "correction") == "That is not right: 2 + 2 is not 5. The answer is 4. Try again."


def test_feedback_does_not_give_the_answer_away_unless_it_is_to() -> None:
    for task in SUMS:
        verdict = number(task.prompt, "99", task.answer)
        assert task.answer not in told(verdict, "reason").replace("99", "")


@pytest.mark.parametrize("tries", [1, 2, 4])
def test_tries_are_the_limit(tries: int) -> None:
    write = Scripted({task.prompt: ["99"] * 4 for task in SUMS})
    solved = solve(
        SUMS, write, always(number), always(number), Solving(strategy="retry", tries=tries), max_new_tokens=5
    )
    assert {len(one.attempts) for one in solved} == {tries}


@pytest.mark.parametrize("strategy", ["retry", "best_of", "vote", "weighted"])
@pytest.mark.parametrize("budget", [20, 25, 39, 40, 1000])
def test_the_budget_of_tokens_is_kept(strategy: str, budget: int) -> None:
    write = Scripted({task.prompt: ["9" * 20] * 8 for task in SUMS})
    cfg = Solving(strategy=strategy, n=8, tries=8, budget=budget)  # type: ignore[arg-type]
    for one in solve(SUMS, write, always(number), always(number), cfg, max_new_tokens=20):
        assert len(one.attempts) == min(8, budget // 20)
        assert sum(attempt.said.n_written for attempt in one.attempts) <= budget


def test_a_budget_for_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="less than one answer"):
        solve(SUMS, Scripted({}), always(number), always(number), Solving(budget=19), max_new_tokens=20)


def guesses(share: float) -> dict[str, list[str]]:
    """Answers that are right in this share of all cases, otherwise one off or two."""
    return {
        task.prompt: [
            task.answer if draw(1, task.prompt, str(i)) < share else str(int(task.answer) + 1 + i % 2)
            for i in range(16)
        ]
        for task in SUMS
    }


def test_more_answers_are_never_worse_with_a_verifier_that_is_always_right() -> None:
    cfg = Solving(strategy="best_of", n=16)
    solved = solve(SUMS, Scripted(guesses(0.3)), always(number), always(number), cfg, max_new_tokens=5)
    by_k = accuracy_at(solved, "best_of")
    chosen = [at.chosen for at in by_k]
    assert chosen == sorted(chosen) == [at.any_right for at in by_k]
    assert chosen[0] < 0.5 < chosen[-1]
    tried = solve(
        SUMS,
        Scripted(guesses(0.3)),
        always(number),
        always(number),
        Solving(strategy="retry", tries=16),
        max_new_tokens=5,
    )
    by_try = [at.chosen for at in accuracy_at(tried, "retry")]
    assert by_try == chosen[: len(by_try)]  # the first right one ends the trying


def test_a_vote_finds_what_most_answers_come_to() -> None:
    cfg = Solving(strategy="vote", n=16)
    solved = solve(SUMS, Scripted(guesses(0.6)), always(number), always(number), cfg, max_new_tokens=5)
    by_k = accuracy_at(solved, "vote")
    assert by_k[-1].chosen > by_k[0].chosen + 0.2


def attempt(text: str, score: float) -> Attempt:
    return Attempt(Said(text, 1, 1), Verdict(score, ""), False)


def test_which_answer_counts() -> None:
    made = [attempt("4", 0.2), attempt("5", 0.9), attempt("it is 4.", 0.3), attempt("5 6", 0.9)]
    assert choose(made, "best_of") == choose(made, "retry") == 1
    assert choose(made, "vote") == 0
    assert choose(made, "weighted") == 1
    assert choose([attempt("a", 0.0), attempt("b", 0.0)], "weighted") == 0
    assert agreed("so\nAnswer: 1,000.0") == agreed("1e3") == "1000"
    assert agreed("In the mill.") == "in the mill"


@pytest.mark.parametrize(
    ("wrong", "why"), [({"tries": 0}, "tries"), ({"n": 0}, "n:"), ({"strategy": "guess"}, "retry")]
)
def test_what_cannot_be_is_refused(wrong: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Solving(**wrong)  # type: ignore[arg-type]


# Verifiers that err


def test_noise_turns_a_share_of_the_verdicts_round_and_always_the_same_ones() -> None:
    noisy = NoisyVerifier(number, false_accept=0.3, false_reject=0.1, seed=5)
    wrong = [noisy("q", str(i), "0").is_right for i in range(1, 2001)]
    right = [noisy(f"{i}", "0", "0").is_right for i in range(2000)]
    assert 0.27 < sum(wrong) / 2000 < 0.33
    assert 0.87 < sum(right) / 2000 < 0.93
    assert wrong == [noisy("q", str(i), "0").is_right for i in range(1, 2001)]
    assert wrong != [NoisyVerifier(number, false_accept=0.3, seed=6)("q", str(i), "0").is_right for i in range(1, 2001)]
    silent = NoisyVerifier(number)
    assert silent("q", "1", "0") == number("q", "1", "0")


def test_a_noisy_verifier_makes_more_answers_worse() -> None:
    noisy = NoisyVerifier(number, false_accept=0.3)
    solved = solve(SUMS, Scripted(guesses(0.3)), always(noisy), always(number), Solving(n=16), max_new_tokens=5)
    by_k = accuracy_at(solved, "best_of")
    assert by_k[-1].chosen < by_k[-1].any_right - 0.2
    accepted = [one for one in solved if one.answer.verdict.is_right]
    assert any(not one.answer.is_right for one in accepted)


def test_verifiers_that_can_be_gamed() -> None:
    everything = "yes no red blue in the mill in the barn"
    assert contains("Where?", everything, "in the mill").score == 1
    assert contains("Where?", "in the barn", "in the mill").score == 0
    assert longer("Where?", "x" * 200).score == 1
    assert longer("Where?", "x" * 50).score == 0.25
    with pytest.raises(ConfigError, match="from 0 to 1"):
        NoisyVerifier(number, false_accept=1.5)
