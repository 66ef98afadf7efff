import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from edgert.engine.blocks import ROOT, BlockPool, Table

SIZE = 4


def opened(pool: BlockPool, tokens: list[int]) -> tuple[Table, int, list[tuple[int, int]]]:
    table, _ = pool.match(tokens)
    done, copies = pool.open(table, tokens)
    return table, done, copies


def computed(pool: BlockPool, tokens: list[int]) -> Table:
    table, _, _ = opened(pool, tokens)
    pool.publish(table, tokens, len(tokens))
    return table


def test_a_prompt_gets_room_for_all_its_tokens() -> None:
    pool = BlockPool(8, SIZE)
    table, done, copies = opened(pool, list(range(9)))
    assert (len(table.blocks), done, copies) == (3, 0, [])
    assert (pool.held, pool.available) == (3, 5)


def test_full_blocks_are_shared_while_in_use() -> None:
    pool = BlockPool(8, SIZE)
    first = computed(pool, [1, 2, 3, 4, 5, 6])
    second, done, copies = opened(pool, [1, 2, 3, 4, 9])
    assert (done, copies) == (4, [])
    assert second.blocks[0] == first.blocks[0]
    assert second.blocks[1] != first.blocks[1]
    assert pool.held == 3


def test_what_is_released_stays_findable_in_whole_and_in_part() -> None:
    pool = BlockPool(8, SIZE)
    tokens = [1, 2, 3, 4, 5, 6, 7]
    table = computed(pool, tokens)
    old = list(table.blocks)
    pool.close(table, tokens, len(tokens))
    assert (pool.held, pool.cached, pool.available) == (0, 2, 8)
    again, done, copies = opened(pool, [1, 2, 3, 4, 5, 6, 8, 9])
    assert again.blocks[0] == old[0]
    assert done == 6  # 5 and 6 are found in the part
    assert copies == [(old[1], again.blocks[1])]
    assert again.blocks[1] != old[1]


def test_the_last_token_is_never_covered() -> None:
    pool = BlockPool(8, SIZE)
    tokens = [1, 2, 3, 4, 5, 6, 7, 8]
    first = computed(pool, tokens)
    second, done, copies = opened(pool, tokens)
    assert done == 7
    assert copies == [(first.blocks[1], second.blocks[1])]
    assert first.blocks[1] != second.blocks[1]  # position 7 is written again, in a block of its own


def test_a_chain_stands_for_all_tokens_before() -> None:
    pool = BlockPool(8, SIZE)
    computed(pool, [1, 2, 3, 4, 5, 5, 5, 5])
    _, done, _ = opened(pool, [9, 2, 3, 4, 5, 5, 5, 5, 6])
    assert done == 0


def test_tokens_with_equal_hashes_are_told_apart() -> None:
    assert hash(-1) == hash(-2)  # CPython's; tuples of them collide as well
    assert hash((-1,) * SIZE) == hash((-2,) * SIZE)
    pool = BlockPool(8, SIZE)
    computed(pool, [-1] * SIZE + [7])
    _, done, _ = opened(pool, [-2] * SIZE + [7])
    assert done == 0


def test_two_who_computed_the_same_keep_one_block() -> None:
    pool = BlockPool(8, SIZE)
    tokens = [1, 2, 3, 4, 5]
    first, _, _ = opened(pool, tokens)
    second, _, _ = opened(pool, tokens)
    assert pool.held == 4
    pool.publish(first, tokens, 5)
    pool.publish(second, tokens, 5)
    assert first.blocks[0] == second.blocks[0]
    assert first.chain == second.chain
    assert pool.held == 3


def test_the_least_recently_released_goes_first_and_ends_before_beginnings() -> None:
    pool = BlockPool(4, SIZE)
    old, new = list(range(8)), list(range(100, 108))
    for tokens in (old, new):
        table = computed(pool, tokens)
        pool.close(table, tokens, len(tokens))
    taken, _, _ = opened(pool, [50])  # one block must go
    assert pool.match([*old, 0])[0].published == 1
    assert pool.match([*new, 0])[0].published == 2
    assert len(taken.blocks) == 1


def test_using_a_prefix_again_keeps_it() -> None:
    pool = BlockPool(4, SIZE)
    for tokens in ([1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3], [4, 4, 4, 4]):
        pool.close(computed(pool, tokens), tokens, SIZE)
    table, _, _ = opened(pool, [1, 1, 1, 1, 5])  # evicts the second, and holds the first
    pool.close(table, [1, 1, 1, 1, 5], 4)
    found = [pool.match([n, n, n, n, 9])[0].published for n in (1, 2, 3, 4)]
    assert found == [1, 0, 1, 1]


def test_a_tail_that_had_to_go_for_its_own_copy_is_used_in_place() -> None:
    pool = BlockPool(2, SIZE)
    tokens = [1, 2, 3]
    pool.close(computed(pool, tokens), tokens, 3)
    table, done, copies = opened(pool, [1, 2, 3, 4, 5, 6, 7, 8])
    assert done == 3
    source_is_target = copies == []
    assert source_is_target == (table.blocks[0] == 0) or copies[0][1] == table.blocks[0]
    assert len(table.blocks) == 2


def test_nothing_of_an_evaluation_is_kept() -> None:
    pool = BlockPool(4, SIZE)
    table = Table()
    pool.grow(table, 3)
    pool.close(table, list(range(12)), 0)
    assert (pool.held, pool.cached, pool.available) == (0, 0, 4)


class Sequence:
    def __init__(self, table: Table, tokens: list[int], done: int) -> None:
        self.table, self.tokens, self.done = table, tokens, done


class PoolMachine(RuleBasedStateMachine):
    """Sequences come, compute, grow and go; a model of the memory says what every block really holds."""

    sequences = Bundle("sequences")
    tokens = st.lists(st.integers(0, 2), min_size=1, max_size=18)  # few tokens, so that much is shared

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(10, SIZE)
        self.memory: dict[int, list[tuple[int, ...] | None]] = {b: [None] * SIZE for b in range(10)}
        self.live: list[Sequence] = []

    def write(self, sequence: Sequence, until: int) -> None:
        """Compute positions: a slot holds the whole history up to its position."""
        for position in range(sequence.done, until):
            block = sequence.table.blocks[position // SIZE]
            holders = [s for s in self.live if block in s.table.blocks]
            assert holders == [sequence], "a shared block is written"
            self.memory[block][position % SIZE] = tuple(sequence.tokens[: position + 1])
        sequence.done = until

    def check(self, sequence: Sequence) -> None:
        for position in range(sequence.done):
            held = self.memory[sequence.table.blocks[position // SIZE]][position % SIZE]
            assert held == tuple(sequence.tokens[: position + 1])

    @rule(target=sequences, tokens=tokens)
    def come(self, tokens: list[int]) -> Sequence:
        table, idle = self.pool.match(tokens)
        needed = self.pool.blocks_for(len(tokens)) - len(table.blocks)
        if self.pool.available - idle < needed:
            return Sequence(Table(), [], 0)
        done, copies = self.pool.open(table, tokens)
        for source, target in copies:
            self.memory[target] = list(self.memory[source])
        sequence = Sequence(table, list(tokens), done)
        self.live.append(sequence)
        assert done < len(tokens)
        self.check(sequence)
        return sequence

    @rule(sequence=sequences, share=st.floats(0, 1))
    def compute(self, sequence: Sequence, share: float) -> None:
        until = sequence.done + round(share * (len(sequence.tokens) - sequence.done))
        self.write(sequence, until)
        self.pool.publish(sequence.table, sequence.tokens, until)
        self.check(sequence)

    @rule(sequence=sequences, token=st.integers(0, 2))
    def append(self, sequence: Sequence, token: int) -> None:
        if sequence not in self.live or sequence.done < len(sequence.tokens):
            return
        missing = self.pool.blocks_for(len(sequence.tokens) + 1) - len(sequence.table.blocks)
        if missing <= self.pool.available:
            sequence.tokens.append(token)
            self.pool.grow(sequence.table, missing)

    @rule(sequence=consumes(sequences))
    def go(self, sequence: Sequence) -> None:
        if sequence in self.live:
            self.live.remove(sequence)
            self.pool.close(sequence.table, sequence.tokens, sequence.done)

    @invariant()
    def holders_are_counted(self) -> None:
        counts = [0] * self.pool.size
        for sequence in self.live:
            for block in sequence.table.blocks:
                counts[block] += 1
        assert counts == self.pool._holders
        assert self.pool.held == sum(1 for count in counts if count)

    @invariant()
    def every_block_is_in_one_place(self) -> None:
        free, idle = self.pool._free, list(self.pool._idle)
        held = [block for block, count in enumerate(self.pool._holders) if count]
        assert sorted([*free, *idle, *held]) == list(range(self.pool.size))
        assert all(block not in self.pool._entries for block in free)
        assert all(block in self.pool._entries for block in idle)

    @invariant()
    def what_is_findable_is_there(self) -> None:
        serials = {entry.serial: block for block, entry in self.pool._entries.items() if entry.serial != ROOT}
        for block, entry in self.pool._entries.items():
            assert entry.chain == ROOT or entry.chain in serials, "a block outlived the one before it"
            history: tuple[int, ...] = ()
            chain = entry.chain
            while chain != ROOT:
                before = self.pool._entries[serials[chain]]
                history, chain = before.tokens + history, before.chain
            history += entry.tokens
            begin = len(history) - len(entry.tokens)
            for offset in range(len(entry.tokens)):
                assert self.memory[block][offset] == history[: begin + offset + 1]

    @invariant()
    def equal_beginnings_share_blocks(self) -> None:
        for a in self.live:
            for b in self.live:
                for index in range(min(a.table.published, b.table.published)):
                    same = a.tokens[: (index + 1) * SIZE] == b.tokens[: (index + 1) * SIZE]
                    assert same == (a.table.blocks[index] == b.table.blocks[index])


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_the_model_catches_a_pool_that_forgets_to_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BlockPool, "_hold", lambda self, block: self._idle.pop(block, None))
    machine = PoolMachine()
    machine.come(tokens=[1, 2, 3])
    with pytest.raises(AssertionError):
        machine.holders_are_counted()
