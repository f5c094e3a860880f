"""The threads that carry out a plan: the one that asks, and helpers that wait for work.

A helper waits awake for a moment, which is longer than the pause between two tokens, and then sleeps until it is woken.
"""

import threading
import weakref
from collections.abc import Callable
from typing import Any

import torch

PATIENCE = 20_000
"""Times that a helper looks for work before it sleeps: about a millisecond."""


class Team:
    """Threads that share a job; `run` is called by one thread at a time."""

    def __init__(self, n_threads: int, alive: object) -> None:
        """alive: what helpers may still look at when nobody else does: the plans."""
        from legollm.kernels import steps, tiles

        self.has_tiles = tiles.are_allowed()
        self.at, self.n_threads = steps, n_threads
        self.numbers = torch.zeros(steps.STATE_SIZE + 8 * n_threads + steps.JOB_SIZE, dtype=torch.int64)
        assert self.numbers.data_ptr() % 64 == 0
        self.state = self.numbers.data_ptr()
        self.job_address = self.state + 8 * (steps.STATE_SIZE + 8 * n_threads)
        self.job = self.numbers[-steps.JOB_SIZE :].numpy()
        self.asleep = self.numbers[steps.ASLEEP // 8 :: 8][: n_threads - 1].numpy()
        self.room = torch.empty(0)
        self.bells = [threading.Semaphore(0) for _ in range(n_threads - 1)]
        over = threading.Event()
        threads: list[threading.Thread] = []
        state, job = self.state, self.job_address
        for thread, bell in enumerate(self.bells, start=1):

            def take_part(thread: int = thread) -> None:
                steps.work(state, job, thread, 0, PATIENCE)

            arguments = (take_part, bell, over, (self.numbers, alive))
            threads.append(threading.Thread(target=helper, args=arguments, name="legollm-helper", daemon=True))
            threads[-1].start()
        weakref.finalize(self, dismiss, over, self.bells, threads)

    def make_room(self, n_bytes: int) -> None:
        """Let each thread have that much room of its own."""
        n_bytes = -(-n_bytes // 64) * 64
        if self.room.nbytes < n_bytes * self.n_threads:
            self.room = torch.empty(2 * n_bytes * self.n_threads, dtype=torch.uint8)
            self.job[self.at.ROOM], self.job[self.at.ROOM_BYTES] = self.room.data_ptr(), 2 * n_bytes

    def room_for(self, widest: int) -> int:
        """Bytes of room for steps on vectors of that many numbers."""
        from legollm.kernels import tiles

        wide = tiles.ROOM_BYTES + 2 * tiles.SIDE * 2 * (widest + tiles.STEP) if self.has_tiles else 0
        return max(4 * widest, wide) + 256

    def run(self, n_steps: int) -> None:
        """Carry out the plan that the job names."""
        for thread, bell in enumerate(self.bells):
            if self.asleep[thread]:
                self.asleep[thread] = 0
                bell.release()
        self.at.work(self.state, self.job_address, 0, n_steps, 1)


def helper(take_part: Callable[[], None], bell: threading.Semaphore, over: threading.Event, alive: Any) -> None:
    """What a helper does until the team is dismissed."""
    while not over.is_set():
        take_part()
        bell.acquire()


def dismiss(over: threading.Event, bells: list[threading.Semaphore], threads: list[threading.Thread]) -> None:
    """Let helpers go, and wait until they have: a thread within a kernel does not survive the end of the program."""
    over.set()
    for bell in bells:
        bell.release()
    for thread in threads:
        if thread is not threading.current_thread():  # which may be the one that collects the garbage
            thread.join()
