"""Object code → an address, through llvmlite's ORC linker."""

from __future__ import annotations

import itertools
import threading
from typing import Any

SYMBOL = "edgert_kernel"
"""What every object file exports."""

RAISES = "edgert_kernel_raises"
"""What a kernel refers to, before it is refused, where its Python function can raise."""

_lock = threading.Lock()
_numbers = itertools.count()
_linker: Any = None
_trackers: list[Any] = []  # code lives as long as its tracker: as long as the process


def initialize() -> None:
    """Let LLVM compile and assemble for this CPU; may be repeated."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    binding.initialize_native_asmparser()


def load_object(name: str, code: bytes) -> int:
    """Link object code into the process; the address of its function. `RuntimeError` if a symbol cannot be found."""
    global _linker
    from llvmlite import binding

    with _lock:
        if _linker is None:
            initialize()
            # JITLink keeps an object's sections together. RuntimeDyld maps each where there is room: beside a mapped
            # model of some gigabytes, that may be out of reach of 32-bit relocations, at which it aborts the process.
            _linker = binding.create_lljit_compiler(use_jit_link=True)
        library = binding.JITLibraryBuilder().add_object_img(code).add_current_process().export_symbol(SYMBOL)
        tracker = library.link(_linker, f"{name}.{next(_numbers)}")
        _trackers.append(tracker)
        return int(tracker[SYMBOL])
