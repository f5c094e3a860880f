"""How long a run takes: the arithmetic, against a walk through all of its steps."""

from dataclasses import replace

import pytest

from legollm.commands.calibrate import Pace, Seconds
from legollm.commands.duration import duration, events, readable, shares
from legollm.commands.train import TrainRun
from legollm.training.train import TrainConfig, due
from tiny_models import tiny_config

PACE = Pace(Seconds(step=2.0, micro_batch=1.0, evaluation=0.5, sample=0.25), n_steps=9, how="")


@pytest.mark.parametrize("eval_every", [0, 1, 4, 6, 12, 100])
@pytest.mark.parametrize("save_every", [0, 1, 3, 6, 12, 100])
def test_events_are_those_of_the_loop(eval_every: int, save_every: int) -> None:
    looks = saves = 0
    for step in range(1, 13):
        is_last = step == 12
        is_look = due(step, eval_every) or is_last
        looks += is_look
        saves += due(step, save_every) or (is_look and save_every > 0) or is_last
    assert events(12, eval_every, save_every) == (looks, saves)


def test_a_run_takes_as_long_as_its_events() -> None:
    loop = TrainConfig(max_steps=10, batch_size=2, grad_accum=3, seq_len=5, eval_every=4, eval_batches=7, save_every=5)
    cfg = TrainRun(model=tiny_config("gpt2"), train=loop)
    found = duration(cfg, PACE, save=3.0, start=1.5, n_val_tokens=95)
    assert found["training"] == 10 * 2.0
    assert found["evaluation"] == 2 * (7 * 0.5 + 0.25) + 10 * 0.5 + 0.25  # 95 tokens are 10 batches of 2 * 5
    assert found["saving"] == 4 * 3.0  # after steps 4, 5, 8 and 10
    assert found["total"] == found["start"] + found["training"] + found["evaluation"] + found["saving"]
    assert found["tokens_per_s"] == 2 * 3 * 5 / 2.0
    unknown = duration(replace(cfg, train=replace(loop, save_every=0)), PACE, save=3.0, start=1.5, n_val_tokens=0)
    assert unknown["last_look"] == 7 * 0.5 + 0.25
    assert unknown["saving"] == 3.0


def test_times_read_well() -> None:
    found = [readable(seconds) for seconds in (0.0451, 12.34, 300, 12_240, 400_000, 1e9)]
    assert found == ["45.1 ms", "12.3 s", "5 min", "3.4 h", "4.63 days", "11,574 days"]
    time = {"training": 95.0, "evaluation": 4.6, "saving": 0.4, "start": 0.0, "total": 100.0}
    assert shares(time) == "95 % training, 5 % evaluation"
