"""The MLX backend: Apple silicon, and the CPU of any machine that MLX runs on."""
