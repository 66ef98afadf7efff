"""What holds an answer to a form comes before every other step."""

from collections.abc import Sequence

import numpy as np
import pytest
from edgert_models.errors import BackendError, RequestError
from numpy.typing import NDArray

from edgert.engine.params import SamplingParams
from edgert.engine.sampling import Sampler

VOCABULARY = 40
LOGITS = np.random.default_rng(3).normal(0.0, 3.0, VOCABULARY).astype(np.float32)


class Only:
    """Allows the same tokens each time, until so many have come."""

    def __init__(self, *tokens: int, count: int = 100) -> None:
        self._mask = np.zeros(VOCABULARY, np.bool_)
        self._mask[list(tokens)] = True
        self._left = count
        self.accepted: list[int] = []

    @property
    def finished(self) -> bool:
        return len(self.accepted) >= self._left

    def allowed(self) -> NDArray[np.bool_]:
        return self._mask

    def accept(self, token: int) -> bool:
        if self._mask[token]:
            self.accepted.append(token)
        return bool(self._mask[token])

    def possible(self, tokens: Sequence[int]) -> int:
        right = [bool(self._mask[token]) for token in tokens]
        return right.index(False) if False in right else len(right)


def sampler(constraint: Only | None, **given: object) -> Sampler:
    params = SamplingParams(**{"seed": 1, "temperature": 1.0, **given})  # type: ignore[arg-type]
    return Sampler(params, vocabulary=VOCABULARY, end_ids={39}, prompt=1, constraint=constraint)


@pytest.mark.parametrize(
    "given",
    [
        {"temperature": 0.0},
        {"temperature": 0.0, "repetition_penalty": 1.3},
        {},
        {"top_k": 3, "top_p": 0.5},
        {"typical_p": 0.5, "min_p": 0.2, "xtc_probability": 0.9, "xtc_threshold": 0.01},
        {"top_n_sigma": 1.0, "dynatemp_range": 0.4},
        {"mirostat": 1},
        {"mirostat": 2, "logit_bias": {0: 100.0}},
    ],
    ids=str,
)
@pytest.mark.parametrize("few", [True, False])
def test_no_step_brings_back_what_may_not_come(given: dict[str, object], few: bool) -> None:
    best = int(LOGITS.argmax())
    allowed = [3, 8, 21] if few else [token for token in range(VOCABULARY) if token not in (best, 0)]
    constraint = Only(*allowed)
    made = sampler(constraint, **given)
    tokens = [1]
    before = LOGITS.copy()
    for _ in range(30):
        tokens.append(made.choose(LOGITS, tokens).token)
    assert set(tokens[1:]) <= set(allowed)
    assert constraint.accepted == tokens[1:]
    assert made.draw(len(tokens)) is None  # no device knows of it
    np.testing.assert_array_equal(LOGITS, before)


def test_a_form_that_allows_everything_changes_nothing() -> None:
    for given in ({"temperature": 0.0}, {}, {"typical_p": 0.7, "top_n_sigma": 1.5}):
        drawn = []
        for constraint in (None, Only(*range(VOCABULARY))):
            made, tokens = sampler(constraint, **given), [1]
            for _ in range(20):
                tokens.append(made.choose(LOGITS, tokens).token)
            drawn.append(tokens)
        assert drawn[0] == drawn[1]


def test_the_largest_logit_of_those_allowed_without_temperature() -> None:
    made = sampler(Only(3, 8, 21), temperature=0.0, logprobs=1)
    choice = made.choose(LOGITS, [1])
    assert choice.token == max((3, 8, 21), key=lambda token: LOGITS[token])
    shares = np.exp(LOGITS.astype(np.float64)) / np.exp(LOGITS.astype(np.float64)).sum()
    assert choice.logprob == pytest.approx(np.log(shares[choice.token]))  # the model's own, before the form
    assert choice.top[0][0] == int(LOGITS.argmax())


def test_what_is_left_may_be_forbidden() -> None:
    with pytest.raises(BackendError, match="no token is left to choose at position 1"):
        sampler(Only(39), ignore_eos=True).choose(LOGITS, [1])
    assert sampler(Only(39, 5), ignore_eos=True).choose(LOGITS, [1]).token == 5


def test_it_says_when_the_answer_is_whole() -> None:
    made = sampler(Only(4, count=2))
    made.choose(LOGITS, [1])
    assert not made.finished
    made.choose(LOGITS, [1, 4])
    assert made.finished
    assert not sampler(None).finished


def test_all_tokens_are_asked_for_only_where_the_likeliest_may_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    best = int(LOGITS.argmax())
    second = int(np.argsort(LOGITS)[-2])
    constraint = Only(best, second)
    monkeypatch.setattr(constraint, "allowed", lambda: pytest.fail("asked for all"))
    assert sampler(constraint, temperature=0.0).choose(LOGITS, [1]).token == best
    forbidden = Only(second, 3)
    assert sampler(forbidden, temperature=0.0).choose(LOGITS, [1]).token == second
    assert (constraint.accepted, forbidden.accepted) == ([best], [second])


def test_what_is_guessed_has_to_be_possible() -> None:
    assert sampler(Only(3, 8)).possible([3, 8, 4, 3]) == [3, 8]
    assert sampler(None).possible([3, 8, 4]) == [3, 8, 4]


def test_what_is_refused_after_all_is_an_error() -> None:
    class Fickle(Only):
        def accept(self, token: int) -> bool:
            return False

    with pytest.raises(BackendError, match="token 3 was allowed at position 1, but does not come"):
        sampler(Fickle(3)).choose(LOGITS, [1])


def test_what_it_raises_comes_through() -> None:
    class Broken(Only):
        def allowed(self) -> NDArray[np.bool_]:
            raise RequestError("structured_outputs: too much", parameter="structured_outputs")

    with pytest.raises(RequestError, match="too much"):
        sampler(Broken()).choose(LOGITS, [1])
