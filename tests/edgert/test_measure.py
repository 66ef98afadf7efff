"""What measuring runs: the tokens, depths and sequences that a trial names, and nothing else."""

from pathlib import Path

import numpy as np
import pytest
from edgert_models.errors import ContextLengthError, RequestError
from edgert_runtimes.base import Batch

from edgert import LLM
from edgert.measure import Measurement, Phase, Trial, check, measure, profile, trained_context, trials


@pytest.fixture
def llm(tiny_path: Path) -> LLM:
    with LLM(tiny_path, speculate="off", backend="reference", context=64, sequences=3, rows=8) as opened:
        yield opened


@pytest.fixture
def batches(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """Every batch that the session is given."""
    seen: list[Batch] = []
    session = llm.borrow(0, lambda session, _: session)
    step = session.step

    def noted(batch: Batch, *, hidden: bool = False) -> np.ndarray:
        seen.append(batch)
        return step(batch, hidden=hidden)

    monkeypatch.setattr(session, "step", noted)
    return seen


def rows(batches: list[Batch]) -> list[tuple[int, int, int]]:
    """(first position, rows, rows picked) of every batch."""
    return [(int(b.positions[0]), len(b.tokens), len(b.pick)) for b in batches]


def test_prefill_goes_in_pieces_and_wants_the_last_row(llm: LLM, batches: list[Batch]) -> None:
    result = measure(llm, Trial(phase=Phase.PREFILL, tokens=20, depth=10), repeat=2)
    before = [(0, 8, 0), (8, 2, 1)]
    warm = [(10, 8, 1)]
    run = [(10, 8, 0), (18, 8, 0), (26, 4, 1)]
    assert rows(batches) == before + warm + run + run
    assert len(result.seconds) == 2
    assert result.rates == pytest.approx([20 / seconds for seconds in result.seconds])


def test_every_run_has_tokens_of_its_own(llm: LLM, batches: list[Batch]) -> None:
    measure(llm, Trial(phase=Phase.PREFILL, tokens=8), repeat=3)
    measure(llm, Trial(phase=Phase.FIRST_TOKEN, tokens=8), repeat=2)
    prompts = [tuple(b.tokens) for b in batches]
    assert len(set(prompts)) == len(prompts) == 4 + 3
    assert llm.statistics().cached_tokens == 0


def test_decode_is_a_row_of_each_sequence(llm: LLM, batches: list[Batch]) -> None:
    measure(llm, Trial(phase=Phase.DECODE, tokens=4, depth=5, batch=3), repeat=1)
    before, warm, run = batches[:3], batches[3], batches[4:]
    assert rows(before) == [(0, 5, 1)] * 3
    assert len({tuple(b.tokens) for b in before}) == 3
    assert list(warm.positions) == [5, 5, 5]
    assert [list(b.positions) for b in run] == [[at] * 3 for at in (5, 6, 7, 8)]
    assert all(list(b.pick) == [0, 1, 2] for b in run)
    tables = [tuple(row) for row in run[-1].tables]
    assert len(set(tables)) == 3
    assert llm.statistics().blocks_held == 0


def test_answers_are_those_of_the_llm(llm: LLM, batches: list[Batch]) -> None:
    result = measure(llm, Trial(phase=Phase.ANSWER, tokens=12, batch=2), repeat=1)
    assert llm.statistics().generated_tokens == 2 * (8 + 1) + 2 * (12 + 1)
    assert result.rate == pytest.approx(24 / result.seconds[0])
    assert max(len(b.tokens) for b in batches) == 2


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        (Trial(phase=Phase.DECODE, tokens=0), "tg0: tokens must be at least 1"),
        (Trial(phase=Phase.DECODE, tokens=1, batch=0), "tg1: batch must be at least 1"),
        (Trial(phase=Phase.DECODE, tokens=1, depth=-2), "depth must be at least 0"),
        (Trial(phase=Phase.DECODE, tokens=4, batch=4), "tg4×4 runs 4 sequences; the model was opened for 3"),
    ],
)
def test_what_cannot_be_measured_is_refused(llm: LLM, trial: Trial, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        measure(llm, trial)


def test_what_does_not_fit_is_refused(llm: LLM, tiny_path: Path) -> None:
    check(llm, Trial(phase=Phase.DECODE, tokens=4, depth=60))
    with pytest.raises(ContextLengthError, match="tg5@d60 needs a context of 65; the model was opened with 64"):
        check(llm, Trial(phase=Phase.DECODE, tokens=5, depth=60))
    with pytest.raises(RequestError, match="repeat must be at least 1, not 0"):
        measure(llm, Trial(phase=Phase.DECODE, tokens=1), repeat=0)
    with pytest.raises(RequestError, match="backend 'reference' cannot tell"):
        profile(llm, Trial(phase=Phase.DECODE, tokens=1))
    held = llm.limits.blocks * llm.limits.block_size
    with LLM(tiny_path, backend="reference", context=64, sequences=3, memory=1 << 30) as small:
        object.__setattr__(small.limits, "blocks", 4)
        with pytest.raises(RequestError, match="tg4@d60×2 needs a cache of 128 positions, which has 64"):
            check(small, Trial(phase=Phase.DECODE, tokens=4, depth=60, batch=2))
    assert held == 192


def test_combinations() -> None:
    found = trials(Phase, prompts=[4, 8], decodes=[2], depths=[0, 16], batches=[1, 2])
    assert [trial.name for trial in found] == [
        *("pp4", "pp8", "pp4@d16", "pp8@d16"),
        *("tg2", "tg2×2", "tg2@d16", "tg2@d16×2"),
        *("ttft4", "ttft8"),
        *("llm-tg2", "llm-tg2×2", "llm-tg2@d16"),
    ]
    assert trials([Phase.DECODE], decodes=[2, 2]) == [Trial(phase=Phase.DECODE, tokens=2)]


def test_figures_of_a_measurement() -> None:
    trial = Trial(phase=Phase.DECODE, tokens=10, batch=2)
    found = Measurement(trial=trial, threads=1, seconds=(1.0, 4.0, 2.0))
    assert found.rates == (20.0, 5.0, 10.0)
    assert (found.rate, found.seconds_per_token) == (10.0, 0.2)


def test_the_context_of_a_file(tiny_path: Path) -> None:
    assert trained_context(tiny_path) == 256
