"""Every backend but the reference, which is what they are compared with."""

import pytest
from edgert_runtimes.base import Backend

from tests.support.backends import BACKENDS, open_backend


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return open_backend(request.param)
