"""Between a session and the shelf: what is evicted goes, what was asked for comes. On the engine's thread."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from edgert_runtimes.base import StoringSession

from edgert.engine.prefixes.shelf import Fetch, Piece, Shelf
from edgert.engine.prefixes.store import BLOCK, STATE
from edgert.engine.scheduler import Scheduler

_log = logging.getLogger("edgert.engine")
_AT_ONCE = 64  # blocks that are taken out of the session when all is over


class Exchange:
    """Moves blocks and recurrent states of one session, as its scheduler says."""

    def __init__(self, shelf: Shelf, session: StoringSession, scheduler: Scheduler) -> None:
        self._shelf, self._session, self._scheduler = shelf, session, scheduler
        self._block_size = session.limits.block_size

    def keep_evicted(self) -> None:
        """Give what was evicted to the shelf, before anything is written where it is."""
        pool, states = self._scheduler.pool, self._scheduler.states
        if pool.evicted or states.evicted:
            blocks, pool.evicted = pool.evicted, []
            slots, states.evicted = states.evicted, []
            self._keep(BLOCK, blocks)
            self._keep(STATE, slots)

    def keep_everything(self) -> None:
        """All is over: what the cache has is to be there after a restart."""
        self._shelf.closing()
        blocks, slots = self._scheduler.pool.named(), self._scheduler.states.named()
        try:
            self.keep_evicted()
            for slot in slots:
                self._keep(STATE, [slot], patient=True)
            for first in range(0, len(blocks), _AT_ONCE):
                self._keep(BLOCK, blocks[first : first + _AT_ONCE], patient=True)
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
            if piece.blocks is not None:
                first = request.computed // self._block_size
                self._session.write_blocks(request.table.blocks[first : first + len(piece.blocks)], piece.blocks)
                self._scheduler.fetched(request, len(piece.blocks))
            if piece.states is not None:
                self._scheduler.states.prepare(request.states)
                self.keep_evicted()
                assert request.states.next is not None
                self._session.write_states([request.states.next], piece.states)
        except Exception:
            _log.exception("what was read from disk cannot be used; it is computed")
            return self._end(fetch, whole=False)
        fetch.room.release()
        return self._end(fetch, whole=piece.states is not None) if piece.last else 0

    def _end(self, fetch: Fetch, *, whole: bool) -> int:
        request, found = fetch.request, 0
        fetch.cancel()
        if whole or fetch.state is None:
            found = max(0, min(request.computed, request.prompt_tokens) - request.cached_tokens)
            request.cached_tokens += found
            request.disk_tokens += found
        self._scheduler.end_fetch(request, whole=whole)
        return found

    def _keep(self, kind: str, places: Sequence[tuple[int, bytes]], *, patient: bool = False) -> None:
        """Take out what is in some blocks or slots, unless the disk has it."""
        new = []
        for place, name in places:
            if self._shelf.has(name, kind):
                self._shelf.store.touch(name, kind)
            else:
                new.append((place, name))
        if new and (patient or not self._shelf.full):
            read = self._session.read_blocks if kind == BLOCK else self._session.read_states
            for (_, name), content in zip(new, read([place for place, _ in new]), strict=True):
                self._shelf.keep(name, kind, content, patient=patient)
