"""Who has which block of layers with a window, where these have blocks of their own. Integers only.

A request has the blocks of the positions that its next rows see, and gives back what its window has left behind. Full
blocks are found by the serial that `BlockPool` gives the block of the same positions, and those that nobody holds stay
until room is needed. A prefix can be continued where all blocks are there that the row after it sees: so first go those
from the midst of a text, the later ones before the earlier, and only then the ends of texts, and what comes before the
place where a text has left another, the one that was released first before the others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from edgert_runtimes.base import Limits
from edgert_runtimes.batches import blocks_seen, first_seen_at


@dataclass(slots=True)
class Window:
    """The blocks of one request in order of position, from its block number `begin` on."""

    begin: int = 0
    blocks: list[int] = field(default_factory=list)

    @property
    def end(self) -> int:
        """The number of the block after them."""
        return self.begin + len(self.blocks)


def window_blocks(reach: int, sequences: int, limits: Limits) -> int:
    """Blocks with which so many sequences, whatever their length, can be computed together."""
    return sequences * _most(reach, limits) + limits.rows // limits.block_size


def _most(reach: int, limits: Limits) -> int:
    """Blocks of one sequence in a step of one row, and one more for the rest of other rows: see `WindowPool.fits`."""
    return min(blocks_seen(reach, 1, limits.block_size) + 1, limits.table_width)


class WindowPool:
    """The blocks of one session, whose windows are as `reach` says (see `Attend.reach`); none where layers with a
    window use the blocks of the others.
    """

    def __init__(self, limits: Limits, reach: int) -> None:
        self.size = limits.window_blocks if reach else 0
        self.reach, self._block_size = reach, limits.block_size
        self._most, self._of_rows = _most(reach, limits), limits.rows // limits.block_size
        self._free = list(range(self.size - 1, -1, -1))
        self._holders = [0] * self.size
        self._found: dict[int, int] = {}  # serial → block
        self._serials: dict[int, tuple[int, bytes]] = {}  # block → serial and name
        # Findable and not held, and whether to stay; the first goes first.
        self._idle: OrderedDict[int, bool] = OrderedDict()
        self.evicted: list[tuple[int, bytes]] = []
        """Blocks whose content is, until the next step, that of the block of that name, and was to stay."""

    @property
    def held(self) -> int:
        """Blocks that requests hold."""
        return self.size - len(self._free) - len(self._idle)

    @property
    def cached(self) -> int:
        """Blocks that nobody holds and a later prompt may find."""
        return len(self._idle)

    def fits(self, lengths: Iterable[int]) -> bool:
        """Whether requests of so many tokens each can be computed together, in steps of any rows.

        With c rows one holds what the first of them sees, and the blocks of c − 1 more: these are ⌊(c − 1) / size⌋ and
        one more, which `_most` counts, and all of them together no more than a step's rows fill.
        """
        if not self.size:
            return True
        return sum(min(self._most, length // self._block_size + 2) for length in lengths) + self._of_rows <= self.size

    def has(self, serials: Sequence[int]) -> bool:
        """Whether blocks with these serials, the first of a sequence, can be continued."""
        return all(serial in self._found for serial in reversed(serials[self.begin(len(serials)) :]))

    def has_block(self, serial: int) -> bool:
        """Whether the block with this serial is there."""
        return serial in self._found

    def open(self, window: Window, serials: Sequence[int], count: int) -> None:
        """Have the blocks that the row after so many sees: those with these serials, the first of the sequence, as far
        as they are there, and fresh ones for the others.
        """
        window.begin = self.begin(count)
        there = [self._found.get(serial) for serial in serials[window.begin : count]]
        for block in there:
            if block is not None:
                self._hold(block)
        missing = [None] * (count - window.begin - len(there))
        window.blocks = [self._fresh() if block is None else block for block in (*there, *missing)]

    def grow(self, window: Window, positions: int) -> None:
        """Have blocks up to so many positions of the sequence."""
        while self.size and window.end * self._block_size < positions:
            window.blocks.append(self._fresh())

    def shrink(self, window: Window, positions: int) -> None:
        """Give back those beyond so many positions."""
        while window.blocks and (window.end - 1) * self._block_size >= positions:
            self._drop(window.blocks.pop())

    def advance(
        self,
        window: Window,
        first: int,
        published: Sequence[tuple[int, bytes]],
        computed: int,
        borders: Sequence[int] = (),
    ) -> None:
        """So many positions are computed. The blocks from number `first` on have got these serials and names: they can
        be found from now on. Where another request was first with the same content, this one takes over its block. What
        the rows at `borders` see is to stay.
        """
        for place, (serial, name) in enumerate(published, first - window.begin):
            block = window.blocks[place]
            known = self._found.setdefault(serial, block)
            self._serials[known] = serial, name
            if known != block:
                self._hold(known)
                window.blocks[place] = known
                self._drop(block)
        begin = first_seen_at(computed, self.reach) // self._block_size
        whole = [border // self._block_size for border in borders]
        while window.blocks and window.begin < begin:
            stays = any(self.begin(blocks) <= window.begin < blocks for blocks in whole)
            self._drop(window.blocks.pop(0), stays=stays)
            window.begin += 1

    def close(self, window: Window) -> None:
        """Give back all."""
        for block in window.blocks:
            self._drop(block)
        window.begin = 0
        window.blocks = []

    def lend(self) -> list[int]:
        """Every block that no request has; none can be found any more. They come back by `give_back`."""
        while self._idle:
            self._forget()
        lent, self._free = self._free, []
        return lent

    def give_back(self, blocks: list[int]) -> None:
        """Take back blocks that were lent."""
        self._free += blocks

    def named(self) -> list[tuple[int, bytes]]:
        """The blocks that have names and are to stay, or are held."""
        named = ((block, name) for block, (_, name) in self._serials.items() if name)
        return [(block, name) for block, name in named if self._idle.get(block, True)]

    def begin(self, blocks: int) -> int:
        """The first block that the row after so many sees."""
        return first_seen_at(blocks * self._block_size, self.reach) // self._block_size if self.size else blocks

    def _hold(self, block: int) -> None:
        self._holders[block] += 1
        self._idle.pop(block, None)

    def _drop(self, block: int, *, stays: bool = True) -> None:
        self._holders[block] -= 1
        if not self._holders[block]:
            if block in self._serials:
                self._idle[block] = stays
                self._idle.move_to_end(block, last=stays)
            else:
                self._free.append(block)

    def _fresh(self) -> int:
        if not self._free:
            self._forget()
        block = self._free.pop()
        self._hold(block)
        return block

    def _forget(self) -> None:
        """Make a block free that could be found."""
        block, stays = self._idle.popitem(last=False)
        serial, name = self._serials.pop(block)
        del self._found[serial]
        if name and stays:
            self.evicted.append((block, name))
        self._free.append(block)
