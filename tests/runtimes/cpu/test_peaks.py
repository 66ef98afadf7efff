"""The machine's limits are measured with this CPU's instructions; no figure is asserted."""

import math

import numpy as np
import pytest
from edgert_runtimes.cpu import peaks
from edgert_runtimes.cpu.formats import available
from edgert_runtimes.cpu.peaks import measure_peaks, read_memory, touched


@pytest.mark.parametrize("threads", [1, 2])
def test_every_limit_is_a_number(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "READ_BYTES", 1 << 20)
    monkeypatch.setattr(peaks, "ROUNDS", 100)
    for isa in available():
        found = measure_peaks(threads, isa)
        assert found.threads == threads
        for value in (found.read_bytes, found.int8_operations, found.float_operations):
            assert math.isfinite(value)
            assert value > 0


def test_all_bytes_are_read() -> None:
    buffer = touched(4096)
    words = buffer.view(np.int32)
    words[:] = np.arange(1024)
    assert read_memory(buffer.ctypes.data, 4096) == words.sum()
    assert read_memory(buffer.ctypes.data, 2048) == words[:512].sum()
