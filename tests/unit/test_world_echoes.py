"""Lines said twice: nothing in a line but the line itself tells how it goes on."""

from pathlib import Path

from legollm.commands.material import DataConfig, TokenizerConfig, gather
from legollm.commands.train import TrainRun, batches_of
from legollm.data import world
from legollm.data.readers import SourceOptions
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


def test_training_begins_with_lines_whose_second_time_alone_is_a_target(tmp_path: Path) -> None:
    data, tokenizer = DataConfig(read=SourceOptions(world_bytes=100_000)), TokenizerConfig(vocab_size=500)
    cfg = TrainRun(run=tmp_path, data=data, tokenizer=tokenizer, echo_steps=3, train=TrainConfig(batch_size=4))
    material = gather(data, tokenizer, tmp_path)
    batches = batches_of(cfg, material, 64)
    lines = [line for _, line in world.echoes(cfg.seed, 0, 12)]
    for step in range(3):
        tokens, targets = next(batches)
        for row in range(4):
            learned = targets[row][targets[row] != IGNORED].tolist()
            assert material.tokenizer.decode(learned) == f" {lines[4 * step + row]}.\n"
            assert material.tokenizer.decode(tokens[row].tolist()).startswith("Say after me: ")
    tokens, targets = next(batches)  # and goes on with the text
    assert tokens.shape == (4, 64)
    assert (targets != IGNORED).all()
