"""5,000 mutated safetensors files: each loads, or is refused with a typed error, in bounded time and memory."""

import sys

import pytest

from tests.support.budget import run_limited

SCRIPT = """
from pathlib import Path
from edgert_quant.checkpoint import Checkpoint
from tests.support.hostile import *

def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}

files = [
    safetensors({"a": entry("F32", [2, 3], 0, 24), "b": entry("BF16", [4], 24, 32)}, bytes(range(32))),
    safetensors({"__metadata__": {"format": "pt"}, "x": entry("F8_E4M3", [2, 2, 2], 0, 8),
                 "y": entry("I64", [], 8, 16), "z": entry("F16", [0, 5], 16, 16)}, bytes(16)),
    safetensors({"f": entry("F64", [1, 1], 0, 8), "g": entry("BOOL", [3], 8, 11), "h": entry("U8", [5], 11, 16)},
                bytes(16)),
    safetensors({f"layer.{i}": entry("F16", [1], 2 * i, 2 * i + 2) for i in range(30)}, bytes(60)),
    safetensors(b'{}      '),
]
folder, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
(folder / "config.json").write_text('{"architectures": ["X"]}')
path = folder / "model.safetensors"
path.write_bytes(files[0])
with Checkpoint.open(folder) as checkpoint:
    checkpoint.read("b")

def read(data):
    with Checkpoint.open(folder) as checkpoint:
        for name, tensor in checkpoint.tensors.items():
            assert tensor.offset + tensor.nbytes <= len(data)
            assert checkpoint.read_raw(name).nbytes == tensor.nbytes
            checkpoint.read(name)

limit_memory(64 << 20)
print(json.dumps(survival(path, Mutator(files, seed, text=True), count, read)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of address space is read and set as Linux has it")
def test_mutated_files_load_or_are_refused(tmp_path):
    loaded, refused, slowest, reasons = run_limited(SCRIPT, tmp_path, 5000, 20261123)
    assert loaded + refused == 5000
    assert loaded > 200
    assert refused > 2000
    assert reasons > 30
    assert slowest < 1
