"""Every backend but the reference, which is what they are compared with."""

import pytest
from edgert_runtimes.base import Backend
from edgert_runtimes.registry import backend_names, get_backend


@pytest.fixture(params=[name for name in backend_names() if name != "reference"])
def backend(request: pytest.FixtureRequest) -> Backend:
    return get_backend(request.param)
