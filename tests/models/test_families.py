"""What the plans of single families have that others have not."""

import math
import re
from dataclasses import replace
from typing import Any

import pytest
from edgert_models.graph import Role
from edgert_models.ops import (
    Attend,
    Clamp,
    DeltaRule,
    GatedActivation,
    LayerNorm,
    Linear,
    Moe,
    PositionScale,
    RmsNorm,
    Rope,
    Scale,
    Scan,
    Slice,
    SoftCap,
)
from edgert_models.registry import (
    architecture_of_config,
    build_plan,
    metadata_from_spec,
    spec_from_config,
    spec_from_gguf,
)
from edgert_models.rope import RopeLayout
from edgert_models.router import BIASED_SIGMOID
from edgert_models.sources import Arranged, Scaled

from tests.models.configs import CONFIGS, Entries


def test_plan_of_a_dense_model() -> None:
    plan = build_plan(spec_from_config(CONFIGS["llama"]))
    assert plan.weights["blk.1.attn_k.weight"].shape == (32, 64)
    assert "output.weight" not in plan.weights
    assert plan.logits.width == 96
    assert plan.hidden.picked
    assert plan.logits.picked
    assert [(cache.key_width, cache.value_width) for cache in plan.caches] == [(32, 32)] * 2
    assert all(op.out.id == i for i, op in enumerate(plan.ops))


def test_windows_and_sinks_of_gpt_oss() -> None:
    plan = build_plan(spec_from_config({**CONFIGS["gpt-oss"], "num_hidden_layers": 3, "layer_types": None}))
    assert [op.window for op in plan.ops if isinstance(op, Attend)] == [16, None, 16]
    assert [cache.window for cache in plan.caches] == [16, None, 16]
    assert plan.weights["blk.2.attn_sinks.weight"].shape == (4,)
    assert plan.weights["blk.1.ffn_up_exps.bias"].shape == (4, 96)
    assert plan.weights["blk.1.ffn_down_exps.bias"].shape == (4, 64)
    assert {plan.weights[f"blk.0.{name}.bias"].role for name in ("attn_k", "ffn_gate_inp", "ffn_gate_exps")} == {
        Role.VECTOR
    }


@pytest.mark.parametrize(
    ("name", "change", "windowed"),
    [
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 1}, [False, True]),
        ("qwen2", {"use_sliding_window": False}, [False, False]),
        ("qwen3", {"use_sliding_window": True, "layer_types": ["sliding_attention", "full_attention"]}, [True, False]),
        ("qwen2moe", {"use_sliding_window": True}, [True, False]),
        ("qwen3moe", {"use_sliding_window": True}, [True, True]),
        ("dots1", {"max_window_layers": 1}, [False, True]),
        ("llama", {}, [False, False]),
        ("llama", {"architectures": ["MistralForCausalLM"]}, [True, True]),
        ("gpt-oss", {"layer_types": ["full_attention", "sliding_attention"]}, [False, True]),
        ("gpt-oss", {"layer_types": ["full_attention"] * 2}, [False, False]),
        ("exaone4-windows", {"layer_types": ["full_attention"] * 2}, [False, False]),
    ],
)
def test_layers_that_configs_give_a_window(name: str, change: dict[str, Any], windowed: list[bool]) -> None:
    """And files say it again."""
    spec = spec_from_config(CONFIGS[name] | {"num_hidden_layers": 2, "sliding_window": 5} | change)
    assert [spec.window_of(i) for i in range(2)] == [5 if each else None for each in windowed]
    shapes = {name: weight.shape for name, weight in build_plan(spec).weights.items()}
    again = spec_from_gguf(Entries({"general.architecture": spec.architecture, **metadata_from_spec(spec)}), shapes)
    assert [again.window_of(i) for i in range(2)] == [spec.window_of(i) for i in range(2)]


def test_a_window_that_no_layer_has_takes_positions() -> None:
    change = {"layer_types": ["full_attention"] * 2, "num_hidden_layers": 2}
    plan = build_plan(spec_from_config(CONFIGS["exaone4-windows"] | change))
    assert not any(isinstance(op, Rope) for op in plan.ops)


def test_layers_of_smollm3_without_rope() -> None:
    """Those have the window, where there is one."""
    change = {"no_rope_layers": [0, 1, 1, 0, 1], "use_sliding_window": True, "sliding_window": 5}
    spec = spec_from_config(CONFIGS["smollm3"] | {"num_hidden_layers": 5} | change)
    assert spec.rotated == (False, True, True, False, True)
    assert [spec.window_of(i) for i in range(5)] == [5, None, None, 5, None]
    assert sum(isinstance(op, Rope) for op in build_plan(spec).ops) == 2 * 3  # queries and keys


def test_windows_and_ropes_of_olmo3() -> None:
    plan = build_plan(spec_from_config(CONFIGS["olmo3"]))
    assert [op.window for op in plan.ops if isinstance(op, Attend)] == [16, 16, 16, None, 16]
    assert "blk.0.attn_norm.weight" not in plan.weights
    assert plan.weights["blk.4.post_ffw_norm.weight"].shape == (64,)
    spec = spec_from_config(CONFIGS["olmo3-yarn"])
    scaled, _, plain, _ = (op for op in build_plan(spec).ops if isinstance(op, Rope))
    assert (scaled.frequencies, scaled.magnitude) == (spec.rope.frequencies(), spec.rope.magnitude())
    assert (plain.frequencies[1], plain.magnitude) == (pytest.approx(5e5 ** (-2 / 16)), 1.0)
    assert scaled.magnitude == pytest.approx(1 + 0.1 * math.log(4))


def test_layers_with_windows_in_a_file_that_does_not_say() -> None:
    spec = spec_from_config(CONFIGS["olmo3"])
    shapes = {weight.name: weight.shape for weight in build_plan(spec).weights.values()}
    entries = Entries({"general.architecture": "olmo2", **metadata_from_spec(spec)})
    assert entries.pop("olmo2.attention.sliding_window_pattern") == [True, True, True, False, True]
    assert spec_from_gguf(entries, shapes).windowed == spec.windowed


def test_windows_of_ministral() -> None:
    plan = build_plan(spec_from_config(CONFIGS["ministral"]))
    assert [cache.window for cache in plan.caches] == [None, 32]


@pytest.mark.parametrize(
    ("name", "rotated"),
    [
        ("smollm3", [True, True, True, False]),
        ("exaone4", [True, True]),
        ("exaone4-windows", [True, True, True, False]),
        ("flint", [False, False, True, True, False]),
        ("afmoe", [True, True, True, False]),
        ("smallthinker", [False, True, True, True, False]),
        ("kolibri", [True, False]),
        ("cohere2moe", [True, True, True, True, False, True]),
        ("cohere2", [True, True, True, False]),
        ("olmo3-yarn", [True, True]),
        ("llama4", [True, True, True, False, True]),
        ("lara-mini", [True, False, True]),
    ],
)
def test_layers_without_positions(name: str, rotated: list[bool]) -> None:
    plan = build_plan(spec_from_config(CONFIGS[name]))
    assert [isinstance(plan.ops[op.q.id], Rope) for op in plan.ops if isinstance(op, Attend)] == rotated


def test_hunyuan_rotates_before_it_normalises() -> None:
    plan = build_plan(spec_from_config(CONFIGS["hunyuan-dense"]))
    ropes = [op for op in plan.ops if isinstance(op, Rope)]
    normalised = [op.x for op in plan.ops if isinstance(op, RmsNorm) and op.groups > 1]
    assert normalised == [op.out for op in ropes]
    assert ropes[0].frequencies[1] == pytest.approx((10000 * 1000 ** (16 / 14)) ** (-2 / 16))


def test_biases_by_the_names_of_each_config() -> None:
    def biases(name: str) -> set[str]:
        weights = build_plan(spec_from_config(CONFIGS[name])).weights
        return {key.removeprefix("blk.0.").removesuffix(".bias") for key in weights if re.match(r"blk\.0\..*bias", key)}

    attention = {"attn_q", "attn_k", "attn_v"}
    feed_forward = {"ffn_gate", "ffn_up", "ffn_down"}
    assert biases("seed-oss") == {*attention, "attn_output"}
    assert biases("ernie4.5") == {*attention, "attn_output", *feed_forward}
    assert biases("smollm3") == feed_forward


def test_yarn_between_pairs_that_are_no_whole_numbers() -> None:
    """The formula of the paper, without rounding: pair i turns by f/s (i - low)/(high - low) + f (high - i)/(...)."""
    spec = spec_from_config(CONFIGS["gpt-oss"])
    high = 32 * math.log(16 / (2 * math.pi)) / (2 * math.log(10000))
    ramps = [min(i / high, 1) for i in range(16)]
    assert 1 < high < 2
    plain = [10000 ** (-2 * i / 32) for i in range(16)]
    assert spec.rope.frequencies() == pytest.approx(
        [f * (1 - r) + f / 8 * r for f, r in zip(plain, ramps, strict=True)]
    )


def test_shared_expert_of_qwen2moe() -> None:
    spec = spec_from_config(CONFIGS["qwen2moe"])
    plan = build_plan(spec)
    shapes = {name: weight.shape for name, weight in plan.weights.items()}
    assert shapes["blk.1.ffn_up_shexp.weight"] == (48, 64)
    assert shapes["blk.1.ffn_down_shexp.weight"] == (64, 48)
    assert shapes["blk.1.ffn_gate_inp_shexp.weight"] == (64,)
    assert plan.weights["blk.1.ffn_gate_inp_shexp.weight"].role is Role.VECTOR
    gates = [op for op in plan.ops if isinstance(op, GatedActivation) and op.kind == "sigmoid"]
    assert [(op.gate.width, op.up.width, op.out.width) for op in gates] == [(1, 64, 64)] * 2
    assert shapes["blk.0.attn_k.bias"] == (32,)
    assert "blk.0.attn_output.bias" not in shapes
    assert not spec.router.normalize
    entries = metadata_from_spec(spec)
    assert entries["qwen2moe.expert_shared_feed_forward_length"] == 48
    assert entries["qwen2moe.feed_forward_length"] == 96
    del entries["qwen2moe.expert_shared_feed_forward_length"]  # what early files lack
    again = spec_from_gguf(Entries({"general.architecture": "qwen2moe", **entries}), shapes)
    assert again.shared_feed_forward == 48


def test_gemma_2_has_caps_and_windows_in_turns() -> None:
    spec = spec_from_config(CONFIGS["gemma2"])
    plan = build_plan(spec)
    attends = [op for op in plan.ops if isinstance(op, Attend)]
    assert [(op.window, op.scale, op.softcap) for op in attends] == [(w, 1 / 12, 50.0) for w in (16, None, 16)]
    assert [op.factor for op in plan.ops if isinstance(op, Scale)] == [8.0]
    assert {op.kind for op in plan.ops if isinstance(op, GatedActivation)} == {"gelu"}
    assert plan.ops[-1] == SoftCap(out=plan.logits, x=plan.values[-2], cap=30.0)
    assert spec.tied


@pytest.mark.parametrize(("name", "layers"), [("gemma2", 46), ("gemma3", 62)])
def test_scores_of_the_largest_gemmas_in_a_file_that_does_not_say(name: str, layers: int) -> None:
    spec = replace(spec_from_config(CONFIGS[name]), layers=layers, heads=8, windowed=())
    entries = Entries({"general.architecture": name, **metadata_from_spec(spec)})
    del entries[f"{name}.attention.scale"]
    shapes = {"token_embd.weight": (96, 64)}
    assert spec_from_gguf(entries, shapes).scales.attention == 8**-0.5
    assert spec_from_gguf(Entries({**entries, f"{name}.block_count": 26}), shapes).scales.attention is None


def test_gemma_3_has_another_rope_within_windows() -> None:
    ropes = [op for op in build_plan(spec_from_config(CONFIGS["gemma3"])).ops if isinstance(op, Rope)][::2]
    within, full = 1e4 ** (-2 / 16), 1e6 ** (-2 / 16) / 8
    assert [op.frequencies[1] for op in ropes] == pytest.approx([*[within] * 5, full, within])


def test_gemma_4_has_other_heads_within_windows() -> None:
    plan = build_plan(spec_from_config(CONFIGS["gemma4"]))
    heads = [(op.kv_heads, op.head_size, op.window) for op in plan.ops if isinstance(op, Attend)]
    assert heads == [*[(2, 16, 16)] * 5, (1, 32, None), (2, 16, 16)]
    assert [(cache.key_width, cache.value_width) for cache in plan.caches[4:6]] == [(32, 32), (32, 32)]
    assert {name for name in plan.weights if "attn_v" in name} == {f"blk.{i}.attn_v.weight" for i in (0, 1, 2, 3, 4, 6)}
    assert plan.weights["blk.5.attn_k.weight"].shape == (32, 64)
    ropes = [op for op in plan.ops if isinstance(op, Rope)]
    assert [op.factors for op in ropes[8:12]] == [None, None, "rope_freqs.weight", "rope_freqs.weight"]
    assert [op.expert_scale for op in plan.ops if isinstance(op, Moe)][6] == "blk.6.ffn_down_exps.scale"


def test_the_smallest_gemmas_4_share_keys_and_embed_tokens_for_each_layer() -> None:
    kinds = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention", "full_attention"]
    own = {"layer_types": kinds, "num_hidden_layers": 5, "num_kv_shared_layers": 2, "use_double_wide_mlp": True}
    layers = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": CONFIGS["gemma4"]["vocab_size"]}
    spec = spec_from_config({**CONFIGS["gemma4"], **own, **layers, "enable_moe_block": False})
    plan = build_plan(spec)
    attends = [op for op in plan.ops if isinstance(op, Attend)]
    assert [op.layer for op in attends] == [0, 1, 2, 1, 2]
    assert [cache.window for cache in plan.caches] == [16, 16, None]
    assert (attends[3].k, attends[4].v) == (attends[1].k, attends[2].v)
    assert not {name for name in plan.weights if name.startswith(("blk.3.attn_k", "blk.4.attn_v"))}
    wide = [plan.weights[f"blk.{i}.ffn_up.weight"].shape[0] // spec.feed_forward for i in range(5)]
    assert wide == [1, 1, 1, 2, 2]
    assert plan.weights["per_layer_token_embd.weight"].shape == (spec.vocabulary, 40)
    entries = Entries({"general.architecture": "gemma4", **metadata_from_spec(spec)})
    assert entries["gemma4.feed_forward_length"] == [n * spec.feed_forward for n in wide]
    again = spec_from_gguf(entries, {weight.name: weight.shape for weight in plan.weights.values()})
    assert build_plan(again).ops == plan.ops


def test_norms_and_biases_of_phimoe() -> None:
    spec = spec_from_config(CONFIGS["phimoe"])
    plan = build_plan(spec)
    assert {op.bias for op in plan.ops if isinstance(op, LayerNorm)} >= {"blk.0.ffn_norm.bias", "output_norm.bias"}
    assert {"output.bias", "blk.1.attn_output.bias"} <= set(plan.weights)
    assert (spec.router.scoring, spec.router.band, spec.rope.magnitude()) == ("sparsemixer", 0.02, 1.24)
    entries = metadata_from_spec(spec)
    assert entries["phimoe.attention.layer_norm_rms_epsilon"] == 1e-6  # under which name llama.cpp wants it
    assert "phimoe.expert_gating_func" not in entries


def test_products_of_phi3_are_fused() -> None:
    spec = spec_from_config(CONFIGS["phi3"])
    plan = build_plan(spec)
    shapes = {name: weight.shape for name, weight in plan.weights.items()}
    assert shapes["blk.1.attn_qkv.weight"] == (64 + 32 + 32, 64)
    assert shapes["blk.1.ffn_up.weight"] == (2 * 96, 64)
    assert "blk.1.ffn_gate.weight" not in shapes
    slices = [(op.start, op.out.width) for op in plan.ops if isinstance(op, Slice)]
    assert slices[:5] == [(0, 64), (64, 32), (96, 32), (0, 96), (96, 96)]


def test_longrope_goes_by_the_context() -> None:
    spec = spec_from_config(CONFIGS["phi3"])
    assert (spec.context, spec.usual_context) == (128, 32)
    for context, kind in ((0, "short"), (32, "short"), (33, "long")):
        plan = build_plan(spec, context)
        assert {op.factors for op in plan.ops if isinstance(op, Rope)} == {f"rope_factors_{kind}.weight"}
        assert {"rope_factors_short.weight", "rope_factors_long.weight"} <= set(plan.weights)
    assert spec.rope.magnitude() == pytest.approx(math.sqrt(1 + math.log(4) / math.log(32)))
    entries = metadata_from_spec(spec)
    del entries["phi3.rope.scaling.type"]  # as llama.cpp's converter has it
    shapes = {name: weight.shape for name, weight in build_plan(spec).weights.items()}
    again = spec_from_gguf(Entries({"general.architecture": "phi3", **entries}), shapes)
    assert again.rope == spec.rope
    early = {**CONFIGS["phi3"], "rope_scaling": {**CONFIGS["phi3"]["rope_scaling"], "type": "yarn"}}
    assert spec_from_config(early).rope == spec.rope


def test_glm4_rotates_half_of_each_head() -> None:
    ropes = [op for op in build_plan(spec_from_config(CONFIGS["glm4"])).ops if isinstance(op, Rope)]
    assert {(len(op.frequencies), op.layout) for op in ropes} == {(4, RopeLayout.INTERLEAVED)}


def test_command_r_reads_one_norm_twice() -> None:
    spec = spec_from_config(CONFIGS["command-r"])
    plan = build_plan(spec)
    first = next(op for op in plan.ops if isinstance(op, LayerNorm))
    assert (first.eps, first.bias) == (1e-4, None)
    readers = [op.weight for op in plan.ops if isinstance(op, Linear) and op.x == first.out]
    assert readers == [f"blk.0.{part}.weight" for part in ("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up")]
    assert [op.factor for op in plan.ops if isinstance(op, Scale)] == [0.8]
    assert metadata_from_spec(spec)["command-r.attention.layer_norm_epsilon"] == 1e-4


def test_scales_of_granite() -> None:
    spec = spec_from_config(CONFIGS["granite"])
    plan = build_plan(spec)
    assert [op.factor for op in plan.ops if isinstance(op, Scale)] == [12.0, *[0.22] * 4, 1 / 8]
    assert {op.scale for op in plan.ops if isinstance(op, Attend)} == {0.015625}
    entries = metadata_from_spec(spec)
    assert {key: entries[f"granite.{key}"] for key in ("embedding_scale", "residual_scale", "logit_scale")} == {
        "embedding_scale": 12.0,
        "residual_scale": 0.22,
        "logit_scale": 8.0,
    }
    assert entries["granite.attention.scale"] == 0.015625


def test_dense_layers_among_sparse_ones() -> None:
    config = {**CONFIGS["qwen2moe"], "num_hidden_layers": 6, "decoder_sparse_step": 2, "mlp_only_layers": [3]}
    spec = spec_from_config(config)
    assert spec.sparse == (False, True, False, False, False, True)
    plan = build_plan(spec)
    assert plan.weights["blk.3.ffn_up.weight"].shape == (96, 64)
    assert "blk.3.ffn_up_shexp.weight" not in plan.weights
    shapes = {name: weight.shape for name, weight in plan.weights.items()}
    entries = metadata_from_spec(spec)
    assert entries["qwen2moe.leading_dense_block_count"] == 1
    again = spec_from_gguf(Entries({"general.architecture": "qwen2moe", **entries}), shapes)
    assert replace(again, rope=spec.rope) == spec
    assert spec_from_config({**config, "decoder_sparse_step": 1, "mlp_only_layers": []}).sparse == ()


def test_families_with_biased_sigmoids() -> None:
    glm = spec_from_config(CONFIGS["glm4moe"])
    assert glm.router == replace(BIASED_SIGMOID, groups=4, groups_used=2)
    assert (glm.rope.dims, glm.sparse, glm.qk_norm, glm.output_bias) == (8, (False, True), "head", False)
    air = spec_from_config(CONFIGS["glm4moe-air"])
    assert (air.sparse, air.qk_norm, air.shared_feed_forward) == ((), None, 32)
    solar = spec_from_config(CONFIGS["solar-open"])
    assert (solar.architecture, solar.rope.dims, solar.sparse) == ("glm4moe", 32, ())
    minimax = spec_from_config(CONFIGS["minimax-m2"])
    assert (minimax.rope.dims, minimax.router.epsilon, minimax.qk_norm) == (16, 0.0, "all")
    exaone = spec_from_config(CONFIGS["exaone-moe"])
    assert (exaone.windowed, exaone.router.scale) == ((True, True, True, False), 2.5)
    ernie = spec_from_config(CONFIGS["ernie4.5-moe"])
    assert (ernie.sparse, ernie.router.scoring) == ((False, True, False, True, False), "softmax")
    assert metadata_from_spec(ernie)["ernie4_5-moe.interleave_moe_layer_step"] == 2
    dense = replace(ernie, sparse=(False,) * 5)
    assert metadata_from_spec(dense)["ernie4_5-moe.interleave_moe_layer_step"] == 6


def test_ling() -> None:
    spec = spec_from_config(CONFIGS["bailingmoe"])
    source = architecture_of_config(CONFIGS["bailingmoe"]).source(spec, "blk.1.attn_k.weight")
    assert isinstance(source, Arranged)
    assert source.names == ("model.layers.1.attention.query_key_value.weight",)
    assert source.arrangement is not None
    assert source.arrangement.order()[:4] == [64, 72, 65, 73]
    assert sorted(source.arrangement.order()) == list(range(64, 96))
    second, sarvam = (spec_from_config(CONFIGS[name]) for name in ("bailingmoe2", "sarvam"))
    assert (second.rope.dims, sarvam.rope.dims) == (8, 16)
    assert build_plan(second).weights["blk.0.attn_qkv.weight"].shape == (128, 64)
    assert metadata_from_spec(second)["bailingmoe2.expert_shared_feed_forward_length"] == 32
    assert metadata_from_spec(second)["bailingmoe2.expert_shared_count"] == 2


def test_layers_of_mimo() -> None:
    spec = spec_from_config(CONFIGS["mimo-v2"])
    plan = build_plan(spec)
    attentions = [op for op in plan.ops if isinstance(op, Attend)]
    assert [(op.window, op.kv_heads, op.sinks is None) for op in attentions] == [(None, 1, True), *[(17, 2, False)] * 2]
    assert [(cache.kv_heads, cache.head_size, cache.value_size) for cache in plan.caches[:2]] == [
        (1, 24, 16),
        (2, 24, 16),
    ]
    assert (spec.rope.dims, spec.rope.base, spec.window_rope and spec.window_rope.base) == (8, 5e6, 1e4)
    assert [op.factor for op in plan.ops if isinstance(op, Scale)] == [0.707] * 3
    entries = Entries({"general.architecture": "mimo2", **metadata_from_spec(spec)})
    assert entries["mimo2.attention.head_count_kv"] == [1, 2, 2]
    shapes = {name: weight.shape for name, weight in plan.weights.items()}
    entries |= {"mimo2.nextn_predict_layers": 2, "mimo2.block_count": 5}  # as llama.cpp's converter writes it
    entries |= {f"mimo2.attention.{key}": entries[f"mimo2.attention.{key}"] + [1, 1] for key in ("head_count_kv",)}
    again = spec_from_gguf(Entries(entries), shapes)
    assert (again.kv_heads, again.window_kv_heads, again.windowed, again.nextn) == (1, 2, (False, True, True), 2)


def test_smallthinker_routes_before_it_attends() -> None:
    plan = build_plan(spec_from_config(CONFIGS["smallthinker"]))
    mixtures = [op for op in plan.ops if isinstance(op, Moe)]
    assert [(op.kind, op.router.scoring) for op in mixtures] == [("relu", "sigmoid")] * 5
    entered = [plan.ops[op.logits.id].inputs[0] for op in mixtures]
    assert entered == [plan.ops[0].out, *(plan.ops[op.out.id + 1].out for op in mixtures[:-1])]


def test_layers_of_afmoe() -> None:
    afmoe = spec_from_config(CONFIGS["afmoe"])
    assert afmoe.windowed == (True, True, True, False)
    assert afmoe.scales.embedding == 8.0
    assert afmoe.sparse == (False, False, True, True)


def test_the_bias_of_hy3_has_a_name_of_its_own() -> None:
    assert build_plan(spec_from_config(CONFIGS["hy-v3"])).weights["blk.1.exp_probs_b"].shape == (4,)


def test_chunks_of_llama_4() -> None:
    spec = spec_from_config(CONFIGS["llama4"])
    plan = build_plan(spec)
    seen = [(op.window, op.chunked, op.reach) for op in plan.ops if isinstance(op, Attend)]
    assert seen == [*[(32, True, -32)] * 3, (None, False, 0), (32, True, -32)]
    assert spec.sparse == (False, True, False, True, False)
    assert plan.weights["blk.0.ffn_up.weight"].shape == (192, 64)
    assert plan.weights["blk.1.ffn_up_shexp.weight"].shape == (96, 64)
    assert all(op.router.weighs_inputs for op in plan.ops if isinstance(op, Moe))
    assert not any(isinstance(op, PositionScale) for op in plan.ops)
    entries = metadata_from_spec(spec)
    assert entries["llama4.interleave_moe_layer_step"] == 2
    assert entries["llama4.attention.temperature_scale"] == 0.0
    inner = {**CONFIGS["llama4"]["text_config"], "no_rope_layers": [0] * 5, "layer_types": None}
    plan = build_plan(spec_from_config(CONFIGS["llama4"] | {"text_config": inner}))
    assert not any(isinstance(op, Rope) or (isinstance(op, Attend) and op.window) for op in plan.ops)


def test_the_base_of_dbrx() -> None:
    """transformers goes by the rope parameters that it writes; configs from before have it with attention."""
    base = {"attn_config": {**CONFIGS["dbrx"]["attn_config"], "rope_theta": 300.0}}
    assert spec_from_config(CONFIGS["dbrx"] | base).rope.base == 300.0
    written = {"rope_parameters": {"rope_type": "default", "rope_theta": 700.0}}
    assert spec_from_config(CONFIGS["dbrx"] | base | written).rope.base == 700.0


def test_files_of_llama_4_that_do_not_say() -> None:
    """As llama.cpp's converter writes them; 0 chunks are none, and rope everywhere then."""
    spec = replace(spec_from_config({**CONFIGS["llama4-scout"], "num_hidden_layers": 4}), context=16384)
    entries = {"general.architecture": "llama4", **metadata_from_spec(spec)}
    for key in ("sliding_window", "sliding_window_pattern", "temperature_scale", "temperature_length", "qk_norm"):
        del entries[f"llama4.attention.{key}"]
    shapes = {weight.name: weight.shape for weight in build_plan(spec).weights.values()}
    plan = build_plan(spec_from_gguf(Entries(entries), shapes))
    assert [op.reach for op in plan.ops if isinstance(op, Attend)] == [-8192] * 3 + [0]
    assert [(op.strength, op.length, op.ahead) for op in plan.ops if isinstance(op, PositionScale)] == [(0.1, 8192, 1)]
    assert sum(isinstance(op, RmsNorm) and op.weight is None for op in plan.ops) == 6
    again = spec_from_gguf(Entries({**entries, "llama4.attention.sliding_window": 0}), shapes)
    assert sum(isinstance(op, Rope) for op in build_plan(again).ops) == 8
    maverick = spec_from_gguf(Entries({**entries, "llama4.expert_count": 128}), shapes)
    assert maverick.qk_norm is None


def test_dbrx_clamps_after_one_product() -> None:
    spec = spec_from_config(CONFIGS["dbrx"])
    plan = build_plan(spec)
    assert [(op.limit, op.out.width) for op in plan.ops if isinstance(op, Clamp)] == [
        (8.0, 64),
        (8.0, 32),
        (8.0, 32),
    ] * 2
    assert plan.weights["blk.0.attn_qkv.weight"].shape == (128, 64)
    assert (spec.rope.base, spec.norm_eps, metadata_from_spec(spec)["dbrx.attention.clamp_kqv"]) == (5e5, 1e-5, 8.0)


def test_falcon_h1_attends_beside_its_states() -> None:
    spec = spec_from_config(CONFIGS["falcon-h1"])
    plan = build_plan(spec)
    assert sum(isinstance(op, Scan) for op in plan.ops) == sum(isinstance(op, Attend) for op in plan.ops) == 2
    assert metadata_from_spec(spec)["falcon-h1.attention.head_count_kv"] == 2
    source = architecture_of_config(CONFIGS["falcon-h1"]).source(spec, "blk.1.ssm_in.weight")
    assert isinstance(source, Scaled)
    assert source.names == ("model.layers.1.mamba.in_proj.weight",)
    assert source.factors(CONFIGS["falcon-h1"]) == ((96, 1.0), (96, 0.5), (16, 4.0), (16, 6.0), (0, 8.0))
    plain = build_plan(spec_from_config(CONFIGS["falcon-h1-plain"]))
    assert "blk.0.ssm_norm.weight" not in plain.weights


def test_scales_and_networks_of_grok() -> None:
    second, first = (build_plan(spec_from_config(CONFIGS[name])) for name in ("grok", "grok-1"))
    assert [op.factor for op in second.ops if isinstance(op, Scale)] == [90.5, *[0.5**0.5] * 2, 0.5]
    assert {(op.scale, op.softcap) for op in second.ops if isinstance(op, Attend)} == {(0.0883, 30.0)}
    assert {(op.scale, op.softcap) for op in first.ops if isinstance(op, Attend)} == {(0.25, 30.0)}
    assert second.weights["blk.0.ffn_up.weight"].shape == (96, 64)
    assert second.weights["blk.0.ffn_up_exps.weight"].shape == (4, 32, 64)
    assert "blk.0.ffn_up.weight" not in first.weights
    assert {"blk.1.post_ffw_norm.weight", "blk.1.attn_output_norm.weight"} <= set(second.weights)
    assert "blk.1.layer_output_norm.weight" in first.weights
    entries = metadata_from_spec(second.spec)
    assert entries["grok.attention.output_scale"] == 0.0883
    assert "grok.attention.scale" not in entries


def test_early_files_of_grok_say_little() -> None:
    spec = spec_from_config(CONFIGS["grok-1"])
    entries = Entries({"general.architecture": "grok", **metadata_from_spec(spec)})
    for key in ("embedding_scale", "logit_scale", "attention.output_scale", "attn_logit_softcapping"):
        del entries[f"grok.{key}"]
    shapes = {weight.name: weight.shape for weight in build_plan(spec).weights.values()}
    scales = spec_from_gguf(entries, shapes).scales
    assert (scales.embedding, scales.attention_cap) == (pytest.approx(6144**0.5), 30.0)
    assert (scales.logits, scales.attention) == (pytest.approx(3**-0.5), pytest.approx(128**-0.5))


def test_windows_and_ropes_of_granite() -> None:
    dense, mixed = (spec_from_config(CONFIGS[name]) for name in ("granite-swa", "granitemoe-swa"))
    plan = build_plan(dense)
    assert [(op.window, op.sinks) for op in plan.ops if isinstance(op, Attend)] == [
        (None, "blk.0.attn_sinks.weight"),
        (16, "blk.1.attn_sinks.weight"),
    ]
    assert [isinstance(plan.ops[op.q.id], Rope) for op in plan.ops if isinstance(op, Attend)] == [False, True]
    assert dense.rope.base == 5e4
    assert metadata_from_spec(dense)["granite_swa.attention.rope_pattern"] == [False, True]
    assert (mixed.windowed, mixed.rotated) == ((False, True, True, True, False), ())
    assert build_plan(mixed).weights["blk.0.ffn_up_shexp.weight"].shape == (96, 64)


def test_delta_nets_that_decay_by_channel() -> None:
    kimi, ling = (build_plan(spec_from_config(CONFIGS[name])) for name in ("kimi-linear", "ling-3"))
    rules = {plan.spec.architecture: [op for op in plan.ops if isinstance(op, DeltaRule)] for plan in (kimi, ling)}
    assert [(op.decays, op.floor) for op in rules["kimi-linear"]] == [(16, 0.0)] * 3
    assert [(op.decays, op.floor) for op in rules["bailingmoe3"]] == [(16, -5.0)] * 2  # the last group is not whole
    assert not any(isinstance(op, Rope) for op in kimi.ops)
    assert kimi.weights["blk.0.ssm_a"].shape == (4, 1)
    assert kimi.weights["blk.0.ssm_conv1d_q.weight"].shape == (64, 1, 4)
    assert ling.weights["blk.1.attn_gate.weight"].shape == (4, 64)
    entries = metadata_from_spec(ling.spec)
    assert entries["bailingmoe3.attention.head_count_kv"] == [0, 1, 0, 1, 1]
    assert entries["bailingmoe3.kda.gate_lower_bound"] == -5.0


def test_laguna_has_more_heads_within_windows() -> None:
    plan = build_plan(spec_from_config(CONFIGS["laguna"]))
    assert [(op.heads, op.window) for op in plan.ops if isinstance(op, Attend)] == [(4, None), (6, 16), (6, 16)]
    assert [plan.weights[f"blk.{i}.attn_gate.weight"].shape[0] for i in range(3)] == [4, 6, 6]
    assert [len(op.frequencies) for op in plan.ops if isinstance(op, Rope)] == [4, 4, 8, 8, 8, 8]
    assert metadata_from_spec(plan.spec)["laguna.attention.head_count"] == [4, 6, 6]
