"""Checkpoints of models with delta nets: heads in the order of GGUF."""

from pathlib import Path

import numpy as np
from edgert_models.sources import Groups
from edgert_quant.convert import convert
from edgert_quant.gguf import GgufFile

from tests.quant.convert.checkpoints import load
from tests.support.golden import FOLDER


def test_an_order_by_groups() -> None:
    assert Groups(2, (1, 2, 3), (2, 0), skip=1).order() == [0, 4, 5, 6, 10, 11, 12, 1, 7]
    assert Groups(2, (1, 2, 3), (2, 0), skip=1).total == 13


def test_heads_of_values_are_reordered(tmp_path: Path) -> None:
    """Two heads of keys with two of values each: the second and the third change places."""
    convert(FOLDER / "qwen3.5-moe", tmp_path / "model.gguf", type="f32")
    stored = load(FOLDER / "qwen3.5-moe")
    heads, layer = [0, 2, 1, 3], "model.layers.0.linear_attn"
    rows = [row for head in heads for row in range(16 * head, 16 * head + 16)]
    qkv = [*range(64), *(64 + row for row in rows)]
    wanted = {
        "attn_qkv.weight": stored[f"{layer}.in_proj_qkv.weight"][qkv],
        "attn_gate.weight": stored[f"{layer}.in_proj_z.weight"][rows],
        "ssm_beta.weight": stored[f"{layer}.in_proj_b.weight"][heads],
        "ssm_alpha.weight": stored[f"{layer}.in_proj_a.weight"][heads],
        "ssm_conv1d.weight": stored[f"{layer}.conv1d.weight"].reshape(128, 4)[qkv],
        "ssm_a": -np.exp(stored[f"{layer}.A_log"].reshape(-1)[heads]),
        "ssm_dt.bias": stored[f"{layer}.dt_bias"].reshape(-1)[heads],
        "ssm_out.weight": stored[f"{layer}.out_proj.weight"][:, rows],
        "ssm_norm.weight": stored[f"{layer}.norm.weight"],
        "attn_norm.weight": 1 + stored["model.layers.0.input_layernorm.weight"],
    }
    with GgufFile.open(tmp_path / "model.gguf") as file:
        for name, values in wanted.items():
            found = file.read(f"blk.0.{name}").view(np.float32)
            np.testing.assert_array_equal(found.reshape(values.shape), values, err_msg=name)
