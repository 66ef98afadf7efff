"""The host shim itself: what it runs, and what it refuses."""

import numpy as np
import pytest
from edgert_runtimes.cuda.kernels.kernel import Kernel

from tests.support.cuda_host import HostKernels

BODIES = {
    "turn_around": """
        __shared__ float all[96];
        all[threadIdx.x] = x[threadIdx.x];
        __syncthreads();
        y[threadIdx.x] = all[95 - threadIdx.x];""",
    "sum_of_a_warp": "y[threadIdx.x] = lanes_sum(x[threadIdx.x]);",
    "half_a_barrier": "if (threadIdx.x < 40) __syncthreads(); y[threadIdx.x] = 1;",
    "half_an_exchange": "if (threadIdx.x % 2) y[threadIdx.x] = lanes_sum(x[threadIdx.x]);",
}


def kernel(name: str) -> Kernel:
    signature = "const float *x, float *y"
    return Kernel(
        name=name, header="shim_test.cuh", call=f"of_{name}", signature=signature, threads=96, blocks=lambda _: 1
    )


@pytest.fixture(scope="module")
def host() -> HostKernels:
    functions = "".join(f"void of_{name}(const float *x, float *y) {{{body}}}\n" for name, body in BODIES.items())
    header = f'#include "base.cuh"\nnamespace kernels {{\n{functions}}}\n'
    return HostKernels([kernel(name) for name in BODIES], extra={"shim_test.cuh": header})


def run(host: HostKernels, name: str, order: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.arange(96, dtype=np.float32), np.zeros(96, np.float32)
    host.order = order
    host.launch(kernel(name), x=x, y=y)
    return x, y


@pytest.mark.parametrize("order", range(5))
def test_barriers_and_exchanges(host: HostKernels, order: int) -> None:
    x, y = run(host, "turn_around", order)
    assert np.array_equal(y, x[::-1])
    x, y = run(host, "sum_of_a_warp", order)
    assert np.array_equal(y, np.repeat(x.reshape(3, 32).sum(axis=1), 32))


@pytest.mark.parametrize("order", range(5))
def test_what_some_threads_do_not_reach_is_refused(host: HostKernels, order: int) -> None:
    with pytest.raises(
        RuntimeError, match="40 of 96 are at the barrier, 0 at an exchange between lanes, 56 have ended"
    ):
        run(host, "half_a_barrier", order)
    with pytest.raises(
        RuntimeError, match="0 of 96 are at the barrier, 48 at an exchange between lanes, 48 have ended"
    ):
        run(host, "half_an_exchange", order)
    test_barriers_and_exchanges(host, order)  # nothing is left behind
