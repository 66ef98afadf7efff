"""What the next step computes: continuous batching with chunked prefill over a paged cache.

Every request is its tokens and how many of them are computed; one that lacks a single token is decoding, one that
lacks more is in prefill. A step takes a row of everyone who is decoding, and fills up with pieces of prompts, first
come first served. A request is admitted once all its tokens have room; when decoding runs out of blocks, the newest
request goes back to the head of the queue, and is computed again later (mostly found in the prefix cache).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgert_models.errors import RequestError
from edgert_runtimes.base import Limits

from edgert.engine.blocks import BlockPool, Table
from edgert.engine.prefixes.shelf import Fetch, Shelf
from edgert.engine.prefixes.store import BLOCK, STATE, WINDOW
from edgert.engine.request import Kind, Request
from edgert.engine.states import StatePool
from edgert.engine.windows import WindowPool, window_blocks

_FEWEST_ROWS = 16
_SLOTS_AHEAD = 3  # of states, for each request of a step that another one follows before it is planned


class Pace:
    """How many rows a step takes: `rows`, fewer after one that took more than `slow` seconds, more after one that took
    less than `quick`.

    Requests come and get their next token between steps. What they get does not depend on how prompts are cut:
    backends give the same bits for every cut.
    """

    def __init__(self, first: int, fewest: int, most: int, quick: float, slow: float) -> None:
        self.rows = max(fewest, min(first, most))
        self._fewest, self._most, self._quick, self._slow = fewest, most, quick, slow

    def note(self, rows: int, seconds: float) -> None:
        """A step of so many rows took so long."""
        if rows <= self.rows // 2:
            return  # not full: it says little of a full one
        if seconds > self._slow:
            self.rows = max(self.rows // 2, self._fewest)
        elif seconds < self._quick:
            self.rows = min(self.rows * 2, self._most)


@dataclass(frozen=True, slots=True)
class Part:
    """`count` tokens of a request, from position `request.computed` on; the last of them are `guessed`, and not the
    request's yet.
    """

    request: Request
    count: int
    guessed: tuple[int, ...] = ()


@dataclass(slots=True)
class Step:
    """What is to be fetched from the disk, block copies to make first, then the parts of one batch, of which there are
    none where all wait for the disk.
    """

    fetches: list[Fetch] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    rows: int = 0  # left to fill
    filling: bool = False  # has a piece of a prompt
    # What the blocks being computed will be found by: who waits for the same one can have it after this step.
    coming: set[tuple[int, tuple[int, ...]]] = field(default_factory=set)


class Scheduler:
    """Decides; it touches neither arrays nor the session. `evaluation_rows` bounds a piece of an evaluation, `shelf`
    has the prefixes that are on disk, `reach` is the window of layers that have one (see `Plan.reach`).

    RequestError if the limits cannot work: fewer rows than sequences, a pool that does not hold one context, or slots
    of states, but fewer than two for each sequence.
    """

    def __init__(self, limits: Limits, evaluation_rows: int, shelf: Shelf | None = None, reach: int = 0) -> None:
        if not 0 < limits.sequences <= limits.rows:
            raise RequestError(f"{limits.sequences} sequences need as many rows a step, not {limits.rows}")
        if limits.blocks < limits.table_width:
            reason = f"a context of {limits.context} needs {limits.table_width} blocks, not {limits.blocks}"
            raise RequestError(reason)
        if 0 < limits.states < 2 * limits.sequences:
            reason = f"{limits.sequences} sequences need {2 * limits.sequences} slots of states, not {limits.states}"
            raise RequestError(reason)
        if limits.window_blocks and reach and limits.window_blocks < (least := window_blocks(reach, 1, limits)):
            raise RequestError(f"a sequence needs {least} blocks of layers with a window, not {limits.window_blocks}")
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []  # in order of admission
        self.pool = BlockPool(limits.blocks, limits.block_size, None if shelf is None else shelf.root)
        self.states = StatePool(limits.states)
        self.windows = WindowPool(limits, reach)
        self.preemptions = 0
        self._whole = bool(self.states.size or self.windows.size)
        """What is in part of a block cannot be continued."""
        self._shelf = shelf
        # Prompts take large pieces while nobody decodes; who decodes is not to wait long for the next token.
        fewest = min(limits.rows, max(_FEWEST_ROWS, limits.sequences))
        self.alone = Pace(limits.rows, fewest, limits.rows, quick=1.0, slow=3.0)
        self.shared = Pace(64, fewest, limits.rows, quick=0.2, slow=0.5)
        self._pace = self.alone
        self._sequences = limits.sequences
        self._context = limits.context
        self._evaluation_rows = evaluation_rows
        self._evaluate = False

    @property
    def busy(self) -> bool:
        """Whether anything is to be computed."""
        return bool(self.running or self.waiting)

    def plan(self) -> Step:
        """The next step, with at least one part unless all wait for the disk; only when `busy`.

        An evaluation has its steps to itself, and takes turns with the others.
        """
        generating = [request for request in self.running if request.kind is Kind.GENERATE and request.fetch is None]
        decoding = any(request.table.blocks and request.remaining == 1 for request in generating)
        self._pace = self.shared if decoding else self.alone
        step = Step(rows=self._pace.rows)
        evaluation = next((request for request in self.running if request.kind is not Kind.GENERATE), None)
        self._evaluate = not self._evaluate
        if evaluation is not None and (self._evaluate or not generating):
            step.parts.append(Part(evaluation, min(evaluation.remaining, step.rows, self._evaluation_rows)))
            return self._prepared(step)
        for request in generating:  # the newest, which may be preempted meanwhile, is last
            if request.table.blocks and request.remaining == 1 and self._make_room(request):
                step.parts.append(Part(request, 1))  # a step has a row for everyone
                step.rows -= 1
        for request in self.running:
            if request.kind is Kind.GENERATE and request.fetch is None and request.remaining > 1:
                self._take(step, request)
        while self.waiting and len(self.running) < self._sequences and self._admit(step, first := self._first()):
            self.running.append(first)
            self.waiting.remove(first)
        if not step.parts and all(request.fetch is None for request in self.running):
            return self.plan()
        return self._prepared(step)

    def _first(self) -> Request:
        """Who is next of those that wait: who was put back, then the first of the client with the fewest running."""
        if self.waiting[0].started_at is not None:
            return self.waiting[0]
        running = Counter(request.client for request in self.running)
        return min(self.waiting, key=lambda request: running[request.client])

    def _prepared(self, step: Step) -> Step:
        for part in step.parts:
            self.states.prepare(part.request.states)
            self.windows.grow(part.request.window, part.request.computed + part.count)
        return step

    def _serves(self, serials: Sequence[int]) -> bool:
        """Whether a sequence can be continued after the blocks with these serials."""
        return (not self.states.size or self.states.has(serials[-1])) and self.windows.has(serials)

    def look_ahead(self, parts: Sequence[Part]) -> bool:
        """Whether a step can follow this one before anything else is planned: all have slots for their states then."""
        if self.states.size and len(parts) * _SLOTS_AHEAD > self.states.size:
            return False
        return all(self.states.look_ahead(part.request.states) for part in parts)

    def with_guesses(self, part: Part, guesses: Sequence[int]) -> Part:
        """A part that is one token of a request with tokens that may follow it, as far as there is room for them:
        nobody has to give up any, and a block is left for each that runs.
        """
        request = part.request
        spare = self.pool.available - len(self.running)
        room = (len(request.table.blocks) + max(0, spare)) * self.pool.block_size - len(request.tokens)
        room = min(room, self._context - len(request.tokens) - 1)  # after which a request that slides is another
        guessed = tuple(guesses[: max(0, room)])
        positions = len(request.tokens) + len(guessed)
        self.pool.grow(request.table, self.pool.blocks_for(positions) - len(request.table.blocks))
        self.windows.grow(request.window, positions)
        return Part(request, 1 + len(guessed), guessed)

    def drop_guesses(self, request: Request) -> None:
        """Give back the blocks that only wrong guesses needed."""
        self.pool.shrink(request.table, self.pool.blocks_for(len(request.tokens)))
        self.windows.shrink(request.window, len(request.tokens))

    def pace(self, rows: int, seconds: float) -> None:
        """The last step that was planned computed so many rows in so long."""
        self._pace.note(rows, seconds)

    def done(self, part: Part) -> None:
        """A part has been computed."""
        request = part.request
        request.computed += part.count
        if self.states.size:
            self.states.advance(request.states)
        first = request.table.published
        if request.kind is Kind.GENERATE:
            self.pool.publish(request.table, request.tokens, request.computed)
            if self.states.size and request.computed % self.pool.block_size == 0:
                answer = request.computed > request.prompt_tokens
                self.states.keep(request.states, request.table.chain, answer=answer, name=request.table.name)
        self._see(request, first)

    def _see(self, request: Request, first: int) -> None:
        """Blocks of a request have been published from number `first` on; the next row sees other windows."""
        if self.windows.size:
            published = self.pool.published(request.table, first)
            borders = (request.border, request.prompt_tokens - 1)
            self.windows.advance(request.window, first, published, request.computed, borders)

    def fetched(self, request: Request, blocks: int) -> None:
        """So many blocks of a request have come from the disk."""
        request.computed += blocks * self.pool.block_size
        self.pool.publish(request.table, request.tokens, request.computed)

    def end_fetch(self, request: Request, *, whole: bool) -> None:
        """All that there is has come. States that a request wanted are in its slots, if it is `whole`; else it begins
        again, with what is in memory.
        """
        fetch, request.fetch = request.fetch, None
        if fetch is None or not fetch.whole:
            return
        if whole:
            if self.states.size:
                self.states.advance(request.states)
                self.states.keep(request.states, request.table.chain, answer=False, name=request.table.name)
            self._see(request, request.window.begin)
            return
        request.fetches = False
        self.running.remove(request)
        self._release(request)
        self.waiting.appendleft(request)

    def remove(self, request: Request) -> None:
        """Forget a request wherever it is, and free its blocks; what is computed of it stays findable."""
        if request in self.running:
            self.running.remove(request)
            self._release(request)
        elif request in self.waiting:
            self.waiting.remove(request)

    def _take(self, step: Step, request: Request) -> None:
        """Add what still fits of a request; a piece that is not the last ends with a block where it can."""
        count = min(request.remaining, step.rows, self._until_checkpoint(request))
        if count < request.remaining:
            if count < self.pool.block_size and step.filling:
                return  # crumbs would only spoil the next piece
            excess = (request.computed + count) % self.pool.block_size
            count -= excess if excess < count else 0
        if count == 0:
            return
        if request.remaining > 1:
            step.filling = True
            key = self.pool.next_key(request.table, request.tokens)
            if len(key[1]) == self.pool.block_size:
                step.coming.add(key)
        step.parts.append(Part(request, count))
        step.rows -= count

    def _until_checkpoint(self, request: Request) -> int:
        """Rows until states shall be kept: after the last block of a prompt, and where others went on differently."""
        if not self.states.size or request.remaining == 1:
            return request.remaining
        last = (len(request.tokens) - 1) // self.pool.block_size * self.pool.block_size
        borders = (border - request.computed for border in (request.border, last))
        return min((rows for rows in borders if rows > 0), default=request.remaining)

    def _admit(self, step: Step, request: Request) -> bool:
        """Let the first of the queue in if there is room for it; it is counted as running by the caller."""
        if step.rows == 0 or (step.filling and step.rows < self.pool.block_size):
            return False
        table, idle, fetch = Table(), 0, None
        if request.kind is Kind.GENERATE:
            table, idle, found = self.pool.match_until(request.tokens, self._serves, request.root)
            request.border = found * self.pool.block_size
            if self._whole and self._shelf is not None:
                table, idle, fetch = self._further_on_disk(request, table, self._shelf) or (table, idle, None)
            if self.pool.next_key(table, request.tokens) in step.coming:
                return False
        needed = self.pool.blocks_for(len(request.tokens)) - len(table.blocks)
        # One block to spare for each that runs, or it would soon be preempted again.
        if self.pool.available - idle < needed + len(self.running):
            return False
        if not self.windows.fits(len(each.tokens) + self.pool.block_size for each in (*self.running, request)):
            return False
        if request.kind is Kind.GENERATE and not self._whole and self._shelf is not None:
            fetch = self._blocks_on_disk(request, table, self._shelf)
        request.table = table
        if request.kind is Kind.GENERATE:
            if table.published and self.states.size and fetch is None:
                self.states.begin(request.states, table.chain)
            serials = [serial for serial, _ in self.pool.published(table)]
            self.windows.open(request.window, serials, table.published + (len(fetch.names) if fetch is not None else 0))
            whole = self._whole or fetch is not None
            request.computed, copies = self.pool.open(table, request.tokens, whole=whole)
            step.copies += copies
            if fetch is not None:
                request.fetch = fetch
                step.fetches.append(fetch)
                return True
            self._take(step, request)
        else:
            self.pool.grow(table, needed)  # an evaluation wants every row, so nothing of the prefix cache
        return True

    def _blocks_on_disk(self, request: Request, table: Table, shelf: Shelf) -> Fetch | None:
        """What the disk may have after the blocks that are in memory."""
        names = self.pool.names_after(table, request.tokens)
        first = next(names, b"")
        return Fetch(request, [first, *names]) if first and shelf.has(first, BLOCK) else None

    def _further_on_disk(self, request: Request, table: Table, shelf: Shelf) -> tuple[Table, int, Fetch] | None:
        """The furthest place from which a request can be continued with what the disk has, if that is after `table`:
        the blocks before it that are in memory, and how many of these are idle, then what is to be fetched.
        """
        if not request.fetches:
            return None
        there, idle = self.pool.match(request.tokens, request.root)
        serials = [serial for serial, _ in self.pool.published(there)]
        known, names = table.published, list(self.pool.names_after(table, request.tokens))
        best, seen = known, known - self.windows.begin(known)  # blocks of windows before a place, one after another
        for count, name in enumerate(names, known + 1):
            if count > there.published and not shelf.has(name, BLOCK):
                break
            if self.windows.size:
                kept = count <= there.published and self.windows.has_block(serials[count - 1])
                seen = seen + 1 if kept or shelf.has(name, WINDOW) else 0
            if count - self.windows.begin(count) <= seen and (not self.states.size or shelf.has(name, STATE)):
                best = count
        if best == known:
            return None
        if best < there.published:
            there, idle = self.pool.match(request.tokens[: best * self.pool.block_size + 1], request.root)
        wanted = [
            (number, names[number - known])
            for number in range(max(known, self.windows.begin(best)), best)
            if self.windows.size and not (number < len(serials) and self.windows.has_block(serials[number]))
        ]
        state = names[best - known - 1] if self.states.size else None
        return there, idle, Fetch(request, names[there.published - known : best - known], wanted, state, whole=True)

    def _make_room(self, request: Request) -> bool:
        """A block for the next position, if need be of the newest request's; false if that is this one itself."""
        missing = self.pool.blocks_for(len(request.tokens)) - len(request.table.blocks)
        while self.pool.available < missing or not self.windows.fits(len(each.tokens) for each in self.running):
            newest = self.running.pop()
            self._release(newest)
            self.waiting.appendleft(newest)
            self.preemptions += 1
            if newest is request:
                return False
        self.pool.grow(request.table, missing)
        return True

    def _release(self, request: Request) -> None:
        if request.fetch is not None:
            request.fetch.cancel()
            request.fetch = None
        self.states.release(request.states)
        self.windows.close(request.window)
        keep = request.computed if request.kind is Kind.GENERATE else 0
        keep -= keep % self.pool.block_size if self._whole else 0
        self.pool.close(request.table, request.tokens, keep)
        request.table, request.computed = Table(), 0
