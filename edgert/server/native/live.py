"""GET /live: a glance at the machine, for views that ask again and show what has changed."""

from __future__ import annotations

import time
from dataclasses import asdict

from edgert import LLM
from edgert.engine.latency import Histogram
from edgert.server.errors import Json


def glance(llm: LLM) -> Json:
    """What runs now; and, counted since the model was loaded, what has been done, how long requests waited, and how
    many tokens each expert has had (`experts` is None where the backend does not count them). `seconds` is a clock of
    its own, to divide differences by.
    """
    latencies = llm.latencies
    load = llm.expert_load()
    return {
        "seconds": time.monotonic(),
        "model": llm.name,
        "backend": llm.report.backend,
        "threads": llm.report.threads,
        "context": llm.context,
        "slots": llm.limits.sequences,
        "block_size": llm.limits.block_size,
        **asdict(llm.statistics()),
        "queue_seconds": _sum(latencies.queue),
        "first_token_seconds": _sum(latencies.first_token),
        "between_tokens_seconds": _sum(latencies.between_tokens),
        "answering": [asdict(request) for request in llm.running()],
        "experts": None
        if load is None
        else [{"layer": layer, "tokens": counts.tolist()} for layer, counts in load.items()],
    }


def _sum(histogram: Histogram) -> Json:
    return {"sum": histogram.sum, "count": sum(histogram.counts)}
