"""Several processes compile, and whatever becomes of them, every kernel is there in the end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = """
import json, sys, time
from edgert_quant.jit import Kernel
from edgert_quant.jit.helpers import prepare_together
from tests.quant.jit.sample_helper import KERNELS

here, told = [], []
load = Kernel.load
def counted(self):
    compiled = load(self)
    if compiled:
        here.append(self.name)
    return compiled
Kernel.load = counted

def progress(done, total, name):
    told.append((done, total))
    time.sleep({pause})  # so that helpers come to something

count = prepare_together(KERNELS.values(), {module!r}, {processes}, progress)
again = prepare_together(KERNELS.values(), {module!r}, {processes}, progress)
print(json.dumps([count, again, here, told, KERNELS["sample_kernels.look_up"](1, 2, 3, 4)]))
"""
TOTAL = 9


def run(
    folder: Path, module: str, processes: int, pause: float = 0.0
) -> tuple[int, int, list[str], list[list[int]], int]:
    program = RUN.format(module=module, processes=processes, pause=pause)
    environment = {"EDGERT_CACHE_DIR": str(folder), "PYTHONPATH": ":".join(path for path in sys.path if path)}
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=300
    )
    assert finished.returncode == 0, finished.stderr
    return tuple(json.loads(finished.stdout))


@pytest.mark.parametrize(
    ("module", "processes"),
    [("tests.quant.jit.sample_helper", 1), ("tests.quant.jit.no_such_module", 3), ("json.tool", 2)],
)
def test_without_helpers_that_help(tmp_path: Path, module: str, processes: int) -> None:
    count, again, here, told, answer = run(tmp_path, module, processes)
    assert (count, again, answer) == (TOTAL, 0, 314)
    assert len(here) == TOTAL
    assert told[0] == [0, TOTAL]
    assert told[-1] == [TOTAL, TOTAL]


def test_helpers_take_their_share(tmp_path: Path) -> None:
    """One of them ends when it is asked for the kernel that it does not know; that is compiled nevertheless."""
    count, again, here, told, answer = run(tmp_path, "tests.quant.jit.sample_helper", 3, pause=1.0)
    assert (count, again, answer) == (TOTAL, 0, 314)
    assert len(here) < TOTAL
    assert len(list((tmp_path / "kernels").glob("*.o"))) == TOTAL
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == [TOTAL, TOTAL]
