"""Kernels become cubins without a GPU, once; what does not compile is an error with the compiler's words."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from edgert_models.errors import BackendError
from edgert_quant.blocks import BlockType
from edgert_runtimes.cuda.kernels import catalogue
from edgert_runtimes.cuda.kernels.kernel import Kernel
from edgert_runtimes.cuda.warming import common_kernels

compiling = pytest.importorskip("edgert_runtimes.cuda.compiling", reason="cuda-bindings is not installed")

KERNELS: list[Kernel] = [catalogue.add(), catalogue.linear(BlockType.Q8_0, 1)]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    try:
        compiling._version()
    except RuntimeError as error:
        pytest.skip(f"NVRTC is not installed: {error}")
    monkeypatch.setenv("EDGERT_CACHE_DIR", str(tmp_path))
    return tmp_path


def test_each_kernel_is_compiled_once(empty_cache: Path) -> None:
    told: list[tuple[str, int, int]] = []
    images, compiled = compiling.images(KERNELS, "sm_89", lambda *event: told.append(event))
    assert compiled == 2
    assert told == [("compile", 1, 2), ("compile", 2, 2)]
    assert {image[:4] for image in images.values()} == {b"\x7fELF"}
    assert compiling.images(KERNELS, "sm_89") == (images, 0)
    other, compiled = compiling.images(KERNELS[:1], "sm_75")
    assert compiled == 1
    assert other["add"] != images["add"]


def test_a_damaged_file_is_compiled_anew(empty_cache: Path) -> None:
    compiling.images(KERNELS[:1], "sm_89")
    (file,) = (empty_cache / "kernels").glob("cuda-sm_89-add-*")
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert compiling.images(KERNELS[:1], "sm_89")[1] == 1


def test_what_does_not_compile_names_the_kernel() -> None:
    broken = dataclasses.replace(catalogue.add(), call="no_such_function")
    with pytest.raises(BackendError, match=r"^kernel add does not compile for sm_89: .*no_such_function"):
        compiling.images([broken], "sm_89")


def test_common_kernels_are_all_different() -> None:
    names = [kernel.name for kernel in common_kernels()]
    assert len(set(names)) == len(names)
    assert len(names) > 200
