"""The device that calls NVIDIA's driver, on a driver of the tests' own: every call has the arguments that the
bindings and the driver want, in the right order, and everything is given back. In a process of its own, since a
driver is loaded once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import pytest

from tests.support.budget import environment
from tests.support.builds import VARIABLE
from tests.support.cuda_host import build_driver

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed: the tests' driver cannot be built"),
    pytest.mark.skipif(find_spec("cuda") is None, reason="cuda-bindings is not installed"),
    pytest.mark.skipif(sys.platform != "linux", reason="the tests' driver is a Linux library"),
]

PRELUDE = """
import ctypes, gc, json
from edgert_runtimes.cuda import compiling
from edgert_runtimes.cuda.driver import DriverDevice, facts_of
from tests.support.cuda_host import build_library

def images(kernels, architecture, progress=None):
    found = {}
    for kernel in kernels:
        found[kernel.name] = f"{build_library([kernel])} {len(kernel.parameters)}".encode() + bytes(1)
    return found, len(found)

compiling.images = images
fake = ctypes.CDLL("libcuda.so.1")
"""


def run(script: str) -> Any:
    command = [sys.executable, "-W", "error", "-c", PRELUDE + script]
    settings = {
        **environment(),
        "LD_LIBRARY_PATH": str(build_driver().parent),
        **{name: os.environ[name] for name in ("EDGERT_CACHE_DIR", VARIABLE) if name in os.environ},
    }
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_facts_and_probe() -> None:
    script = """
from edgert_runtimes.registry import get_backend, probe_all
probe = probe_all()["cuda"]
print(json.dumps([probe.available, probe.gpu, dict(probe.details), get_backend("auto").name, fake.fake_held()]))
"""
    available, gpu, details, automatic, held = run(script)
    assert (available, gpu, automatic, held) == (True, True, "cuda", 0)
    assert details["gpu"] == "host"
    assert details["compute_capability"] == "8.9"
    assert details["bandwidth"] == "96 GB/s"
    assert details["memory"] == "8.0 GiB, of which 8.0 GiB are free"


def test_memory_queues_graphs_and_events() -> None:
    script = """
import numpy as np
from edgert_models.errors import BackendError
from edgert_runtimes.cuda.device import Launch, Queue
from edgert_runtimes.cuda.kernels import catalogue
device = DriverDevice()
result = {"compiled": device.prepare([catalogue.add(), catalogue.add()]), "again": device.prepare([catalogue.add()])}
a, b, y = (device.allocate(4 * 100) for _ in range(3))
given, found = (device.pinned(4 * 100).view(np.float32) for _ in range(2))
device.download(found.view(np.uint8), y)
device.synchronize()
result["zero"] = bool((found == 0).all())
given[:] = range(100)
device.upload(a, given.view(np.uint8))
device.upload(b, given.view(np.uint8), Queue.COPY)
start = device.record(Queue.COPY)
device.wait(start, Queue.COMPUTE)
device.launch(Launch(catalogue.add(), a=a, b=b, y=y, n=100))
device.launch(Launch(catalogue.add(), a=a, b=b, y=y, n=0))
device.download(found.view(np.uint8), y)
end = device.record()
device.synchronize(end)
result["sum"] = bool((found == 2 * given).all())
result["seconds"] = device.seconds(start, end)
del start, end
graph = device.capture(lambda: (device.launch(Launch(catalogue.add(), a=y, b=b, y=y, n=100)), device.copy(a, y, 400)))
device.replay(graph)
device.replay(graph)
device.download(found.view(np.uint8), a)
device.synchronize()
result["replayed"] = bool((found == 4 * given).all())
device.free(b)
try:
    device.launch(Launch(catalogue.add(), a=a, b=a, y=a, n=1 << 62))
except OverflowError as error:
    result["large"] = str(error)[:30]
try:
    device.allocate(1 << 40)
except BackendError as error:
    result["memory"] = str(error)
device.close()
device.close()
print(json.dumps({**result, "held": fake.fake_held()}))
"""
    assert run(script) == {
        "compiled": 1,
        "again": 0,
        "zero": True,
        "sum": True,
        "seconds": pytest.approx(0.5, abs=0.5),
        "replayed": True,
        "large": "kernel add would need 18014398",
        "memory": "CUDA: cuMemAlloc failed: out of memory (CUDA_ERROR_OUT_OF_MEMORY)",
        "held": 0,
    }


def test_whole_sessions() -> None:
    """A prompt and decoding, all experts on the GPU and some of them; ahead of the caller too."""
    script = """
from edgert_models.registry import build_plan
from edgert_runtimes.base import Draw
from edgert_runtimes.conformance.tiny import batch, limits, normalized_error, random_weights, tiny_spec
from edgert_runtimes.reference.backend import ReferenceBackend
from edgert_runtimes.registry import get_backend
def one(token, position):
    return batch([([token], position, range(16))])
plan = build_plan(tiny_spec(layers=1, experts=16, experts_used=4))
weights = random_weights(plan, 1)
# Only the kernels that these steps launch: to compile all takes long.
import edgert_runtimes.cuda.backend as module
from edgert_runtimes.cuda.program import Shape
module._shapes = lambda limits: [Shape(1, 1), Shape(7, 1)]
errors, uses = [], []
for memory in (None, 1_400_000):
    ours = get_backend("cuda").load(plan, weights, limits(memory=memory))
    reference = ReferenceBackend().load(plan, weights, limits())
    for step in (batch([([1, 2, 3, 4, 5, 6, 7], 0, range(16))], pick=[6]), one(8, 7), one(9, 8)):
        errors.append(normalized_error(ours.step(step), reference.step(step)))
    wanted = reference.step(one(3, 9))
    ahead = ours.step_ahead(one(3, 9), [Draw()], one(0, 10))
    errors.append(normalized_error(ahead.logits if memory is None else ahead, wanted))
    last = one(int(wanted.argmax()), 10)
    errors.append(normalized_error(ours.step(last), reference.step(last)))
    ours.copy_blocks([(0, 20)])
    use = ours.expert_use()
    uses.append(use and [use.resident < use.experts, use.on_host + use.fetched > 0])
    ours.close()
del ours  # and the points it remembers
gc.collect()
print(json.dumps({"error": max(errors), "uses": uses, "held": fake.fake_held()}))
"""
    found = run(script)
    assert found["error"] < 1e-9
    assert found["uses"] == [None, [True, True]]
    assert found["held"] == 0
