"""What a measurement was made of and on: commit, machine, model file."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgert_quant.gguf import GgufFile
from edgert_quant.jit import host
from edgert_runtimes.registry import probe_all


def commit() -> str | None:
    """The commit of the sources, with a + where files were changed since; None outside a git checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    found = git("rev-parse", "--short=12", "HEAD")
    return f"{found}+" if found and git("status", "--porcelain", "--untracked-files=no") else found or None


def environment() -> dict[str, str]:
    """This process's, for others: they find edgert from any folder, and keep the bytecode of what they import."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def machine() -> dict[str, Any]:
    """The CPU by name and as LLVM calls it, the instruction set in use, threads of hardware, memory, and the system."""
    details = probe_all()["cpu"].details
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    return {
        "cpu": details.get("cpu"),
        "llvm_cpu": host().cpu,
        "instruction_set": details.get("instruction_set"),
        "cpus": os.cpu_count(),
        "memory_bytes": memory,
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def model(path: Path) -> dict[str, Any]:
    """Name, size and a quick identity: SHA-256 of the file's head, all that comes before the first tensor's bytes
    (metadata, and every tensor's name, type and shape), but not of the weights.
    """
    with GgufFile.open(path) as file:
        head = min(tensor.offset for tensor in file.tensors.values() if tensor.shard == 0)
        with path.open("rb") as stream:
            digest = hashlib.sha256(stream.read(head)).hexdigest()
        return {"name": path.name, "bytes": file.size, "head_bytes": head, "head_sha256": digest}


def peaks(threads: int) -> dict[str, float]:
    """The machine's limits (`edgert_runtimes.cpu.peaks`), measured in a process of their own: GB/s, GOPS, GFLOPS."""
    code = (
        "import json; from edgert_runtimes.cpu.peaks import measure_peaks as m; "
        f"p = m({threads}); print(json.dumps([p.read_bytes, p.int8_operations, p.float_operations]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    names = ("read_gb_per_second", "int8_gops_per_second", "float32_gflops_per_second")
    return {name: value / 1e9 for name, value in zip(names, json.loads(done.stdout), strict=True)}
