"""Who has which block of the key/value cache: reference counts, prefix reuse, eviction. Integers only.

A full block is findable by (chain, its tokens), where `chain` is the serial of the block before it, or 0. Serials are
never used twice, so a chain stands for exactly one sequence of tokens, and the dictionary compares the tokens
themselves: two prompts whose hashes collide cannot share a block. (vLLM's automatic prefix caching is the model; it
compares hashes.) When nobody holds a findable block any more, it stays, until room is needed: the least recently
released goes first. A table is released from its end, so a block never goes before those that follow it. Where blocks
outlive the process they have names, too: see `prefixes`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from edgert.engine.prefixes.names import following_name

ROOT = 0


@dataclass(slots=True)
class Table:
    """The blocks of one sequence in order of position; the first `published` are full and findable, up to `chain`."""

    blocks: list[int] = field(default_factory=list)
    published: int = 0
    chain: int = ROOT
    name: bytes = b""  # of the block that `chain` stands for


@dataclass(frozen=True, slots=True)
class _Entry:
    """A findable block: what its key is, and the serial it is the chain of (0 for a part of a block)."""

    chain: int
    tokens: tuple[int, ...]
    serial: int
    name: bytes = b""
    before: bytes = b""  # the name of the block before it


class BlockPool:
    """The blocks of one session's cache. With `roots`, which names the beginnings of chains, full blocks have names;
    those that go are noted in `evicted`, with the block that has their content until the next step.
    """

    def __init__(self, blocks: int, block_size: int, roots: Callable[[int], bytes] | None = None) -> None:
        self.size = blocks
        self.block_size = block_size
        self.evicted: list[tuple[int, bytes]] = []
        self._roots = roots
        self._free = list(range(blocks - 1, -1, -1))
        self._holders = [0] * blocks
        self._idle: OrderedDict[int, None] = OrderedDict()  # findable and not held, least recently released first
        self._entries: dict[int, _Entry] = {}
        self._found: dict[tuple[int, tuple[int, ...]], int] = {}  # full blocks
        self._tails: dict[int, int] = {}  # chain → the latest block that continues it, full or not
        self._serial = ROOT

    @property
    def available(self) -> int:
        """Blocks that `grow` can still give out."""
        return len(self._free) + len(self._idle)

    @property
    def held(self) -> int:
        """Blocks that tables hold."""
        return self.size - self.available

    @property
    def cached(self) -> int:
        """Blocks that nobody holds and a later prompt may find."""
        return len(self._idle)

    def blocks_for(self, positions: int) -> int:
        """Blocks that hold so many positions."""
        return -(-positions // self.block_size)

    def match(self, tokens: Sequence[int], root: int = ROOT) -> tuple[Table, int]:
        """The cached full blocks that `tokens` begins with, as a table that is not held yet, and how many of them are
        idle now. At least one token stays uncovered: somebody wants its logits. Chains from another `root` (which no
        serial is) share nothing: what was computed with an adapter serves that one alone.
        """
        table = self._match(tokens, root)
        return table, self._idle_of(table)

    def match_until(
        self, tokens: Sequence[int], serves: Callable[[Sequence[int]], bool], root: int = ROOT
    ) -> tuple[Table, int, int]:
        """As many of the same as have serials that `serves`, and how many there would be without that."""
        table = self._match(tokens, root)
        found, serials = len(table.blocks), [serial for serial, _ in self.published(table)]
        while serials and not serves(serials):
            serials.pop()
            last = self._entries[table.blocks.pop()]
            table.chain, table.name = last.chain, last.before
            table.published -= 1
        return table, self._idle_of(table), found

    def published(self, table: Table, first: int = 0) -> list[tuple[int, bytes]]:
        """The serials and names of the published blocks from number `first` on."""
        entries = (self._entries[block] for block in table.blocks[first : table.published])
        return [(entry.serial, entry.name) for entry in entries]

    def names_after(self, table: Table, tokens: Sequence[int]) -> Iterator[bytes]:
        """The names of the full blocks that `tokens` has after the published ones; none where blocks have no names. As
        in `match` a token stays uncovered.
        """
        name, size = table.name, self.block_size
        for start in range(table.published * size, len(tokens) - size if name else 0, size):
            name = following_name(name, tokens[start : start + size])
            yield name

    def named(self) -> list[tuple[int, bytes]]:
        """The blocks that have names, those that follow others before these."""
        return [(block, entry.name) for block, entry in reversed(self._entries.items()) if entry.name]

    def _idle_of(self, table: Table) -> int:
        return sum(1 for block in table.blocks if not self._holders[block])

    def _match(self, tokens: Sequence[int], root: int) -> Table:
        table = Table(chain=root, name=b"" if self._roots is None else self._roots(root))
        while (table.published + 1) * self.block_size < len(tokens):
            block = self._found.get(self.next_key(table, tokens))
            if block is None:
                break
            table.blocks.append(block)
            table.published += 1
            table.chain, table.name = self._entries[block].serial, self._entries[block].name
        return table

    def next_key(self, table: Table, tokens: Sequence[int]) -> tuple[int, tuple[int, ...]]:
        """What the block after the published ones will be found by."""
        start = table.published * self.block_size
        return table.chain, tuple(tokens[start : start + self.block_size])

    def open(self, table: Table, tokens: Sequence[int], *, whole: bool = False) -> tuple[int, list[tuple[int, int]]]:
        """Hold a matched table and give it room for all `tokens` (the caller has checked that there is room).

        Returns how many positions are computed already, and the block copies (source, target) that make it true:
        where a cached block agrees with part of the next tokens only, a copy of it is extended, unless only `whole`
        blocks serve.
        """
        for block in table.blocks:
            self._hold(block)
        done = table.published * self.block_size
        tail = None if whole else self._tails.get(table.chain)
        rest = tokens[done : min(len(tokens) - 1, done + self.block_size)]
        shared = 0 if tail is None else _common(self._entries[tail].tokens, rest)
        # Blocks needed may evict the tail: its content stays until the step that follows the copy.
        self.grow(table, self.blocks_for(len(tokens)) - len(table.blocks))
        if tail is None or not shared:
            return done, []
        target = table.blocks[table.published]
        return done + shared, [(tail, target)] if target != tail else []

    def grow(self, table: Table, count: int) -> None:
        """Append `count` fresh blocks, evicting idle ones; the caller has checked `available`."""
        for _ in range(count):
            block = self._free.pop() if self._free else self._evict()
            self._hold(block)
            table.blocks.append(block)

    def shrink(self, table: Table, count: int) -> None:
        """Give back what a table has beyond its first `count` blocks, none of which is published."""
        while len(table.blocks) > count:
            self._drop(table.blocks.pop())

    def publish(self, table: Table, tokens: Sequence[int], computed: int) -> None:
        """Make full blocks among the first `computed` positions findable. Where another table was first with the same
        content, this one takes over its block.
        """
        while (table.published + 1) * self.block_size <= computed:
            key = self.next_key(table, tokens)
            block = table.blocks[table.published]
            first = self._found.get(key)
            if first is None:
                self._serial += 1
                self._found[key] = block
                self._set_tail(key[0], block)
                name = following_name(table.name, key[1]) if table.name else b""
                self._entries[block] = _Entry(*key, self._serial, name, table.name)
            elif first != block:
                self._hold(first)
                table.blocks[table.published] = first
                self._drop(block)
            entry = self._entries[table.blocks[table.published]]
            table.chain, table.name = entry.serial, entry.name
            table.published += 1

    def close(self, table: Table, tokens: Sequence[int], computed: int) -> None:
        """Give up a table. Of its `computed` positions, those past the last full block stay findable in part."""
        self.publish(table, tokens, computed)
        rest = tuple(tokens[table.published * self.block_size : computed])
        if rest:
            block = table.blocks[table.published]
            self._set_tail(table.chain, block)
            self._entries[block] = _Entry(table.chain, rest, ROOT)
        for block in reversed(table.blocks):
            self._drop(block)
        table.blocks.clear()

    def _set_tail(self, chain: int, block: int) -> None:
        """`block` is now the latest that continues `chain`; a part of a block that was it cannot be found any more."""
        old = self._tails.get(chain)
        self._tails[chain] = block
        if old is not None and self._entries[old].serial == ROOT:
            del self._entries[old], self._idle[old]
            self._free.append(old)

    def _hold(self, block: int) -> None:
        self._holders[block] += 1
        self._idle.pop(block, None)

    def _drop(self, block: int) -> None:
        self._holders[block] -= 1
        if self._holders[block] == 0:
            if block in self._entries:
                self._idle[block] = None
            else:
                self._free.append(block)

    def _evict(self) -> int:
        block, _ = self._idle.popitem(last=False)
        entry = self._entries.pop(block)
        self._found.pop((entry.chain, entry.tokens), None) if entry.serial != ROOT else None
        if self._tails.get(entry.chain) == block:
            del self._tails[entry.chain]
        if entry.name:
            self.evicted.append((block, entry.name))
        return block


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading tokens agree."""
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count
