"""Sessions that begin the next step ahead: what they are told, and that answers stay the same."""

from collections.abc import Sequence

import numpy as np
import pytest
from edgert_runtimes.base import AheadSession, Batch, Draw, Drawn

from edgert.engine.params import SamplingParams
from edgert.engine.sampling import sampler
from tests.edgert.engine.fake import VOCABULARY, FakeSession, expected, greedy, limits, make_engine, start


class Ahead(FakeSession):
    """Begins what it is told will follow: it writes the cache with the tokens that the draws give."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self.begun: Batch | None = None
        self.told = self.right = 0

    def step(self, batch: Batch, *, hidden: bool = False) -> np.ndarray:
        begun, self.begun = self.begun, None
        if begun is not None:
            names = ("tokens", "positions", "slots", "sequence", "tables", "lengths", "pick")
            self.right += all(np.array_equal(getattr(begun, name), getattr(batch, name)) for name in names)
        return super().step(batch, hidden=hidden)

    def step_ahead(self, batch: Batch, draws: Sequence[Draw], following: Batch) -> np.ndarray:
        out = self.step(batch)
        tokens = [drawn(draw, row) for draw, row in zip(draws, out, strict=True)]
        assert following.tokens.shape == batch.tokens.shape == batch.pick.shape
        self.begun = Batch(np.array(tokens, np.int32), *(getattr(following, name) for name in Batch.__slots__[1:]))
        self._check(self.begun)
        self._tokens[following.slots] = tokens
        self._positions[following.slots] = following.positions
        self.told += 1
        return out


class Drawing(Ahead):
    """Keeps its logits: every third token is left open."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)
        self.brought = 0

    def step_ahead(self, batch: Batch, draws: Sequence[Draw], following: Batch) -> Drawn:
        out = super().step_ahead(batch, draws, following)
        given = zip(draws, out, batch.positions, strict=True)
        tokens = [drawn(draw, row) if position % 3 else -1 for draw, row, position in given]

        def bring() -> np.ndarray:
            self.brought += 1
            return out

        return Drawn(np.array(tokens, np.int32), out.shape[1], bring)


def drawn(draw: Draw, logits: np.ndarray) -> int:
    """By a sampler whose number is given."""
    params = SamplingParams(temperature=draw.temperature, top_k=draw.top_k, top_p=draw.top_p, min_p=draw.min_p, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampler, "uniform", lambda seed, position: draw.number)
        return sampler.Sampler(params, vocabulary=VOCABULARY).choose(logits, [0]).token


def test_the_fake_is_one() -> None:
    assert isinstance(Ahead(limits()), AheadSession)
    assert not isinstance(FakeSession(limits()), AheadSession)


@pytest.mark.parametrize("params", [{"temperature": 0.0}, {"temperature": 1.3, "seed": 4, "top_k": 20}], ids=str)
@pytest.mark.parametrize("ahead", [Ahead, Drawing])
def test_answers_are_the_same(ahead: type[Ahead], params: dict[str, float]) -> None:
    answers = []
    for kind in (FakeSession, ahead):
        session = kind(limits())
        engine = make_engine(session)
        alone = start(engine, [5, 6, 7], max_tokens=30, **params)[1].tokens()
        together = [start(engine, [n, 6, 7], max_tokens=20, **params)[1] for n in range(3)]
        answers.append([alone, *(collector.tokens() for collector in together)])
        engine.close()
    assert answers[0] == answers[1]
    assert isinstance(session, Ahead)
    # Alone, three of four steps: one of each block needs a new one.
    assert session.told > 25
    assert session.right > 0.6 * session.told


def test_every_step_of_a_lone_answer_is_foreseen_but_for_new_blocks() -> None:
    session = Ahead(limits(block_size=16))
    engine = make_engine(session)
    wanted = expected([1, 2, 3], greedy, 40)
    assert start(engine, [1, 2, 3], max_tokens=40, temperature=0.0)[1].tokens() == wanted
    engine.close()
    # 40 tokens: 39 steps of decoding, of which the last has none after it; two of the others lack a block.
    assert (session.told, session.right) == (36, 36)


@pytest.mark.parametrize(
    ("params", "brings"),
    [
        ({"temperature": 0.0}, "the doubtful"),
        ({"temperature": 0.0, "logprobs": 1}, "all"),
        ({"temperature": 1.0, "seed": 1}, "the doubtful"),
        ({"temperature": 1.0, "seed": 1, "stop_token_ids": [7], "min_tokens": 30}, "all"),
    ],
    ids=str,
)
def test_logits_are_brought_where_they_are_needed(params: dict[str, object], brings: str) -> None:
    session = Drawing(limits(block_size=16))
    engine = make_engine(session)
    plain = make_engine(FakeSession(limits(block_size=16)))
    answers = [start(each, [1, 2, 3], max_tokens=30, **params)[1].tokens() for each in (engine, plain)]
    assert answers[0] == answers[1]
    if brings == "all":
        assert session.brought == session.told
    else:
        assert 0 < session.brought < 0.5 * session.told
    engine.close()
    plain.close()


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0.0, "repetition_penalty": 1.2},
        {"dry_multiplier": 0.8},
        {"xtc_probability": 0.5},
        {"mirostat": 2},
        {"samplers": ("temperature", "top_p")},
    ],
    ids=str,
)
def test_what_devices_do_not_know_is_not_foreseen(params: dict[str, object]) -> None:
    """Such a request takes the ordinary path, and so do those beside it; the answers are the same."""
    answers = []
    for kind in (FakeSession, Ahead):
        session = kind(limits())
        engine = make_engine(session)
        session.gate.clear()
        started = [start(engine, [n, 2, 3], max_tokens=20, seed=n, **(params if n == 1 else {}))[1] for n in range(2)]
        session.gate.set()
        answers.append([collector.tokens() for collector in started])
        engine.close()
    assert answers[0] == answers[1]
    assert isinstance(session, Ahead)
    assert session.told <= 1  # the first may have had a step to itself


def test_a_stop_token_leaves_what_was_begun() -> None:
    """The next request gets the blocks, and what was written ahead is not seen."""
    session = Ahead(limits())
    engine = make_engine(session)
    wanted = expected([1, 2, 3], greedy, 9)
    stop = next(token for token in wanted[5:] if token not in wanted[:5])
    answer = start(engine, [1, 2, 3], max_tokens=20, temperature=0.0, stop_token_ids=[stop])[1].tokens()
    assert answer == wanted[: wanted.index(stop) + 1]
    again = [1, 2, 3, *answer, 9]
    assert start(engine, again, max_tokens=9, temperature=0.0)[1].tokens() == expected(again, greedy, 9)
    engine.close()
