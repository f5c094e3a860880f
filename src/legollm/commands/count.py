"""A run that counts its text once instead of descending: the same files in the run folder as any other run leaves."""

import time
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from legollm.architectures.ngram import counted
from legollm.checkpoints.state import load_state
from legollm.commands.fit import Job, Run
from legollm.commands.run_folder import starting_point
from legollm.commands.view import choose_view
from legollm.training.metrics import JsonLines
from legollm.training.train import TrainState


def count(job: Job, ids: NDArray[np.integer]) -> TrainState:
    """One step: all of `ids` are counted; then evaluation and a checkpoint, as at the end of any run.

    Raises:
        CheckpointError: the folder has checkpoints, and none of them is whole.
    """
    root = job.folder / "checkpoints"
    if start := starting_point(job.resume, root):
        return TrainState.from_dict(load_state(start).values["loop"])
    begun = time.perf_counter()
    config, model = counted(job.model_config, torch.from_numpy(ids.astype(np.int64)))
    state = TrainState(step=1, n_tokens=len(ids), seconds=time.perf_counter() - begun)
    numbers = JsonLines(job.folder / "metrics.jsonl")
    numbers.rewind(0)
    one_step = replace(job.train, max_steps=1, precision="float32")
    with choose_view(1, title=job.title, lines=job.lines) as view:
        run = Run(replace(job, model=model.eval(), model_config=config), one_step, root, None, numbers, view, state)
        run.log(state.step, tokens=state.n_tokens, tokens_per_s=state.n_tokens / state.seconds)
        run.evaluate(state)
        run.save(state)
    return state
