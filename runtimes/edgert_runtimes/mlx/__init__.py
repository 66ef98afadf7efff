"""The MLX backend: plans as MLX functions, on Apple GPUs and (for tests) on Linux CPUs."""
