"""5,000 mutated GGUF files: each loads, or is refused with a typed error, in bounded time and memory."""

import sys

import pytest

from tests.support.budget import run_limited

SCRIPT = """
import struct
from pathlib import Path
from edgert_quant.gguf import GgufFile
from tests.support.hostile import *

every_kind = [
    text_pair("general.architecture", "qwen3moe"), pair("a", U8, b"\\1"), pair("b", I8, b"\\1"),
    pair("c", U16, bytes(2)), pair("d", I16, bytes(2)), pair("e", U32, u32(7)), pair("f", I32, u32(7)),
    pair("g", F32, bytes(4)), pair("h", BOOL, b"\\1"), pair("i", U64, u64(1)), pair("j", I64, u64(1)),
    pair("k", F64, bytes(8)), array_pair("l", STRING, 3, string("x") + string("") + string("yz")),
    array_pair("m", BOOL, 3, b"\\0\\1\\1"), array_pair("n", U64, 2, u64(1) * 2), array_pair("o", I8, 5, b"abcde"),
]
infos = [tensor("q", [64, 2], 8), tensor("p", [3], 0, 160), tensor("s", [256, 1, 2], 12, 192)]
files = [
    gguf(every_kind, infos, bytes(range(256)) * 2),
    gguf(every_kind[:3], infos[:2], bytes(192), version=2),
    gguf([pair("general.alignment", U32, u32(64)), *every_kind[12:]], [tensor("t", [8, 8])], bytes(256), alignment=64),
    gguf([array_pair("tokens", STRING, 40, b"".join(string(f"t{i}") for i in range(40)))]),
    gguf([pair("split.no", U16, bytes(2)), pair("split.count", U16, b"\\2\\0")], infos[:1], bytes(160)),
]
path, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
path.write_bytes(files[0])
with GgufFile.open(path) as file:  # everything is imported before memory is limited
    assert len(file.tensors) == 3

def read(data):
    with GgufFile.open(path) as file:
        for key in file.metadata:
            file.metadata[key]
        for name, tensor_ in file.tensors.items():
            assert tensor_.offset + tensor_.nbytes <= len(data)
            assert file.read(name).nbytes == file.map(name).nbytes == tensor_.nbytes

limit_memory(64 << 20)
print(json.dumps(survival(path, Mutator(files, seed), count, read)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of address space is read and set as Linux has it")
def test_mutated_files_load_or_are_refused(tmp_path):
    loaded, refused, slowest, reasons = run_limited(SCRIPT, tmp_path / "x.gguf", 5000, 20261123)
    assert loaded + refused == 5000
    assert loaded > 200  # the mutations are not all fatal
    assert refused > 2000
    assert reasons > 60  # and they reach far into the header
    assert slowest < 1
