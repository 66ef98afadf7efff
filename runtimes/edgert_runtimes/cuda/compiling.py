"""CUDA C++ to cubin by NVRTC, which needs neither a GPU nor a toolkit, with a cache on disk.

NVRTC is documented in NVIDIA's "NVRTC" guide. Every kernel is a program of its own: it takes about a tenth of a second,
several are compiled at once, and a model compiles those that it uses.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache
from typing import Any

from cuda.bindings import nvrtc
from edgert_models.errors import BackendError
from edgert_quant.jit import cache as stored

from edgert_runtimes.base import Progress
from edgert_runtimes.cuda.kernels.kernel import Kernel, headers, source

OPTIONS = ("--std=c++17",)
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
"""Those that kernels are checked to compile for; the GPU at hand decides which is used."""


def images(
    kernels: Iterable[Kernel], architecture: str, progress: Progress | None = None
) -> tuple[dict[str, bytes], int]:
    """Cubins by kernel name, and how many of them had to be compiled. BackendError has the compiler's words."""
    found: dict[str, bytes] = {}
    missing: list[tuple[Kernel, str]] = []
    for kernel in kernels:
        key = _key(kernel, architecture)
        image = stored.load(_file(kernel, architecture), key)
        if image is None:
            missing.append((kernel, key))
        else:
            found[kernel.name] = image
    with ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as threads:
        tasks = {threads.submit(compile_kernel, kernel, architecture): (kernel, key) for kernel, key in missing}
        try:
            for done, task in enumerate(as_completed(tasks)):
                kernel, key = tasks[task]
                found[kernel.name] = task.result()
                stored.store(_file(kernel, architecture), key, found[kernel.name])
                if progress is not None:
                    progress("compile", done + 1, len(missing))
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
    return found, len(missing)


def compile_kernel(kernel: Kernel, architecture: str) -> bytes:
    """One cubin, from no cache."""
    files = _headers()
    text = source([kernel])
    program = _call(
        nvrtc.nvrtcCreateProgram,
        text.encode(),
        f"{kernel.name}.cu".encode(),
        len(files),
        [content.encode() for content in files.values()],
        [name.encode() for name in files],
    )
    try:
        options = [f"--gpu-architecture={architecture}".encode(), *(option.encode() for option in OPTIONS)]
        (result,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            log = bytearray(_call(nvrtc.nvrtcGetProgramLogSize, program))
            _call(nvrtc.nvrtcGetProgramLog, program, log)
            words = log.decode(errors="replace").rstrip("\0\n")
            raise BackendError(f"kernel {kernel.name} does not compile for {architecture}: {words}")
        image = bytearray(_call(nvrtc.nvrtcGetCUBINSize, program))
        _call(nvrtc.nvrtcGetCUBIN, program, image)
        return bytes(image)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _call(function: Any, *arguments: Any) -> Any:
    result, *values = function(*arguments)
    if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise BackendError(f"NVRTC: {function.__name__} failed: {result.name}")
    return values[0] if values else None


@cache
def _headers() -> Mapping[str, str]:
    return headers()


@cache
def _compiler() -> str:
    """What makes two compilations differ beside the kernel: compiler, options, headers."""
    version = ".".join(map(str, _version()))
    digest = hashlib.sha256("\0".join(f"{name}\0{text}" for name, text in _headers().items()).encode())
    return f"nvrtc {version} {' '.join(OPTIONS)} {digest.hexdigest()}"


def _version() -> tuple[int, int]:
    result, major, minor = nvrtc.nvrtcVersion()
    if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise BackendError(f"NVRTC: nvrtcVersion failed: {result.name}")
    return major, minor


def _key(kernel: Kernel, architecture: str) -> str:
    return f"{kernel.name}\n{architecture}\n{_compiler()}\n{source([kernel])}"


def _file(kernel: Kernel, architecture: str) -> str:
    return f"cuda-{architecture}-{kernel.name}"
