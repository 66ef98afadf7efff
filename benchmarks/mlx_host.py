"""What the host does for a token on MLX: building a step of decoding, without computing it; prints JSON.

    python -m benchmarks.mlx_host MODEL [--tokens 64]

Measured are a step op by op and one in few kernels, each with what `Session.step_ahead` does besides: checks, arrays,
the draw. Nothing is evaluated. Times are those of the thread on its CPU, so that others hardly count. Where there is no
Metal, MLX puts its kernels into a graph only as functions that it has exported and read back: so it is done here, with
the same primitives in the same places.
MODEL is a GGUF file, for instance `deep-q4_0.gguf` of `benchmarks.mlx_lm`, of 48 layers.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import numpy as np
from edgert_models import build_plan, spec_from_gguf
from edgert_models.graph import Plan
from edgert_quant.gguf import GgufFile
from edgert_runtimes.base import Batch, Draw, Limits
from edgert_runtimes.mlx import session as sessions
from edgert_runtimes.mlx.backend import MlxBackend
from edgert_runtimes.mlx.metal import fused
from edgert_runtimes.mlx.metal.fused import kernel as make_kernel
from edgert_runtimes.mlx.session import MlxSession
from edgert_runtimes.mlx.trial import Trial
from edgert_runtimes.weights import GgufWeights

from benchmarks import machine


def through_export(body: str) -> Callable[..., list[mx.array]]:
    """A kernel that has been written to a file and read back, for each set of types and shapes."""
    kernel, read = make_kernel(body), dict[str, Any]()

    def run(*, inputs: list[mx.array], **options: Any) -> list[mx.array]:
        key = repr([[(x.shape, x.dtype) for x in inputs], options])
        if key not in read:
            with tempfile.NamedTemporaryFile(suffix=".mlxfn") as file:
                given = [mx.zeros(x.shape, x.dtype) for x in inputs]
                mx.export_function(file.name, lambda *arrays: kernel(inputs=list(arrays), **options), *given)
                with suppress(ValueError):  # the first time, it asks for a stream of a GPU
                    mx.import_function(file.name)
                read[key] = mx.import_function(file.name)
        return list(read[key](*inputs))

    return run


def measure(session: MlxSession, plan: Plan, tokens: int) -> dict[str, float]:
    """Milliseconds: of a whole step on the host, the median, and the least; and how many primitives its graph has."""
    found: list[float] = []
    primitives = 0
    kept = [(list(cache.keys), list(cache.values)) for cache in session._caches]
    for position in range(tokens):
        one = np.zeros(1, np.int32)
        blocks = np.arange(position // 16 + 1, dtype=np.int32)[None]
        batch = Batch(one, one + position, one, one + position, blocks, one + position + 1, one)
        with mx.stream(session._streams.main):
            begin = time.thread_time()
            session._prepare(batch)
            running = session._begin(batch, plan.logits, mx.array([1], mx.int32))
            drawn = session._drawing.draw(running.result, [Draw(0.7, 20, 0.9, 0.05, 0.5)])
            found.append(time.thread_time() - begin)
        primitives = primitives or count(running.arrays)
        for layer, (keys, values) in zip(session._caches, kept, strict=True):  # as if it had been computed
            layer.keys, layer.values = list(keys), list(values)
        del drawn, running  # whose parts are given back as they are computed
    return {
        "median_ms": round(1e3 * median(found[3:]), 3),
        "least_ms": round(1e3 * min(found), 3),
        "primitives": primitives,
    }


def count(outputs: list[mx.array]) -> int:
    """Primitives of a graph."""
    with tempfile.NamedTemporaryFile("r", suffix=".dot") as file:
        mx.export_to_dot(file.name, *outputs)
        return len(re.findall("shape=rect", file.read()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=64)
    arguments = parser.parse_args()
    file = GgufFile.open(arguments.model)
    spec = spec_from_gguf(file.metadata, {name: tensor.shape for name, tensor in file.tensors.items()})
    plan = build_plan(spec)
    limits = Limits(context=256, rows=16, sequences=1, blocks=16, kv_type="f16")
    found: dict[str, Any] = {"commit": machine.commit(), "machine": machine.machine()}
    make = make_kernel if mx.metal.is_available() else cache(through_export)
    with patch.object(fused, "kernel", make), patch.object(sessions, "on_metal", return_value=True):
        for name, trial in (("op_by_op", Trial(False, "")), ("in_few_kernels", Trial(True, ""))):
            with patch.object(sessions, "compare", return_value=trial):
                session = MlxBackend().load(plan, GgufWeights(file), limits)
            found[name] = measure(session, plan, arguments.tokens)
            session.close()
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
