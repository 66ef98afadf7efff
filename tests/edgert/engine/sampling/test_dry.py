import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgert.engine.sampling.base import Candidates
from edgert.engine.sampling.breakers import Breakers
from edgert.engine.sampling.dry import Dry, common_suffixes
from tests.edgert.engine.sampling.support import candidates

VOCABULARY = 6
PIECES = [b"a", b"b", b"c", b"d", b"e", b"f"]


def breakers(*texts: str) -> Breakers:
    return Breakers.find(texts, PIECES)


def losses(step: Dry, tokens: list[int], vocabulary: int = VOCABULARY) -> np.ndarray:
    return -step(candidates(np.zeros(vocabulary, dtype=np.float32)), tokens).logits


def plain(
    tokens: list[int],
    multiplier: float,
    base: float,
    allowed: int,
    last_n: int,
    breakers: tuple[str, ...],
) -> np.ndarray:
    """For every token, the longest repeat that it would go on with, found by trying all."""
    tokens = tokens[max(0, len(tokens) - last_n) :] if last_n > 0 else tokens
    text = "".join("abcdef"[token] for token in tokens)
    ends = [end for b in breakers for end in range(len(b), len(text) + 1) if text[end - len(b) : end] == b]
    limit = len(tokens) - max(ends, default=0)
    wanted = np.zeros(VOCABULARY)
    for token in range(VOCABULARY):
        lengths = [
            length
            for end in range(1, len(tokens))
            if tokens[end] == token
            for length in range(min(end, limit) + 1)
            if tokens[end - length : end] == tokens[len(tokens) - length :]
        ]
        if lengths and max(lengths) >= allowed and "abcdef"[token] not in breakers:
            wanted[token] = multiplier * base ** (max(lengths) - allowed)
    return wanted


def test_a_repeat_that_goes_on_costs_more_and_more() -> None:
    # After 1 2 3, 4 came: it costs 1 * 2^(3 - 2).
    assert losses(Dry(1.0, 2.0, 2, -1), [1, 2, 3, 4, 0, 1, 2, 3]).tolist() == [0, 0, 0, 0, 2, 0]
    assert losses(Dry(1.0, 2.0, 4, -1), [1, 2, 3, 4, 0, 1, 2, 3]).tolist() == [0] * 6


def test_llama_cpps_example() -> None:
    """From the comments of its source: after a b c, c would go on with a repeat of 3, y with one of 2, b with 1."""
    a, b, c, y = 0, 1, 2, 3
    found = losses(Dry(1.0, 10.0, 1, -1), [a, b, c, c, b, c, y, a, b, c])
    assert found.tolist() == [0, 1, 100, 10, 0, 0]


def test_no_repeat_goes_beyond_a_breaker() -> None:
    tokens = [1, 5, 2, 3, 4, 0, 1, 5, 2, 3]
    assert losses(Dry(1.0, 2.0, 2, -1), tokens)[4] == 4
    assert losses(Dry(1.0, 2.0, 2, -1, breakers("f")), tokens)[4] == 1
    assert losses(Dry(1.0, 2.0, 2, -1, breakers("bf")), tokens)[4] == 1
    assert losses(Dry(1.0, 2.0, 2, -1, breakers("cf")), tokens)[4] == 4
    assert not losses(Dry(1.0, 2.0, 2, -1, breakers("d")), tokens).any()


def test_a_breaker_of_one_token_is_never_made_less_likely() -> None:
    tokens = [1, 2, 5, 0, 1, 2]
    assert losses(Dry(1.0, 2.0, 2, -1), tokens)[5] == 1
    assert losses(Dry(1.0, 2.0, 2, -1, breakers("f")), tokens)[5] == 0
    assert losses(Dry(1.0, 2.0, 2, -1, breakers("fb")), tokens)[5] == 1


def test_only_the_last_n_are_looked_at() -> None:
    tokens = [1, 2, 3, 0, 0, 1, 2]
    assert losses(Dry(1.0, 2.0, 1, 7), tokens)[3] == 2
    assert losses(Dry(1.0, 2.0, 1, 6), tokens)[3] == 1  # of the earlier 1 2 only the 2 is there
    assert losses(Dry(1.0, 2.0, 1, 4), tokens)[3] == 0


def test_long_repeats_do_not_overflow() -> None:
    logits = np.zeros(3, dtype=np.float32)
    after = Dry(100.0, 100.0, 1, -1)(candidates(logits), [1] * 500).logits
    assert np.isfinite(after).all()
    assert after[1] < -1e29
    assert np.isfinite(Dry(1.0, 1.0, 1, -1)(candidates(logits), [1] * 500).logits).all()


def test_only_what_is_left_is_changed() -> None:
    left = Candidates(np.array([0, 4]), np.zeros(2, dtype=np.float32))
    assert Dry(1.0, 2.0, 1, -1)(left, [3, 4, 3, 5, 3]).logits.tolist() == [0.0, -1.0]


@pytest.mark.parametrize("tokens", [[], [3], [3, 3], [1, 2]])
def test_short_histories(tokens: list[int]) -> None:
    assert losses(Dry(1.0, 2.0, 2, -1), tokens).tolist() == [0] * 6


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2), max_size=60))
def test_common_suffixes(tokens: list[int]) -> None:
    wanted = []
    for place in range(len(tokens)):
        length = 0
        while length <= place and tokens[place - length] == tokens[-1 - length]:
            length += 1
        wanted.append(length)
    assert common_suffixes(tokens).tolist() == wanted


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=40),
    st.integers(0, 40),
    st.integers(0, 3),
    st.integers(-1, 20).filter(bool),
    st.sampled_from([("f",), ("d",), ("d", "bc"), ("abc", "bcc")]),
)
def test_step_by_step_is_as_the_plain_definition(
    tokens: list[int], prompt: int, allowed: int, last_n: int, texts: tuple[str, ...]
) -> None:
    step = Dry(0.5, 1.25, allowed, last_n, breakers(*texts))
    for end in range(min(prompt, len(tokens)), len(tokens) + 1):
        wanted = plain(tokens[:end], 0.5, 1.25, allowed, last_n, texts)
        assert losses(step, tokens[:end]) == pytest.approx(wanted, rel=1e-5)
