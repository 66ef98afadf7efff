"""The benchmark of servers: what clients count, and how rounds become ratios."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import serving

DEMO = Path(__file__).parents[2] / "edgert/demo/model.gguf"


def test_prompts_differ_from_their_first_word() -> None:
    prompts = [serving.prompt_of(40, seed) for seed in range(20)]
    assert len({prompt.split()[0] for prompt in prompts}) == 20
    assert serving.prompt_of(40, 3) == prompts[3]


def test_ratios_are_taken_by_round_against_the_better_variant() -> None:
    def one(rate: float, first: float) -> dict[str, dict[str, float]]:
        return {"1": {"tokens_per_second": rate, "first_median": first}}

    ours = [one(30.0, 0.1), one(20.0, 0.1), one(90.0, 0.3)]
    theirs = [[one(10.0, 0.4), one(15.0, 0.2)], [one(5.0, 0.5), one(4.0, 0.3)], [one(30.0, 0.3), one(10.0, 0.6)]]
    assert serving.ratios(ours, theirs) == {"1": {"tokens_per_second": 3.0, "first_median": 2.0}}


def test_it_measures_a_server(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--prompt", "20", "--tokens", "8", "--prefix", "200"]
    asked = ["serving", str(DEMO), "--clients", "1,3", "--rounds", "1", *sizes]
    monkeypatch.setattr(sys, "argv", asked)
    serving.main()
    found = json.loads(capsys.readouterr().out)["runs"]["edgert"][0]
    assert set(found) == {"1", "3", "prefix"}
    assert all(value > 0 for values in found.values() for value in values.values())


def test_a_server_that_does_not_start_says_why() -> None:
    failing = serving.Server("broken", (sys.executable, "-c", "raise SystemExit('no such model')"))
    with pytest.raises(RuntimeError, match=r"^broken did not start: no such model"), serving.running(failing):
        pass
