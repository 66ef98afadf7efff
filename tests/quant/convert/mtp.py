"""Golden checkpoints with a layer for multi-token prediction: of what they have, under the names of the families."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from tests.quant.convert.checkpoints import Tensors, load, save
from tests.support.golden import FOLDER

JOINING = {"eh_proj": (64, 128), "enorm": (64,), "hnorm": (64,)}
AFTER_THE_LAST = {name: f"model.layers.{{n}}.{name}" for name in JOINING}
IN_MTP = {"eh_proj": "mtp.fc", "enorm": "mtp.pre_fc_norm_embedding", "hnorm": "mtp.pre_fc_norm_hidden"}
LAST_NORM = {"model.layers.{n}.shared_head.norm": (64,)}
# Of each checkpoint: parts of which layers, where they are then, how what joins is called, and what else there is.
LAYERS: dict[str, tuple[dict[str, str], dict[str, str], dict[str, tuple[int, ...]]]] = {
    "glm4moe": ({r"model\.layers\.1\.": "model.layers.{n}."}, AFTER_THE_LAST, LAST_NORM),
    "deepseek-v3": ({r"model\.layers\.1\.": "model.layers.{n}."}, AFTER_THE_LAST, LAST_NORM),
    "cohere2moe": ({r"model\.layers\.1\.": "model.layers.{n}."}, AFTER_THE_LAST, LAST_NORM),
    "qwen3-next": ({r"model\.layers\.1\.": "mtp.layers.0."}, IN_MTP, {"mtp.norm": (64,)}),
    "qwen3.5": ({r"model\.layers\.1\.": "mtp.layers.0."}, IN_MTP, {"mtp.norm": (64,)}),
    "qwen3.5-moe": ({r"model\.layers\.1\.": "mtp.layers.0."}, IN_MTP, {"mtp.norm": (64,)}),
    "exaone-moe": ({r"model\.layers\.0\.": "mtp.layers.0."}, IN_MTP, {"mtp.norm": (64,)}),
    "mimo-v2": (
        {
            r"model\.layers\.1\.(?=self_attn|input)": "model.mtp.layers.0.",
            r"model\.layers\.0\.(?=mlp|post)": "model.mtp.layers.0.",
        },
        {name: f"model.mtp.layers.0.{name}" for name in JOINING},
        {"model.mtp.layers.0.final_layernorm": (64,)},
    ),
    "nemotron-h-moe": (
        {r"backbone\.layers\.1\.": "mtp.layers.0.", r"backbone\.layers\.2\.": "mtp.layers.1."},
        {name: f"mtp.layers.0.{name}" for name in JOINING},
        {"mtp.layers.1.final_layernorm": (64,)},
    ),
    "ernie4.5-moe": (
        {r"model\.layers\.0\.": "model.mtp_block.0."},
        {
            "eh_proj": "model.mtp_linear_proj.0",
            "enorm": "model.mtp_emb_norm.0",
            "hnorm": "model.mtp_hidden_norm.0",
        },
        {},
    ),
}


def with_layer(golden: str, folder: Path) -> Path:
    """The checkpoint with one such layer, which its config counts."""
    tensors, rng = load(FOLDER / golden), np.random.default_rng(0)
    config = json.loads((FOLDER / golden / "config.json").read_text())
    n = config.get("num_hidden_layers")
    moved, joining, others = LAYERS[golden]
    new: Tensors = {}
    for pattern, place in moved.items():
        parts = [name for name in tensors if re.match(pattern, name)]
        new |= {re.sub(pattern, place.format(n=n), name): tensors[name] for name in parts}
    shapes = {joining[name]: shape for name, shape in JOINING.items()} | others
    for name, shape in shapes.items():
        new[f"{name.format(n=n)}.weight"] = rng.standard_normal(shape, dtype=np.float32)
    counts = {"num_nextn_predict_layers": 1, "mtp_num_hidden_layers": 1}
    return save(folder, tensors | new, {**config, **counts})
