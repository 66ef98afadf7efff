"""Settings of libraries. MLX calls g++ to compile functions on the CPU, which takes seconds: only a test of that does.

One thread for NumPy's matrix products: those of tests are small, and threads that wait for each other in a spin take
five times as long where cores are shared.
"""

import os

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("MLX_DISABLE_COMPILE", "1")
