"""The MLX backend beside mlx-lm, on the same weights, in turns; prints JSON.

    python -m benchmarks.mlx_lm FOLDER --mlx-lm-python PATH [--rounds 5] [--prompt 64] [--tokens 32]

A Qwen3-MoE checkpoint of random weights is written to the folder, which edgert converts to Q4_0, and mlx-lm to its own
4 bits when it loads it. In each round both read a prompt and generate greedily, one after the other. Ratios say how
many times faster edgert is, by round, and their median. `host` is what a step of decoding costs where nothing is
computed: for mlx-lm building its graph, for edgert that, checking the batch and taking the logits. `deep` is a model
with as many layers as Qwen3-30B-A3B, and tiny ones, so that little but their number counts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from edgert_quant.convert import convert
from edgert_runtimes.base import Batch, Session

from benchmarks import machine
from edgert import LLM, SamplingParams

SMALL = {
    "hidden_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 64,
}
SMALL |= {"num_experts": 32, "num_experts_per_tok": 4, "moe_intermediate_size": 512, "vocab_size": 8192}
DEEP = {"hidden_size": 64, "num_hidden_layers": 48, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
DEEP |= {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 64, "vocab_size": 512}


def write_checkpoint(folder: Path, sizes: dict[str, int]) -> None:
    """Random float32 weights that keep activations near 1, as Hugging Face names them."""
    config = {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "rms_norm_eps": 1e-6, **sizes}
    config |= {"rope_theta": 1e6, "max_position_embeddings": 4096, "norm_topk_prob": True, "decoder_sparse_step": 1}
    config |= {"mlp_only_layers": [], "tie_word_embeddings": False, "intermediate_size": 1024, "hidden_act": "silu"}
    width, size, hidden = sizes["hidden_size"], sizes["head_dim"], sizes["moe_intermediate_size"]
    heads, kv_heads = sizes["num_attention_heads"], sizes["num_key_value_heads"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (sizes["vocab_size"], width),
        "lm_head.weight": (sizes["vocab_size"], width),
        "model.norm.weight": (width,),
    }
    for layer in range(sizes["num_hidden_layers"]):
        own: dict[str, tuple[int, ...]] = {
            "input_layernorm": (width,),
            "post_attention_layernorm": (width,),
            "self_attn.q_proj": (heads * size, width),
            "self_attn.k_proj": (kv_heads * size, width),
            "self_attn.v_proj": (kv_heads * size, width),
            "self_attn.o_proj": (width, heads * size),
            "self_attn.q_norm": (size,),
            "self_attn.k_norm": (size,),
            "mlp.gate": (sizes["num_experts"], width),
        }
        for expert in range(sizes["num_experts"]):
            own |= {f"mlp.experts.{expert}.{part}_proj": (hidden, width) for part in ("gate", "up")}
            own[f"mlp.experts.{expert}.down_proj"] = (width, hidden)
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in own.items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    header: dict[str, Any] = {}
    offset = 0
    for name, shape in shapes.items():
        end = offset + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    rng = np.random.default_rng(0)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            values = (
                rng.standard_normal(shape, np.float32) * np.float32(shape[-1] ** -0.5)
                if len(shape) > 1
                else np.ones(shape, np.float32)
            )
            file.write(values.tobytes())


@contextmanager
def evaluations() -> Iterator[list[float]]:
    """Seconds that each call takes which asks MLX to compute something meanwhile, or waits for it."""
    import mlx.core as mx

    spent: list[float] = []
    originals = {name: getattr(mx, name) for name in ("eval", "async_eval")}

    def timed(name: str) -> Any:
        def run(*arguments: Any) -> None:
            begin = time.perf_counter()
            originals[name](*arguments)
            spent.append(time.perf_counter() - begin)

        return run

    for name in originals:
        setattr(mx, name, timed(name))
    try:
        yield spent
    finally:
        for name, function in originals.items():
            setattr(mx, name, function)


def host_seconds(session: Session, blocks: Sequence[int], tokens: int) -> float:
    """Of a step of decoding, the median: what is not computing."""
    found, token = [], 0
    with evaluations() as spent:
        for position in range(tokens):
            spent.clear()
            begin = time.perf_counter()
            length = position // session.limits.block_size + 1
            slot = blocks[length - 1] * session.limits.block_size + position % session.limits.block_size
            rows = [np.array([number], np.int32) for number in (token, position, 0, slot)]
            table = np.array([blocks[:length]], np.int32)
            batch = Batch(*rows, table, np.array([position + 1], np.int32), np.array([0], np.int32))
            token = int(session.step(batch)[0].argmax())
            found.append(time.perf_counter() - begin - sum(spent))
    return median(found)


def measure_ours(model: Path, prompt_tokens: int, tokens: int) -> dict[str, float]:
    """Seconds: of the prompt and its first token, of each token after it, and of a step on the host."""

    def params(count: int) -> SamplingParams:
        return SamplingParams(max_tokens=count, temperature=0, ignore_eos=True)

    with LLM(model, backend="mlx", kv_type="f32", context=2 * (prompt_tokens + tokens) + 8, sequences=1) as llm:
        llm.generate([0, 0], params(3))  # what has to be compiled is
        prompt = [1 + token % 500 for token in range(prompt_tokens)]
        found = llm.generate(prompt, params(tokens + 1)).timings
        host = llm.borrow(-(-tokens // 16), lambda session, room: host_seconds(session, room.blocks, tokens))
    return {"prefill": found.time_to_first_token, "decode": found.decode / tokens, "host": host}


def run(command: Sequence[str]) -> dict[str, float]:
    """What a program prints; what it says where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])  # mlx-lm says something before
    return found


def compare(name: str, sizes: dict[str, int], arguments: argparse.Namespace) -> dict[str, Any]:
    """One model, in turns."""
    checkpoint, model = arguments.folder / name, arguments.folder / f"{name}-q4_0.gguf"
    if not model.exists():
        write_checkpoint(checkpoint, sizes)
        convert(checkpoint, model, type="q4_0")
    lengths = ["--prompt", str(arguments.prompt), "--tokens", str(arguments.tokens)]
    own = [sys.executable, "-m", "benchmarks.mlx_lm", str(arguments.folder), "--one", str(model), *lengths]
    # -P: the folder of the script has a module of mlx-lm's name.
    peer = [
        arguments.mlx_lm_python,
        "-P",
        str(Path(__file__).with_name("mlx_lm_peer.py")),
        str(checkpoint),
        *lengths[1::2],
    ]
    rounds = [(run(own), run(peer)) for _ in range(arguments.rounds)]
    ratios = {key: [round(theirs[key] / ours[key], 3) for ours, theirs in rounds] for key in rounds[0][0]}
    return {
        "sizes": sizes,
        "edgert_seconds": [ours for ours, _ in rounds],
        "mlx_lm_seconds": [theirs for _, theirs in rounds],
        "ratios": ratios,
        "median_ratios": {key: median(values) for key, values in ratios.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mlx-lm-python", help="the Python that has mlx-lm")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--one", type=Path, help="measure edgert alone, on this file")
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(measure_ours(arguments.one, arguments.prompt, arguments.tokens)))
        return
    if arguments.mlx_lm_python is None:
        parser.error("--mlx-lm-python is needed")
    made = {"commit": machine.commit(), "machine": machine.machine()}
    lengths = {"prompt": arguments.prompt, "tokens": arguments.tokens}
    models = {name: compare(name, sizes, arguments) for name, sizes in (("small", SMALL), ("deep", DEEP))}
    print(json.dumps({**made, **lengths, **models}, indent=1))


if __name__ == "__main__":
    main()
