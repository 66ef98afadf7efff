"""The reference backend: NumPy, slow, exact; the living definition of every op."""
