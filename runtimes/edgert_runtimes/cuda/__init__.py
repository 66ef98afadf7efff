"""The CUDA backend: GGUF blocks as they are in the file, on NVIDIA GPUs, from pip wheels alone."""
