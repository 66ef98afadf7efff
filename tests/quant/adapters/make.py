"""Makes the adapters beside this file: of PEFT, for golden checkpoints, with the logits that it computes.

Run with the dependency group `demo`: `python tests/quant/adapters/make.py`. Each folder gets adapter_config.json,
adapter_model.safetensors and logits.npz as in `tests/golden/make.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent
GOLDEN = HERE.parents[1] / "golden"
ADAPTERS: dict[str, dict[str, Any]] = {
    "llama": {
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj", "lm_head"],
        "alpha_pattern": {"v_proj": 20},
        "rank_pattern": {"o_proj": 2},
    },
    "qwen3moe": {"target_modules": ["q_proj", "v_proj"], "use_rslora": True},
}


def make(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(3)
    base = AutoModelForCausalLM.from_pretrained(GOLDEN / name, dtype=torch.float32, attn_implementation="eager")
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=12, init_lora_weights=False, **options))
    with torch.no_grad():
        for key, values in model.named_parameters():
            if "lora_" in key:
                scale = 0.4 if "lora_B" in key else 0.15
                values.copy_((torch.randn_like(values) * scale).bfloat16().float())
        tokens = np.load(GOLDEN / name / "logits.npz")["tokens"]
        logits = model.eval()(torch.tensor(tokens)).logits.numpy()
    folder = HERE / name
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink()
    weights = folder / "adapter_model.safetensors"
    save_file({key: value.to(torch.bfloat16).contiguous() for key, value in load_file(weights).items()}, weights)
    config = json.loads((folder / "adapter_config.json").read_text())
    own = {**config, "base_model_name_or_path": None, "target_modules": sorted(config["target_modules"])}
    (folder / "adapter_config.json").write_text(json.dumps(own, indent=1) + "\n")
    np.savez_compressed(folder / "logits.npz", tokens=tokens, logits=logits.astype(np.float32))


if __name__ == "__main__":
    for name, options in ADAPTERS.items():
        make(name, options)
