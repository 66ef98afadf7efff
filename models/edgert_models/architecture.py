"""What a model file declares, and the wiring that several of them share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from edgert_models.config import Config
from edgert_models.graph import Graph, Plan, Role
from edgert_models.llama_cpp import AS_OURS, LlamaCpp
from edgert_models.nextn import Nextn
from edgert_models.ops import Value
from edgert_models.rope import Rope, RopeLayout
from edgert_models.router import SOFTMAX, Router
from edgert_models.sources import (
    Arranged,
    Experts,
    HeadRows,
    RopeFactors,
    RotaryRows,
    Source,
    Stored,
    renamed,
)
from edgert_models.spec import ModelSpec

_LAYER = re.compile(r"blk\.(\d+)\.(.+)")


def as_it_is(spec: ModelSpec) -> ModelSpec:
    """Nothing is left unsaid."""
    return spec


@dataclass(frozen=True, kw_only=True)
class FileHabits:
    """What a family's GGUF files say otherwise than most. `rms_epsilon`: the epsilon of its layer norms under the name
    of that of RMS norms too, and there it is read; `both_epsilons`: the same, and either is enough. `says_routing`: how
    experts are scored and how many layers are dense, also where that is the usual; `says_step`: that layers with
    experts come every so many. `width_of_one`: the width of one shared expert instead of that of all. `window_heads`:
    the size of heads in layers with a window. `implies_windows`: which layers have a window only where it is not the
    usual. `score_scale`: the key of the factor on scores of attention.
    """

    rms_epsilon: bool = False
    both_epsilons: bool = False
    says_routing: bool = False
    says_step: bool = False
    width_of_one: bool = False
    window_heads: bool = False
    implies_windows: bool = False
    score_scale: str = "attention.scale"


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One family: its GGUF name, the Hugging Face classes that convert to it, and how to read, wire and find it.

    `config` makes a ModelSpec of a config.json, `settle` of what a GGUF file says one with what it leaves unsaid.
    `wire` builds the model. `names` maps GGUF names (after `blk.N.` inside a layer) to checkpoint names with {i} for
    the layer. The rest are the family's conventions: how its GGUF files and its checkpoints order rotated pairs, what
    holds where a file does not say (`router`; `window_period`: every so-manieth layer sees more than the window, 0
    for none, and the first of all with `window_later`; `activation`, which configs may call by one of `also_called`,
    too; `layer_norm` unless `rms_norm_wins` and the file has its epsilon; `scales_scores`: yarn scales scores of
    attention as well; `logits_divided`: by what GGUF calls logit_scale, which other families multiply with; `chunked`:
    windows do not slide; `unsaid`: other keys, without the architecture's name, and what is meant where they are not
    there), and the `quant_method` of checkpoints whose experts keep their form in every mix.
    `files` is what is peculiar in its GGUF files, `nextn` says where checkpoints have layers for multi-token
    prediction, `llama_cpp` what llama.cpp makes of the files. `left_out` are beginnings of names of tensors that
    checkpoints may have and models do without. `notes` are sentences for docs/models.md: what is honoured beside the
    usual, what is refused, and where stock llama.cpp answers differently.
    """

    name: str
    title: str
    hf_classes: tuple[str, ...]
    config: Callable[[Config], ModelSpec]
    wire: Callable[[Graph], Plan]
    names: Mapping[str, Source]
    rope_layout: RopeLayout
    checkpoint_layout: RopeLayout = RopeLayout.HALVES
    qk_norm: str | None = None
    router: Router = SOFTMAX
    yarn_truncate: bool = True
    window_period: int = 0
    window_later: bool = False
    quantized: tuple[str, ...] = ()
    activation: str = "silu"
    also_called: tuple[str, ...] = ()
    layer_norm: bool = False
    rms_norm_wins: bool = False
    logits_divided: bool = False
    scales_scores: bool = False
    chunked: bool = False
    unsaid: Mapping[str, int | float] = field(default_factory=dict)
    settle: Callable[[ModelSpec], ModelSpec] = as_it_is
    positions: bool = True
    files: FileHabits = FileHabits()
    nextn: Nextn | None = None
    llama_cpp: LlamaCpp = AS_OURS
    left_out: tuple[str, ...] = ()
    notes: str = ""

    def source(self, spec: ModelSpec, name: str) -> Source:
        """Where a checkpoint has the GGUF tensor `name`; KeyError if this architecture does not know it."""
        match = _LAYER.fullmatch(name)
        key, layer = (match[2], match[1]) if match else (name, "")
        if self.nextn and layer and int(layer) >= spec.layers:
            found = self.nextn.source(key, self.names, int(layer) - spec.layers)
        else:
            found = self.names[key]
        found = renamed(found, lambda names: tuple(each.replace("{i}", layer) for each in names))
        if isinstance(found, Arranged | HeadRows):
            return found.of(spec)
        moved = self.rope_layout is not self.checkpoint_layout and key.startswith(("attn_q.", "attn_k."))
        if moved and isinstance(found, Stored):
            heads = spec.heads if key.startswith("attn_q.") else spec.kv_heads
            return RotaryRows(found.names, heads, spec.rope.dims)
        return found

    def find(self, spec: ModelSpec, name: str) -> Source | None:
        """The same, or None."""
        try:
            return self.source(spec, name)
        except KeyError:
            return None


def stored(**names: str) -> dict[str, Source]:
    """A names table: keyword `attn_q` covers `attn_q.weight` and `attn_q.bias`, and so does its checkpoint module."""
    return {
        f"{ours}.{kind}": Stored((f"{theirs}.{kind}",)) for ours, theirs in names.items() for kind in ("weight", "bias")
    }


ROPE_NAMES: Mapping[str, Source] = {
    "rope_freqs.weight": RopeFactors(),
    "rope_factors_short.weight": RopeFactors("short_factor"),
    "rope_factors_long.weight": RopeFactors("long_factor"),
}

COMMON_NAMES: Mapping[str, Source] = {
    **stored(
        token_embd="model.embed_tokens",
        output_norm="model.norm",
        output="lm_head",
        attn_norm="model.layers.{i}.input_layernorm",
        attn_q="model.layers.{i}.self_attn.q_proj",
        attn_k="model.layers.{i}.self_attn.k_proj",
        attn_v="model.layers.{i}.self_attn.v_proj",
        attn_output="model.layers.{i}.self_attn.o_proj",
        attn_q_norm="model.layers.{i}.self_attn.q_norm",
        attn_k_norm="model.layers.{i}.self_attn.k_norm",
        ffn_norm="model.layers.{i}.post_attention_layernorm",
        ffn_gate="model.layers.{i}.mlp.gate_proj",
        ffn_up="model.layers.{i}.mlp.up_proj",
        ffn_down="model.layers.{i}.mlp.down_proj",
    ),
    **ROPE_NAMES,
}


POST_NORM_NAMES: Mapping[str, Source] = {
    **{name: source for name, source in COMMON_NAMES.items() if not name.startswith(("attn_norm.", "ffn_norm."))},
    **stored(
        post_attention_norm="model.layers.{i}.post_attention_layernorm",
        post_ffw_norm="model.layers.{i}.post_feedforward_layernorm",
    ),
}


def zero_centred(names: Mapping[str, Source]) -> dict[str, Source]:
    """The same for checkpoints whose norms are stored as what they differ by from one; in GGUF they are whole."""
    return {
        name: replace(source, plus=1.0) if isinstance(source, Stored) and name.endswith("norm.weight") else source
        for name, source in names.items()
    }


def with_inner(names: Mapping[str, Source]) -> dict[str, Source]:
    """The same for checkpoints whose text model is a part of another, as well."""

    def all_of(each: tuple[str, ...]) -> tuple[str, ...]:
        inner = [name.replace("model.", "model.language_model.", 1) for name in each]
        return tuple(dict.fromkeys((*each, *inner, *(f"language_model.{name}" for name in each))))

    return {name: renamed(source, all_of) for name, source in names.items()}


def expert_names(
    block: str,
    gate: str = "gate_proj",
    up: str = "up_proj",
    down: str = "down_proj",
    *,
    router: str = "gate",
    bias: str = "gate.e_score_correction_bias",
) -> dict[str, Source]:
    """Router, its selection bias and experts under the module `block` of a layer (and `mlp`, as fused checkpoints call
    it).
    """
    layer = "model.layers.{i}"
    modules = dict.fromkeys((block, "mlp"))

    def experts(own: str, fused: str, part: int, parts: int) -> Experts:
        each = tuple(f"{layer}.{module}.experts.{{e}}.{own}.weight" for module in modules)
        return Experts(each, tuple(f"{layer}.{module}.experts.{fused}" for module in modules), part, parts)

    return {
        "ffn_gate_inp.weight": Stored(tuple(f"{layer}.{module}.{router}.weight" for module in modules)),
        "exp_probs_b.bias": Stored(tuple(f"{layer}.{module}.{bias}" for module in modules)),
        "ffn_gate_exps.weight": experts(gate, "gate_up_proj", 0, 2),
        "ffn_up_exps.weight": experts(up, "gate_up_proj", 1, 2),
        "ffn_down_exps.weight": experts(down, "down_proj", 0, 1),
    }


def shared_expert_names(module: str = "mlp.shared_experts") -> dict[str, Source]:
    """Shared experts, which are one network in the `module` of a layer."""
    parts = ("gate", "up", "down")
    return stored(**{f"ffn_{part}_shexp": f"model.layers.{{i}}.{module}.{part}_proj" for part in parts})


def attention(
    g: Graph,
    x: Value,
    block: str,
    *,
    window: int | None,
    rope: Rope | None,
    rope_first: bool = False,
    sinks: str | None = None,
    gated: bool = False,
    gate_name: str | None = None,
    gate_kind: str = "sigmoid",
) -> Value:
    """Self-attention, with normalised queries and keys and with rope where the model has them, or `rope_first`. A gate
    lets through what each head gives: it follows the head's queries where `gated`, or is the product `gate_name`.
    """
    s = g.spec
    heads = s.window_heads or s.heads if window else s.heads
    kv_heads = s.window_kv_heads or s.kv_heads if window else s.kv_heads
    widths = (heads * s.head_size * (1 + gated), kv_heads * s.head_size, kv_heads * s.value_size)
    if s.fused_attention:
        q, k, v = parts_of(g, g.linear(x, f"{block}.attn_qkv", sum(widths), bias=s.attention_bias), widths)
    else:
        names = (f"{block}.attn_{part}" for part in "qkv")
        q, k, v = (g.linear(x, name, n, bias=s.attention_bias) for name, n in zip(names, widths, strict=True))
    gate = g.slice(q, s.head_size, s.head_size, groups=heads) if gated else None
    gate = g.linear(x, gate_name, heads * (1 if s.head_gates else s.head_size)) if gate_name else gate
    q = g.slice(q, 0, s.head_size, groups=heads) if gated else q
    if rope and rope_first:
        q, k = g.rope(q, heads, rope), g.rope(k, kv_heads, rope)
    if s.qk_norm:
        per_head = s.qk_norm == "head"
        q = g.rms_norm(q, f"{block}.attn_q_norm.weight", groups=heads if per_head else 1)
        k = g.rms_norm(k, f"{block}.attn_k_norm.weight", groups=kv_heads if per_head else 1)
    q, k, v = (g.clamp(x, s.scales.clamp) for x in (q, k, v))
    if rope and not rope_first:
        q, k = g.rope(q, heads, rope), g.rope(k, kv_heads, rope)
    y = g.attend(q, k, g.scale(v, s.scales.values), window=window, sinks=sinks)
    y = y if gate is None else g.gated(gate, y, gate_kind)
    return g.linear(y, f"{block}.attn_output", s.width, bias=s.output_bias)


def parts_of(g: Graph, x: Value, widths: Sequence[int]) -> Iterator[Value]:
    """The stretches that a value is made of, in order."""
    return (g.slice(x, sum(widths[:i]), width) for i, width in enumerate(widths))


def feed_forward(g: Graph, x: Value, layer: int) -> Value:
    """A dense gated feed-forward network, or a mixture of them where the layer has experts, and shared experts."""
    s, block = g.spec, f"blk.{layer}"
    if s.has_experts(layer):
        routed = g.moe(x, g.linear(x, f"{block}.ffn_gate_inp", s.experts, role=Role.ROUTER), block)
        return g.add(routed, shared_experts(g, x, block)) if s.shared_feed_forward else routed
    if s.fused_feed_forward:
        both = g.linear(x, f"{block}.ffn_up", 2 * s.feed_forward, bias=s.feed_forward_bias)
        gate, up = parts_of(g, both, (s.feed_forward, s.feed_forward))
    else:
        gate = g.linear(x, f"{block}.ffn_gate", s.feed_forward, bias=s.feed_forward_bias)
        up = g.linear(x, f"{block}.ffn_up", s.feed_forward, bias=s.feed_forward_bias)
    return g.linear(g.gated(gate, up, s.activation), f"{block}.ffn_down", s.width, bias=s.feed_forward_bias)


def shared_experts(g: Graph, x: Value, block: str) -> Value:
    """A feed-forward network that every row goes through; as much of it as a gate lets through, if there is one."""
    s = g.spec
    gate = g.linear(x, f"{block}.ffn_gate_shexp", s.shared_feed_forward)
    up = g.linear(x, f"{block}.ffn_up_shexp", s.shared_feed_forward)
    y = g.linear(g.gated(gate, up, s.activation), f"{block}.ffn_down_shexp", s.width)
    return g.gated(g.dot(x, f"{block}.ffn_gate_inp_shexp.weight"), y, "sigmoid") if s.shared_gate else y


RopeOf = Callable[[ModelSpec, int], Rope | None]
"""How positions rotate queries and keys in a layer; None: not at all."""


def embedded(g: Graph) -> Value:
    """Where a decoder begins: embeddings, scaled where the model does so."""
    return g.scale(g.embed(), g.spec.scales.embedding)


def norm(g: Graph, x: Value, name: str) -> Value:
    """The model's kind of norm: `name`.weight and, with biases, `name`.bias."""
    return g.layer_norm(x, name, bias=g.spec.norm_bias) if g.spec.layer_norm else g.rms_norm(x, f"{name}.weight")


def residual(g: Graph, x: Value, y: Value) -> Value:
    """x with y added, scaled where the model does so."""
    return g.add(x, g.scale(y, g.spec.scales.residual))


def pre_norm_decoder(
    g: Graph,
    rope_of: RopeOf = ModelSpec.rope_of,
    *,
    rope_first: bool = False,
    sinks: bool = False,
    ffn_norm: str = "ffn_norm",
    network: Callable[[Graph, Value, int], Value] | None = None,
) -> Plan:
    """The wiring most families share: norm, attention, add, norm, feed-forward, add; at the end norm and output."""
    s = g.spec
    x = embedded(g)
    for i in range(s.layers):
        block = f"blk.{i}"
        y = attention(
            g,
            norm(g, x, f"{block}.attn_norm"),
            block,
            window=s.window_of(i),
            rope=rope_of(s, i),
            rope_first=rope_first,
            sinks=f"{block}.attn_sinks.weight" if sinks else None,
        )
        x = residual(g, x, y)
        x = residual(g, x, (network or feed_forward)(g, norm(g, x, f"{block}.{ffn_norm}"), i))
    return predict(g, x)


Mixer = Callable[[Graph, Value, int], Value]
"""What a layer (by its number) makes of the normalised value, with what it remembers of earlier positions."""


def hybrid_decoder(g: Graph, mix: Mixer, *, ffn_norm: str = "ffn_norm", last_norm: str = "output_norm") -> Plan:
    """The wiring of `pre_norm_decoder` for layers that do not all attend."""
    s = g.spec
    x = embedded(g)
    for i in range(s.layers):
        block = f"blk.{i}"
        x = residual(g, x, mix(g, norm(g, x, f"{block}.attn_norm"), i))
        x = residual(g, x, feed_forward(g, norm(g, x, f"{block}.{ffn_norm}"), i))
    return predict(g, x, last_norm)


def sandwich_decoder(g: Graph, rope_of: RopeOf = ModelSpec.rope_of) -> Plan:
    """The wiring of families with norms before and after: norm, attention, norm, add, norm, feed-forward, norm, add."""
    s = g.spec
    x = embedded(g)
    for i in range(s.layers):
        block = f"blk.{i}"
        y = attention(g, norm(g, x, f"{block}.attn_norm"), block, window=s.window_of(i), rope=rope_of(s, i))
        x = residual(g, x, norm(g, y, f"{block}.post_attention_norm"))
        y = feed_forward(g, norm(g, x, f"{block}.ffn_norm"), i)
        x = residual(g, x, norm(g, y, f"{block}.post_ffw_norm"))
    return predict(g, x)


def parallel_decoder(
    g: Graph, rope_of: RopeOf = ModelSpec.rope_of, network: Callable[[Graph, Value, int], Value] = feed_forward
) -> Plan:
    """The wiring of families whose attention and feed-forward network read the same: norm, both of them, add, add."""
    s = g.spec
    x = embedded(g)
    for i in range(s.layers):
        block = f"blk.{i}"
        y = norm(g, x, f"{block}.attn_norm")
        x = residual(g, x, attention(g, y, block, window=s.window_of(i), rope=rope_of(s, i)))
        x = residual(g, x, network(g, y, i))
    return predict(g, x)


def post_norm_decoder(g: Graph, rope_of: RopeOf = ModelSpec.rope_of) -> Plan:
    """The wiring of families that normalise what a layer adds: attention, norm, add, feed-forward, norm, add."""
    s = g.spec
    x = embedded(g)
    for i in range(s.layers):
        block = f"blk.{i}"
        y = attention(g, x, block, window=s.window_of(i), rope=rope_of(s, i))
        x = residual(g, x, norm(g, y, f"{block}.post_attention_norm"))
        x = residual(g, x, norm(g, feed_forward(g, x, i), f"{block}.post_ffw_norm"))
    return predict(g, x)


def predict(g: Graph, x: Value, name: str = "output_norm") -> Plan:
    """The end of a decoder: the last norm, and logits, whose factor goes to the fewer elements before the product."""
    s = g.spec
    hidden = norm(g, g.pick_rows(x), name)
    y = g.scale(hidden, (s.scales.logits or 1.0) / (s.scales.logits_divisor or 1.0))
    logits = g.linear(y, "token_embd" if s.tied else "output", s.vocabulary, bias=s.logits_bias)
    return g.plan(hidden, g.soft_cap(logits, s.scales.logits_cap))
