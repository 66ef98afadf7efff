"""GET /metrics: Prometheus' text format.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate

from edgert import LLM
from edgert.engine.engine import Statistics
from edgert.engine.latency import Histogram
from edgert.server.counting import Served
from edgert.server.models.fleet import Fleet

Sample = tuple[Mapping[str, str], float]


_COUNTS = (
    ("edgert_requests_running", "gauge", "Requests that are computed", "running"),
    ("edgert_requests_waiting", "gauge", "Requests in the queue", "waiting"),
    ("edgert_requests_total", "counter", "Requests that have left the queue", "requests"),
    ("edgert_prompt_tokens_total", "counter", "Tokens of prompts", "prompt_tokens"),
    ("edgert_cached_tokens_total", "counter", "Prompt tokens found in the prefix cache", "cached_tokens"),
    ("edgert_disk_tokens_total", "counter", "Prompt tokens of these found on disk", "disk_tokens"),
    ("edgert_disk_writes_total", "counter", "Blocks and states of prefixes written to disk", "disk_writes"),
    ("edgert_disk_damaged_total", "counter", "Files of prefixes that were damaged, and deleted", "disk_damaged"),
    ("edgert_disk_bytes", "gauge", "Prefixes on disk, of all models", "disk_bytes"),
    ("edgert_generated_tokens_total", "counter", "Tokens generated", "generated_tokens"),
    ("edgert_guessed_tokens_total", "counter", "Tokens guessed by speculation", "guessed_tokens"),
    ("edgert_right_guesses_total", "counter", "Guesses that became tokens of answers", "right_guesses"),
    ("edgert_steps_total", "counter", "Steps of the model", "steps"),
    ("edgert_preemptions_total", "counter", "Requests put back for want of blocks", "preemptions"),
    ("edgert_engine_restarts_total", "counter", "Engines that failed and were started again", "restarts"),
)
"""Families with a sample for each model that is loaded: of what, and the field of its statistics."""
_TIMES = (
    ("edgert_queue_seconds", "Time in the queue", "queue"),
    ("edgert_time_to_first_token_seconds", "Time to the first token", "first_token"),
    ("edgert_time_between_tokens_seconds", "Time from token to token", "between_tokens"),
)


def exposition(fleet: Fleet, served: Served) -> str:
    """Everything there is to watch; what is a model's has its name as a label, and begins anew when it is loaded."""
    llms = fleet.loaded()
    now = {name: llm.statistics() for name, llm in llms.items()}
    states = fleet.states()
    responses = [
        ({"method": method, "route": route, "status": str(status)}, float(count))
        for (method, route, status), count in sorted(served.items())
    ]
    waiting = sum(model.waiters for model in states)
    parts = [
        _family("edgert_http_responses_total", "counter", "Responses, by route and status", responses),
        _family("edgert_model_waiters", "gauge", "Requests that wait for a model to load", [({}, float(waiting))]),
        _by_model("edgert_model_loads_total", "counter", "Loads", {model.entry.name: model.loads for model in states}),
        _by_model(
            "edgert_model_bytes", "gauge", "Weights, cache and workspace", {m.entry.name: m.bytes for m in states}
        ),
        *(
            _by_model(name, kind, told, {model: getattr(figures, field) for model, figures in now.items()})
            for name, kind, told, field in _COUNTS
        ),
        _blocks("edgert_kv_blocks", "Blocks of the KV cache", "", now),
        _blocks("edgert_kv_window_blocks", "Blocks of the KV cache of layers with a window", "window_", now),
        *(
            _histograms(name, told, {model: getattr(llm.latencies, field) for model, llm in llms.items()})
            for name, told, field in _TIMES
        ),
        _family("edgert_expert_tokens_total", "counter", "Tokens that each expert has had", _experts(llms)),
    ]
    return "".join(parts)


def _experts(llms: Mapping[str, LLM]) -> list[Sample]:
    """None of a model whose backend does not count them."""
    return [
        ({"model": model, "layer": str(layer), "expert": str(expert)}, float(count))
        for model, llm in llms.items()
        for layer, counts in (llm.expert_load() or {}).items()
        for expert, count in enumerate(counts.tolist())
    ]


def _blocks(name: str, told: str, pool: str, now: Mapping[str, Statistics]) -> str:
    samples: list[Sample] = []
    for model, figures in now.items():
        every, held, cached = (getattr(figures, f"{pool}blocks{state}") for state in ("", "_held", "_cached"))
        counts = {"held": held, "cached": cached, "free": every - held - cached}
        samples += [({"model": model, "state": state}, float(count)) for state, count in counts.items()]
    return _family(name, "gauge", f"{told}: held by requests, cached for later ones, free", samples)


def _by_model(name: str, kind: str, told: str, values: Mapping[str, float]) -> str:
    return _family(name, kind, told, [({"model": model}, float(value)) for model, value in values.items()])


def _family(name: str, kind: str, told: str, samples: Iterable[Sample]) -> str:
    lines = [f"# HELP {name} {told}", f"# TYPE {name} {kind}", *(_line(name, *sample) for sample in samples)]
    return "".join(f"{line}\n" for line in lines)


def _histograms(name: str, told: str, histograms: Mapping[str, Histogram]) -> str:
    """Buckets count what is at most their bound, so each has all before it too."""
    lines = [f"# HELP {name} {told}", f"# TYPE {name} histogram"]
    for model, histogram in histograms.items():
        totals = list(accumulate(list(histogram.counts)))
        bounds = [*(f"{bound:g}" for bound in histogram.bounds), "+Inf"]
        own = {"model": model}
        lines += [_line(f"{name}_bucket", {**own, "le": le}, total) for le, total in zip(bounds, totals, strict=True)]
        lines += [_line(f"{name}_sum", own, histogram.sum), _line(f"{name}_count", own, totals[-1])]
    return "".join(f"{line}\n" for line in lines)


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {value!r}" if inside else f"{name} {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
