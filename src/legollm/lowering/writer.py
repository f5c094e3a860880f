"""Writes a plan: rows of whole numbers in which addresses stand, and whatever has to stay alive behind them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from legollm.components.quantized import QuantizedLinear
from legollm.kernels import plan
from legollm.lowering.weights import Precision, Weight, of_quantized, packed

TILED = (plan.BFLOAT16,)
"""Formats that can be multiplied by tiles with the same result; see kernels/tiles.py."""
CHUNK_BYTES = 1 << 15
"""Of weights that a thread takes at a time, about: some microseconds of reading."""


class Norm(NamedTuple):
    """What happens to a vector first."""

    kind: int = plan.NO_NORM
    weight: Tensor | None = None
    bias: Tensor | None = None
    eps: float = 0.0


class States(NamedTuple):
    """A place for rows of states: float32, or in the form in which products read them."""

    memory: Tensor
    width: int
    stride: int
    """From one row to the next: in numbers, or in bytes where they are prepared."""
    form: int | None = None
    """How they were prepared; None for plain numbers."""
    offset: int = 0
    """Numbers before the first one of a row."""

    @property
    def address(self) -> int:
        return self.memory.data_ptr() + 4 * self.offset

    def after(self, offset: int, width: int) -> "States":
        """A part of each row."""
        return self._replace(offset=self.offset + offset, width=width)


class Product(NamedTuple):
    """One of the matrices that are multiplied with the same states."""

    weight: Weight
    out: States
    bias: Tensor | None = None
    add: bool = False


@dataclass(eq=False)
class Table:
    """A row of numbers for each position, made as far as texts have come."""

    make: Callable[[int], Tensor]
    """The rows of positions 0 to n - 1, float32 and contiguous; or of another shape whose last extent is n."""
    places: list[tuple[int, int]]
    """Where its address stands in the plan: rows and fields."""
    data: Tensor | None = None


@dataclass(eq=False)
class Plan:
    """A finished plan."""

    rows: Any
    """(rows, fields) int64."""
    n_steps: int
    alive: object
    """What lies behind its addresses."""

    @property
    def address(self) -> int:
        address: int = self.rows.ctypes.data
        return address


class Writer:
    """The plan of a model while it is written."""

    def __init__(self, precision: Precision, max_rows: int) -> None:
        self.precision, self.max_rows = precision, -(-max_rows // 16) * 16  # tiles hold 16
        self.rows: list[list[int]] = []
        self.n_steps = 0
        self.kept: list[object] = []
        self.shared: dict[str, States] = {}
        self.weights: dict[int, Weight] = {}
        self.tables: dict[int, Table] = {}
        self.n_tokens = 0
        self.n_indices = 2
        self.index_makers: list[tuple[int, Callable[[Tensor, Tensor], Tensor]]] = []
        self.widest = 1

    # ---- memory -----------------------------------------------------------------------------------------------

    def states(self, width: int) -> States:
        """Room for rows of `width` numbers; zeros at first, and some behind, because products read whole vectors."""
        memory = torch.zeros(self.max_rows * width + 64)
        self.kept.append(memory)
        self.widest = max(self.widest, width)
        return States(memory, width, width)

    def scratch(self, name: str, width: int, repeats: int = 1) -> States:
        """Room that parts of that name share one after the other. repeats: rows of it for each row of states."""
        n = width * repeats
        if name not in self.shared or self.shared[name].width < n:
            self.shared[name] = self.states(n)
        return self.shared[name]._replace(width=width, stride=width)

    def address(self, tensor: Tensor | None) -> int:
        """Of a vector or table that stays as it is, float32."""
        if tensor is None:
            return 0
        plain = tensor.detach().float().contiguous()
        self.kept.append(plain)
        return plain.data_ptr()

    def weight(self, weight: Tensor) -> Weight:
        """The matrix in the plan's precision; once, if several parts of the model share it."""
        if id(weight) not in self.weights:
            self.weights[id(weight)] = packed(weight, self.precision)
            self.kept.append(weight)
        return self.weights[id(weight)]

    def quantized(self, linear: QuantizedLinear) -> Weight:
        """The matrix of a map that brings its own numbers."""
        if id(linear.numbers) not in self.weights:
            self.weights[id(linear.numbers)] = of_quantized(linear)
            self.kept.append(linear.numbers)
        return self.weights[id(linear.numbers)]

    # ---- steps ------------------------------------------------------------------------------------------------

    def finish(self) -> Plan:
        """The steps written so far; the next ones belong to another plan."""
        rows = np.array(self.rows or [[0] * plan.ROW_SIZE], np.int64)
        done = Plan(rows, self.n_steps, self.kept)
        self.rows, self.n_steps = [], 0
        return done

    def fill_tables(self, steps: Plan, n_positions: int) -> None:
        """Make the tables of positions so long."""
        for table in self.tables.values():
            table.data = table.make(n_positions).contiguous()
            for row, field in table.places:
                steps.rows[row, field] = table.data.data_ptr()
                if field == plan.DISTANCES:
                    steps.rows[row, plan.N_DISTANCES] = n_positions

    def row(self, kind: int, parts: int = 1, **fields: int) -> int:
        """One row; returns which."""
        row = [0] * plan.ROW_SIZE
        row[plan.KIND], row[plan.PARTS] = kind, parts
        for name, value in fields.items():
            row[getattr(plan, name)] = value
        self.rows.append(row)
        return len(self.rows) - 1

    def step(self, kind: int, **fields: int) -> int:
        """A step of one row; returns which row."""
        self.n_steps += 1
        return self.row(kind, **fields)

    def gather(self, out: States, table: Weight, *, index: int, factor: float = 1.0, add: bool = False) -> int:
        """out (+)= factor * table[index]."""
        self.kept.append(table)
        return self.step(
            plan.GATHER,
            OUT=out.address,
            OUT_STRIDE=out.stride,
            WIDTH=out.width,
            ADD=int(add),
            WEIGHT=table.data.data_ptr(),
            WEIGHT_BYTES=table.row_bytes,
            SCALES=self.address(table.scales),
            FORMAT=table.form,
            INDEX=index,
            FACTOR=bits(factor),
        )

    def prepare(
        self,
        x: States,
        width: int,
        *,
        form: int,
        norm: Norm | None = None,
        activation: int = plan.NO_ACTIVATION,
        gate: int = 0,
        out: States | None = None,
        add: bool = False,
        name: str = "normed",
        repeats: int = 1,
        tiles: bool = True,
    ) -> States:
        """What products of that format read, or `out` (+)= the numbers themselves.

        gate: how many numbers after the activated ones those lie that they are multiplied by.
        name: of the room for what products read, which the next step of that name takes over.
        repeats: rows of x for each row of states.
        tiles: whether only LINEAR reads it, which may use tiles where there are many rows.
        """
        norm = norm or Norm()
        tiles = tiles and out is None and form in TILED
        if out is None:
            out_bytes = prepared_bytes(width, form)
            in_tiles = -(-width // 32) * 128 if tiles else 0
            self.widest = max(self.widest, width)
            out = States(self.scratch(name, max(out_bytes, in_tiles) // 4, repeats).memory, width, out_bytes, form)
        else:
            out_bytes = 4 * out.stride
        self.step(
            plan.PREPARE,
            IN=x.address,
            IN_STRIDE=x.stride,
            WIDTH=width,
            NORM=norm.kind,
            NORM_WEIGHT=self.address(norm.weight),
            NORM_BIAS=self.address(norm.bias),
            EPS=bits(norm.eps),
            ACTIVATION=activation,
            GATE=gate,
            FORMAT=form,
            OUT=out.address,
            OUT_STRIDE=out_bytes,
            ADD=int(add),
            REPEATS=repeats,
            TILES=int(tiles),
        )
        return out

    def linear(self, x: States, products: Sequence[Product]) -> None:
        """Each product's out (+)= weight @ x + bias, side by side."""
        self.n_steps += 1
        for place, (weight, out, bias, add) in enumerate(products):
            assert x.form == weight.form
            self.kept.append(weight)
            self.row(
                plan.LINEAR,
                parts=len(products) if place == 0 else 1,
                IN=x.address,
                IN_STRIDE=x.stride,
                OUT=out.address,
                OUT_STRIDE=out.stride,
                ADD=int(add),
                FORMAT=weight.form,
                WIDTH=weight.width,
                WEIGHT=weight.data.data_ptr(),
                WEIGHT_BYTES=weight.row_bytes,
                SCALES=self.address(weight.scales),
                BIAS=self.address(bias),
                ROWS=weight.rows,
                CHUNK=chunk_of(weight),
                TILES=int(weight.form in TILED),
            )

    def experts(
        self, x: States, weights: Sequence[Weight], out: States, routes: States, n_active: int, *, add: bool
    ) -> None:
        """The matrix of each expert that works on a row; see EXPERTS in kernels/plan.py."""
        one = weights[0]
        self.step(
            plan.EXPERTS,
            IN=x.address,
            IN_STRIDE=x.stride,
            OUT=out.address,
            OUT_STRIDE=out.stride,
            ADD=int(add),
            FORMAT=one.form,
            WIDTH=one.width,
            WEIGHT=self.addresses([weight.data.data_ptr() for weight in weights]),
            WEIGHT_BYTES=one.row_bytes,
            SCALES=self.addresses([self.address(weight.scales) for weight in weights]) if one.scales is not None else 0,
            ROWS=one.rows,
            CHUNK=chunk_of(one),
            ROUTES=routes.address,
            N_ACTIVE=n_active,
        )

    def addresses(self, addresses: Sequence[int]) -> int:
        """Of a table of them."""
        table = torch.tensor(addresses, dtype=torch.int64)
        self.kept.append(table)
        return table.data_ptr()

    def clear(self, out: States) -> None:
        """out = 0."""
        nothing = replace(packed(torch.zeros(1, out.width), "float32"), row_bytes=0)  # one row for all indices
        self.gather(out, nothing, index=0, factor=0.0)

    def table(self, brick: object, make: Callable[[int], Tensor], row: int, field: int) -> None:
        """Let the address of the brick's table stand in that row; tables of one brick are one."""
        self.tables.setdefault(id(brick), Table(make, [])).places.append((row, field))
        self.kept.append(brick)

    def index(self, make: Callable[[Tensor, Tensor], Tensor]) -> int:
        """One more number that GATHER can look up for each row."""
        self.n_indices += 1
        self.index_makers.append((self.n_indices - 1, make))
        return self.n_indices - 1


def prepared_bytes(width: int, form: int) -> int:
    """Bytes of one prepared row, a multiple of 64; see kernels/products.py."""
    match form:
        case plan.FLOAT32:
            return -(-width // 16) * 64
        case plan.BFLOAT16:
            return -(-width // 32) * 128
        case _:
            size = 64 if form == plan.INT8 else 32
            groups = -(-width // size)
            return -(-groups * (size + 8) // 64) * 64


def chunk_of(weight: Weight) -> int:
    """Outputs that a thread computes at a time: a multiple of 32, so that panels and tiles stay whole."""
    row_bytes = weight.row_bytes // 16 if weight.form == plan.INT4 else weight.row_bytes
    return max(32, min(CHUNK_BYTES // row_bytes, weight.rows // 8) // 32 * 32)


def bits(number: float) -> int:
    """A float32 as a whole number."""
    return int(torch.tensor(number, dtype=torch.float32).view(torch.int32))
