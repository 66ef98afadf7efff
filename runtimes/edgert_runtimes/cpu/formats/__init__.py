"""Packed weight formats of the CPU runtime and their matmul kernels; `base` is the contract."""
