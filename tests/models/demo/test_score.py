"""The scoring core, on models whose score is known."""

from collections.abc import Sequence

import numpy as np
import pytest
from demo.corpus.mix import SKILLS, held_out_samples
from demo.score import exact_match, perplexity
from numpy.typing import NDArray


class Oracle:
    """Knows every answer but those of one skill; its logits are flat over 100 tokens."""

    def __init__(self, count: int, unknown: str) -> None:
        self._answers = {
            sample.question: sample.answer
            for skill in SKILLS
            if skill != unknown
            for sample in held_out_samples(skill, count)
        }

    def answers(self, questions: Sequence[str]) -> list[str]:
        return [self._answers.get(question, "") for question in questions]

    def tokenize(self, text: str) -> list[int]:
        return [ord(character) % 100 for character in text]

    def logits(self, ids: list[int]) -> NDArray[np.float32]:
        return np.full((len(ids), 100), 7, dtype=np.float32)


def test_exact_match() -> None:
    missed: list[str] = []
    scores = exact_match(Oracle(20, "lookup"), 20, wrong=lambda question, right, given: missed.append(question))
    assert scores.pop("lookup") == 0
    assert scores.pop("overall") == pytest.approx(5 / 6)
    assert set(scores.values()) == {1}
    assert len(missed) == 20


def test_perplexity_of_a_flat_guess_is_the_vocabulary() -> None:
    assert perplexity(Oracle(1, ""), windows=3) == pytest.approx(100)
