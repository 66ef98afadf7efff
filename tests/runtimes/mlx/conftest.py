"""Metal for tests: that of a GPU, or what stands in for it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.host_metal import HostMetal


@pytest.fixture(scope="session")
def host_metal() -> "HostMetal":
    from tests.support.host_metal import HostMetal

    return HostMetal()


@pytest.fixture
def metal(host_metal: "HostMetal", monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import mlx.core as mx
    from edgert_runtimes.mlx.metal import fused, matmul

    from tests.support.metal import COMPILER

    if mx.metal.is_available():
        yield
        return
    if COMPILER is None:
        pytest.skip("there is neither Metal here nor g++, which compiles its kernels for the host")
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    monkeypatch.setattr(mx.fast, "metal_kernel", host_metal.metal_kernel)
    made = (matmul._compiled, fused.kernel)
    for each in made:
        each.cache_clear()
    yield
    for each in made:
        each.cache_clear()
