"""Classes of MoE models that are known and not supported, and why: for the error at a checkpoint, and docs/models.md.

The list is that of the causal language models with experts in the newest `transformers`; `python -m tests.golden.moe`
says what it lacks. What starts to work leaves it.
"""

from __future__ import annotations

from collections.abc import Mapping

_INDEXER = "attention to positions that an indexer chooses"
_CONVOLUTIONS = "short convolutions that are not wired yet"
_HYPER = "hyper-connections, which keep several values for each row"

NEEDS: Mapping[str, str] = {
    "AXK2ForCausalLM": f"{_INDEXER}, and norms with a gate",
    "BeamForCausalLM": "queries scaled by a power of the position, and sums that are scaled by depth",
    "DeepseekV32ForCausalLM": _INDEXER,
    "DeepseekV4ForCausalLM": f"compressed keys and values, {_INDEXER}, and {_HYPER}",
    "DogeForCausalLM": "experts that are single vectors, retrieved by product keys",
    "Dots3NoteForCausalLM": _INDEXER,
    "GlmMoeDsaForCausalLM": _INDEXER,
    "HYV4ForCausalLM": f"{_INDEXER}, and {_HYPER}",
    "Inkling2ForCausalLM": f"biases by relative position, clipped norms, and {_CONVOLUTIONS}",
    "Inkling2LoopForCausalLM": f"layers that run several times, clipped norms, and {_CONVOLUTIONS}",
    "InklingForCausalLM": f"biases by relative position, and {_CONVOLUTIONS}",
    "JetMoeForCausalLM": "experts of attention",
    "LongcatFlashForCausalLM": "two attentions a layer, and experts that do nothing",
    "MiniMaxForCausalLM": "lightning attention, whose state is no cache",
    "MiniMaxM3VLForCausalLM": _INDEXER,
    "Qwen4ExpForCausalLM": f"{_INDEXER}, and embeddings of n-grams",
    "ZayaForCausalLM": "keys and values that are convolved, and a router of its own kind",
}
"""What edgert does not do yet, by the name of the class."""
