"""Where a file of ours means something that llama.cpp's model code does not do, read from its `src/models/*.cpp`."""

from __future__ import annotations

import math
from dataclasses import replace

from edgert_models.registry import architecture_named
from edgert_models.spec import ModelSpec

_OWN_OUTPUT = (
    "bailingmoe",
    "bailingmoe2",
    "dots1",
    "dbrx",
    "exaone-moe",
    "falcon-h1",
    "gpt-oss",
    "mellum",
    "mimo2",
    "minimax-m2",
    "olmo2",
    "olmoe",
    "qwen2moe",
)
_SOME_WINDOWS = (
    "afmoe",
    "cohere2",
    "cohere2moe",
    "exaone-moe",
    "exaone4",
    "gemma2",
    "gemma3",
    "gemma4",
    "gpt-oss",
    "llama4",
    "mellum",
    "mimo2",
    "olmo2",
    "smallthinker",
)
"""Whose windows it reads."""
_DELTA_NETS = ("qwen35", "qwen35moe", "qwen3next")
_UNKNOWN = ("aria", "axk1", "flexolmo", "flint", "kolibri1")
_READS_SCALE = ("granite", "granitehybrid", "granitemoe")  # of scores
_ALL_SPARSE = ("bailingmoe", "mellum", "qwen2moe", "qwen35moe", "qwen3moe", "qwen3next")
_AS_WIDE = ("bailingmoe2", "cohere2", "deepseek", "exaone4", "olmo2", "qwen2moe")
"""Whose query heads together have to be as wide as the model."""
_ALWAYS_TIED = ("cohere2", "command-r", "gemma", "gemma2")
_NO_OUTPUT_BIAS = (
    "cohere2",
    "cohere2moe",
    "command-r",
    "deepseek",
    "dots1",
    "exaone4",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma4",
    "glm4",
    "hunyuan-dense",
    "hunyuan-moe",
    "lfm2",
    "lfm2moe",
    "llama4",
    "mellum",
    "olmo2",
    "olmoe",
    "qwen3",
    "qwen35",
    "qwen35moe",
    "qwen3moe",
    "qwen3next",
    "seed_oss",
    "smallthinker",
    "smollm3",
)
_LLAMA4_PERIOD = 4
_LLAMA4_CHUNK = 8192
_LLAMA4_UNNORMALISED = 128
_NO_FEED_FORWARD_BIAS = ("ernie4_5", "seed_oss", "smollm3")


def wants_own_output(spec: ModelSpec) -> bool:
    """Whether llama.cpp loads this model only with an output matrix beside the embedding that it is tied to."""
    return spec.tied and spec.architecture in _OWN_OUTPUT


def score_scale(spec: ModelSpec) -> float:
    """What scores of attention are multiplied with."""
    return spec.scales.attention or spec.head_size**-0.5


def _llama4_differences(spec: ModelSpec) -> list[str]:
    """What llama.cpp takes from the architecture alone."""
    found = []
    every = tuple((i + 1) % _LLAMA4_PERIOD != 0 for i in range(spec.layers))
    if spec.windowed and spec.windowed != every:
        found.append(f"llama.cpp takes every {_LLAMA4_PERIOD}th layer of llama4 as one without rope; here it is others")
    if spec.window and spec.window != _LLAMA4_CHUNK and spec.window < spec.context:
        found.append(
            f"llama.cpp takes chunks of llama4 as {_LLAMA4_CHUNK} positions; this model's are of {spec.window}"
        )
    length = min(spec.scales.queries_length or _LLAMA4_CHUNK, _LLAMA4_CHUNK)
    if (spec.scales.queries, spec.scales.queries_length) != (0.1, _LLAMA4_CHUNK) and spec.context >= length:
        found.append("llama.cpp scales queries of llama4 by 0.1 for every 8192 positions, whatever the model says")
    if (spec.qk_norm is None) != (spec.experts == _LLAMA4_UNNORMALISED):
        found.append(
            f"llama.cpp normalises queries and keys of llama4 unless there are {_LLAMA4_UNNORMALISED} experts, "
            "whatever the model says"
        )
    return found


def llama_cpp_differences(spec: ModelSpec) -> list[str]:
    """A sentence for each thing that llama.cpp would compute differently, or not load."""
    found = []
    if spec.architecture in ("lfm2moe", "mellum", "qwen3moe", "qwen3next") and not spec.router.normalize:
        found.append(
            "llama.cpp scales the weights of the chosen experts to sum to one in "
            f"{spec.architecture}; this model does not"
        )
    if spec.architecture in ("deepseek", "olmoe", "qwen2moe") and spec.router.normalize:
        found.append(
            "llama.cpp does not scale the weights of the chosen experts to sum to one in "
            f"{spec.architecture}; this model does"
        )
    if spec.architecture == "dbrx" and not spec.router.normalize:
        found.append("llama.cpp scales the weights of the chosen experts to sum to one in dbrx; this model does not")
    if spec.architecture == "olmoe" and spec.scales.clamp:
        found.append("llama.cpp does not clamp queries, keys and values in olmoe")
    if spec.architecture == "falcon-h1" and spec.output_bias:
        found.append("llama.cpp ignores the bias of the attention output in falcon-h1")
    if spec.architecture == "llama4":
        found += _llama4_differences(spec)
    if spec.experts and spec.router.limited and spec.router.group_best != 2:
        found.append("llama.cpp ranks groups of experts by the sum of their best two; this model by their best")
    theirs = replace(spec.rope, beta_fast=32.0, beta_slow=1.0, truncate=True)
    if spec.rope.frequencies() != theirs.frequencies():
        found.append(
            f"llama.cpp takes yarn's beta_fast as 32, beta_slow as 1 and truncate as true in {spec.architecture}, "
            "whatever the model says: it turns positions by other angles, and answers differently far into a text"
        )
    if spec.window and spec.window < spec.context and spec.architecture not in _SOME_WINDOWS:
        found.append(
            f"llama.cpp ignores the sliding window of {spec.window} positions in {spec.architecture}: "
            "it answers differently beyond them"
        )
    if spec.architecture == "smallthinker" and spec.window and spec.window != 4096 and spec.window < spec.context:
        found.append(f"llama.cpp takes windows of smallthinker as 4096 positions; this model's are of {spec.window}")
    if spec.architecture == "exaone4" and spec.window and spec.layers != 64:
        found.append(
            "llama.cpp knows windows of exaone4 only in models of 64 layers: in this one it sees and rotates everything"
        )
    unsaid = replace(spec, scales=replace(spec.scales, attention=None))
    theirs_scale, scale = score_scale(architecture_named(spec.architecture).settle(unsaid)), score_scale(spec)
    if spec.architecture not in _READS_SCALE and not math.isclose(theirs_scale, scale, rel_tol=1e-6):
        found.append(
            f"llama.cpp scales scores of attention by {theirs_scale:.4g} in {spec.architecture}, this model does by "
            f"{scale:.4g}"
        )
    if spec.architecture == "phimoe":
        found.append(
            "llama.cpp does not subtract the mean in norms of phimoe, and weighs experts otherwise than the model"
        )
    if spec.architecture == "mellum" and spec.window_rope and spec.window_rope.base != spec.rope.base:
        found.append("llama.cpp turns positions in layers with a window of mellum by the base of the others")
    reasons = []
    if spec.architecture in _ALWAYS_TIED and not spec.tied:
        reasons.append(f"it knows no output matrix in {spec.architecture}")
    if spec.architecture in _UNKNOWN:
        reasons.append(f"it does not know the architecture {spec.architecture}")
    if spec.feed_forward_bias and spec.architecture in _NO_FEED_FORWARD_BIAS:
        reasons.append(f"it knows no biases of the feed-forward network in {spec.architecture}")
    if wants_own_output(spec):
        reasons.append(f"it wants an output matrix in {spec.architecture}")
    if not all(spec.sparse) and spec.architecture in _ALL_SPARSE:
        reasons.append(f"it wants experts in every layer of {spec.architecture}")
    elif not all(spec.sparse[spec.leading_dense :]) and spec.architecture not in ("jamba", "llama4", "nemotron_h_moe"):
        reasons.append(f"it knows dense layers of {spec.architecture} only before the first with experts")
    if spec.architecture == "llama4" and spec.layers < _LLAMA4_PERIOD:
        reasons.append(f"it wants {_LLAMA4_PERIOD} layers or more in llama4")
    if spec.architecture == "dbrx" and spec.scales.clamp is None:
        reasons.append("it wants clamped queries, keys and values in dbrx")
    if spec.architecture == "bailingmoe2" and spec.attention_bias:
        reasons.append("it knows no biases in bailingmoe2")
    if spec.architecture == "dots1" and spec.kv_heads != spec.heads:
        reasons.append("it wants as many key as query heads in dots1")
    if spec.architecture == "exaone-moe" and not spec.window:
        reasons.append("it wants windows in exaone-moe")
    if spec.architecture == "olmoe" and (spec.kv_heads != spec.heads or spec.query_width != spec.width):
        reasons.append("it wants as many key as query heads in olmoe, together as wide as the model")
    if spec.architecture in _AS_WIDE and spec.query_width != spec.width:
        reasons.append(f"it wants query heads together as wide as the model in {spec.architecture}")
    if spec.output_bias and spec.architecture in _NO_OUTPUT_BIAS:
        reasons.append(f"it knows no bias of the attention output in {spec.architecture}")
    r = spec.recurrence
    if r and spec.architecture in _DELTA_NETS and r.inner != r.heads * r.state:
        reasons.append("it wants keys and values of one size in delta nets")
    if spec.architecture == "lfm2moe" and not spec.router.bias:
        reasons.append("it wants a bias of the router in lfm2moe")
    found += [f"llama.cpp will not load the file: {reason}" for reason in reasons]
    return found
