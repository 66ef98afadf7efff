"""Kernels are run where g++ can make a library of them."""

import shutil

import pytest


@pytest.fixture(autouse=True)
def _compiler() -> None:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed: CUDA kernels cannot be run on the host")
