"""Whether limits make sense, for every backend that takes memory by them."""

from __future__ import annotations

from edgert_models.errors import RequestError

from edgert_runtimes.base import Limits


def check_limits(limits: Limits) -> None:
    """RequestError names what is out of range."""
    for name in ("context", "rows", "sequences", "blocks", "block_size"):
        if getattr(limits, name) < 1:
            raise RequestError(f"{name} is {getattr(limits, name)}; at least 1 is needed", parameter=name)
    for name in ("states", "window_blocks"):
        if getattr(limits, name) < 0:
            raise RequestError(f"{name} is {getattr(limits, name)}; at least 0 is needed", parameter=name)
    if limits.threads is not None and not 1 <= limits.threads <= 1024:
        raise RequestError(f"threads is {limits.threads}; 1 to 1024 can be used", parameter="threads")
