"""`edgert warmup`: compile every kernel of this machine now, instead of at the first use."""

from __future__ import annotations

import time

from edgert.cli import options


def warmup(backend: options.Backend = "auto", as_json: options.Json = False) -> None:
    """Compile the kernels for this machine and keep them; the first chat then starts at once."""
    from edgert_runtimes.registry import get_backend

    from edgert.cli.console import out, print_json
    from edgert.cli.progress import loading

    start = time.perf_counter()
    chosen = get_backend(backend)
    with loading(quiet=as_json) as progress:
        compiled = chosen.warmup(progress)
    seconds = time.perf_counter() - start
    if as_json:
        print_json({"backend": chosen.name, "compiled": compiled, "seconds": seconds})
    else:
        out.print(
            f"{chosen.name}: {compiled} kernels compiled in {seconds:.1f} s" if compiled else "nothing to compile"
        )
