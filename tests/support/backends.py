"""The backends that tests run on. One that cannot run here is skipped, and says why."""

from __future__ import annotations

import shutil

import pytest
from edgert_models.errors import BackendError
from edgert_runtimes.base import Backend
from edgert_runtimes.registry import get_backend

CUDA_ON_HOST = "cuda on the host"
"""The CUDA backend with its kernels compiled by g++: everything but the GPU."""

GPUS = [pytest.param("mlx", marks=pytest.mark.mlx), pytest.param("cuda", marks=pytest.mark.cuda)]
"""Parameters for fixtures: what is not installed everywhere."""

BACKENDS = ["cpu", *GPUS, CUDA_ON_HOST]
"""Parameters for fixtures: all but the reference."""


def open_backend(name: str) -> Backend:
    """The backend of that name, or a skipped test."""
    if name == CUDA_ON_HOST:
        if shutil.which("g++") is None:
            pytest.skip("g++ is not installed: CUDA kernels cannot be run on the host")
        from tests.support.cuda_device import HostCudaBackend

        return HostCudaBackend()
    try:
        return get_backend(name)
    except BackendError as error:
        if name == "cpu":  # which runs everywhere
            raise
        pytest.skip(str(error))
