"""`edgert bench [MODEL]`: prefill, decode and first-token times of a model on this machine."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from edgert.cli import options


def bench(
    model: options.Model = None,
    prompt_tokens: Annotated[int, typer.Option("--prompt-tokens", "-p", min=2, help="Tokens of the prompt.")] = 512,
    decode_tokens: Annotated[int, typer.Option("--decode-tokens", "-d", min=2, help="Tokens to generate.")] = 128,
    repeat: Annotated[int, typer.Option(min=1, help="Runs; the medians are reported.")] = 3,
    backend: options.Backend = "auto",
    threads: options.Threads = None,
    context: options.Context = None,
    memory: options.Memory = None,
    kv_type: options.KvType = "auto",
    as_json: options.Json = False,
) -> None:
    """Measure prefill, decode and time to first token; medians of several runs after one that does not count."""
    import resource
    import statistics

    import numpy as np

    from edgert import SamplingParams
    from edgert.cli.console import out, print_json, size

    needed = context or prompt_tokens + decode_tokens
    with options.open_model(
        model, backend=backend, threads=threads, context=needed, memory=memory, kv_type=kv_type, quiet=as_json
    ) as llm:
        runs = []
        for run in range(repeat + 1):
            # Other tokens every time, so that no prefix is found in the cache.
            ids = np.random.default_rng(run).integers(0, llm.spec.vocabulary, prompt_tokens)
            params = SamplingParams(max_tokens=decode_tokens, temperature=0.0, ignore_eos=True)
            runs.append(llm.generate([int(token) for token in ids], params).timings)
        result: dict[str, Any] = {
            "model": llm.path.name,
            "backend": llm.report.backend,
            "instruction_set": llm.report.instruction_set,
            "threads": llm.report.threads,
            "prompt_tokens": prompt_tokens,
            "decode_tokens": decode_tokens,
            "prefill_tokens_per_second": statistics.median(t.prefill_tokens_per_second for t in runs[1:]),
            "decode_tokens_per_second": statistics.median(t.decode_tokens_per_second for t in runs[1:]),
            "time_to_first_token_seconds": statistics.median(t.time_to_first_token for t in runs[1:]),
            "load_seconds": llm.report.seconds,
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            * (1 if sys.platform == "darwin" else 1024),
            "weight_bytes_per_token": llm.weight_bytes_per_token,
        }
    if as_json:
        print_json(result)
        return
    for key, value in result.items():
        shown = size(value) if key.endswith("bytes") or "bytes_per" in key else value
        out.print(
            f"{key.replace('_', ' '):<28} {shown:.4g}"
            if isinstance(shown, float)
            else f"{key.replace('_', ' '):<28} {shown}"
        )
