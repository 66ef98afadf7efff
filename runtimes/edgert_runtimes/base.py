"""The contract between those who run plans (backends) and those who ask (the engine, tests, benchmarks)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from edgert_models.graph import Cache, Plan
from edgert_quant.blocks import BlockType
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]
NO_STATES: Int32 = np.empty(0, np.int32)
NO_ADAPTERS: Int32 = np.empty(0, np.int32)
NO_WINDOW_SLOTS: Int32 = np.empty(0, np.int32)
NO_WINDOW_TABLES: Int32 = np.empty((0, 0), np.int32)
Progress = Callable[[str, int, int], None]
"""progress(stage, done, total): stages are "compile" (kernels) and "load" (bytes); other work has its own."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a session must hold, fixed at load.

    `rows` a step at most, of at most `sequences` sequences, each of at most `context` positions. The cache is a pool of
    `blocks` blocks of `block_size` positions. `kv_type` is a name of `kv_types.KV_TYPES`. `threads` None: all cores.
    `memory` None or the most bytes the session may take. `states` slots keep what models with recurrent states remember
    of a sequence: two for each that runs, so that a step reads one and writes the other.

    `window_blocks` 0: layers with a window use the same blocks as the others. Else their caches are a pool of so many
    blocks of their own: `Batch.window_slots` and `window_tables` say which, and a sequence needs no more of them than
    its rows see.
    """

    context: int
    rows: int
    sequences: int
    blocks: int
    block_size: int = 16
    kv_type: str = "f16"
    threads: int | None = None
    memory: int | None = None
    states: int = 0
    window_blocks: int = 0

    def has_own_blocks(self, cache: Cache) -> bool:
        """Whether a cache is in the pool of those with a window."""
        return bool(self.window_blocks and cache.window)

    def blocks_of(self, cache: Cache) -> int:
        """Blocks of the pool that a cache is in."""
        return self.window_blocks if self.has_own_blocks(cache) else self.blocks

    @property
    def table_width(self) -> int:
        """Blocks of one sequence at most."""
        return -(-self.context // self.block_size)


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's rows, as int32 arrays. Row r is token `tokens[r]` at `positions[r]` of sequence `sequence[r]`.

    Its keys and values go to cache slot `slots[r]` = block · block_size + offset. `tables[s]` lists the blocks of
    sequence s in order of position, `lengths[s]` counts its positions once the step is done. `pick` names the rows
    whose result is wanted. Rows of one sequence come in order of position; what a row attends to is in the cache or in
    the batch.

    For models with recurrent states, rows of one sequence follow one another, and position by position. Sequence s then
    continues from the states in slot `state_from[s]`, or from zeros where its first row is at position 0, and what they
    are after its last row goes to slot `state_to[s]`. Several sequences may continue from one slot, but none from one
    that is written for another. Where the two slots differ, a step that failed can be asked for again. For other models
    both are empty.

    `adapters[s]` is the number of the adapter that sequence s goes through, -1 for none; empty where none has any.

    Where layers with a window have blocks of their own (`Limits.window_blocks`), their keys and values go to
    `window_slots[r]`, and `window_tables[s]` lists the blocks, with columns by position // block_size as in `tables`.
    Those that lie before what the sequence's rows see (`batches.first_seen`) are not read; they may be any numbers.
    """

    tokens: Int32  # [rows]
    positions: Int32  # [rows]
    sequence: Int32  # [rows]
    slots: Int32  # [rows]
    tables: Int32  # [sequences, at most Limits.table_width]
    lengths: Int32  # [sequences]
    pick: Int32  # [picked]
    state_from: Int32 = field(default_factory=lambda: NO_STATES)  # [sequences]
    state_to: Int32 = field(default_factory=lambda: NO_STATES)  # [sequences]
    adapters: Int32 = field(default_factory=lambda: NO_ADAPTERS)  # [sequences], or empty
    window_slots: Int32 = field(default_factory=lambda: NO_WINDOW_SLOTS)  # [rows]
    window_tables: Int32 = field(default_factory=lambda: NO_WINDOW_TABLES)  # [sequences, as wide as tables]

    def paging(self, window: int | None) -> tuple[Int32, Int32]:
        """The slots and the tables for a layer with this window, None for one without."""
        if window and self.window_tables.size:
            return self.window_slots, self.window_tables
        return self.slots, self.tables


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """How a provider has a tensor: its block type and shape (outermost dimension first)."""

    type: BlockType
    shape: tuple[int, ...]


class WeightProvider(Protocol):
    """Where a backend gets weights: piece by piece, mapped or read, at load or while running."""

    @property
    def weights(self) -> Mapping[str, StoredWeight]:
        """Everything there is, by GGUF name."""

    def read(self, name: str, start: int = 0, count: int | None = None) -> NDArray[np.uint8]:
        """A private copy of rows start … start + count as uint8 [count, row_bytes]; rows of [experts, out, in] are
        numbered through all experts.
        """

    def map(self, name: str) -> NDArray[np.uint8] | None:
        """All rows as a read-only view [rows, row_bytes] of memory that outlives the session, or None."""

    def check(self) -> None:
        """FileFormatError where what was mapped is no longer whole, as when a file has been cut: to touch what is gone
        would end the process. Cheap enough to be asked before every step.
        """


@dataclass(frozen=True, slots=True)
class LoadedWeight:
    """What became of one tensor: the layout it runs in, the bytes of that, a note where it cost something, whether
    those bytes are the file's own, `mapped`, and the normalized squared `error` of weights that the layout does not
    hold exactly.
    """

    name: str
    type: BlockType
    layout: str
    bytes: int
    note: str = ""
    mapped: bool = False
    error: float = 0.0


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What loading did. Bytes of the cache and the workspace are memory held by the session; `precision` is the type of
    floats in which it computes: float32, float16 or bfloat16.
    """

    backend: str
    threads: int
    instruction_set: str
    weights: tuple[LoadedWeight, ...]
    cache_bytes: int
    workspace_bytes: int
    seconds: float
    precision: str = "float32"

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights together, mapped or held."""
        return sum(weight.bytes for weight in self.weights)

    @property
    def mapped_bytes(self) -> int:
        """Bytes of the weights that stay in the file."""
        return sum(weight.bytes for weight in self.weights if weight.mapped)


@dataclass(frozen=True)
class Probe:
    """Whether a backend can run here; `reason` says why not, `details` what was found (of some things by name), `gpu`
    whether it would run on a GPU.
    """

    available: bool
    reason: str = ""
    details: Mapping[str, str | Mapping[str, str]] = field(default_factory=dict)
    gpu: bool = False


@dataclass(frozen=True, slots=True)
class OpTime:
    """What one kind of work took, summed over layers and steps. `bytes` are those of weights and cache that it read,
    `operations` its multiplications and additions; 0 where they do not count.
    """

    name: str
    calls: int
    seconds: float
    bytes: int
    operations: int


class Session(Protocol):
    """A loaded model. One thread at a time may call it."""

    limits: Limits
    report: LoadReport

    def step(self, batch: Batch, *, hidden: bool = False) -> Float32:
        """Run the plan on the batch: logits [picked, vocabulary], or with `hidden` the last normalised values
        [picked, width]. BackendError names the layer whose router gave NaN; CancelledError after `interrupt`.
        """

    def interrupt(self) -> None:
        """Let a step that runs end soon, with CancelledError; without effect between steps. From any thread."""

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy cache blocks, source to target, in order: of all layers but those that have blocks of their own."""

    def profile(self, on: bool) -> list[OpTime]:
        """Begin to measure where the time of steps goes, or stop it; what was measured since it began, longest first.
        Backends that cannot tell measure nothing.
        """

    def close(self) -> None:
        """Give back memory and threads; calling it again does nothing."""


@dataclass(frozen=True, slots=True)
class Draw:
    """How a token will be drawn from a row of logits: the largest where `temperature` is 0; else, of the tokens that
    top_k, top_p and min_p keep in this order (0, 1 and 0: all), in order of their ids, the one at which the sum of
    exp(logit / temperature) passes the share `number` (in [0, 1)) of the whole.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    number: float = 0.0


@dataclass(eq=False)
class Drawn:
    """What a step gave whose tokens were drawn where its logits are: `tokens` [picked], and -1 where the device, which
    computes in float32, cannot tell what the definition of `Draw` gives in exact arithmetic, or the logits are not
    finite. They were drawn from all `among` columns of the logits. `bring` fetches these.
    """

    tokens: Int32
    among: int
    bring: Callable[[], Float32]

    @cached_property
    def logits(self) -> Float32:
        """[picked, among]; to be asked for before the session is called again."""
        return self.bring()


def undrawn(out: Float32) -> Drawn:
    """Rows of which nothing was drawn: logits, or hidden values."""
    return Drawn(np.full(len(out), -1, np.int32), out.shape[1], lambda: out)


@runtime_checkable
class AheadSession(Session, Protocol):
    """A session that can begin the next step while the caller still looks at the logits of this one."""

    def step_ahead(self, batch: Batch, draws: Sequence[Draw], following: Batch) -> Float32 | Drawn:
        """As `step`, but logits may stay where they are until they are asked for.

        `following` is what the caller will ask for next, by `step` or by this method, if draws[i] gives the token
        after picked row i that the caller will choose: row i of `following` is that token, whatever its tokens say.
        Nothing is promised by it: to ask for anything else is as good, but that what was begun is lost. Until then the
        slots of `following` may be written, so they must not be in use.
        """


@runtime_checkable
class StoringSession(Session, Protocol):
    """A session that gives what it keeps of sequences as bytes, and takes them back. They mean the same to every
    session of the same backend, version, instruction set, plan, weights, `block_size` and `kv_type`; to others nothing.
    RequestError for a block or a slot that does not exist, and for content of another size.
    """

    def read_blocks(self, blocks: Sequence[int], *, windows: bool = False) -> NDArray[np.uint8]:
        """Keys and values of all layers in these blocks of the cache: [blocks, bytes of one]. Where layers with a
        window have blocks of their own: of these layers with `windows`, else of the others.
        """

    def write_blocks(self, blocks: Sequence[int], content: NDArray[np.uint8], *, windows: bool = False) -> None:
        """Put back what `read_blocks` gave, into these blocks."""

    def read_states(self, slots: Sequence[int]) -> NDArray[np.uint8]:
        """What is in these slots of recurrent states: [slots, bytes of one]."""

    def write_states(self, slots: Sequence[int], content: NDArray[np.uint8]) -> None:
        """Put back what `read_states` gave, into these slots."""


class Backend(Protocol):
    """A way to run plans."""

    name: str

    def probe(self) -> Probe:
        """Look at the machine; cheap, never raises."""

    def warmup(self, progress: Progress | None = None) -> int:
        """Compile every kernel that this machine will use and that is not compiled yet; how many that were."""

    def load(self, plan: Plan, weights: WeightProvider, limits: Limits, progress: Progress | None = None) -> Session:
        """Make a session, or raise: MemoryBudgetError before taking the memory, UnsupportedError naming a tensor or op,
        FileFormatError where the weights do not fit the plan.
        """
