"""Guesses of a smaller model with the same tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgert_runtimes.base import Session

from edgert.engine.batch import make_batch
from edgert.engine.blocks import BlockPool
from edgert.engine.request import Kind, Request
from edgert.engine.scheduler import Part


@dataclass(eq=False, slots=True)
class _Follower:
    """What the draft model has been told of a request: `own` is it with guesses at its end; the first `known` of its
    tokens are the request's. Of both the same tokens were left out before.
    """

    own: Request
    known: int


class Draft:
    """See Proposer. Owns the draft model's session, whose cache it keeps in step with the requests, which share its
    steps. Guessed is what the request's own sampling takes of the draft's logits, with the random number of the
    position: where both models agree, so do their choices.

    A prompt is taken in over several calls where it is long, and nothing is guessed until then, or where the draft's
    cache has no room.
    """

    def __init__(self, session: Session, vocabulary: int) -> None:
        self._session = session
        self._vocabulary = vocabulary
        self._pool = BlockPool(session.limits.blocks, session.limits.block_size)
        self._followers: dict[Request, _Follower] = {}

    def propose(self, requests: Sequence[Request], most: Sequence[int]) -> list[list[int]]:
        """See Proposer."""
        wanted: dict[Request, int] = {}  # guesses, by the draft's own request
        owners: dict[Request, Request] = {}
        for request, count in zip(requests, most, strict=True):
            count = min(count, self._session.limits.context - len(request.tokens))
            own = self._following(request, count) if count > 0 else None
            if own is not None:
                wanted[own], owners[request] = count, own
        starts = {own: len(own.tokens) for own in wanted}
        self._catch_up(list(wanted))
        while going := [
            own for own in wanted if 0 < len(own.tokens) - starts[own] < wanted[own] and own.remaining == 1
        ]:
            self._step([Part(own, 1) for own in going])
        found = {request: own.tokens[starts[own] :] for request, own in owners.items()}
        return [found.get(request, []) for request in requests]

    def forget(self, request: Request) -> None:
        """See Proposer."""
        follower = self._followers.pop(request, None)
        if follower is not None:
            own = follower.own
            self._pool.close(own.table, own.tokens, min(own.computed, follower.known))

    def close(self) -> None:
        """See Proposer."""
        self._session.close()

    def _following(self, request: Request, count: int) -> Request | None:
        """The draft's own request, with the request's tokens and room for `count` guesses; None where there is none."""
        follower = self._followers.get(request)
        before = len(request.history) - len(request.tokens)
        if follower is not None and follower.own.dropped_tokens != before:
            self.forget(request)  # it has slid: its positions hold other tokens now
            follower = None
        if follower is None:
            own = Request(Kind.GENERATE, list(request.tokens), len(request.tokens), _ignore, _ignore)
            own.sampler = request.sampler  # which is only asked for guesses
            own.dropped_tokens = before
            table, idle = self._pool.match(own.tokens)
            needed = self._pool.blocks_for(len(own.tokens) + count) - len(table.blocks)
            if self._pool.available - idle < needed:
                return None
            own.table = table
            own.computed, copies = self._pool.open(table, own.tokens)
            follower = self._followers[request] = _Follower(own, len(own.tokens))
            if copies:
                self._session.copy_blocks(copies)
        own = follower.own
        self._agree(follower, request)
        missing = self._pool.blocks_for(len(own.tokens) + count) - len(own.table.blocks)
        if missing > self._pool.available:
            return None
        self._pool.grow(own.table, missing)
        return own

    def _agree(self, follower: _Follower, request: Request) -> None:
        """Keep of the guesses those that became the request's tokens, and take over the others of these."""
        own, same = follower.own, follower.known
        while same < min(len(own.tokens), len(request.tokens)) and own.tokens[same] == request.tokens[same]:
            same += 1
        own.tokens[same:] = request.tokens[same:]
        own.computed = min(own.computed, same, len(own.tokens) - 1)
        follower.known = len(own.tokens)

    def _catch_up(self, owns: Sequence[Request]) -> None:
        """One step for what the draft has not seen, as far as it fits; those that are complete get a first guess."""
        rows = self._session.limits.rows
        parts = []
        for own in owns:
            count = min(own.remaining, rows)
            rows -= count
            if count:
                parts.append(Part(own, count))
        if parts:
            self._step(parts)
        for part in parts:  # no guess is computed yet: all of it is the request's
            self._pool.publish(part.request.table, part.request.tokens, part.request.computed)

    def _step(self, parts: Sequence[Part]) -> None:
        out = self._session.step(make_batch(parts, self._session.limits.block_size))
        row = 0
        for part in parts:
            own = part.request
            own.computed += part.count
            if not own.remaining:
                assert own.sampler is not None
                position = len(own.tokens) + own.dropped_tokens
                own.tokens.append(own.sampler.guess(out[row, : self._vocabulary], position))
                row += 1


def _ignore(_: object) -> None:
    """Nobody waits for what the draft model writes."""
