"""Every backend but the reference, which is what they are compared with."""

import pytest
from edgert_models.errors import BackendError
from edgert_runtimes.base import Backend
from edgert_runtimes.registry import backend_names, get_backend

MARKS = {"mlx": [pytest.mark.mlx]}


@pytest.fixture(
    params=[pytest.param(name, marks=MARKS.get(name, [])) for name in backend_names() if name != "reference"]
)
def backend(request: pytest.FixtureRequest) -> Backend:
    try:
        return get_backend(request.param)
    except BackendError as error:
        if request.param == "cpu":  # which runs everywhere
            raise
        pytest.skip(str(error))
