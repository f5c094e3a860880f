"""Processes that work together in a test, forked from one that has torch in its memory already."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

PATIENCE_S = 300  # only so that a hang ends
PRELOADED = ["legollm.cli", "legollm.commands.train", "torch._dynamo", "torch.distributed.fsdp", "tiny_run"]
CONTEXT: Any = multiprocessing.get_context("forkserver")


def start(size: int, do: Callable[..., None], *args: Any, settings: Sequence[Any] = ()) -> list[ForkServerProcess]:
    """`do(*args)` in each of `size` processes, with what torchrun would put into their environment.

    settings: one more argument for each of them.
    """
    CONTEXT.set_forkserver_preload(PRELOADED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(size):
        words = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        more = [settings[rank]] if settings else []
        process = CONTEXT.Process(target=member, args=({k: str(v) for k, v in words.items()}, do, *args, *more))
        process.start()
        processes.append(process)
    return processes


def member(environment: dict[str, str], do: Callable[..., None], *args: Any) -> None:
    import torch

    os.environ.update(environment)
    torch.set_num_threads(1)
    do(*args)


def ended(processes: Sequence[ForkServerProcess]) -> list[int | None]:
    """The exit statuses, once all are there; whoever is not is killed."""
    for process in processes:
        process.join(PATIENCE_S)
        if process.is_alive():
            process.kill()
    return [process.exitcode for process in processes]


def command(words: Sequence[str], said: Path) -> None:
    """A command line in this process; what it says goes to the file `said`, with its rank in the name."""
    from legollm.cli import main

    rank = os.environ["RANK"]
    sys.stdout = sys.stderr = said.with_name(f"{said.name}-{rank}").open("w", buffering=1)
    sys.exit(main(list(words)))
