"""A thread in each process of a team that tells the others it is alive, and ends this one when another is lost.

A process that died closes its connections, and whoever waits for it fails at once. One that was stopped, whose machine
is gone or that hangs does not: the others would wait for it for ever.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from legollm.team import Team, named

BEAT_S = 1.0
SILENCE_S = 15.0
"""Without a sign of life for so long, a process is lost."""
STANDSTILL_S = 20.0
"""A step in which nothing moves for so long, and ten times as long as ever before, does not end."""
PAUSE_S = 7200.0
"""Silence of a process that prepares, evaluates or saves: compiled code may keep its thread from running."""


class Watch:
    """Signs of life of all processes, by way of the store they share."""

    def __init__(self, team: Team, store: Any, end: Callable[[str], None] | None = None) -> None:
        """store: a connection of its own, since the main thread may wait in the other; end: called with the reason."""
        self.team, self.store, self.end = team, store, end or end_process
        self.others = [rank for rank in range(team.size) if rank != team.rank]
        self.heard = dict.fromkeys(self.others, (b"", time.monotonic()))
        self.moves, self.moved_at, self.longest = team.moves, time.monotonic(), 0.0
        self.leaving = threading.Event()
        self.thread = threading.Thread(target=self.run, name="watch", daemon=True)

    def run(self) -> None:
        n_beats = 0
        while not self.leaving.wait(BEAT_S):
            n_beats += 1
            try:
                self.beat(n_beats)
                self.listen()
            except RuntimeError as error:  # torch's own, of a connection that is closed
                if not self.leaving.is_set():
                    self.end(f"the process that started all of them is gone ({first_line(error)})")
                return
            if reason := self.lost() or self.standstill():
                if not self.leaving.is_set():
                    self.end(reason)
                return

    def beat(self, n_beats: int) -> None:
        self.store.set(f"beat/{self.team.rank}", f"{n_beats} {self.team.moves} {self.team.is_paused:d}")

    def listen(self) -> None:
        now = time.monotonic()
        known = [rank for rank in self.others if self.store.check([f"beat/{rank}"])]
        for rank, said in zip(known, self.store.multi_get([f"beat/{rank}" for rank in known]), strict=True):
            if said != self.heard[rank][0]:
                self.heard[rank] = (said, now)

    def lost(self) -> str:
        """Who has not been heard for too long; nothing if all were."""
        now = time.monotonic()
        silent = []
        for rank, (said, at) in self.heard.items():
            patience = SILENCE_S if said and not said.endswith(b" 1") else PAUSE_S
            if now - at > patience:
                silent.append(rank)
        if not silent:
            return ""
        return f"{named(silent)} of {self.team.size} gave no sign of life for {SILENCE_S:.0f} s: stopped, or lost"

    def standstill(self) -> str:
        """What is to be said of a step that does not end; nothing as long as it may."""
        now, moves = time.monotonic(), self.team.moves
        if self.team.is_paused or moves != self.moves:
            if moves > self.moves > 0 and not self.team.is_paused:
                self.longest = max(self.longest, now - self.moved_at)
            self.moves, self.moved_at = moves, now
            return ""
        limit = max(STANDSTILL_S, 10 * self.longest)
        if not self.longest or now - self.moved_at <= limit:  # the first step may compile for minutes
            return ""
        done = {rank: int(said.split()[1]) for rank, (said, _) in self.heard.items() if said} | {self.team.rank: moves}
        behind = [rank for rank, n in done.items() if n == min(done.values())]
        who = f"; {named(behind)} did not get as far as the others" if len(behind) < len(done) else ""
        return f"nothing has moved for {now - self.moved_at:.0f} s, a process hangs{who}"

    def silent(self, rank: int, seconds: float) -> bool:
        """Whether nothing was heard of a process for so long."""
        return time.monotonic() - self.heard[rank][1] > seconds


def end_process(reason: str) -> None:
    """From outside of the main thread, which waits for what will not come; checkpoints are whole at any moment."""
    sys.stderr.write(f"legollm: {reason}; this run ends, the same command continues from its newest checkpoint\n")
    sys.stderr.flush()
    os._exit(1)


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
