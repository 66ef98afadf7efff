"""The CUDA backend on a GPU where there is one, and with its kernels on the host."""

import pytest
from edgert_runtimes.cuda.backend import CudaBackend

from tests.support.backends import CUDA_ON_HOST, open_backend


@pytest.fixture(params=[pytest.param("cuda", marks=pytest.mark.cuda), CUDA_ON_HOST])
def backend(request: pytest.FixtureRequest) -> CudaBackend:
    found = open_backend(request.param)
    assert isinstance(found, CudaBackend)
    return found
