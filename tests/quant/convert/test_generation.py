"""Recommended sampling travels with the file."""

from typing import Any

import pytest
from edgert_quant.convert.generation import sampling_metadata


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, {}),
        ([], {}),
        ({}, {}),
        (
            {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0, "do_sample": True},
            {"temp": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.0},
        ),
        ({"do_sample": False, "temperature": 0.6}, {"temp": 0.0}),
        ({"repetition_penalty": 1.05}, {"penalty_repeat": 1.05}),
        ({"temperature": "hot", "top_p": 7, "top_k": True, "min_p": None, "repetition_penalty": 0}, {}),
        ({"temperature": float("nan"), "top_k": -1}, {}),
    ],
    ids=str,
)
def test_sampling(config: Any, expected: dict[str, float]) -> None:
    found = sampling_metadata(config)
    assert {key.removeprefix("general.sampling."): entry.value for key, entry in found.items()} == expected
