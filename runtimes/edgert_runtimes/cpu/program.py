"""A lowered plan: records whose addresses are still names, the memory they need, and how they are linked."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from edgert_quant.jit import Kernel
from numpy.typing import NDArray

from edgert_runtimes.cpu.kernels import table
from edgert_runtimes.cpu.weights import Loaded


@dataclass(frozen=True)
class Place:
    """An address that is known later: `area` is "workspace", "cache", "state", "loads" (of experts), "table" (the
    records), "weight" or "constant"; `name` picks the weight or the constant, `offset` counts bytes.
    """

    area: str
    offset: int = 0
    name: str | int = ""


@dataclass(frozen=True)
class ValuePlace:
    """Where a value is, which a step may move for the value it returns."""

    value: int
    place: Place | None


Field = int | float | Place | ValuePlace | Kernel
Constant = Callable[[Mapping[str, Loaded]], NDArray[np.float64] | NDArray[np.float32]]


@dataclass(frozen=True)
class Record:
    """A record by its fields' numbers; floats are kept as float64."""

    run: Kernel
    prepare: Kernel
    count: int
    op: int
    unit_cost: int
    per_row: int
    fields: Mapping[int, Field]


@dataclass
class Program:
    """Records in order, and what they need. `ends[v]` is the number of records after which value v is complete."""

    records: list[Record] = field(default_factory=list)
    constants: list[Constant] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)
    strides: dict[int, int] = field(default_factory=dict)
    workspace_bytes: int = 0
    cache_bytes: int = 0
    state_bytes: int = 0
    scratch_bytes: int = 0

    def kernels(self) -> list[Kernel]:
        """Every kernel of the records."""
        named = [
            item for r in self.records for item in (r.run, r.prepare, *r.fields.values()) if isinstance(item, Kernel)
        ]
        return list(dict.fromkeys(named))


@dataclass
class Linked:
    """The table in memory. `moves[v]` lists where in it the address of value v is, and the value's own place."""

    words: NDArray[np.int64]
    constants: list[NDArray[np.float64] | NDArray[np.float32]]
    moves: dict[int, list[tuple[int, int, int]]]

    def move(self, value: int, address: int | None) -> None:
        """Let a value live at an address, or (None) in its own place again."""
        for record, number, own in self.moves[value]:
            self.words[record, number] = own if address is None else address


def link(program: Program, addresses: Mapping[str, int], loaded: Mapping[str, Loaded], targets: set[int]) -> Linked:
    """Fill in all addresses; `targets` are the values that steps may move."""
    constants = [make(loaded) for make in program.constants]
    words = np.zeros((len(program.records), table.RECORD_WORDS), np.int64)
    moves: dict[int, list[tuple[int, int, int]]] = {value: [] for value in targets}

    def resolve(item: Field) -> int:
        if isinstance(item, ValuePlace):
            return resolve(item.place) if item.place is not None else 0
        if isinstance(item, Kernel):
            return item.address
        if isinstance(item, float):
            return int(struct.unpack("<q", struct.pack("<d", item))[0])
        if isinstance(item, int):
            return item
        if item.area == "weight":
            return int(loaded[str(item.name)].data.ctypes.data) + item.offset
        if item.area == "constant":
            return int(constants[int(item.name)].ctypes.data) + item.offset
        if item.area == "table":
            return int(words.ctypes.data) + item.offset
        return addresses[item.area] + item.offset

    for index, record in enumerate(program.records):
        row = words[index]
        row[table.RUN], row[table.PREPARE] = record.run.address, record.prepare.address
        row[table.COUNT], row[table.OP] = record.count, record.op
        row[table.UNIT_COST], row[table.PER_ROW] = max(1, record.unit_cost), record.per_row
        for number, item in record.fields.items():
            row[number] = resolve(item)
            if isinstance(item, ValuePlace) and item.value in targets:
                moves[item.value].append((index, number, int(row[number])))
    return Linked(words, constants, moves)
