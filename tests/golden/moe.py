"""Prints what the installed `transformers` has and edgert neither supports nor refuses with a reason: causal language
models with experts. `python -m tests.golden.moe`, with the dependency group `demo`.
"""

from __future__ import annotations

import re
from pathlib import Path

import transformers
from edgert_models.refused import NEEDS
from edgert_models.registry import all_architectures
from transformers.models.auto.configuration_auto import model_type_to_module_name
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

EXPERTS = re.compile(r"class \w+(Experts|MoE|Moe|MoeBlock)\(")


def classes() -> set[str]:
    """Names of classes whose modules define experts."""
    found = set()
    for kind, names in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        folder = Path(transformers.__file__).parent / "models" / model_type_to_module_name(kind)
        if any(EXPERTS.search(path.read_text(encoding="utf-8")) for path in folder.glob("mod*.py")):
            found |= {names} if isinstance(names, str) else set(names)
    return found


if __name__ == "__main__":
    known = {name for architecture in all_architectures() for name in architecture.hf_classes}
    everything = classes()
    print(f"transformers {transformers.__version__}: {len(everything)} classes, {len(everything & known)} supported")
    for name in sorted(everything - known - set(NEEDS)):
        print(f"{name}: neither supported nor in edgert_models.refused")
