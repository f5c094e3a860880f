"""A plan carried out by all threads that come along, piece by piece.

Each step is cut into pieces; a thread takes the next one, does it, and takes another. The step ends when all pieces
are done, and whoever did the last one opens the next step. Nobody waits for a thread that has not come: a late one
finds later steps open and skips what is over. A thread that has nothing to take waits in place, some microseconds.

The state that threads share is eight whole numbers apart from each other (SHARED), so that none lies beside another:
the number of the open step with that of the next piece, how many pieces are done, and the call for helpers.
"""

from legollm.kernels.attention import attend, store
from legollm.kernels.experts import experts, route
from legollm.kernels.linear import linear
from legollm.kernels.machine import I64, NOTHING, kernel
from legollm.kernels.memory import (
    add_shared,
    breathe,
    f32,
    give_way,
    i64,
    inner,
    publish,
    put_i64,
    replace_shared,
    shared,
)
from legollm.kernels.plan import (
    ACTIVATION,
    ADD,
    ATTEND,
    CHUNK,
    EPS,
    EXPERTS,
    FACTOR,
    FORMAT,
    GATE,
    IN,
    IN_STRIDE,
    INDEX,
    KIND,
    LAYER_INDEX,
    LINEAR,
    N_KV_HEADS,
    NORM,
    NORM_BIAS,
    NORM_WEIGHT,
    OUT,
    OUT_STRIDE,
    PARTS,
    PREPARE,
    REPEATS,
    ROUTE,
    ROW_SIZE,
    ROWS,
    SCALES,
    STORE,
    TILES,
    WEIGHT,
    WEIGHT_BYTES,
    WIDTH,
)
from legollm.kernels.tiles import tiled
from legollm.kernels.vectors import gather, prepare

# Places in the shared state, in bytes.
OPEN, DONE, CALL, ASLEEP = 0, 64, 128, 192
STATE_SIZE = ASLEEP // 8
"""Whole numbers before those of the helpers, of which each has eight."""
PIECE_BITS, PIECE_MASK = 20, (1 << 20) - 1
"""The lower bits of the number at OPEN are the next piece of the step, the others which step that is."""
STEP_BITS, STEP_MASK = 16, (1 << 16) - 1
"""The lower bits of the number at CALL are how many steps the plan has, the others the number of its first."""

# Places in a job, in whole numbers.
(
    PLAN,
    N_ROWS,
    ROWS_AT,
    N_ROW_FIELDS,
    MEMORY,
    POSITIONS,
    POSITIONS_STRIDE,
    ROOM,
    ROOM_BYTES,
    N_SEEN,
    TILED,  # 1: these are rows enough for tiles
    BLOCKS,  # of each row the numbers of the blocks that its columns lie in; 0 where all are in order
    BLOCKS_STRIDE,
    BLOCK_SIZE,
) = range(14)
JOB_SIZE = 16
SLOT, COLUMN, POSITION, INDICES = range(4)
"""What is known of a row: which memory it has, its column there, its position; then what GATHER looks up."""
KEYS, VALUES, SLOT_STRIDE, HEAD_STRIDE = range(4)
"""What is known of the memory of a layer: two addresses, and bytes from one slot or head to the next."""


@inner
def n_pieces(op: int, n_rows: int) -> int:
    kind = i64(op, KIND)
    if kind == LINEAR:
        total = 0
        for part in range(i64(op, PARTS)):
            one = op + 8 * ROW_SIZE * part
            total += (i64(one, ROWS) + i64(one, CHUNK) - 1) // i64(one, CHUNK)
        return total
    if kind in (STORE, ATTEND):
        return n_rows * i64(op, N_KV_HEADS)
    if kind == EXPERTS:
        return (i64(op, ROWS) + i64(op, CHUNK) - 1) // i64(op, CHUNK)
    return n_rows * i64(op, REPEATS) if kind == PREPARE else n_rows


@inner
def do_linear(op: int, job: int, piece: int, room: int) -> None:
    n = (i64(op, ROWS) + i64(op, CHUNK) - 1) // i64(op, CHUNK)
    while piece >= n:
        piece -= n
        op += 8 * ROW_SIZE
        n = (i64(op, ROWS) + i64(op, CHUNK) - 1) // i64(op, CHUNK)
    n_rows = i64(job, N_ROWS)
    if i64(job, TILED) and i64(op, TILES):
        first, end = piece * i64(op, CHUNK), min(i64(op, ROWS), (piece + 1) * i64(op, CHUNK))
        tiled(op, i64(op, WEIGHT), first, end, n_rows, room)
    else:
        linear(op, piece, n_rows, room)


@inner
def do_heads(op: int, job: int, piece: int, room: int) -> None:
    n_kv_heads = i64(op, N_KV_HEADS)
    row, head = piece // n_kv_heads, piece % n_kv_heads
    about = i64(job, ROWS_AT) + 8 * row * i64(job, N_ROW_FIELDS)
    slot, column, position = i64(about, SLOT), i64(about, COLUMN), i64(about, POSITION)
    memory = i64(job, MEMORY) + 8 * 4 * i64(op, LAYER_INDEX)
    offset, blocks, size = head * i64(memory, HEAD_STRIDE), i64(job, BLOCKS), i64(job, BLOCK_SIZE)
    if blocks:
        blocks += 8 * slot * i64(job, BLOCKS_STRIDE)
    else:
        offset += slot * i64(memory, SLOT_STRIDE)
    keys, values = i64(memory, KEYS) + offset, i64(memory, VALUES) + offset
    if i64(op, KIND) == STORE:
        if blocks:  # padding goes to no block
            column = i64(blocks, column // size) * size + column % size if column >= 0 else i64(job, N_SEEN)
        store(op, row, head, column, max(position, 0), keys, values, room)
        return
    key_positions = i64(job, POSITIONS)
    if key_positions:
        key_positions += 8 * slot * i64(job, POSITIONS_STRIDE)
    last = i64(job, N_SEEN)
    if blocks or last == 0:
        last = column + 1
    attend(op, row, head, last, position, key_positions, keys, values, blocks, size, room)


@inner
def do(op: int, job: int, piece: int, room: int) -> None:
    """One piece of a step."""
    kind = i64(op, KIND)
    if kind == LINEAR:
        do_linear(op, job, piece, room)
    elif kind in (STORE, ATTEND):
        do_heads(op, job, piece, room)
    elif kind == EXPERTS:
        experts(op, piece, i64(job, N_ROWS), room)
    elif kind == ROUTE:
        route(op, piece, room)
    elif kind == PREPARE:
        prepare(
            i64(op, IN) + 4 * piece * i64(op, IN_STRIDE),
            i64(op, OUT),
            i64(op, OUT_STRIDE),
            i64(op, WIDTH),
            i64(op, NORM),
            i64(op, NORM_WEIGHT),
            i64(op, NORM_BIAS),
            f32(op, 2 * EPS),
            i64(op, ACTIVATION),
            i64(op, GATE),
            i64(op, FORMAT),
            i64(op, ADD),
            room,
            piece,
            i64(job, TILED) & i64(op, TILES),
        )
    else:
        about = i64(job, ROWS_AT) + 8 * piece * i64(job, N_ROW_FIELDS)
        gather(
            i64(op, WEIGHT),
            i64(about, INDICES + i64(op, INDEX)),
            i64(op, WEIGHT_BYTES),
            i64(op, SCALES),
            i64(op, FORMAT),
            i64(op, WIDTH),
            f32(op, 2 * FACTOR),
            i64(op, OUT) + 4 * piece * i64(op, OUT_STRIDE),
            i64(op, ADD),
        )


@inner
def take_part(state: int, job: int, called: int, thread: int) -> None:
    """Do pieces until the plan is through. called: what the call for helpers said."""
    number, last = called >> STEP_BITS, (called >> STEP_BITS) + (called & STEP_MASK)
    op, room = i64(job, PLAN), i64(job, ROOM) + thread * i64(job, ROOM_BYTES)
    if shared(state + OPEN) >> PIECE_BITS >= last:  # too late: the job may be another one by now
        return
    waited = 0
    while number < last:
        n = n_pieces(op, i64(job, N_ROWS))
        found = shared(state + OPEN)
        while found >> PIECE_BITS == number:
            piece = found & PIECE_MASK
            if piece >= n:
                waited = wait(waited)
            elif replace_shared(state + OPEN, found, found + 1):
                do(op, job, piece, room)
                if add_shared(state + DONE, 1) + 1 == n:
                    publish(state + DONE, 0)
                    publish(state + OPEN, (number + 1) << PIECE_BITS)
            found = shared(state + OPEN)
        op += 8 * ROW_SIZE * i64(op, PARTS)
        number += 1


@inner
def wait(waited: int) -> int:
    """A moment; now and then a longer one, for a thread that may need this core to finish."""
    if waited & 0x3FF == 0x3FF:
        give_way()
    else:
        breathe()
    return waited + 1


@kernel(NOTHING(I64, I64, I64, I64, I64))
def work(state: int, job: int, thread: int, n_steps: int, patience: int) -> None:
    """Thread 0 carries out a plan of n_steps, with whoever helps; other threads take part in plans as they come.

    Those return when none came for so many looks, having said that they sleep. Both are one kernel, because each
    kernel holds all the code it calls.
    """
    asleep = state + ASLEEP + 64 * (thread - 1)
    last, waited = i64(asleep, 1) if thread else 0, 0
    if thread == 0:
        publish(state + CALL, shared(state + OPEN) >> PIECE_BITS << STEP_BITS | n_steps)
    while waited < patience:
        called = shared(state + CALL)
        if called != last:
            take_part(state, job, called, thread)
            if thread == 0:
                return
            last, waited = called, 0
            continue
        waited = wait(waited)
        if waited == patience:
            publish(asleep, 1)
            if shared(state + CALL) != last:  # it came just now, perhaps before the word that this thread sleeps
                publish(asleep, 0)
                waited = 0
    put_i64(asleep, 1, last)
