"""Every backend against the reference, in all cases of `edgert_runtimes.conformance`."""

import pytest
from edgert_runtimes.base import Backend
from edgert_runtimes.conformance import CASES, Case, compare


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(backend: Backend, case: Case) -> None:
    error, bound = compare(backend, case)
    assert error <= bound


def test_cases_have_names_of_their_own() -> None:
    assert len({str(case) for case in CASES}) == len(CASES)
