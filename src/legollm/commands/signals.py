"""Signals that ask training to stop after its step."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class Signals:
    """SIGINT, SIGTERM and SIGHUP ask the loop to stop after its step; a second one stops at once."""

    NAMES = ("SIGINT", "SIGTERM", "SIGHUP")

    def __init__(self) -> None:
        self.caught: str | None = None
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # the only one that may set handlers
            for name in self.NAMES:
                number = getattr(signal, name, None)
                if number and signal.getsignal(number) != signal.SIG_IGN:  # nohup means what it says
                    self.before[number] = signal.signal(number, self.catch)
        return self

    def catch(self, number: int, frame: FrameType | None) -> None:
        if self.caught:
            raise KeyboardInterrupt
        self.caught = signal.Signals(number).name

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
