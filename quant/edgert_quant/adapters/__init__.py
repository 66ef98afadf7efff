"""LoRA adapters as bytes: GGUF files of llama.cpp's `convert_lora_to_gguf`, and folders of PEFT."""

from edgert_quant.adapters.adapter import Adapter, Pair, read_adapter

__all__ = ["Adapter", "Pair", "read_adapter"]
