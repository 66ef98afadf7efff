"""mlx-lm's part of `benchmarks.mlx_lm`, for the Python that has it: one JSON object with seconds.

    python mlx_lm_peer.py CHECKPOINT PROMPT_TOKENS TOKENS

The checkpoint is quantized by mlx-lm as its converter does by default: 4 bits, groups of 64.
"""

import json
import sys
import time
from pathlib import Path

import mlx.core as mx
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model, quantize_model


def main(checkpoint: str, prompt_tokens: int, tokens: int) -> None:
    model, config = load_model(Path(checkpoint))
    model, _ = quantize_model(model, config, group_size=64, bits=4)
    mx.eval(model.parameters())
    prompt = mx.arange(prompt_tokens) % config["vocab_size"]
    list(generate_step(prompt[:2], model, max_tokens=2))  # what has to be compiled is

    start = time.perf_counter()
    times = []
    for _ in generate_step(prompt, model, max_tokens=tokens + 1):
        times.append(time.perf_counter())

    cache, built = make_prompt_cache(model), []
    token = prompt[:1]
    for _ in range(tokens):
        begin = time.perf_counter()
        token = model(token[None], cache=cache)[:, -1, :].argmax(axis=-1)
        built.append(time.perf_counter() - begin)
        mx.eval(token)
    print(
        json.dumps(
            {"prefill": times[0] - start, "decode": (times[-1] - times[0]) / tokens, "host": sorted(built)[tokens // 2]}
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
