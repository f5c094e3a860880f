"""Pieces of text -> arrays of ids: in threads where the tokenizer is compiled, in processes where it is not.

Compiled code runs beside Python, so that threads of one process do, without copies and without a start of seconds;
a tokenizer in Python needs processes. The ids, and the order they come in, are the same whoever found them.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache, partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from legollm.data.cutting import MAX_BYTES
from legollm.data.documents import Piece, n_characters
from legollm.data.shards import Ids
from legollm.data.sources import Split
from legollm.errors import DataError, TokenizerError
from legollm.interfaces import Tokenizer
from legollm.tokenizers import RegexBPETokenizer

TASKS_AHEAD = 4
"""Tasks in flight for each worker: one it works on, and some that wait, so that no writing to disk makes it wait."""

Task = list[tuple[Split, Piece]]


class Encoded(NamedTuple):
    """The ids of some texts in a row: text i has ids[offsets[i] : offsets[i + 1]] and n_chars[i] characters."""

    ids: Ids
    offsets: NDArray[np.int64]
    n_chars: NDArray[np.int64]


def tasks(parts: Iterator[tuple[Split, Piece]]) -> Iterator[Task]:
    """Pieces put together until there is enough text for a trip to a worker."""
    task: Task = []
    n_bytes = 0
    for part in parts:
        task.append(part)
        n_bytes += len(part[1].data)
        if n_bytes >= MAX_BYTES:
            yield task
            task, n_bytes = [], 0
    if task:
        yield task


def id_type(tokenizer: Tokenizer) -> np.dtype[Any]:
    """The narrowest type on disk that holds every id of it."""
    return np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")


def tokenised(
    todo: Iterator[Task], tokenizer: Tokenizer, saved: Path, n_workers: int
) -> Iterator[tuple[Task, Encoded]]:
    """The ids of each task, tasks in their order.

    saved: where other processes find the tokenizer.

    Raises:
        DataError: text the tokenizer does not know; names file and line.
    """
    if n_workers == 1 or (isinstance(tokenizer, RegexBPETokenizer) and tokenizer.compile()):
        # a single thread is worth it, too: text is read and ids are hashed and written while it encodes
        with ThreadPoolExecutor(n_workers) as threads:
            yield from _in_order(todo, tokenizer, threads, n_workers, partial(encode, tokenizer))
    else:
        # spawn on every system: a forked copy of a process in which torch has started threads may hang
        with ProcessPoolExecutor(n_workers, mp_context=get_context("spawn")) as processes:
            yield from _in_order(todo, tokenizer, processes, n_workers, partial(_encode_loaded, type(tokenizer), saved))


def _in_order(
    todo: Iterator[Task],
    tokenizer: Tokenizer,
    pool: Executor,
    n_workers: int,
    work: Callable[[list[bytes]], Encoded],
) -> Iterator[tuple[Task, Encoded]]:
    waiting: deque[tuple[Task, Future[Encoded]]] = deque()
    for task in todo:
        waiting.append((task, pool.submit(work, _texts(task))))
        if len(waiting) >= TASKS_AHEAD * n_workers:
            done, future = waiting.popleft()
            yield done, _result(done, tokenizer, future.result)
    for done, future in waiting:
        yield done, _result(done, tokenizer, future.result)


def _texts(task: Task) -> list[bytes]:
    return [piece.data for _, piece in task]


def encode(tokenizer: Tokenizer, texts: list[bytes]) -> Encoded:
    """The ids of `texts`, which are valid UTF-8; special tokens never parsed."""
    dtype = id_type(tokenizer)
    if isinstance(tokenizer, RegexBPETokenizer):
        wide, offsets = tokenizer.encode_batch_to_numpy(texts, is_utf8=True)
        ids = wide.astype(dtype)
    else:
        lists = tokenizer.encode_batch([text.decode("utf-8") for text in texts])
        offsets = np.cumsum([0, *map(len, lists)], dtype=np.int64)
        ids = np.fromiter(chain.from_iterable(lists), dtype, int(offsets[-1]))
    return Encoded(ids, offsets, np.array([n_characters(text) for text in texts], np.int64))


def _encode_loaded(kind: type[Tokenizer], saved: Path, texts: list[bytes]) -> Encoded:
    return encode(_loaded(kind, saved), texts)


@cache
def _loaded(kind: type[Tokenizer], saved: Path) -> Tokenizer:
    return kind.load(saved)  # once per process


def _result(task: Task, tokenizer: Tokenizer, compute: Callable[[], Encoded]) -> Encoded:
    """The ids of a task, or an error that names the piece."""
    try:
        return compute()
    except BrokenProcessPool as error:
        hint = "probably for want of memory; use a smaller n_workers"
        raise DataError(f"{task[0][1].where}: a process that tokenises was ended, {hint}") from error
    except TokenizerError:
        for _, piece in task:
            try:
                tokenizer.encode(piece.text)
            except TokenizerError as error:
                raise DataError(f"{piece.where}: {error}") from error
        raise
