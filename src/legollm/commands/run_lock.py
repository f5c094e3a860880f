"""One process at a time in a run's folder."""

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from legollm.errors import ConfigError

try:
    import fcntl
except ImportError:  # a system without it has no such locks
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

LOCK = ".lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other process out of a run's folder, which must be there.

    The lock is the system's and ends with the process, however that ends: nothing is ever left to clean up. Within one
    process it keeps nobody out.

    Raises:
        ConfigError: another process holds it; names its number.
    """
    if fcntl is None:
        yield
        return
    path = folder / LOCK
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):  # a file system without locks
                log.warning("%s: cannot be locked (%s); start no second process in this folder", folder, error.strerror)
                yield
                return
            owner = os.pread(descriptor, 100, 0).decode(errors="replace").strip() or "another one"
            raise ConfigError(
                f"run: {folder} is in use by process {owner}; wait for its end or stop it, or give run=ANOTHER_FOLDER"
            ) from None
        os.ftruncate(descriptor, 0)
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Whether another process holds the folder. Only looks: no file is made, and none need be writable.

    Not for a process that holds the lock itself: closing the file would release it.
    """
    if fcntl is None or not (folder / LOCK).exists():
        return False
    descriptor = os.open(folder / LOCK, os.O_RDONLY)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EAGAIN)
    finally:
        os.close(descriptor)
    return False
