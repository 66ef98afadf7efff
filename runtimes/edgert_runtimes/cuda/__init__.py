"""NVIDIA GPUs: GGUF blocks as they lie in the file, kernels compiled by NVRTC."""
