import threading
import time

import numpy as np
import pytest
from edgert_models.errors import CancelledError, ContextLengthError, QueueFullError, RequestError
from edgert_runtimes.base import Batch

from edgert.engine.engine import Engine
from edgert.engine.params import SamplingParams
from edgert.engine.request import Ending, Failed, Kind, Request, Token
from edgert.engine.scheduler import Pace, Scheduler
from tests.edgert.engine.fake import (
    VOCABULARY,
    WIDTH,
    Collector,
    FakeSession,
    expected,
    greedy,
    history_logits,
    limits,
    make_engine,
    start,
)


def test_greedy_tokens_are_those_of_the_definition() -> None:
    session = FakeSession(limits())
    engine = make_engine(session)
    request, collector = start(engine, [1, 2, 3], max_tokens=20, temperature=0)
    assert collector.tokens() == expected([1, 2, 3], greedy, 20)
    assert request.prompt_tokens == 3
    assert collector.events[-1].ending is Ending.LENGTH
    assert all(event.ending is None for event in collector.events[:-1])
    engine.close()
    assert session.closed == 1
    assert session.threads != {threading.get_ident()}
    assert len(session.threads) == 1


def test_a_long_prompt_is_prefilled_in_pieces() -> None:
    session = FakeSession(limits(rows=7))
    engine = make_engine(session)
    prompt = list(range(40))
    _, collector = start(engine, prompt, max_tokens=3, temperature=0)
    assert collector.tokens() == expected(prompt, greedy, 3)
    assert [len(batch.tokens) for batch in session.batches] == [4] * 10 + [1] * 2  # pieces end with blocks
    assert [len(batch.pick) for batch in session.batches] == [0] * 9 + [1] * 3  # nobody wants logits within a prompt
    engine.close()


def test_steps_become_shorter_where_the_model_is_slow_and_longer_where_it_is_quick() -> None:
    pace = Pace(64, 16, 512, quick=0.2, slow=0.5)
    pace.note(64, 0.1)
    assert pace.rows == 128
    pace.note(3, 0.1)  # steps that are not full say nothing
    pace.note(3, 0.9)
    assert pace.rows == 128
    pace.note(128, 0.3)
    assert pace.rows == 128
    for _ in range(9):
        pace.note(pace.rows, 2.0)
    assert pace.rows == 16
    for _ in range(9):
        pace.note(pace.rows, 0.01)
    assert pace.rows == 512


@pytest.mark.parametrize(("rows", "sequences", "alone", "slow"), [(512, 4, 512, 16), (5, 4, 5, 5), (100, 40, 100, 40)])
def test_a_step_has_a_row_for_every_sequence(rows: int, sequences: int, alone: int, slow: int) -> None:
    scheduler = Scheduler(limits(rows=rows, sequences=sequences, context=1024, blocks=256), 10**6)
    assert scheduler.alone.rows == alone
    for _ in range(9):
        scheduler.shared.note(scheduler.shared.rows, 2.0)
    assert scheduler.shared.rows == slow


def test_prompts_take_small_pieces_while_someone_decodes() -> None:
    session = FakeSession(limits(rows=256, context=1024, blocks=512))
    session.gate.clear()
    engine = make_engine(session)
    _, first = start(engine, list(range(8)), max_tokens=9, temperature=0)
    assert session.entered.wait(20)
    _, second = start(engine, [1] * 500, max_tokens=2, temperature=0)
    session.gate.set()
    first.tokens(), second.tokens()
    rows = [len(batch.tokens) for batch in session.batches]
    assert rows[0] == 8  # nobody else was there yet
    assert rows[1] == 1 + 60  # pieces end with blocks
    engine.close()


def test_cancelling_interrupts_a_step_that_is_for_nobody_else() -> None:
    session = FakeSession(limits(rows=16), delay=20.0)
    engine = make_engine(session)
    request, collector = start(engine, list(range(12)), max_tokens=3, temperature=0)
    assert session.entered.wait(20)
    begin = time.monotonic()
    request.cancel()
    with pytest.raises(CancelledError):
        collector.tokens()
    assert time.monotonic() - begin < 10
    session.delay = 0.0
    _, again = start(engine, list(range(12)), max_tokens=3, temperature=0)
    assert again.tokens() == expected(list(range(12)), greedy, 3)
    engine.close()


def test_a_slow_model_is_asked_for_less_at_a_time() -> None:
    session = FakeSession(limits(rows=64, context=256, sequences=1))
    plain = session.step

    def slow(batch: Batch, *, hidden: bool = False) -> np.ndarray:
        time.sleep(0.05 * len(batch.tokens))
        return plain(batch, hidden=hidden)

    session.step = slow  # type: ignore[method-assign]
    engine = make_engine(session)
    prompt = [n % 50 for n in range(100)]
    assert start(engine, prompt, max_tokens=2, temperature=0)[1].tokens() == expected(prompt, greedy, 2)
    assert [len(batch.tokens) for batch in session.batches] == [64, 32, 4, 1]
    engine.close()


def test_many_share_steps_and_do_not_disturb_each_other() -> None:
    session = FakeSession(limits())
    engine = make_engine(session)
    session.gate.clear()
    prompts = [[i] * (1 + 5 * i) for i in range(7)]
    started = [start(engine, prompt, max_tokens=12, temperature=0) for prompt in prompts]
    session.gate.set()
    for prompt, (_, collector) in zip(prompts, started, strict=True):
        assert collector.tokens() == expected(prompt, greedy, 12)
    assert max(len(batch.lengths) for batch in session.batches) == 4
    mixed = [batch for batch in session.batches if len(batch.lengths) > 1 and len(batch.tokens) > len(batch.lengths)]
    assert mixed, "no step had both decoding and prefill"
    assert len(session.batches) < 7 * 12
    engine.close()


def test_end_tokens_and_stop_tokens() -> None:
    full = expected([5], greedy, 20)
    for options in ({"end_ids": {full[4]}}, {}):
        engine = make_engine(FakeSession(limits()), **options)
        params = {} if options else {"stop_token_ids": [full[4]]}
        _, collector = start(engine, [5], temperature=0, **params)
        first = full.index(full[4])
        assert collector.tokens() == full[: first + 1]
        assert collector.events[-1].ending is Ending.STOP
        engine.close()


def test_without_max_tokens_the_context_ends_it() -> None:
    engine = make_engine(FakeSession(limits(context=32)))
    _, collector = start(engine, [1] * 10, temperature=0)
    assert len(collector.tokens()) == 22
    assert collector.events[-1].ending is Ending.LENGTH
    engine.close()


def test_what_does_not_fit_is_refused() -> None:
    engine = make_engine(FakeSession(limits(context=32)))
    with pytest.raises(ContextLengthError, match=r"32 tokens, which leaves no room .* holds 32") as caught:
        start(engine, [1] * 32)
    assert (caught.value.tokens, caught.value.limit, caught.value.parameter) == (33, 32, "prompt")
    with pytest.raises(ContextLengthError, match="has 30 tokens and max_tokens is 3; the context holds 32") as caught:
        start(engine, [1] * 30, max_tokens=3)
    assert caught.value.parameter == "max_tokens"
    _, collector = start(engine, [1] * 30, max_tokens=2, temperature=0)
    assert len(collector.tokens()) == 2
    with pytest.raises(ContextLengthError, match="33 tokens do not fit the context of 32"):
        engine.evaluate([1] * 33, print)
    engine.close()


@pytest.mark.parametrize("bad", [-1, VOCABULARY, 2**40])
def test_ids_are_checked(bad: int) -> None:
    engine = make_engine(FakeSession(limits()))
    with pytest.raises(RequestError, match=f"token 1 of the prompt is {bad}, outside the vocabulary of 50"):
        start(engine, [1, bad])
    for other in (True, 1.5, "a", None):
        with pytest.raises(RequestError, match=f"token 0 of the prompt is {other!r}, not an integer"):
            start(engine, [other])  # type: ignore[list-item]
    with pytest.raises(RequestError, match="no tokens"):
        start(engine, [])
    engine.close()


def test_padding_of_the_logits_is_never_chosen() -> None:
    engine = Engine(FakeSession(limits()), vocabulary=5)
    tokens = start(engine, [1], max_tokens=60, seed=1, temperature=5.0, top_k=0)[1].tokens()
    assert set(tokens) == set(range(5))
    engine.close()


def test_sampling_depends_on_the_seed_only() -> None:
    """Alone, in company, in pieces of any size, with and without the prefix cache, after a restart."""
    prompt = list(range(30))

    def alone(rows: int = 16, **options: int) -> list[int]:
        engine = make_engine(FakeSession(limits(rows=rows, **options)))
        _, collector = start(engine, prompt, seed=11, max_tokens=20)
        tokens = collector.tokens()
        engine.close()
        return tokens

    wanted = alone()
    assert len(set(wanted)) > 5
    for rows in (4, 5, 7, 13, 64):
        assert alone(rows) == wanted
    for block_size in (1, 3, 16):
        assert alone(block_size=block_size) == wanted

    session = FakeSession(limits())
    engine = make_engine(session)
    session.gate.clear()
    others = [start(engine, [n, *prompt[n:]], seed=n, max_tokens=9) for n in range(3)]
    _, mine = start(engine, prompt, seed=11, max_tokens=20)
    session.gate.set()
    assert mine.tokens() == wanted
    for _, other in others:
        other.finish()
    request, cached = start(engine, prompt, seed=11, max_tokens=20)
    assert cached.tokens() == wanted
    assert request.cached_tokens == 29
    engine.close()


def test_other_seeds_give_other_tokens() -> None:
    engine = make_engine(FakeSession(limits()))
    answers = {tuple(start(engine, [1], seed=seed, max_tokens=10)[1].tokens()) for seed in range(5)}
    assert len(answers) == 5
    fresh = {tuple(start(engine, [1], max_tokens=10)[1].tokens()) for _ in range(3)}
    assert len(fresh) == 3
    request, collector = start(engine, [1], max_tokens=10)
    answer = collector.tokens()
    assert start(engine, [1], max_tokens=10, seed=request.seed)[1].tokens() == answer  # an unasked seed is told
    engine.close()


def test_prefixes_are_reused() -> None:
    session = FakeSession(limits())
    engine = make_engine(session)
    prompt = list(range(1, 22))
    first, collector = start(engine, prompt, max_tokens=5, temperature=0)
    answer = collector.tokens()
    assert first.cached_tokens == 0
    follow = [*prompt, *answer, 40, 41]
    second, collector = start(engine, follow, max_tokens=5, temperature=0)
    assert collector.tokens() == expected(follow, greedy, 5)
    # All computed positions: the last token of the answer was never put through the model.
    assert second.cached_tokens == 25
    assert session.copies == 1
    statistics = engine.statistics()
    assert (statistics.prompt_tokens, statistics.cached_tokens) == (21 + 28, 25)
    engine.close()


@pytest.mark.parametrize("rows", [8, 64])
def test_who_comes_together_computes_a_common_prompt_once(rows: int) -> None:
    session = FakeSession(limits(rows=rows, sequences=4))
    engine = make_engine(session)
    session.gate.clear()
    prompt = list(range(24))
    prompts = [[*prompt, n] for n in range(4)]
    started = [start(engine, each, max_tokens=4, temperature=0) for each in prompts]
    session.gate.set()
    for each, (_, collector) in zip(prompts, started, strict=True):
        assert collector.tokens() == expected(each, greedy, 4)
    assert [request.cached_tokens for request, _ in started] == [0, 24, 24, 24]
    engine.close()


def test_a_pool_too_small_for_all_still_serves_all() -> None:
    session = FakeSession(limits(context=32, blocks=11, sequences=4))
    engine = make_engine(session)
    session.gate.clear()
    prompts = [[n] * 9 for n in range(6)]
    started = [start(engine, prompt, max_tokens=20, seed=n) for n, prompt in enumerate(prompts)]
    session.gate.set()
    answers = [collector.tokens() for _, collector in started]
    assert engine.statistics().preemptions > 0
    assert engine.statistics().blocks_held == 0
    engine.close()
    roomy = make_engine(FakeSession(limits(context=32)))
    for n, prompt in enumerate(prompts):
        assert start(roomy, prompt, max_tokens=20, seed=n)[1].tokens() == answers[n]
    roomy.close()


def test_who_is_preempted_comes_next() -> None:
    scheduler = Scheduler(limits(context=16, blocks=6, block_size=4, sequences=3), 10**6)
    old, new, later = (Request(Kind.GENERATE, [n] * 7, 7, lambda event: None, lambda request: None) for n in range(3))
    scheduler.waiting.extend([old, new, later])

    def step() -> list[Request]:
        parts = scheduler.plan().parts
        for part in parts:
            scheduler.done(part)
            if not part.request.remaining:
                part.request.tokens.append(9)
        return [part.request for part in parts]

    assert step() == [old, new]  # with two blocks each, which leaves too few for the third
    assert step() == [old, new]
    assert step() == [old, new]  # a third block each: the pool is full
    for _ in range(3):
        step()
    assert len(old.tokens) == 13
    assert step() == [old]  # needs a fourth
    assert scheduler.running == [old]
    assert list(scheduler.waiting) == [new, later]
    assert scheduler.preemptions == 1


def test_first_come_first_served() -> None:
    session = FakeSession(limits(sequences=1))
    engine = make_engine(session)
    session.gate.clear()
    order: list[int] = []

    def note(n: int) -> object:
        return lambda event: order.append(n) if event.ending else None

    for n in range(5):
        engine.submit([n], SamplingParams(max_tokens=3, temperature=0), note(n))  # type: ignore[arg-type]
    last = start(engine, [9], max_tokens=1)[1]
    session.gate.set()
    last.finish()
    assert order == [0, 1, 2, 3, 4]
    engine.close()


def test_the_queue_has_a_limit() -> None:
    session = FakeSession(limits(sequences=1))
    engine = make_engine(session, queue_limit=2)
    session.gate.clear()
    running = start(engine, [1], max_tokens=2)[1]
    assert session.entered.wait(5)
    waiting = [start(engine, [n], max_tokens=2) for n in (2, 3)]
    assert engine.statistics().waiting == 2
    with pytest.raises(QueueFullError, match="2 requests are waiting already"):
        start(engine, [4])
    waiting[0][0].cancel()
    session.gate.set()
    running.finish()
    waiting[1][1].finish()
    assert isinstance(waiting[0][1].finish(), Failed)
    assert len(start(engine, [5], max_tokens=2)[1].tokens()) == 2
    assert engine.statistics().waiting == 0
    engine.close()


@pytest.mark.parametrize("phase", ["queued", "prefill", "decoding"])
def test_cancel(phase: str) -> None:
    session = FakeSession(limits(rows=4, sequences=2), delay=0.02 if phase == "decoding" else 0.0)
    engine = make_engine(session)
    session.gate.clear()
    occupied = [start(engine, [n], max_tokens=40, temperature=0) for n in range(2)] if phase == "queued" else []
    request, collector = start(engine, [7] * 30, max_tokens=20, temperature=0)
    assert session.entered.wait(5)
    if phase == "decoding":
        session.gate.set()
        assert isinstance(collector.next(), Token)
        session.gate.clear()
    request.cancel()
    request.cancel()
    session.gate.set()
    last = collector.finish()
    assert isinstance(last, Failed)
    assert isinstance(last.error, CancelledError)
    assert str(last.error) == "the request was cancelled"
    if phase == "prefill":
        assert sum(len(batch.tokens) for batch in session.batches) == 4  # one piece, not eight
    for other, _ in occupied:
        other.cancel()
    for _, other_events in occupied:
        other_events.finish()  # cancelled, or sooner at its end
    statistics = engine.statistics()
    assert (statistics.running, statistics.waiting, statistics.blocks_held) == (0, 0, 0)
    request.cancel()  # long over
    assert start(engine, [1], max_tokens=3, temperature=0)[1].tokens() == expected([1], greedy, 3)
    assert collector.queue.empty()  # it was told once
    engine.close()


@pytest.mark.parametrize("hidden", [False, True])
def test_evaluate_gives_every_row(hidden: bool) -> None:
    session = FakeSession(limits())
    engine = make_engine(session)
    tokens = list(range(40))
    width = WIDTH if hidden else VOCABULARY
    wanted = np.array([history_logits(tokens[: n + 1], width) for n in range(40)])
    start(engine, tokens, max_tokens=2)[1].finish()  # what the prefix cache holds must not shorten it
    session.gate.clear()
    others = [start(engine, [n], max_tokens=15, temperature=0)[1] for n in range(2)]
    collector = Collector()
    engine.evaluate(tokens, collector, hidden=hidden)
    session.gate.set()
    rows = collector.rows()
    assert rows.dtype == np.float32
    assert np.array_equal(rows, wanted)
    fresh = list(range(49, 9, -1))
    engine.evaluate(fresh, collector, hidden=hidden)
    collector.rows()
    request, generated = start(engine, fresh, max_tokens=1)
    generated.finish()
    assert request.cached_tokens == 0
    for n, other in enumerate(others):
        assert other.tokens() == expected([n], greedy, 15)
    assert engine.statistics().blocks_held == 0
    engine.close()


def test_an_evaluation_can_be_cancelled_and_preempted() -> None:
    session = FakeSession(limits(context=32, blocks=9, rows=4))
    engine = make_engine(session)
    session.gate.clear()
    decoding = start(engine, [3], max_tokens=31, temperature=0)[1]
    assert session.entered.wait(5)
    collector, cancelled = Collector(), Collector()
    engine.evaluate(list(range(20)), collector)
    request = engine.evaluate(list(range(20)), cancelled)
    request.cancel()
    session.gate.set()
    assert isinstance(cancelled.finish(), Failed)
    assert decoding.tokens() == expected([3], greedy, 31)
    assert np.array_equal(collector.rows()[19], history_logits(range(20)))
    engine.close()
