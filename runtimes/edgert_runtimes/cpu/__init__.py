"""The CPU backend: a plan lowered to op records, run by persistent threads inside compiled kernels."""
