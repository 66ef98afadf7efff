"""The MLX backend. What needs the mlx package is imported where it is needed, so that its absence can be told."""

from __future__ import annotations

import platform
import sys
import time
from importlib.metadata import version
from operator import mul
from typing import TYPE_CHECKING

from edgert_models.errors import BackendError, EdgertError
from edgert_models.graph import Plan
from edgert_models.ops import Attend, HeadLinear, Linear, Moe

from edgert_runtimes.base import Limits, LoadReport, Probe, Progress, WeightProvider
from edgert_runtimes.kv_types import KV_TYPES, check_kv_type
from edgert_runtimes.limits import check_limits
from edgert_runtimes.memory import check_memory
from edgert_runtimes.weights import check_weights

if TYPE_CHECKING:
    from edgert_runtimes.mlx.session import MlxSession

FLOAT_BYTES = 4


class MlxBackend:
    """Apple GPUs through Metal; elsewhere the CPU, which is for checking: the cpu backend is many times as fast."""

    name = "mlx"

    def probe(self) -> Probe:
        """Available wherever the mlx package is; `auto` chooses it where it has a GPU."""
        try:
            import mlx.core as mx

            from edgert_runtimes.mlx import device
        except ImportError as error:
            return Probe(False, _how_to_install(error))
        metal = device.on_metal()
        details = {"device": "cpu", "mlx": version("mlx")}
        if metal:
            info = mx.device_info()
            details |= {"device": "metal", "gpu": str(info.get("device_name", "")), "memory": str(info["memory_size"])}
        try:
            details["floats"] = str(device.compute_dtype()).removeprefix("mlx.core.")
        except EdgertError as error:
            return Probe(False, str(error), details)
        return Probe(True, details=details, gpu=metal)

    def warmup(self, progress: Progress | None = None) -> int:
        """MLX compiles kernels as it meets them, and keeps them itself."""
        return 0

    def load(self, plan: Plan, weights: WeightProvider, limits: Limits, progress: Progress | None = None) -> MlxSession:
        """See Backend. Weights are repacked into memory of the device."""
        probe = self.probe()
        if not probe.available:
            raise BackendError(probe.reason)
        from edgert_runtimes.mlx import device
        from edgert_runtimes.mlx import weights as loading
        from edgert_runtimes.mlx.session import MlxSession

        start = time.perf_counter()
        check_weights(plan, weights)
        check_limits(limits)
        check_kv_type(limits.kv_type, plan)
        dtype = device.compute_dtype()
        layouts = loading.plan_layouts(plan, weights, dtype, device.raw_types())
        positions = [limits.blocks_of(cache) * limits.block_size for cache in plan.caches]
        rows = [KV_TYPES[limits.kv_type].row_bytes(cache.width) for cache in plan.caches]
        sizes = {
            "weights": sum(layout.nbytes for layout in layouts.values()),
            "cache": sum(map(mul, positions, rows))
            + FLOAT_BYTES * limits.states * sum(state.size for state in plan.states),
            "workspace": workspace_bytes(
                plan, limits, fused_attention=device.on_metal() and not any(cache.shared for cache in plan.caches)
            ),
        }
        check_memory(sizes, device.device_memory() if limits.memory is None else limits.memory)
        total, done = loading.stored_bytes(layouts), 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress("load", done, total)

        loaded = loading.load_weights(plan, layouts, weights, advance, limits.threads)
        report = LoadReport(
            backend=self.name,
            threads=1,
            instruction_set=f"{probe.details['device']}, {probe.details['floats']}",
            weights=tuple(layout.report() for layout in layouts.values()),
            cache_bytes=sizes["cache"],
            workspace_bytes=sizes["workspace"],
            seconds=time.perf_counter() - start,
            precision=str(probe.details["floats"]),
        )
        return MlxSession(plan, loaded, layouts, dtype, limits, report, weights)


def workspace_bytes(plan: Plan, limits: Limits, *, fused_attention: bool) -> int:
    """About what a step of all rows takes: the widest values that live together, and the scores of attention where MLX
    does not compute them tile by tile.
    """
    widest = max((op.q.width + 2 * op.k.width + op.out.width for op in plan.ops if isinstance(op, Attend)), default=0)
    for op in plan.ops:
        if isinstance(op, Moe):
            widest = max(widest, op.used * (3 * op.hidden + 2 * op.out.width))
        if isinstance(op, Linear | HeadLinear) and not op.out.picked:
            widest = max(widest, 3 * op.out.width)
    heads = max((op.heads for op in plan.ops if isinstance(op, Attend)), default=0)
    scores = 0 if fused_attention else 2 * heads * limits.context
    return FLOAT_BYTES * limits.rows * (4 * plan.spec.width + widest + scores)


def _how_to_install(error: ImportError) -> str:
    """One line for those who do not have the package, or one that does not start."""
    if not (isinstance(error, ModuleNotFoundError) and error.name in ("mlx", "mlx.core")):
        return f"the mlx package does not start: {error}"
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return 'the mlx package is not installed; run: pip install "mlx>=0.32"'
    return 'the mlx package is not installed; run: pip install "edgert[mlx-cpu]"'
