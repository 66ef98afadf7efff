"""What MLX and Metal's compiler are given."""

# ruff: noqa: E402

import re
from pathlib import Path

import pytest

mx = pytest.importorskip("mlx.core", reason="the mlx package is not installed")

from edgert_quant.blocks import BlockType
from edgert_runtimes.mlx.metal import RAW_TYPES, launches
from edgert_runtimes.mlx.metal.launches import Launch
from edgert_runtimes.mlx.metal.sources import INPUTS, kernel

from tests.support.metal import ATTRIBUTES

pytestmark = pytest.mark.mlx
POINTER = re.compile(r"\b(uchar|ushort|float|T)\s*\*")


@pytest.mark.parametrize("body", INPUTS)
def test_text_is_ascii_and_every_pointer_has_an_address_space(body: str) -> None:
    for kind in RAW_TYPES:
        text = kernel(body, kind).header + kernel(body, kind).source
        assert text.isascii()
        code = re.sub(r"//.*", "", text)
        for match in POINTER.finditer(code):
            assert re.search(r"\b(device|thread)\s+(const\s+)?$|\bconst\s+(device|thread)\s+$", code[: match.start()])


@pytest.mark.parametrize(
    ("launch", "inputs"),
    [
        (launches.few_rows(BlockType.Q6_K, 3, 37), [(3, 256), (37, 210)]),
        (launches.pairs(BlockType.Q6_K, 2, 5, 37), [(2, 256), (5, 37, 210), (2,)]),
        (launches.pairs(BlockType.Q6_K, 20, 5, 37), [(20, 256), (5, 37, 210), (20,)]),
        (launches.rows(BlockType.Q6_K, 2, 256), [(37, 210), (2,)]),
    ],
    ids=lambda value: value.kernel.name if isinstance(value, Launch) else "",
)
def test_mlx_makes_of_a_body_the_function_that_the_shim_runs(
    launch: Launch, inputs: list[tuple[int, ...]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The parameters, in their order: arrays with the shapes that the body names, y, and the attributes that it names.
    MLX writes the function wherever it is; only to run it takes Metal.
    """
    made = mx.fast.metal_kernel(
        name=launch.kernel.name,
        input_names=list(launch.kernel.inputs),
        output_names=["y"],
        source=launch.kernel.source,
        header=launch.kernel.header,
    )

    def call(*arrays: mx.array) -> mx.array:
        return made(
            inputs=list(arrays),
            template=[("T", mx.float16), *launch.template],
            grid=launch.grid,
            threadgroup=launch.group,
            output_shapes=[launch.shape],
            output_dtypes=[mx.float16],
            verbose=True,
        )[0]

    types = {"x": mx.float16, "blocks": mx.uint8, "ids": mx.uint32}
    arrays = [mx.zeros(shape, types[name]) for name, shape in zip(launch.kernel.inputs, inputs, strict=True)]
    mx.export_function(str(tmp_path / "kernel.mlxfn"), call, *arrays)
    text = capfd.readouterr().out
    (parameters,) = re.findall(r"\[\[kernel\]\] void \w+\((.*?)\) \{", text, re.DOTALL)
    names = re.findall(r"(\w+) \[\[", parameters)
    source = launch.kernel.source
    shaped = [(name, f"{name}_shape") if f"{name}_shape" in source else (name,) for name in launch.kernel.inputs]
    attributes = [name for name in ATTRIBUTES if name in source]
    assert names[: -len(attributes)] == [*(name for pair in shaped for name in pair), "y"]
    assert sorted(names[-len(attributes) :]) == sorted(attributes)
    assert launch.kernel.header in text
    assert source in text
