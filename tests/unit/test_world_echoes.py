"""Lines said twice: nothing in a line but the line itself tells how it goes on."""

from pathlib import Path

import pytest

from legollm.commands.material import TokenizerConfig, TrainData, gather
from legollm.commands.train import TrainRun, batches_of
from legollm.data import world
from legollm.data.readers import SourceOptions
from legollm.errors import ConfigError
from legollm.training.objective import IGNORED
from legollm.training.train import TrainConfig


def test_the_line_is_repeated_word_for_word_and_no_word_comes_twice_in_it() -> None:
    asked_and_lines = list(world.echoes(1, 0, 300))
    assert len(set(asked_and_lines)) == 300
    for asked, line in asked_and_lines:
        assert asked == f"Say after me: {line}."
        words = line.split()
        assert 4 <= len(words) <= 12
        assert len(set(words)) == len(words)
    assert [*world.echoes(1, 0, 7), *world.echoes(1, 7, 300)] == asked_and_lines


@pytest.mark.parametrize("grad_accum", [1, 2])
def test_training_begins_with_lines_whose_second_time_alone_is_a_target(tmp_path: Path, grad_accum: int) -> None:
    data, tokenizer = TrainData(read=SourceOptions(world_bytes=100_000)), TokenizerConfig(vocab_size=500)
    loop = TrainConfig(batch_size=4, grad_accum=grad_accum)
    cfg = TrainRun(run=tmp_path, data=data, tokenizer=tokenizer, echo_steps=3, train=loop)
    material = gather(data, tokenizer, tmp_path)
    batches, said = batches_of(cfg, material, 64), []
    for _ in range(3 * grad_accum):  # steps, whatever number of batches a step takes
        tokens, targets = next(batches)
        for row in range(4):
            learned = material.tokenizer.decode(targets[row][targets[row] != IGNORED].tolist())
            assert material.tokenizer.decode(tokens[row].tolist()).startswith(f"Say after me:{learned[:-2]}")
            said.append(learned)
    assert sorted(said) == sorted(f" {line}.\n" for _, line in world.echoes(cfg.seed, 0, 12 * grad_accum))
    tokens, targets = next(batches)  # and goes on with the text
    assert tokens.shape == (4, 64)
    assert (targets != IGNORED).all()


def test_a_negative_number_of_steps_is_refused() -> None:
    with pytest.raises(ConfigError, match="echo_steps: must not be negative, found -1"):
        TrainRun(echo_steps=-1)
