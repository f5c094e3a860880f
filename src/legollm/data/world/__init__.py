"""The built-in corpus: a simulated micro-world, told in English and asked about, with answers right by construction.

A seed and a range of indices go in; texts, questions, preference pairs, sums and checkable tasks come out, the same on
every machine. What is made of them: tokenizer and pre-training data from `corpus`, fine-tuning from `questions` and
`preferences`, rewards from `tasks`, evaluation from whatever `split_of` holds back. The way through the folder: state
(what is true) <- cast, lexicon; plots, beats, scenes, puzzles (what happens) -> narration, frames (what is said).
"""

from legollm.data.world.chains import Chain, chains
from legollm.data.world.corpus import Figures, Story, corpus, describe, documents, stories
from legollm.data.world.draw import Split, split_of
from legollm.data.world.echoes import echoes
from legollm.data.world.questions import KINDS, Preference, Question, conversations, preferences, questions
from legollm.data.world.reading import final_answer
from legollm.data.world.sums import Sum, sums
from legollm.data.world.tasks import Task, problems, task_of, tasks
from legollm.data.world.truth import Truth

__all__ = [
    "KINDS",
    "Chain",
    "Figures",
    "Preference",
    "Question",
    "Split",
    "Story",
    "Sum",
    "Task",
    "Truth",
    "chains",
    "conversations",
    "corpus",
    "describe",
    "documents",
    "echoes",
    "final_answer",
    "preferences",
    "problems",
    "questions",
    "split_of",
    "stories",
    "sums",
    "task_of",
    "tasks",
]
