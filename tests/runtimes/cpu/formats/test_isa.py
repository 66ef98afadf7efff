"""Which instruction set is chosen, and that every kernel lowers for other CPUs."""

import pytest
from edgert_models.errors import BackendError, RequestError
from edgert_quant.blocks import BlockType
from edgert_quant.jit import Target, compiling_for
from edgert_runtimes.cpu.formats import available, format_for, host_isa
from edgert_runtimes.cpu.formats.isa import ISAS, VARIABLE, Isa
from edgert_runtimes.cpu.formats.registry import packed_types

from tests.support.lowering import ARM, AVX2, AVX512, AVX_VNNI, DOT, MIXED, PLAIN, VNNI, assembly, calls
from tests.support.packed import REPRESENTATIVE


@pytest.fixture(autouse=True)
def no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def test_the_best_that_the_cpu_runs() -> None:
    with compiling_for(PLAIN):
        assert host_isa().name == "portable"
    with compiling_for(VNNI):
        assert host_isa().name == "avx512-vnni"
    vnni = by_name("avx512-vnni")
    for missing in ("avx512bw", "avx512f", "avx512vnni"):
        features = tuple(f for f in VNNI.features if f != f"+{missing}")
        assert not vnni.runs_on(Target(VNNI.triple, "znver5", features))
    assert not vnni.runs_on(Target(ARM.triple, "generic", VNNI.features))


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (PLAIN, "portable"),
        (ARM, "portable"),
        (AVX2, "avx2"),
        (AVX_VNNI, "avx-vnni"),
        (AVX512, "avx512"),
        (DOT, "neon-dotprod"),
        (MIXED, "neon-i8mm"),
    ],
)
def test_other_cpus(target: Target, name: str) -> None:
    with compiling_for(target):
        assert host_isa().name == name


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGERT_CPU", "Portable")
    with compiling_for(VNNI):
        assert host_isa().name == "portable"
        found = format_for(BlockType.Q4_K)
    assert found is not None
    assert found.gemm.name.endswith("portable")


def test_what_cannot_be_chosen_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = r"EDGERT_CPU=avx512-vnni: this CPU \(x86-64\) has no .*; it runs portable$"
    monkeypatch.setenv("EDGERT_CPU", "avx512-vnni")
    with compiling_for(PLAIN), pytest.raises(BackendError, match=refusal):
        host_isa()
    monkeypatch.setenv("EDGERT_CPU", "sse9")
    with (
        compiling_for(PLAIN),
        pytest.raises(RequestError, match=r"EDGERT_CPU=sse9 is unknown; this CPU runs portable$"),
    ):
        host_isa()


def test_tiles_cover_any_number_of_tokens() -> None:
    for isa in ISAS:
        for tile in (isa.float_tile(), isa.code_tile()):
            assert list(tile.tokens) == sorted(set(tile.tokens), reverse=True)
            assert tile.tokens[-1] == 1
            assert tile.panels >= 1


def by_name(name: str) -> Isa:
    return next(isa for isa in ISAS if isa.name == name)


@pytest.mark.parametrize(
    ("target", "name"),
    [
        pytest.param(PLAIN, "portable", id="x86-64"),
        pytest.param(ARM, "portable", id="aarch64"),
        *[
            pytest.param(target, name, id=name)
            for target, name in [
                (AVX2, "avx2"),
                (AVX_VNNI, "avx-vnni"),
                (AVX512, "avx512"),
                (VNNI, "avx512-vnni"),
                (DOT, "neon-dotprod"),
                (MIXED, "neon-i8mm"),
            ]
        ],
    ],
)
@pytest.mark.parametrize(
    "block_type",
    [pytest.param(t, marks=() if t in REPRESENTATIVE else pytest.mark.slow) for t in packed_types()],
    ids=lambda t: t.name.lower(),
)
def test_kernels_lower_for_other_cpus(block_type: BlockType, target: Target, name: str) -> None:
    """Without calling a library for what the CPU lacks."""
    found = format_for(block_type, by_name(name))
    assert found is not None
    for kernel in found.kernels():
        text = assembly(kernel, target)
        tiles = {f"tile_{p}x{t}" for p in (1, 2) for t in range(1, 13)}
        assert calls(text) <= {"memcpy", "pack_panel"} | tiles | {f"stream_{t}" for t in range(1, 9)}


def test_the_portable_dot_product_is_recognized() -> None:
    """As pairs of 16-bit products: without that, it would take several times as many instructions."""
    found = format_for(BlockType.Q4_0, by_name("portable"))
    assert found is not None
    text = assembly(found.gemm, PLAIN)
    assert "pmaddwd" in text
    assert "pmuludq" not in text


def test_here() -> None:
    assert available()[-1].name == "portable"


@pytest.mark.parametrize(
    ("target", "name", "instruction"),
    [
        (AVX2, "avx2", "vpshufb"),
        (VNNI, "avx512-vnni", "vpshufb"),
        (DOT, "neon-dotprod", "tbl"),
        (Target(PLAIN.triple, "nehalem", ("+ssse3",)), "portable", "pshufb"),
    ],
)
def test_tables_are_looked_up_by_the_instruction_for_it(target: Target, name: str, instruction: str) -> None:
    found = format_for(BlockType.IQ4_NL, by_name(name))
    assert found is not None
    assert instruction in assembly(found.gemm, target)
