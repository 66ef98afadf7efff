"""Between a session and the shelf: what is evicted goes, what was asked for comes. On the engine's thread."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from edgert_runtimes.base import StoringSession

from edgert.engine.prefixes.segment import Bytes
from edgert.engine.prefixes.shelf import Fetch, Piece, Shelf
from edgert.engine.prefixes.store import BLOCK, STATE, WINDOW
from edgert.engine.scheduler import Scheduler

_log = logging.getLogger("edgert.engine")
_AT_ONCE = {BLOCK: 64, WINDOW: 64, STATE: 1}  # that are taken out of the session when all is over


class _Evicting(Protocol):
    """A pool: of some of its places it knows the names, and which of these it has just given away."""

    evicted: list[tuple[int, bytes]]

    def named(self) -> list[tuple[int, bytes]]: ...


class Exchange:
    """Moves blocks and recurrent states of one session, as its scheduler says."""

    def __init__(self, shelf: Shelf, session: StoringSession, scheduler: Scheduler) -> None:
        self._shelf, self._session, self._scheduler = shelf, session, scheduler
        self._block_size = session.limits.block_size

    def keep_evicted(self) -> None:
        """Give what was evicted to the shelf, before anything is written where it is."""
        for kind, pool in self._pools():
            if pool.evicted:
                evicted, pool.evicted = pool.evicted, []
                self._keep(kind, evicted)

    def keep_everything(self) -> None:
        """All is over: what the cache has is to be there after a restart."""
        self._shelf.closing()
        everything = [(kind, pool.named()) for kind, pool in self._pools()]
        try:
            self.keep_evicted()
            for kind, places in everything:
                for first in range(0, len(places), _AT_ONCE[kind]):
                    self._keep(kind, places[first : first + _AT_ONCE[kind]], patient=True)
        except Exception:  # of a session that has failed
            _log.exception("the prefixes in memory cannot be kept on disk")

    def take(self, piece: Piece) -> int:
        """Put what has been read where the request that waits for it has room; how many more tokens of its prompt were
        cached than it knew, once all is there.
        """
        fetch, request = piece.fetch, piece.fetch.request
        if request.fetch is not fetch or request.ended:
            return 0
        try:
            self.keep_evicted()
            if piece.content is None:
                return self._end(fetch, whole=piece.all_there)
            self._write(piece, piece.content)
        except Exception:
            _log.exception("what was read from disk cannot be used; it is computed")
            return self._end(fetch, whole=False)
        fetch.room.release()
        return 0

    def _write(self, piece: Piece, content: Bytes) -> None:
        """Where the request that waits for a piece has room."""
        fetch, request = piece.fetch, piece.fetch.request
        if piece.kind == BLOCK:
            first = request.computed // self._block_size
            self._session.write_blocks(request.table.blocks[first : first + len(content)], content)
            self._scheduler.fetched(request, len(content))
        elif piece.kind == WINDOW:
            numbers = [number for number, _ in fetch.windows[piece.first : piece.first + len(content)]]
            blocks = [request.window.blocks[number - request.window.begin] for number in numbers]
            self._session.write_blocks(blocks, content, windows=True)
        else:
            self._scheduler.states.prepare(request.states)
            self.keep_evicted()
            assert request.states.next is not None
            self._session.write_states([request.states.next], content)

    def _end(self, fetch: Fetch, *, whole: bool) -> int:
        request, found = fetch.request, 0
        fetch.cancel()
        if whole or not fetch.whole:
            found = max(0, min(request.computed, request.prompt_tokens) - request.cached_tokens)
            request.cached_tokens += found
            request.disk_tokens += found
        self._scheduler.end_fetch(request, whole=whole)
        return found

    def _pools(self) -> tuple[tuple[str, _Evicting], ...]:
        """What keeps something of each kind."""
        scheduler = self._scheduler
        return (STATE, scheduler.states), (WINDOW, scheduler.windows), (BLOCK, scheduler.pool)

    def _keep(self, kind: str, places: Sequence[tuple[int, bytes]], *, patient: bool = False) -> None:
        """Take out what is in some blocks or slots, unless the disk has it."""
        new = []
        for place, name in places:
            if self._shelf.has(name, kind):
                self._shelf.store.touch(name, kind)
            else:
                new.append((place, name))
        if new and (patient or not self._shelf.full):
            contents = self._read(kind, [place for place, _ in new])
            for (_, name), content in zip(new, contents, strict=True):
                self._shelf.keep(name, kind, content, patient=patient)

    def _read(self, kind: str, places: Sequence[int]) -> Bytes:
        if kind == STATE:
            return self._session.read_states(places)
        return self._session.read_blocks(places, windows=True) if kind == WINDOW else self._session.read_blocks(places)
