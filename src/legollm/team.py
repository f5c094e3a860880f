"""The processes that work on one run, as torchrun starts them: who leads, what they tell each other, sums over all."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from legollm.errors import ConfigError

T = TypeVar("T")

LONGEST_PAUSE = timedelta(hours=2)
"""What all may wait for the slowest to save or to evaluate; a process that died is noticed long before."""


class Store(Protocol):
    """Texts by name that all processes see: what is used here of torch's own."""

    def set(self, key: str, value: str) -> None: ...
    def get(self, key: str) -> bytes: ...
    def check(self, keys: list[str]) -> bool: ...


class Team:
    """The processes of one run as one of them sees it; without arguments, a process alone.

    What has to be the same everywhere comes out of `sums`, `tell` or `first`, which all processes call in one order.
    """

    def __init__(self, rank: int = 0, size: int = 1, store: Store | None = None) -> None:
        self.rank, self.size, self.store = rank, size, store
        self.n_told = 0
        self.moves = 0
        """How often this process got further; whoever watches it takes note."""
        self.is_paused = False
        """Whether it may take its time: it prepares, evaluates or saves."""

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes files and speaks to the user."""
        return self.rank == 0

    def sums(self, *values: float) -> list[float]:
        """Each number summed over all processes; whole ones exactly."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(total)
        return [float(value) for value in total]

    def any(self, flag: bool) -> bool:
        """Whether it is so at any of them."""
        return self.sums(flag) != [0.0]

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all processes, of one shape, in the order of their ranks."""
        if self.size == 1:
            return [tensor]
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        torch.distributed.all_gather(found, tensor)
        return found

    def wait(self) -> None:
        """Until all are here."""
        self.sums(0)

    def tell(self, make: Callable[[], str]) -> str:
        """A text that the leader makes, however long it takes; the others wait for it.

        Raises:
            SystemExit: at the others, with the leader's status, if it could not; it is the one that says why.
        """
        if self.store is None:
            return make()
        self.n_told += 1
        key = f"told/{self.n_told}"
        if self.leads:
            try:
                text = make()
            except BaseException as error:
                self.store.set(key, json.dumps([None, getattr(error, "exit_status", 1)]))
                raise
            self.store.set(key, json.dumps([text, 0]))
            return text
        while not self.store.check([key]):
            if self.store.check(["left/0"]) and not self.store.check([key]):  # it ended before it came to this
                raise SystemExit(1)
            time.sleep(0.05)
        text, status = json.loads(self.store.get(key))
        if text is None:
            raise SystemExit(status)
        return str(text)

    def first(self, do: Callable[[], T]) -> T:
        """What the leader does before the others do the same and find most of it done."""
        done: list[T] = []
        with self.paused():
            self.tell(lambda: done.append(do()) or "done")  # type: ignore[func-returns-value]
            return done[0] if done else do()

    def moved(self) -> None:
        """This process got a little further."""
        self.moves += 1

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What takes its time, and all of it at once: at its end all wait for each other."""
        self.is_paused = True
        try:
            yield
            self.wait()
        finally:
            self.is_paused = False


ALONE = Team()


def launched() -> tuple[int, int]:
    """Rank of this process and how many there are, as torchrun says in the environment; (0, 1) without it.

    Raises:
        ConfigError: numbers that cannot be.
    """
    words = {name: os.environ.get(name, usual) for name, usual in {"RANK": "0", "WORLD_SIZE": "1"}.items()}
    if not all(word.isdecimal() for word in words.values()) or int(words["RANK"]) >= int(words["WORLD_SIZE"]):
        found = ", ".join(f"{name}={word!r}" for name, word in words.items())
        raise ConfigError(f"{found}: no rank among so many processes; start them with torchrun, or unset both")
    return int(words["RANK"]), int(words["WORLD_SIZE"])


def check_same(team: Team, settings: Mapping[str, Any]) -> None:
    """Compare the settings of all processes with the leader's.

    Raises:
        ConfigError: at all of them, the first setting that differs.
    """
    if team.store is None:
        return
    place = f"settings/{team.n_told}"  # another one with every call
    team.store.set(f"{place}/{team.rank}", json.dumps(settings, default=str))

    def compared() -> str:
        assert team.store is not None
        mine = json.loads(json.dumps(settings, default=str))
        for rank in range(1, team.size):
            theirs = json.loads(team.store.get(f"{place}/{rank}"))
            for key in sorted(mine.keys() | theirs.keys()):
                if mine.get(key) != theirs.get(key):
                    return (
                        f"{key}: process 0 has {mine.get(key)!r}, process {rank} has {theirs.get(key)!r}; "
                        "start all processes with the same command line and the same versions"
                    )
        return ""

    if verdict := team.tell(compared):
        raise ConfigError(verdict)


def agree(team: Team, problem: Exception | None, otherwise: Exception) -> None:
    """Raise this process's own problem, or `otherwise` if only others have one."""
    some = team.any(problem is not None)
    if problem is not None:
        raise problem
    if some:
        raise otherwise


def named(ranks: Sequence[int]) -> str:
    """Ranks for a message: `process 1`, or `processes 1, 3`."""
    return ("process " if len(ranks) == 1 else "processes ") + ", ".join(map(str, ranks))
