"""Exact answers: what counts as the same, by kind, beside chance; and how the model is asked."""

import pytest
import torch

from legollm.architectures import build
from legollm.evaluation.questions import Answered, Item, answer_all, normal, score, scores
from legollm.generation.sampling import Sampling
from legollm.generation.text import generate_text
from legollm.tokenizers import ByteTokenizer


def answered(kind: str, answer: str, said: str, chance: float = 0.25) -> Answered:
    return Answered(Item([1], "?", answer, kind, chance), said, said)


@pytest.mark.parametrize(
    "said", ["in the box", " in the box\n", "In The Box", "in the box.", "in the box .", "in the box..."]
)
def test_capitals_white_space_and_full_stops_do_not_count(said: str) -> None:
    assert answered("where", "in the box", said).is_right
    assert answered("where", said, "in the box").is_right
    assert normal(normal(said)) == normal(said)


@pytest.mark.parametrize(
    "said", ["", "the box", "in the box, I think", "in  the box", "in the boxes", "no. in the box"]
)
def test_everything_else_does(said: str) -> None:
    assert not answered("where", "in the box", said).is_right


def test_letters_of_every_script_have_capitals() -> None:
    assert answered("street", "Hauptstraße", "HAUPTSTRASSE").is_right


def test_scores_by_kind_and_all() -> None:
    rows = scores(
        [
            answered("who", "Mira", "mira", 0.5),
            answered("where", "in the box", "on the mat", 0.25),
            answered("who", "Tom", "Mira", 0.25),
            answered("where", "home", "home.", 0.25),
            answered("where", "home", "", 1.0),
        ]
    )
    assert rows == [("where", 3, 1, 0.5), ("who", 2, 1, 0.375), ("all", 5, 2, pytest.approx(0.45))]
    assert [row.share for row in rows] == [pytest.approx(1 / 3), 0.5, 0.4]


def test_no_questions_are_no_division_by_zero() -> None:
    assert scores([]) == [("all", 0, 0, 0.0)]
    assert score("who", []).share == 0.0


def test_answers_are_greedy_in_order_and_only_their_end_counts() -> None:
    """Whatever is batched with what: each answer is what the model says to that prompt alone."""
    model = build("gpt2", vocab_size=256, max_seq_len=48, n_layers=1, n_heads=2, d_model=16).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    tokenizer = ByteTokenizer()
    prompts = ["Where is Mira?", "Q", "A longer question than the others, and longer than the window by far"]
    items = [Item(tokenizer.encode(text), text, "x", "where", 0.5) for text in prompts]
    found = answer_all(
        model, tokenizer, items, stop_ids=(), final=lambda said: said[-2:], max_new_tokens=6, batch_size=2
    )
    assert [one.item for one in found] == items
    for one in found:
        window = one.item.prompt[-42:]  # as many as leave room for the answer
        alone = generate_text(model, tokenizer, window, Sampling(temperature=0, max_new_tokens=6))
        assert one.said == alone.text
        assert one.answer == one.said[-2:]
