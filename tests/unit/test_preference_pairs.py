"""Pairs of answers as ids, and what the model at the start thinks of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from legollm.alignment import reference as reference_module
from legollm.alignment.pairs import Pair, encode_pair, pair_batch, scored_batch, with_strangers
from legollm.alignment.reference import log_probs_of, reference_of, with_reference
from legollm.commands.preference_data import PairConfig, judgements_of, preferences_of
from legollm.data.chat import SPECIAL_TOKENS, Message, encode_chat
from legollm.data.preferences import Preference
from legollm.data.templates import CHATML
from legollm.errors import CheckpointError, ConfigError, DataError
from legollm.tokenizers import ByteTokenizer
from legollm.training.objective import IGNORED
from tiny_models import tiny_model

PAIRS = [
    Pair([5, 6, 7], ([8, 9], [10])),
    Pair([5], ([11, 12, 13, 14], [15, 16])),
    Pair([6, 5, 4, 3], ([8], [9, 9])),
]
SIZES: dict[str, Any] = {"precision": "float32", "batch_size": 2, "max_len": 40}


def tokenizer() -> ByteTokenizer:
    found = ByteTokenizer()
    found.train([], special_tokens=list(SPECIAL_TOKENS))
    return found


def test_only_the_last_answer_is_compared_and_it_ends_with_its_turn() -> None:
    turns = [Message("user", "one"), Message("assistant", "1"), Message("user", "two")]
    words = tokenizer()
    pair = encode_pair(Preference(turns, "2", "three"), words, CHATML, 200)
    assert words.decode(pair.prompt).endswith("two<|im_end|>\n<|im_start|>assistant\n")
    assert pair.prompt == encode_chat(words, turns, CHATML, add_generation_prompt=True)
    assert [words.decode(answer) for answer in pair.answers] == ["2<|im_end|>", "three<|im_end|>"]
    with pytest.raises(DataError, match="ends with 'two' has"):
        encode_pair(Preference(turns, "2", "three"), words, CHATML, len(pair.prompt) + 2)


def test_a_batch_of_pairs() -> None:
    tokens, targets, reference = pair_batch([p._replace(reference=((1.0, 2.0), (3.0,))) for p in PAIRS[:1]])
    assert tokens.tolist() == [[[5, 6, 7, 8], [5, 6, 7, 0]]]
    assert targets.tolist() == [[[IGNORED, IGNORED, 8, 9], [IGNORED, IGNORED, 10, IGNORED]]]
    assert reference.tolist() == [[[0, 0, 1, 2], [0, 0, 3, 0]]]
    assert pair_batch(PAIRS, max_len=64).tokens.shape == (3, 2, 32)
    assert pair_batch(PAIRS, max_len=20).tokens.shape == (3, 2, 20)
    whole = scored_batch(PAIRS)
    assert whole.lengths.tolist() == [[5, 4], [5, 3], [5, 6]]
    assert whole.tokens[1].tolist() == [[5, 11, 12, 13, 14, 0], [5, 15, 16, 0, 0, 0]]


def test_strangers_are_answers_to_other_prompts_that_fit() -> None:
    found = with_strangers(PAIRS, max_len=5)
    assert [pair.answers[2] for pair in found] == [[11, 12], [9, 9], [8]]
    assert [pair.answers[:2] for pair in found] == [pair.answers for pair in PAIRS]


def test_a_stranger_is_no_answer_to_the_same_prompt() -> None:
    rows = [Pair([prompt], ([10 + i],), is_good=i % 2 == 0) for i, prompt in enumerate([5, 5, 5, 6, 6, 7, 5])]
    found = with_strangers(rows, max_len=5)
    assert [row.answers[1] for row in found] == [[13], [13], [13], [15], [15], [16], [13]]
    assert with_strangers(rows[:2], max_len=5)  # there is no other


def test_log_probabilities_of_answers_do_not_depend_on_the_batch() -> None:
    model = tiny_model("llama3")
    expected = []
    for pair in PAIRS:
        for answer in pair.answers:
            logits = model(torch.tensor([[*pair.prompt, *answer]]))[0].log_softmax(-1)
            first = len(pair.prompt) - 1
            expected += [float(logits[first + i, token].detach()) for i, token in enumerate(answer)]
    found = log_probs_of(model, PAIRS, batch_size=2, max_len=40)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-5)
    pairs = with_reference(PAIRS, found)
    assert [[len(of) for of in pair.reference] for pair in pairs] == [[2, 1], [4, 2], [1, 2]]
    assert pairs[1].reference[1] == found[7:9].tolist()


def test_the_reference_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama3")
    first = reference_of(tmp_path, model, {"train": PAIRS, "val": PAIRS[:1]}, base="a", is_resumed=False, **SIZES)

    def never(*args: object, **more: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(reference_module, "log_probs_of", never)
    again = reference_of(tmp_path, model, {"train": PAIRS, "val": PAIRS[:1]}, base="a", is_resumed=True, **SIZES)
    assert all(torch.equal(again.numbers[name], first.numbers[name]) for name in ("train", "val"))
    assert again.precision == "float32"
    with pytest.raises(CheckpointError, match="not of this run's train;"):
        reference_of(tmp_path, model, {"train": PAIRS[:2], "val": PAIRS[:1]}, base="a", is_resumed=True, **SIZES)
    with pytest.raises(CheckpointError, match="not of this run's base;"):
        reference_of(tmp_path, model, {"val": PAIRS[:1]}, base="b", is_resumed=True, **SIZES)
    (tmp_path / "gone").mkdir()
    with pytest.raises(CheckpointError, match="is gone"):
        reference_of(tmp_path / "gone", model, {"val": PAIRS[:1]}, base="a", is_resumed=True, **SIZES)
    (tmp_path / "gone" / "reference.safetensors").write_bytes(b"no such thing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        reference_of(tmp_path / "gone", model, {"val": PAIRS[:1]}, base="a", is_resumed=True, **SIZES)
    monkeypatch.undo()
    other = reference_of(
        tmp_path, tiny_model("llama3", seed=1), {"val": PAIRS[:1]}, base="b", is_resumed=False, **SIZES
    )
    assert not torch.equal(other.numbers["val"], first.numbers["val"])


def test_no_prompt_is_learned_from_and_validated_on(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i % 7}", "chosen": f"good {i}", "rejected": "bad"} for i in range(60)]
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train, val = preferences_of(PairConfig(source=str(source), val_fraction=0.2))
    assert len(train) + len(val) == 60
    assert len(val) >= 12
    assert not {pair.prompt[0].content for pair in train} & {pair.prompt[0].content for pair in val}
    source.write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(ConfigError, match="too few different prompts"):
        preferences_of(PairConfig(source=str(source)))


def test_judged_answers_and_pairs_in_one_file(tmp_path: Path) -> None:
    source = tmp_path / "judged.jsonl"
    rows = [{"prompt": f"p{i % 7}", "completion": f"answer {i}", "label": i % 3 == 0} for i in range(40)]
    rows.append({"prompt": "p3", "chosen": "better", "rejected": "worse"})
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    parts = judgements_of(PairConfig(source=str(source), val_fraction=0.2))
    assert parts is not None
    every = [one for part in parts for one in part]
    assert sorted((one.answer, one.is_good) for one in every) == sorted(
        [(f"answer {i}", i % 3 == 0) for i in range(40)] + [("better", True), ("worse", False)]
    )
    assert not {one.prompt[0].content for one in parts[0]} & {one.prompt[0].content for one in parts[1]}
    words = tokenizer()
    encoded = encode_pair(every[0], words, CHATML, 200)
    assert encoded.is_good is every[0].is_good
    assert [words.decode(answer) for answer in encoded.answers] == [f"{every[0].answer}<|im_end|>"]
    source.write_text(json.dumps(rows[-1]) + "\n")
    assert judgements_of(PairConfig(source=str(source))) is None
    assert judgements_of(PairConfig()) is None


def test_pairs_of_the_world() -> None:
    train, val = preferences_of(PairConfig(n_examples=30, n_val=3))
    assert 20 < len(train) <= 30
    assert len(val) == 3
    assert all(pair.chosen != pair.rejected for pair in [*train, *val])
