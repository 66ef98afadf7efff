"""5,000 mutated files of both forms: each is read, or refused with a typed error, in bounded time and memory."""

import sys

import pytest

from tests.support.budget import run_limited

SCRIPT = """
import struct
from pathlib import Path
from edgert_quant.imatrix import read_imatrix
from tests.quant.imatrix.samples import old_form, old_tail
from tests.support.hostile import *

pairs = [
    text_pair("general.type", "imatrix"), array_pair("imatrix.datasets", STRING, 2, string("a.txt") + string("b")),
    pair("imatrix.chunk_count", U32, u32(7)), pair("imatrix.chunk_size", U32, u32(512)),
]
infos = [
    tensor("a.in_sum2", [4, 3], 0, 0), tensor("a.counts", [1, 3], 0, 64),
    tensor("b.in_sum2", [5], 0, 96), tensor("b.counts", [1], 0, 128),
]
data = struct.pack("<12f16x3f20x5f12xf28x", *range(12), 1, 2, 3, *range(5), 4)
old = {"blk.0.a": (3, [1.0, 2.0, 3.0]), "blk.0.b": (2, [0.5])}
files = [gguf(pairs, infos, data), gguf(pairs[:1], infos[:2], data[:96])]
files += [old_form(old), old_form(old, old_tail(2, "text"))]
path, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for whole in files:  # everything is imported before memory is limited
    path.write_bytes(whole)
    read_imatrix(path)

def read(data):
    found = read_imatrix(path)
    for name, sums in found.sums.items():
        assert sums.in_sum2.nbytes <= len(data) and (sums.in_sum2 >= 0).all() and (sums.counts >= 0).all()
        found.of(name)

limit_memory(64 << 20)
print(json.dumps(survival(path, Mutator(files, seed), count, read)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of address space is read and set as Linux has it")
def test_mutated_files_are_read_or_refused(tmp_path):
    loaded, refused, slowest, reasons = run_limited(SCRIPT, tmp_path / "x.gguf", 5000, 20261125)
    assert loaded + refused == 5000
    assert loaded > 200  # the mutations are not all fatal
    assert refused > 2000
    assert reasons > 40  # and they reach far
    assert slowest < 1
