"""CUDA C++ sources (`*.cuh`, package data) and the catalogue of the kernels made of them."""
