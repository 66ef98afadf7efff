"""What ends or shortens a request: its deadline, and more tokens than the context holds."""

import pytest
from edgert_models.errors import ContextLengthError, DeadlineError, RequestError

from edgert.engine.overflow import oldest, room_for_prompt, without_middle
from edgert.engine.params import SamplingParams
from edgert.engine.request import CLIENT, Ending
from tests.edgert.engine.fake import (
    Collector,
    FakeSession,
    expected,
    greedy,
    history_logits,
    limits,
    make_engine,
    start,
)


def test_a_request_ends_at_its_deadline() -> None:
    session = FakeSession(limits(sequences=1), delay=0.01)
    engine = make_engine(session, timeout=30.0)
    long, waiting = (start(engine, [n], max_tokens=60, timeout=0.15)[1] for n in range(2))
    with pytest.raises(DeadlineError, match=r"longer than 0\.15 s: \d+ tokens of the answer were there"):
        long.tokens()
    with pytest.raises(DeadlineError, match=r"longer than 0\.15 s: it was waiting"):
        waiting.tokens()
    statistics = engine.statistics()
    assert (statistics.running, statistics.waiting, statistics.blocks_held) == (0, 0, 0)
    assert len(start(engine, [1], max_tokens=3)[1].tokens()) == 3
    engine.close()


def test_the_engines_deadline_is_for_all() -> None:
    session = FakeSession(limits(), delay=0.01)
    engine = make_engine(session, timeout=0.05)
    for params in ({}, {"timeout": 9.0}):
        with pytest.raises(DeadlineError, match=r"longer than 0\.05 s"):
            start(engine, [1], max_tokens=60, **params)[1].tokens()
    engine.close()


def test_clients_take_turns() -> None:
    """Who asks for much at once does not hold up who asks for little."""
    session = FakeSession(limits(sequences=2))
    engine = make_engine(session)
    session.gate.clear()

    def ask(client: str) -> Collector:
        token = CLIENT.set(client)
        try:
            return start(engine, [1], max_tokens=2)[1]
        finally:
            CLIENT.reset(token)

    many = [ask("many") for _ in range(6)]
    few = [ask(name) for name in ("few", "fewer")]
    session.gate.set()
    for collector in [*many, *few]:
        collector.finish()
    begun = sorted([*many, *few], key=lambda collector: collector.events[0].at)
    assert all(begun.index(collector) <= 3 for collector in few)
    assert [collector for collector in begun if collector in many] == many
    engine.close()


def test_the_middle_of_a_prompt_is_left_out() -> None:
    engine = make_engine(FakeSession(limits(context=32)))
    prompt = list(range(45))
    kept = [*prompt[:12], *prompt[-12:]]
    request, collector = start(engine, prompt, max_tokens=8, temperature=0, overflow="truncate-middle")
    assert collector.tokens() == expected(kept, greedy, 8)
    assert (request.prompt_tokens, request.dropped_tokens) == (24, 21)
    request, collector = start(engine, prompt, temperature=0, overflow="truncate-middle")
    assert len(collector.tokens()) <= 8  # a quarter, where no length was asked for
    assert (request.prompt_tokens, request.dropped_tokens) == (24, 21)
    request, collector = start(engine, prompt[:20], max_tokens=8, temperature=0, overflow="truncate-middle")
    assert collector.tokens() == expected(prompt[:20], greedy, 8)
    assert request.dropped_tokens == 0
    with pytest.raises(
        ContextLengthError, match="has 45 tokens, which leaves no room for an answer; the context holds"
    ):
        start(engine, prompt, overflow="error")
    with pytest.raises(ContextLengthError, match="has 5 tokens and max_tokens is 32; the context holds 32"):
        start(engine, prompt[:5], max_tokens=32, overflow="truncate-middle")
    engine.close()


def slid(prompt: list[int], count: int, context: int) -> tuple[list[int], int]:
    """The tokens after a prompt as a window gives them, and how many left it."""
    window, answer, dropped = list(prompt), [], 0
    while len(answer) < count:
        answer.append(greedy(history_logits(window), window))
        window.append(answer[-1])
        if len(window) == context and len(answer) < count:
            begin, end = oldest(len(prompt), context)
            del window[begin:end]
            dropped += end - begin
    return answer, dropped


def test_an_answer_slides_beyond_the_context() -> None:
    engine = make_engine(FakeSession(limits(context=32, rows=8)))
    company = start(engine, [9, 9, 1], max_tokens=29, temperature=0)[1]
    request, collector = start(engine, [1, 2, 3], max_tokens=100, temperature=0, overflow="sliding")
    tokens, dropped = slid([1, 2, 3], 100, 32)
    assert collector.tokens() == tokens
    assert (request.prompt_tokens, request.dropped_tokens) == (3, dropped)
    assert collector.events[-1].ending is Ending.LENGTH
    assert company.tokens() == expected([9, 9, 1], greedy, 29)
    assert engine.statistics().blocks_held == 0
    engine.close()


def test_samplers_see_what_has_slid_away() -> None:
    """Of a vocabulary of 50, and tokens that never come twice, no 51st is left."""
    engine = make_engine(FakeSession(limits(context=32)), overflow="sliding")
    penalties = {"repeat_last_n": -1, "presence_penalty": 2.0, "repetition_penalty": 1000.0}
    tokens = start(engine, [1], max_tokens=45, temperature=0, **penalties)[1].tokens()
    assert len({1, *tokens}) > 40
    with pytest.raises(ContextLengthError):
        start(engine, [1], max_tokens=45, overflow="error")
    engine.close()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"overflow": "cut"}, "overflow must be one of error, truncate-middle, sliding, not 'cut'"),
        ({"timeout": 0.0}, "timeout must be a number from 0.001 to 1e"),
        ({"timeout": float("nan")}, "timeout must be a number"),
    ],
)
def test_what_they_may_be(fields: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        SamplingParams(**fields)  # type: ignore[arg-type]


def test_rooms() -> None:
    assert room_for_prompt("error", None, 32) == 31
    assert room_for_prompt("truncate-middle", 40, 32) < 1
    assert room_for_prompt("sliding", 400, 32) == room_for_prompt("sliding", None, 32) == 24
    assert room_for_prompt("sliding", 3, 32) == 29
    assert without_middle(range(9), 4) == [0, 1, 7, 8]
    assert without_middle(range(9), 1) == [8]
    assert oldest(3, 32) == (3, 17)
    assert oldest(30, 32) == (8, 20)
    assert oldest(1, 2) == (0, 1)
