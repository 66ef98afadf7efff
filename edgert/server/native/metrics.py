"""GET /metrics: Prometheus' text format.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate

from edgert import LLM
from edgert.engine.latency import Histogram
from edgert.server.counting import Served

Sample = tuple[Mapping[str, str], float]


def exposition(llm: LLM, served: Served) -> str:
    """Everything there is to watch."""
    now, latencies = llm.statistics(), llm.latencies
    free = now.blocks - now.blocks_held - now.blocks_cached
    blocks = {"held": now.blocks_held, "cached": now.blocks_cached, "free": free}
    responses = [
        ({"method": method, "route": route, "status": str(status)}, float(count))
        for (method, route, status), count in sorted(served.items())
    ]
    parts = [
        _family("edgert_http_responses_total", "counter", "Responses, by route and status", responses),
        _one("edgert_requests_running", "gauge", "Requests that are computed", now.running),
        _one("edgert_requests_waiting", "gauge", "Requests in the queue", now.waiting),
        _one("edgert_requests_total", "counter", "Requests that have left the queue", now.requests),
        _one("edgert_prompt_tokens_total", "counter", "Tokens of prompts", now.prompt_tokens),
        _one("edgert_cached_tokens_total", "counter", "Prompt tokens found in the prefix cache", now.cached_tokens),
        _one("edgert_generated_tokens_total", "counter", "Tokens generated", now.generated_tokens),
        _one("edgert_steps_total", "counter", "Steps of the model", now.steps),
        _one("edgert_preemptions_total", "counter", "Requests put back for want of blocks", now.preemptions),
        _one("edgert_engine_restarts_total", "counter", "Engines that failed and were started again", now.restarts),
        _family(
            "edgert_kv_blocks",
            "gauge",
            "Blocks of the KV cache: held by requests, cached for later ones, free",
            [({"state": state}, float(count)) for state, count in blocks.items()],
        ),
        _family("edgert_expert_tokens_total", "counter", "Tokens that each expert has had", _experts(llm)),
        _histogram("edgert_queue_seconds", "Time in the queue", latencies.queue),
        _histogram("edgert_time_to_first_token_seconds", "Time to the first token", latencies.first_token),
        _histogram("edgert_time_between_tokens_seconds", "Time from token to token", latencies.between_tokens),
    ]
    return "".join(parts)


def _experts(llm: LLM) -> list[Sample]:
    """None where the backend does not count them."""
    load = llm.expert_load() or {}
    return [
        ({"layer": str(layer), "expert": str(expert)}, float(count))
        for layer, counts in load.items()
        for expert, count in enumerate(counts.tolist())
    ]


def _one(name: str, kind: str, told: str, value: float) -> str:
    return _family(name, kind, told, [({}, value)])


def _family(name: str, kind: str, told: str, samples: Iterable[Sample]) -> str:
    lines = [f"# HELP {name} {told}", f"# TYPE {name} {kind}", *(_line(name, *sample) for sample in samples)]
    return "".join(f"{line}\n" for line in lines)


def _histogram(name: str, told: str, histogram: Histogram) -> str:
    """Buckets count what is at most their bound, so each has all before it too."""
    totals = list(accumulate(list(histogram.counts)))
    bounds = [*(f"{bound:g}" for bound in histogram.bounds), "+Inf"]
    lines = [f"# HELP {name} {told}", f"# TYPE {name} histogram"]
    lines += [_line(f"{name}_bucket", {"le": bound}, total) for bound, total in zip(bounds, totals, strict=True)]
    lines += [_line(f"{name}_sum", {}, histogram.sum), _line(f"{name}_count", {}, totals[-1])]
    return "".join(f"{line}\n" for line in lines)


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {value!r}" if inside else f"{name} {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
