"""MLX's own Metal kernels, run on the host shim."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
from edgert_runtimes.mlx.metal.launches import Launch
from edgert_runtimes.mlx.metal.sources import Kernel

from tests.support.metal import Program


class HostMetal:
    """`mx.fast.metal_kernel` on the shim: kernels are compiled when they first run."""

    def __init__(self) -> None:
        self.programs: dict[tuple[Kernel, tuple[tuple[str, int], ...], str], Program] = {}

    def metal_kernel(
        self, *, name: str, input_names: list[str], output_names: list[str], source: str, header: str
    ) -> Callable[..., list[mx.array]]:
        assert output_names == ["y"]
        kernel = Kernel(name, tuple(input_names), header, source)

        def run(
            *,
            inputs: list[mx.array],
            template: list[tuple[str, Any]],
            grid: tuple[int, int, int],
            threadgroup: tuple[int, int, int],
            output_shapes: list[tuple[int, int]],
            output_dtypes: list[mx.Dtype],
        ) -> list[mx.array]:
            (_, dtype), *integers = template
            assert output_dtypes == [dtype]
            number = str(dtype).removeprefix("mlx.core.")
            launch = Launch(kernel, tuple(integers), output_shapes[0], grid, threadgroup)
            key = (kernel, launch.template, number)
            if key not in self.programs:
                self.programs[key] = Program([(launch, number)])
            given = [x.view(mx.uint16) if x.dtype == mx.bfloat16 else x for x in inputs]
            y = mx.array(self.programs[key].run(launch, number, [np.asarray(x) for x in given]))
            return [y.view(mx.bfloat16) if dtype == mx.bfloat16 else y]

        return run
