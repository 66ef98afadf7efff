"""MLX's own Metal kernels, run on the host shim."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

from tests.support.metal import FusedProgram


class HostMetal:
    """`mx.fast.metal_kernel` on the shim: kernels are compiled when they first run."""

    def __init__(self) -> None:
        self.programs: dict[tuple[Any, ...], FusedProgram] = {}

    def metal_kernel(
        self, *, name: str, input_names: list[str], output_names: list[str], source: str, header: str = ""
    ) -> Callable[..., list[mx.array]]:
        def run(
            *,
            inputs: list[mx.array],
            template: list[tuple[str, Any]],
            grid: tuple[int, int, int],
            threadgroup: tuple[int, int, int],
            output_shapes: list[tuple[int, ...]],
            output_dtypes: list[mx.Dtype],
        ) -> list[mx.array]:
            values = {key: _number(value) if isinstance(value, mx.Dtype) else value for key, value in template}
            assert all(value >= 0 for value in values.values() if isinstance(value, int)), "MLX makes a name of them"
            taken = dict(zip(input_names, (_number(x.dtype) for x in inputs), strict=True))
            given = dict(zip(output_names, map(_number, output_dtypes), strict=True))
            key = (source, header, *values.items(), *taken.items(), *given.items())
            if key not in self.programs:
                self.programs[key] = FusedProgram(source, taken, given, values, header)
            arrays = [x.view(mx.uint16) if x.dtype == mx.bfloat16 else x for x in inputs]
            found = self.programs[key].run([np.asarray(x) for x in arrays], output_shapes, grid, threadgroup)
            outputs = [mx.array(y) for y in found]
            pairs = zip(outputs, output_dtypes, strict=True)
            return [y.view(mx.bfloat16) if dtype == mx.bfloat16 else y for y, dtype in pairs]

        return run


def _number(dtype: mx.Dtype) -> str:
    return str(dtype).removeprefix("mlx.core.")
