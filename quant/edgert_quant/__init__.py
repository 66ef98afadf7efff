"""What the bytes are: GGUF, safetensors, block types, quantizers, recipes and the converter."""
