"""The benchmark of guesses: all modes give the same answers, and what is told of them adds up."""

import json

import pytest

from benchmarks import speculation


def test_modes_are_compared_on_every_text(capsys: pytest.CaptureFixture[str]) -> None:
    speculation.main(["--modes", "lookup", "--rounds", "1", "--tokens", "24", "--sequences", "1,2", "--threads", "1"])
    texts = json.loads(capsys.readouterr().out)["texts"]
    assert set(texts) == set(speculation.TEXTS)
    for found in texts.values():
        assert set(found) == {"1", "2"}
        for told in found.values():
            assert told["same"]
            assert told["off"] > 0
            assert told["lookup"]["ratios"] == [told["lookup"]["ratio"]]
            assert 0 <= told["lookup"]["right"] <= told["lookup"]["guessed"]
    assert texts["repeats"]["1"]["lookup"]["guessed"] > 0
