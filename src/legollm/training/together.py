"""Several processes become one team for the length of a run, and part from it so that the user is told why, once."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from typing import Any

import torch
from torch.distributed.rendezvous import rendezvous

from legollm.device import Device, pick_device
from legollm.errors import ConfigError, LegoLLMError, PeerError
from legollm.team import ALONE, LONGEST_PAUSE, Team, check_same, launched, named
from legollm.training.watch import BEAT_S, Watch

MEETING = timedelta(minutes=5)
"""What the first process waits for the last one to start."""
PARTING_S = 5 * BEAT_S
"""How long a process that ends looks for what became of the others."""

GO_ON = "; this run ends, the same command continues from its newest checkpoint"


@contextmanager
def together(settings: Mapping[str, Any], wish: Device = "auto") -> Iterator[Team]:
    """The team that torchrun started this process in, or a process alone; settings: what all must have in common.

    Only the leader's words reach the screen; of an error that all have, too.

    Raises:
        ConfigError: processes with different settings, or more than there are GPUs.
        PeerError: another process is gone.
    """
    rank, size = launched()
    if size == 1:
        yield ALONE
        return
    device = own_device(wish)
    root, rank, size = next(rendezvous("env://", timeout=MEETING))
    prefix = f"legollm/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    store, beats = (torch.distributed.distributed_c10d.PrefixStore(prefix, one) for one in (root, root.clone()))
    # Numbers for the loop go from CPU to CPU, gradients from GPU to GPU.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=LONGEST_PAUSE)
    team = Team(rank, size, store)
    watch = Watch(team, beats)
    watch.thread.start()
    try:
        with quiet(team):
            check_same(team, settings)
            yield team
        team.wait()
    except (Exception, SystemExit) as error:
        if threading.current_thread() is threading.main_thread():
            signal.signal(
                signal.SIGTERM, signal.SIG_IGN
            )  # sent as soon as one is gone; there is something to say first
        told = as_told(watch, beats, error)
        if told is error:
            raise
        raise told from error
    finally:
        watch.leaving.set()
    torch.distributed.destroy_process_group()


def own_device(wish: Device) -> torch.device:
    """The device of this process: of several GPUs, the one with its number on this machine.

    Raises:
        ConfigError: there are fewer.
    """
    device = pick_device(wish)
    if device.type != "cuda":
        return device
    number, n_gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= n_gpus:
        raise ConfigError(f"device: {n_gpus} GPUs for {number + 1} or more processes; set --nproc-per-node {n_gpus}")
    torch.cuda.set_device(number)
    return device


@contextmanager
def quiet(team: Team) -> Iterator[None]:
    """One voice: what the others print or warn of, the leader says, too."""
    if team.leads:
        yield
        return
    logger = logging.getLogger("legollm")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            yield
    finally:
        logger.setLevel(before)


def as_told(watch: Watch, store: Any, error: BaseException) -> BaseException:
    """What this process is to end with, after it left word of its error for the others.

    That is the error itself; or the loss of another process that it came from; or only a status, where another process
    reports the cause.
    """
    rank = watch.team.rank
    try:
        lost = fate_of_others(watch, store) if isinstance(error, RuntimeError) else None  # a broken connection is one
        error = lost or error
        store.set(f"left/{rank}", type(error).__name__)
        if isinstance(error, LegoLLMError) and told_by_another(rank, store, error):
            error = SystemExit(error.exit_status)
        if rank == 0:
            linger(watch, store)
        else:
            store.set(f"read/{rank}", "")
    except RuntimeError:  # no store any more: who held it is gone
        error = PeerError(f"process 0 or torchrun is gone{GO_ON}") if isinstance(error, RuntimeError) else error
    if isinstance(error, LegoLLMError) and rank:
        error.args = (f"process {rank}: {error}", *error.args[1:])
    return error


def linger(watch: Watch, store: Any) -> None:
    """Until all others have read what they need, or are gone: process 0 may hold the store."""
    deadline = time.monotonic() + PARTING_S
    while time.monotonic() < deadline:
        if all(store.check([f"read/{rank}"]) or watch.silent(rank, 3 * BEAT_S) for rank in watch.others):
            return
        time.sleep(0.02)


def told_by_another(rank: int, store: Any, error: LegoLLMError) -> bool:
    """Whether a process of lower rank ended with an error of this kind, too."""
    deadline = time.monotonic() + PARTING_S
    while not all(words := last_words(store, range(rank))) and time.monotonic() < deadline:
        time.sleep(0.05)
    return type(error).__name__ in words


def fate_of_others(watch: Watch, store: Any) -> PeerError | SystemExit | None:
    """That another process is gone without a word; or that it left word, so that it is the one that says more."""
    deadline, others = time.monotonic() + PARTING_S, watch.others
    while time.monotonic() < deadline:
        words = dict(zip(others, last_words(store, others), strict=True))
        if any(word not in ("", PeerError.__name__) for word in words.values()):
            return SystemExit(PeerError.exit_status)
        gone = [rank for rank, word in words.items() if not word and watch.silent(rank, 3 * BEAT_S)]
        if gone:
            return PeerError(f"{named(gone)} of {watch.team.size} is gone: killed, out of memory, or lost{GO_ON}")
        time.sleep(0.05)
    return None


def last_words(store: Any, ranks: Iterable[int]) -> list[str]:
    """The kind of error that each of them ended with, empty if it has not."""
    keys = [f"left/{rank}" for rank in ranks]
    return [store.get(key).decode() if store.check([key]) else "" for key in keys]
