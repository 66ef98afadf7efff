"""Speculation changes how many steps an answer takes, and nothing in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from edgert_models.errors import BackendError
from edgert_runtimes.base import Limits

from edgert.engine.request import Request
from edgert.engine.speculation import Draft, Lookup, Proposer, Speculation
from tests.edgert.engine.fake import FakeSession, RecurrentSession, history_logits, limits, make_engine, start

TOKENS = 50


class Oracle:
    """Guesses what the model will like best; sometimes something else."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.asked = 0
        self.forgotten: list[Request] = []
        self.closed = False
        self._random = np.random.default_rng(0)

    def propose(self, requests: Sequence[Request], most: Sequence[int]) -> list[list[int]]:
        self.asked += 1
        return [self._guesses(list(request.tokens), count) for request, count in zip(requests, most, strict=True)]

    def _guesses(self, tokens: list[int], count: int) -> list[int]:
        size = len(tokens)
        for _ in range(count):
            best = int(history_logits(tokens).argmax())
            tokens.append(best if self._random.random() < self.share else (best + 1) % TOKENS)
        return tokens[size:]

    def forget(self, request: Request) -> None:
        self.forgotten.append(request)

    def close(self) -> None:
        self.closed = True


PROMPTS = [[index + 1] * (4 * index + 3) for index in range(5)]  # one more than there are sequences


def answers(session: FakeSession, speculation: Speculation | None, **params: object) -> list[list[int]]:
    engine = make_engine(session, speculation=speculation)
    given = {"max_tokens": 30, "temperature": 0.0, **params}
    collectors = [start(engine, prompt, seed=index, **given)[1] for index, prompt in enumerate(PROMPTS)]
    found = [collector.tokens() for collector in collectors]
    now = engine.statistics()
    assert now.blocks_held == 0
    assert now.right_guesses <= now.guessed_tokens
    assert now.generated_tokens == sum(map(len, found))
    engine.close()
    return found


SAMPLED = {"temperature": 1.0, "top_k": 5, "repetition_penalty": 1.2, "logprobs": 2, "dry_multiplier": 0.5}


@pytest.mark.parametrize(
    "params", [{}, SAMPLED, {"mirostat": 2, "temperature": 0.7}], ids=["greedy", "all", "mirostat"]
)
@pytest.mark.parametrize("blocks", [64, 18], ids=["room", "scarce"])
@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_answers_are_the_same(share: float, blocks: int, params: dict[str, object]) -> None:
    plain = FakeSession(limits(blocks=blocks))
    alone = answers(plain, None, **params)
    oracle = Oracle(share)
    guessed = FakeSession(limits(blocks=blocks))
    assert answers(guessed, Speculation(oracle, most=4, always=True), **params) == alone
    assert oracle.asked
    assert oracle.closed
    assert len(oracle.forgotten) >= len(PROMPTS)
    if share == 1.0 and not params and blocks == 64:
        assert len(guessed.batches) < len(plain.batches) / 2


def test_guesses_share_the_rows_of_a_step() -> None:
    session = FakeSession(limits(rows=8))
    answers(session, Speculation(Oracle(1.0), most=6, always=True))
    assert max(len(batch.tokens) for batch in session.batches) <= 8


def test_ends_within_guesses() -> None:
    """An end token, a limit and a full context end an answer amid right guesses."""
    full = answers(FakeSession(limits()), None)[0]
    for params, expected in (
        ({"max_tokens": 7}, full[:7]),
        ({"stop_token_ids": [full[9]]}, full[: full.index(full[9]) + 1]),
    ):
        engine = make_engine(FakeSession(limits()), speculation=Speculation(Oracle(1.0), always=True))
        request, collector = start(engine, PROMPTS[0], temperature=0.0, **params)
        assert collector.tokens() == expected
        assert request.right_guesses <= request.guessed_tokens
        engine.close()
    engine = make_engine(FakeSession(limits(context=16)), speculation=Speculation(Oracle(1.0), always=True))
    assert len(start(engine, PROMPTS[0], temperature=0.0)[1].tokens()) == 13
    engine.close()


def test_what_was_computed_stays_findable_and_what_was_refused_does_not() -> None:
    engine = make_engine(FakeSession(limits()), speculation=Speculation(Oracle(0.5), always=True))
    first = start(engine, PROMPTS[1], temperature=0.0, max_tokens=20)[1].tokens()
    prompt = [*PROMPTS[1], *first]
    request, collector = start(engine, prompt, temperature=0.0, max_tokens=10)
    again = collector.tokens()
    assert request.cached_tokens >= len(prompt) - 2
    engine.close()
    plain = make_engine(FakeSession(limits()))
    assert start(plain, prompt, temperature=0.0, max_tokens=10)[1].tokens() == again
    plain.close()


@pytest.mark.parametrize("kind", ["oracle", "lookup", "draft"])
def test_requests_that_slide(kind: str) -> None:
    proposers = {
        "oracle": lambda: Oracle(0.8),
        "lookup": Lookup,
        "draft": lambda: Draft(FakeSession(limits(blocks=40)), TOKENS),
    }
    given: dict[str, object] = {"overflow": "sliding", "max_tokens": 150, "temperature": 1.0, "top_k": 3}
    sizes = limits(context=32)
    proposer: Proposer = proposers[kind]()  # type: ignore[no-untyped-call]
    speculation = Speculation(proposer, most=4, always=True)
    assert answers(FakeSession(sizes), speculation, **given) == answers(FakeSession(sizes), None, **given)
    if isinstance(proposer, Draft):
        assert proposer._pool.held == 0
        assert not speculation._failed


class Sudden(Oracle):
    """Fails at its third call."""

    def propose(self, requests: Sequence[Request], most: Sequence[int]) -> list[list[int]]:
        if self.asked == 2:
            raise BackendError("no more ideas")
        return super().propose(requests, most)


def test_a_proposer_that_fails_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    sudden = Sudden(1.0)
    assert answers(FakeSession(limits()), Speculation(sudden, always=True)) == answers(FakeSession(limits()), None)
    assert sudden.asked == 2
    assert "speculation failed; it goes on without" in caplog.text


def test_a_step_that_fails_with_guesses_is_done_without() -> None:
    class Picky(FakeSession):
        def step(self, batch, *, hidden=False):  # type: ignore[no-untyped-def]
            if len(batch.pick) > len(batch.lengths):
                raise BackendError("too many picked")
            return super().step(batch, hidden=hidden)

    assert answers(Picky(limits()), Speculation(Oracle(1.0), always=True)) == answers(FakeSession(limits()), None)


def test_models_with_recurrent_states_do_without() -> None:
    oracle = Oracle(1.0)
    answers(RecurrentSession(limits(states=12)), Speculation(oracle, always=True))
    assert not oracle.asked


@pytest.mark.parametrize("params", [{}, {"temperature": 1.0, "top_k": 5, "top_p": 0.9}], ids=["greedy", "sampled"])
@pytest.mark.parametrize(
    "own", [limits(), limits(context=40, blocks=24), limits(rows=4, sequences=4)], ids=["same", "small", "slow"]
)
def test_a_draft_model(own: Limits, params: dict[str, object]) -> None:
    """One that thinks as the model does is right each time, also where draws are random."""
    session = FakeSession(own)
    draft = Draft(session, TOKENS)
    engine = make_engine(FakeSession(limits()), speculation=Speculation(draft, most=4, always=True))
    given = {"max_tokens": 30, "temperature": 0.0, **params}
    collectors = [start(engine, prompt, seed=index, **given)[1] for index, prompt in enumerate(PROMPTS)]
    assert [each.tokens() for each in collectors] == answers(FakeSession(limits()), None, **params)
    now = engine.statistics()
    assert now.guessed_tokens > 20
    assert now.right_guesses >= 0.8 * now.guessed_tokens  # but for those beyond an answer's end
    assert draft._pool.held == 0
    assert not draft._followers
    engine.close()
    assert session.closed


def test_a_draft_model_that_thinks_otherwise() -> None:
    class Other(FakeSession):
        def step(self, batch, *, hidden=False):  # type: ignore[no-untyped-def]
            out = super().step(batch, hidden=hidden)
            out[::2] = -out[::2]
            return out

    speculation = Speculation(Draft(Other(limits()), TOKENS), most=4, always=True)
    assert answers(FakeSession(limits()), speculation) == answers(FakeSession(limits()), None)


def of(tokens: Sequence[int], limit: int = 1000) -> Request:
    from edgert.engine.request import Kind

    request = Request(Kind.GENERATE, list(tokens), len(tokens), lambda event: None, lambda request: None)
    request.limit = limit
    return request


def test_lookup_finds_what_followed_the_last_time() -> None:
    lookup = Lookup()
    request = of([1, 2, 3, 4, 9, 9, 1, 2, 5, 6, 7, 1, 2])
    assert lookup.propose([request], [3]) == [[5, 6, 7]]  # the last time that 1, 2 came
    assert lookup.propose([request], [0]) == [[]]
    request.tokens += [3, 4]
    assert lookup.propose([request], [2]) == [[9, 9]]  # four that came again
    request.tokens += [40, 41]
    assert lookup.propose([request], [2]) == [[]]
    assert lookup.propose([of([8, 8, 8, 8]), of([3])], [4, 4]) == [[8], []]
    lookup.forget(request)
    lookup.forget(request)
    assert request not in lookup._seen


def wanted(speculation: Speculation, request: Request, rows: int = 100) -> int:
    return len(speculation.propose([request], rows)[0])


class Eager:
    """As many as it may."""

    def propose(self, requests: Sequence[Request], most: Sequence[int]) -> list[list[int]]:
        return [[0] * count for count in most]

    def forget(self, request: Request) -> None: ...

    def close(self) -> None: ...


def test_only_what_pays_is_guessed() -> None:
    proposer: Proposer = Eager()
    speculation = Speculation(proposer, most=8)
    request = of([1, 2])
    for _ in range(4):  # first it must be known what a step takes
        assert wanted(speculation, request) == 0
        speculation.note_step(1, 0, 0.010)
    assert wanted(speculation, request) == 8
    for _ in range(30):  # rows that cost next to nothing, and guesses that are right
        speculation.note_step(1, 8, 0.0101)
        speculation.note_guesses(request, 8, 8)
    assert wanted(speculation, request) == 8
    assert wanted(speculation, request, rows=3) == 3
    assert wanted(speculation, of([1, 2], limit=5), rows=100) == 2  # no more than the answer may have
    for _ in range(30):  # guesses that are always wrong
        speculation.note_guesses(request, 8, 0)
    counts = [wanted(speculation, request) for _ in range(200)]
    assert max(counts) == 1  # tried again at times
    assert sum(counts) < 6
    for _ in range(60):
        speculation.note_guesses(request, 8, 8)
        speculation.note_step(1, 8, 0.010 * 9 + 0.001)  # rows that cost as much as steps
    counts = [wanted(speculation, request) for _ in range(200)]
    assert sum(counts) < 6
    speculation.forget(request)
    assert request not in speculation._records


def test_always_asks_for_all() -> None:
    speculation = Speculation(Eager(), most=5, always=True)
    assert wanted(speculation, of([1, 2])) == 5
    assert [len(guesses) for guesses in speculation.propose([of([1]), of([2])], 6)] == [3, 3]
