"""Every backend against the reference, in all cases of `edgert_runtimes.conformance`."""

import pytest
from edgert_models.errors import UnsupportedError
from edgert_runtimes.base import Backend
from edgert_runtimes.conformance import CASES, Case, compare
from edgert_runtimes.cuda.backend import CudaBackend

from tests.support.backends import CUDA_ON_HOST

MANY_PRODUCTS = tuple(
    f"{kind}, {heads} heads"
    for kind, heads in (
        ("f32 cache in blocks of 32", 53),
        ("q8_0 cache in blocks of 16", 8),
        ("q4_0 cache in blocks of 16", 8),
    )
)
"""Long contexts whose attention takes half a minute each where a GPU's threads are functions of one thread."""


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(backend: Backend, case: Case, request: pytest.FixtureRequest) -> None:
    if CUDA_ON_HOST in request.node.name and any(words in case.name for words in MANY_PRODUCTS):
        pytest.skip("takes too long on the host")
    if isinstance(backend, CudaBackend) and " heads of 20," in case.name:
        with pytest.raises(UnsupportedError, match=r"^layer 0: heads of 20 are not supported by the cuda backend"):
            compare(backend, case)
        return
    error, bound = compare(backend, case)
    assert error <= bound


def test_cases_have_names_of_their_own() -> None:
    assert len({str(case) for case in CASES}) == len(CASES)
