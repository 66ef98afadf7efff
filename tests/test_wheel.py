"""The wheel installs exactly the four packages, and nothing with a generic name."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_top_level_names(wheel: zipfile.ZipFile) -> None:
    names = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {
        "edgert",
        "edgert_models",
        "edgert_quant",
        "edgert_runtimes",
    }


def test_pure_and_typed(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert {name for name in names if name.endswith("py.typed")} == {
        f"{package}/py.typed" for package in ("edgert", "edgert_models", "edgert_quant", "edgert_runtimes")
    }
    assert not [name for name in names if name.endswith((".so", ".dylib", ".pyd"))]


def test_cuda_sources_are_in_it(wheel: zipfile.ZipFile) -> None:
    folder = ROOT / "runtimes/edgert_runtimes/cuda/kernels"
    sources = {f"edgert_runtimes/cuda/kernels/{path.name}" for path in folder.glob("*.cuh")}
    assert sources
    assert sources <= set(wheel.namelist())


def test_demo_model_is_in_it(wheel: zipfile.ZipFile) -> None:
    assert wheel.getinfo("edgert/demo/model.gguf").file_size > 1 << 20


def test_kernels_are_in_it(wheel: zipfile.ZipFile) -> None:
    sources = {path.relative_to(ROOT / "runtimes").as_posix() for path in (ROOT / "runtimes").rglob("*.metal")}
    assert "edgert_runtimes/mlx/metal/kernels/gemv.metal" in sources
    assert sources <= set(wheel.namelist())


def test_the_page_is_in_it(wheel: zipfile.ZipFile) -> None:
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "edgert/server/page/static").iterdir()}
    assert "edgert/server/page/static/index.html" in files
    assert files <= set(wheel.namelist())


def test_command_is_declared(wheel: zipfile.ZipFile) -> None:
    (entry,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "edgert = edgert.cli.main:run" in wheel.read(entry).decode()
