"""The catalogue: names, arguments, geometry; and that every kernel compiles for every architecture."""

import ctypes
import itertools
import re
from collections.abc import Iterator

import pytest
from edgert_models.rope import RopeLayout
from edgert_quant.blocks import BlockType
from edgert_runtimes.cuda.kernels import catalogue
from edgert_runtimes.cuda.kernels.kernel import Kernel, headers, source

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
HEADS = [(16, 2), (64, 1), (64, 8), (80, 4), (128, 4), (128, 8), (128, 16), (256, 2)]
"""Head sizes and groups: tiny models', gpt-oss's, Phi's, Qwen's, Llama's, Gemma's. All of them with a cache in F16."""
USUAL = [(64, 8), (128, 8)]
"""With every type of cache."""


COMMON = tuple(BlockType[name] for name in ("F32", "F16", "Q4_0", "Q8_0", "MXFP4", "Q4_K", "Q6_K", "IQ2_XS", "IQ1_M"))
"""Types of every kind: floats, scales of 32 and of 16 weights, with a minimum and without, tables and grids."""


FEW = tuple(BlockType[name] for name in ("F16", "Q8_0", "Q4_K"))
"""For what differs little from another kernel of the same type. Compiling is what these tests take their time for."""


def every_kernel(types: tuple[BlockType, ...] = catalogue.WEIGHTS) -> Iterator[Kernel]:
    """At least one instance of every kernel; those that read a matrix for each of these types, two of them for all."""
    yield from (catalogue.quantize(), catalogue.route(), catalogue.expert_counts(), catalogue.expert_order())
    yield from (catalogue.combine(), catalogue.rms_norm(), catalogue.rms_norm_groups(), catalogue.angles())
    yield from (catalogue.add(), catalogue.pick_rows(), catalogue.copy_blocks())
    yield from (catalogue.argmax(), catalogue.sample(), catalogue.copy_rest(), catalogue.position_scale())
    yield from (catalogue.low_rank_inward(), catalogue.low_rank_outward())
    yield from (catalogue.clamp(), catalogue.scale_rows())
    yield from map(catalogue.rope, RopeLayout)
    yield from map(catalogue.gate, catalogue.ACTIVATIONS)
    yield from map(catalogue.gate_rows, catalogue.ROW_GATES)
    for kind in catalogue.WEIGHTS:
        yield from (catalogue.linear(kind, 1), catalogue.embed(kind))
    first, *others = catalogue.ACTIVATIONS
    for kind in types:
        yield from (catalogue.linear(kind, 8), catalogue.head_linear(kind, 1), catalogue.experts_up(kind, kind, first))
        yield from (make(kind) for make in (catalogue.gemm, catalogue.experts_gemm, catalogue.experts_down))
    for kind in FEW:
        yield from (catalogue.linear(kind, 2), catalogue.head_linear(kind, 8), catalogue.head_gemm(kind))
        yield from (catalogue.experts_up(kind, kind, activation) for activation in others)
    for kind, (size, group) in itertools.product(catalogue.KV_TYPES, HEADS):
        if kind is BlockType.F16 or (size, group) in USUAL:
            yield catalogue.attend(kind, size, size, group)
            if catalogue.fits_tiles(kind, size, group):
                yield catalogue.attend_tile(kind, size, group)
        if (size, group) == HEADS[0]:
            yield catalogue.attend(kind, 576, 512, 16)
    yield from map(catalogue.store, catalogue.KV_TYPES)
    yield from (catalogue.heads(kind, 64, 64) for kind in catalogue.KV_TYPES)
    yield catalogue.heads(BlockType.F16, 80, 80)
    several = (BlockType.Q4_K, BlockType.Q4_K, BlockType.Q6_K)
    yield from (catalogue.linear_several(kinds, 1) for kinds in (several, several[:2], several[1:]))
    yield from map(catalogue.attend_combine, sorted({size for size, _ in HEADS}))


SPILLED = 128
"""Bytes of registers that a thread may keep in memory: a few around loops, where a block has 1024 threads."""
PROPERTIES = re.compile(r"Function properties for (\w+)\s+ptxas +\. +\d+ bytes stack frame, (\d+) bytes spill stores")


def compile_all(kernels: list[Kernel], architecture: str) -> tuple[bytes, str]:
    """A cubin by NVRTC, without any header but our own, and what ptxas tells; skips where the wheels are absent."""
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed: nothing compiles CUDA")
    try:
        error, *_ = nvrtc.nvrtcVersion()
    except RuntimeError as missing:
        pytest.skip(f"NVRTC is not installed: {missing}")
    texts = headers()
    names, bodies = [name.encode() for name in texts], [text.encode() for text in texts.values()]
    error, program = nvrtc.nvrtcCreateProgram(source(kernels).encode(), b"unit.cu", len(texts), bodies, names)
    options = [f"--gpu-architecture={architecture}".encode(), b"--std=c++17", b"--ptxas-options=-v"]
    (error,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = bytearray(size)
    nvrtc.nvrtcGetProgramLog(program, log)
    text = log.decode(errors="replace").strip("\0\n ")
    assert (int(error), [line for line in text.splitlines() if not line.startswith("ptxas")]) == (0, [])
    _, size = nvrtc.nvrtcGetCUBINSize(program)
    cubin = bytearray(size)
    nvrtc.nvrtcGetCUBIN(program, cubin)
    nvrtc.nvrtcDestroyProgram(program)
    return bytes(cubin), text


def check(kernels: list[Kernel], architecture: str) -> None:
    """All of them are in what the compiler makes, and none keeps in memory what registers should hold."""
    cubin, told = compile_all(kernels, architecture)
    spilled = {name: int(count) for name, count in PROPERTIES.findall(told)}
    own = {name for name in spilled if not name.startswith("__")}  # others are slow paths that the compiler adds
    assert own == {kernel.name for kernel in kernels}
    assert {name: count for name, count in spilled.items() if count > SPILLED} == {}
    assert cubin.startswith(b"\x7fELF")
    assert [kernel.name for kernel in kernels if f".text.{kernel.name}\0".encode() not in cubin] == []


@pytest.mark.slow
@pytest.mark.parametrize("header", sorted({kernel.header for kernel in every_kernel()}))
@pytest.mark.parametrize("architecture", ["sm_75", "sm_89"])
def test_every_kernel_compiles(header: str, architecture: str) -> None:
    """On both sides of what the sources ask `__CUDA_ARCH__`, on the newer one with every type."""
    kernels = every_kernel(COMMON if architecture == "sm_75" else catalogue.WEIGHTS)
    check([kernel for kernel in kernels if kernel.header == header], architecture)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_common_kernels_compile(architecture: str) -> None:
    names = (
        "linear_Q4_K_1",
        "linear_Q4_K_Q4_K_Q6_K_1",
        "heads_F16_2",
        "gemm_Q4_K",
        "experts_down_Q6_K",
        "attend_F16_128x128_8",
        "attend_tile_F16_128_8",
        "sample",
    )
    kernels = [kernel for kernel in every_kernel() if kernel.name in names]
    assert len(kernels) == len(names)
    check(kernels, architecture)


def test_names_tell_kernels_apart() -> None:
    kernels = list(every_kernel())
    assert len({kernel.name for kernel in kernels}) == len(kernels)
    assert len({kernel.entry() for kernel in kernels}) == len(kernels)


def test_sources_need_no_other_header() -> None:
    texts = headers()
    for name, text in texts.items():
        for line in text.splitlines():
            if line.startswith("#include"):
                assert line.split('"')[1] in texts, f"{name}: {line}"
    assert {kernel.header for kernel in every_kernel()} <= texts.keys()


def test_parameters_and_arguments() -> None:
    kernel = catalogue.rms_norm_groups()
    assert kernel.parameters == (
        ("x", "pointer"),
        ("weight", "pointer"),
        ("y", "pointer"),
        ("eps", "float"),
        ("groups", "i64"),
        ("width", "int"),
        ("rest", "int"),
        ("own", "int"),
    )
    numbers = {"eps": 0.5, "groups": 1 << 33, "width": 64, "rest": 0, "own": 1}
    packed = kernel.pack({"x": 1 << 40, "weight": 0, "y": 5, **numbers})
    assert [type(value) for value in packed] == [
        *[ctypes.c_void_p] * 3,
        ctypes.c_float,
        ctypes.c_int64,
        *[ctypes.c_int32] * 3,
    ]
    assert [value.value for value in packed] == [1 << 40, None, 5, 0.5, 1 << 33, 64, 0, 1]
    missing = r"kernel rms_norm_groups: arguments \['eps', 'own', 'rest', 'rows'\] are missing or unknown"
    with pytest.raises(TypeError, match=missing):
        kernel.pack({"width": 64, "x": 1, "weight": 0, "y": 5, "rows": 1, "groups": 1})


def test_geometry() -> None:
    assert catalogue.linear(BlockType.Q4_K, 1).grid({"out": 4097}) == 513
    assert catalogue.gemm(BlockType.Q4_K).grid({"out": 2048, "rows": 65}) == 32
    assert (
        catalogue.experts_up(BlockType.Q4_K, BlockType.Q4_K, "silu").grid({"rows": 2, "used": 8, "hidden": 768}) == 384
    )
    assert catalogue.experts_gemm(BlockType.Q4_K).grid({"out": 768, "most_tiles": 10}) == 60
    assert catalogue.attend(BlockType.F16, 128, 128, 12).grid({"rows": 3, "kv_heads": 4, "splits": 5}) == 120
    assert catalogue.attend(BlockType.F16, 128, 128, 1).grid({"rows": 0, "kv_heads": 4, "splits": 5}) == 0
    assert catalogue.add().grid({"n": 1 << 38}) == 1 << 30


def test_a_grid_that_is_too_large_is_refused() -> None:
    with pytest.raises(OverflowError, match=r"kernel add would need 4294967296 blocks; a grid has 2147483647 at most"):
        catalogue.add().grid({"n": 1 << 40})


def test_a_number_that_is_too_large_is_refused() -> None:
    numbers = {"picked": 1, "width": 1 << 31}
    with pytest.raises(OverflowError, match=r"^kernel pick_rows: width is 2147483648, which 32 bits do not hold$"):
        catalogue.pick_rows().pack({"x": 1, "pick": 1, "y": 1, **numbers})


def test_tiles_and_heads() -> None:
    assert [catalogue.heads_at_once(group) for group in (1, 5, 8, 12, 16, 71)] == [1, 5, 8, 6, 8, 1]
    assert catalogue.tile_rows(5) == 12
    assert catalogue.fits_tiles(BlockType.F16, 128, 8)
    assert not catalogue.fits_tiles(BlockType.BF16, 128, 8)
    assert not catalogue.fits_tiles(BlockType.F16, 256, 1)
    assert not catalogue.fits_tiles(BlockType.F16, 24, 1)
    assert not catalogue.fits_tiles(BlockType.Q8_0, 80, 1)
    assert not catalogue.fits_tiles(BlockType.F16, 64, 65)
    assert [catalogue.most_tiles(*shape) for shape in ((3, 128), (1000, 2), (64, 1))] == [3, 17, 2]
