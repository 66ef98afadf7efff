"""The first run on a GPU that this was never run on: from the smallest thing that can be wrong to the whole.

    python -m benchmarks.cuda_first_run [--quick]

Each line says what was tried and what came of it; the first failure ends the run, since what follows builds on it.
Kernels are those of the catalogue; results are compared with NumPy, and with the kernels compiled by g++ where that
is there.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import shutil
import sys
import time
from collections.abc import Callable

import numpy as np
from edgert_quant.blocks import BlockType, dequantize, quantize
from edgert_runtimes.conformance import CASES, check
from edgert_runtimes.cuda.device import Device, Launch
from edgert_runtimes.cuda.kernels import catalogue
from edgert_runtimes.cuda.kernels.kernel import Kernel
from edgert_runtimes.registry import get_backend

ROWS, OUT, K = 64, 4096, 4096
REPEATS = 50


class Run:
    """Memory and launches on the device at hand."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def put(self, array: np.ndarray) -> int:
        """The address of a copy."""
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        address, staged = self.device.allocate(raw.nbytes + 256), self.device.pinned(raw.nbytes)
        staged[:] = raw
        self.device.upload(address, staged)
        self.device.synchronize()
        return address

    def get(self, address: int, shape: tuple[int, ...]) -> np.ndarray:
        """Floats from there."""
        staged = self.device.pinned(4 * int(np.prod(shape)))
        self.device.download(staged, address)
        self.device.synchronize()
        return staged.view(np.float32).reshape(shape).copy()

    def seconds(self, work: Callable[[], None]) -> float:
        """The median of several runs, by the GPU's clock."""
        times = []
        for _ in range(REPEATS):
            start = self.device.record()
            work()
            end = self.device.record()
            self.device.synchronize(end)
            times.append(self.device.seconds(start, end))
        return float(np.median(times))


def products(run: Run, kernel: Kernel, kind: BlockType, rows: int) -> tuple[float, Callable[[], None]]:
    """The normalized squared error of a product with a matrix of a type, and what repeats it."""
    rng = np.random.default_rng(0)
    raw = quantize(rng.standard_normal((OUT, K), dtype=np.float32) / np.float32(np.sqrt(K)), kind)
    x = rng.standard_normal((rows, K), dtype=np.float32)
    codes, scales = run.device.allocate(rows * K), run.device.allocate(rows * K // 2)
    given = {"x": run.put(x), "codes": codes, "scales": scales}
    run.device.launch(Launch(catalogue.quantize(), **given, blocks=rows * K // 32))
    y = run.device.allocate(4 * rows * OUT)
    sizes = {"out": OUT, "k": K} | ({"rows": rows} if kernel.call.startswith("gemm") else {})
    launch = Launch(kernel, w=run.put(raw), **given, bias=0, add=0, y=y, **sizes)
    run.device.launch(launch)
    wanted = x.astype(np.float64) @ dequantize(raw, kind).astype(np.float64).T
    error = ((run.get(y, (rows, OUT)) - wanted) ** 2).sum() / (wanted**2).sum()
    return float(error), lambda: run.device.launch(launch)


def basics(run: Run) -> None:
    """Copies, a launch, a graph."""
    device, x = run.device, np.arange(1000, dtype=np.float32)
    a, y = run.put(x), run.device.allocate(4000)
    add = Launch(catalogue.add(), a=a, b=a, y=y, n=1000)
    device.launch(add)
    expect("load and launch", bool((run.get(y, (1000,)) == 2 * x).all()))
    device.prepare([catalogue.add()])
    again = Launch(catalogue.add(), a=y, b=a, y=y, n=1000)
    graph = device.capture(lambda: [device.launch(again) for _ in range(100)] and None)
    device.replay(graph)
    expect("graph replay", bool((run.get(y, (1000,)) == 102 * x).all()))
    launched = run.seconds(lambda: [device.launch(again) for _ in range(100)] and None)
    replayed = run.seconds(lambda: device.replay(graph))
    tell("100 small kernels", f"{1e6 * launched:.0f} µs launched, {1e6 * replayed:.0f} µs from a graph")


def expect(what: str, right: bool, more: str = "") -> None:
    """Tell, and end the run where it is wrong."""
    tell(what, ("right" if right else "WRONG") + (f", {more}" if more else ""))
    if not right:
        sys.exit(1)


def tell(what: str, words: str) -> None:
    print(f"{what:38} {words}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="without the conformance cases")
    options = parser.parse_args()
    for name in ("cuda-bindings", "nvidia-cuda-nvrtc"):
        tell(name, importlib.metadata.version(name))
    backend = get_backend("cuda")  # or one line that says why not
    from edgert_runtimes.cuda.driver import DriverDevice

    device = DriverDevice()
    tell("GPU", f"{device.facts.name}, {device.facts.architecture}, driver {device.facts.driver}")
    kinds = (BlockType.Q4_K, BlockType.Q6_K, BlockType.Q8_0, BlockType.MXFP4)
    kernels = [catalogue.add(), catalogue.quantize()]
    kernels += [make for kind in kinds for make in (catalogue.linear(kind, 1), catalogue.gemm(kind))]
    start = time.perf_counter()
    tell("kernels compiled", f"{device.prepare(kernels)} in {time.perf_counter() - start:.1f} s")
    run = Run(device)
    basics(run)
    for kind in kinds:
        error, again = products(run, catalogue.linear(kind, 1), kind, 1)
        seconds = run.seconds(again)
        rate = kind.row_bytes(K) * OUT / seconds
        share = f", {100 * rate / device.facts.bandwidth:.0f} % of the memory's" if device.facts.bandwidth else ""
        note = f"error {error:.1e}, {1e6 * seconds:.1f} µs, {rate / 1e9:.0f} GB/s{share}"
        expect(f"one row by {kind.name} [{OUT}, {K}]", error < 5e-4, note)
    for kind in kinds:  # mma.sync: where fragments lie wrong, everything is wrong
        error, again = products(run, catalogue.gemm(kind), kind, ROWS)
        rate = 2 * ROWS * OUT * K / run.seconds(again)
        expect(f"{ROWS} rows by {kind.name} (mma.sync)", error < 5e-4, f"error {error:.1e}, {rate / 1e12:.1f} TOPS")
    device.close()
    tell("compute-sanitizer", shutil.which("compute-sanitizer") or "is not installed; see docs/cuda.md")
    if not options.quick:
        outcomes = [check(backend, case) for case in CASES]
        failed = [outcome for outcome in outcomes if outcome.failed]
        for outcome in failed:
            tell(str(outcome.case), outcome.reason)
        refused = sum(outcome.refused for outcome in outcomes)
        expect("conformance", not failed, f"{len(outcomes)} cases, {refused} refused")
    print("next: pytest -m cuda; python -m benchmarks.cuda MODEL.gguf")


if __name__ == "__main__":
    main()
