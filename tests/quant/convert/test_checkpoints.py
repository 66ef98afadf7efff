"""Checkpoints to GGUF: every tensor bit by bit, metadata, and what is refused."""

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgert_models.errors import ConversionError, RequestError, UnsupportedError
from edgert_models.registry import build_plan, spec_from_config, spec_from_gguf
from edgert_models.rope import Rope, RopeLayout
from edgert_models.router import Router
from edgert_models.spec import Recurrence
from edgert_quant.blocks import BlockType, dequantize
from edgert_quant.convert import convert, pipeline
from edgert_quant.convert.compatibility import llama_cpp_differences, wants_own_output
from edgert_quant.gguf import GgufFile
from edgert_runtimes.conformance.tiny import tiny_spec

from tests.quant.convert.checkpoints import Tensors, load, save
from tests.support.golden import FOLDER, NAMES


def floats(file: GgufFile, name: str) -> np.ndarray:
    tensor = file.tensors[name]
    return dequantize(file.read(name), tensor.type).reshape(tensor.shape)


@pytest.mark.parametrize("name", NAMES)
def test_specification_survives(name: str, tmp_path: Path) -> None:
    convert(FOLDER / name, tmp_path / "model.gguf", type="bf16")
    spec = spec_from_config(json.loads((FOLDER / name / "config.json").read_text()))
    with GgufFile.open(tmp_path / "model.gguf") as file:
        again = spec_from_gguf(file.metadata, {key: tensor.shape for key, tensor in file.tensors.items()})
        weights = build_plan(again).weights
        assert {key: tensor.shape for key, tensor in file.tensors.items()} == {
            w.name: w.shape for w in weights.values()
        }
        assert next(iter(file.tensors)) == "token_embd.weight"
        assert again.rope.frequencies() == pytest.approx(spec.rope.frequencies(), rel=1e-6)
        assert again.norm_eps == pytest.approx(spec.norm_eps, rel=1e-6)
        assert again.rope.magnitude() == pytest.approx(spec.rope.magnitude(), rel=1e-6)
        assert again.rope.score_factor() == pytest.approx(spec.rope.score_factor(), rel=1e-6)
        assert again.router.scale == pytest.approx(spec.router.scale, rel=1e-6)
        again = replace(again, router=replace(again.router, scale=spec.router.scale))
        sizes = ("heads", "kv_heads", "head_size", "value_size", "latent", "experts")
        for field in (*sizes, "window", "router", "qk_norm"):
            assert getattr(again, field) == getattr(spec, field), field
        assert again.tied == (spec.tied and not wants_own_output(spec))


@pytest.mark.parametrize(
    "name", ["qwen3moe", "qwen3moe-fused", "qwen3moe-sharded", "mixtral", "mixtral-fused", "olmoe"]
)
def test_experts_of_every_layout(name: str, tmp_path: Path) -> None:
    convert(FOLDER / name, tmp_path / "model.gguf", type="f32")
    tensors = load(FOLDER / name)
    with GgufFile.open(tmp_path / "model.gguf") as file:
        for layer in range(2):
            gate, up, down = (floats(file, f"blk.{layer}.ffn_{part}_exps.weight") for part in ("gate", "up", "down"))
            wanted = experts_of(tensors, layer, len(gate))
            for found, own in zip((gate, up, down), wanted, strict=True):
                np.testing.assert_array_equal(found, own)
            routers = [
                tensors[key] for key in tensors if key.startswith(f"model.layers.{layer}.") and ".gate.weight" in key
            ]
            np.testing.assert_array_equal(floats(file, f"blk.{layer}.ffn_gate_inp.weight"), routers[0])


def experts_of(tensors: Tensors, layer: int, experts: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gate, up and down matrices, gathered from whichever layout the checkpoint has."""
    fused = f"model.layers.{layer}.mlp.experts.gate_up_proj"
    if fused in tensors:
        gate, up = np.split(tensors[fused], 2, axis=1)
        return gate, up, tensors[f"model.layers.{layer}.mlp.experts.down_proj"]
    block, names = "mlp", ("gate_proj", "up_proj", "down_proj")
    if f"model.layers.{layer}.block_sparse_moe.experts.0.w1.weight" in tensors:
        block, names = "block_sparse_moe", ("w1", "w3", "w2")
    each = [
        np.stack([tensors[f"model.layers.{layer}.{block}.experts.{e}.{name}.weight"] for e in range(experts)])
        for name in names
    ]
    return each[0], each[1], each[2]


@pytest.mark.parametrize(("name", "interleaved"), [("llama-biased", True), ("mixtral", True), ("olmoe", False)])
def test_rows_of_queries_and_keys(name: str, interleaved: bool, tmp_path: Path) -> None:
    convert(FOLDER / name, tmp_path / "model.gguf", type="f32")
    tensors = load(FOLDER / name)
    config = json.loads((FOLDER / name / "config.json").read_text())
    size = config["head_dim"] if config.get("head_dim") else config["hidden_size"] // config["num_attention_heads"]
    order = [i for pair in range(size // 2) for i in (pair, pair + size // 2)] if interleaved else list(range(size))
    with GgufFile.open(tmp_path / "model.gguf") as file:
        for ours, theirs in (("attn_q", "q_proj"), ("attn_k", "k_proj")):
            for kind in ("weight", "bias"):
                stored = tensors.get(f"model.layers.1.self_attn.{theirs}.{kind}")
                if stored is None:
                    assert f"blk.1.{ours}.{kind}" not in file.tensors
                    continue
                wanted = np.concatenate([stored[start : start + size][order] for start in range(0, len(stored), size)])
                np.testing.assert_array_equal(floats(file, f"blk.1.{ours}.{kind}"), wanted)
        np.testing.assert_array_equal(
            floats(file, "blk.1.attn_v.weight"), tensors["model.layers.1.self_attn.v_proj.weight"]
        )


def test_sixteen_bit_checkpoints_keep_every_bit(tmp_path: Path) -> None:
    for name, kind in (("mistral", "bf16"), ("llama-linear", "f16")):
        tensors = load(FOLDER / name)
        convert(FOLDER / name, tmp_path / "model.gguf", type=kind)
        with GgufFile.open(tmp_path / "model.gguf") as file:
            assert file.tensors["blk.0.ffn_down.weight"].type.name.lower() == kind
            np.testing.assert_array_equal(
                floats(file, "blk.0.ffn_down.weight"), tensors["model.layers.0.mlp.down_proj.weight"]
            )
            assert file.tensors["blk.0.attn_norm.weight"].type is BlockType.F32


def test_metadata(tmp_path: Path) -> None:
    folder = save(tmp_path / "Tiny-Model", load(FOLDER / "qwen3moe"), FOLDER / "qwen3moe/config.json")
    (folder / "README.md").write_text(
        "---\nlicense: apache-2.0 # as the teacher\nbase_model:\n- some-lab/Big-Teacher\ndatasets: [a/b, c]\n"
        "language:\n  - en\ntags: ['moe', \"tiny\"]\npipeline_tag: text-generation\nweird: &x !!tag\n---\n# Card\n"
    )
    report = convert(folder, tmp_path / "model.gguf", type="Q4_K_M")
    with GgufFile.open(tmp_path / "model.gguf") as file:
        found = file.metadata
        assert next(iter(found)) == "general.architecture"
        assert file.alignment == 32
        assert {key: found[key] for key in found if key.startswith("general.")} == {
            "general.architecture": "qwen3moe",
            "general.type": "model",
            "general.name": "Tiny-Model",
            "general.size_label": "6x75K",
            "general.license": "apache-2.0",
            "general.base_model.count": 1,
            "general.base_model.0.name": "Big Teacher",
            "general.base_model.0.organization": "some-lab",
            "general.base_model.0.repo_url": "https://huggingface.co/some-lab/Big-Teacher",
            "general.dataset.count": 2,
            "general.dataset.0.name": "b",
            "general.dataset.0.organization": "a",
            "general.dataset.0.repo_url": "https://huggingface.co/datasets/a/b",
            "general.dataset.1.name": "c",
            "general.languages": ["en"],
            "general.tags": ["moe", "tiny", "text-generation"],
            "general.file_type": 15,
            "general.quantization_version": 2,
        }
        assert found.string("edgert.convert.recipe") == "q4_k_m"
        assert len(found.string("edgert.source.config_sha256")) == 64
        assert found.string("tokenizer.ggml.model") == "none"
    assert any("no tokenizer.json" in warning for warning in report.warnings)


def test_report(tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    report = convert(
        FOLDER / "qwen3moe", tmp_path / "model.gguf", type="q8_0", progress=lambda *args: seen.append(args)
    )
    with GgufFile.open(tmp_path / "model.gguf") as file:
        tensors = file.tensors.values()
        assert report.tensors == len(tensors)
        assert sum(total.bytes for total in report.types) == sum(tensor.nbytes for tensor in tensors)
        assert report.bytes == file.size
    assert report.types[0].type == "Q8_0"
    assert report.bits_per_weight == pytest.approx(8 * sum(t.nbytes for t in tensors) / report.weights)
    assert seen[-1][0] == seen[-1][1] == sum(total.bytes for total in report.types)
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert {name for _, _, name in seen} == {tensor.name for tensor in tensors}
    as_json = json.loads(report.to_json())
    assert as_json["output"] == str(tmp_path / "model.gguf")
    assert as_json["types"][0]["type"] == "Q8_0"
    assert as_json["seconds"] > 0
    assert as_json["recipe"] == "q8_0"


@pytest.mark.parametrize(
    ("name", "warning"),
    [
        ("qwen3moe-plain-weights", "llama.cpp scales the weights of the chosen experts"),
        ("olmoe-fused", "llama.cpp does not scale the weights of the chosen experts"),
        ("qwen2moe-fused", "llama.cpp does not scale the weights of the chosen experts to sum to one in qwen2moe"),
        ("mistral-window", "llama.cpp ignores the sliding window of 8 positions"),
        ("exaone4-windows", "llama.cpp knows windows of exaone4 only in models of 64 layers"),
        ("flex-olmo", "llama.cpp will not load the file: it does not know the architecture flexolmo"),
        ("ernie4.5-biased", "llama.cpp will not load the file: it knows no biases of the feed-forward network"),
        ("gpt-oss-yarn", "llama.cpp takes yarn's beta_fast as 32, beta_slow as 1 and truncate as true in gpt-oss"),
    ],
)
def test_warnings_where_llama_cpp_differs(name: str, warning: str, tmp_path: Path) -> None:
    report = convert(FOLDER / name, tmp_path / "model.gguf", type="f32")
    assert any(text.startswith(warning) for text in report.warnings)


@pytest.mark.parametrize(
    "name",
    [
        "qwen3moe",
        "olmoe",
        "mixtral",
        "llama",
        "llama-yarn",
        "mistral",
        "gpt-oss",
        "qwen2",
        "qwen2moe",
        "qwen3",
        "olmo2",
        "olmo3",
        "exaone4",
        "smollm3",
        "seed-oss",
        "ernie4.5",
        "hunyuan-dense",
        "glm4moe",
        "glm4moe-air",
        "solar-open",
        "dots1",
        "minimax-m2",
        "ernie4.5-moe",
        "hunyuan-moe",
        "exaone-moe",
        "afmoe",
        "mimo-v2",
        "smallthinker",
        "hy-v3",
        "deepseek",
        "bailingmoe",
        "bailingmoe2",
    ],
)
def test_no_such_warning_where_it_agrees(name: str, tmp_path: Path) -> None:
    report = convert(FOLDER / name, tmp_path / "model.gguf", type="f32")
    assert not any("llama.cpp" in text for text in report.warnings)


@pytest.mark.parametrize(
    ("architecture", "changes", "reason"),
    [
        ("olmoe", {"tied": True}, "an output matrix in olmoe"),
        ("olmoe", {"kv_heads": 2}, "as many key as query heads in olmoe"),
        ("olmoe", {"head_size": 32}, "as many key as query heads in olmoe"),
        ("olmoe", {"attention_bias": True, "output_bias": True}, "no bias of the attention output in olmoe"),
        ("qwen3moe", {"attention_bias": True, "output_bias": True}, "no bias of the attention output in qwen3moe"),
        ("olmo2", {"tied": True}, "an output matrix in olmo2"),
        ("olmo2", {"head_size": 32}, "query heads together as wide as the model in olmo2"),
        ("olmo2", {"attention_bias": True, "output_bias": True}, "no bias of the attention output in olmo2"),
        ("exaone4", {"head_size": 32}, "query heads together as wide as the model in exaone4"),
        ("flexolmo", {}, "it does not know the architecture flexolmo"),
        ("lfm2", {"recurrence": Recurrence(layers=(True, True), kernel=3)}, "a layer that attends in lfm2"),
        ("ernie4_5", {"feed_forward_bias": True}, "no biases of the feed-forward network in ernie4_5"),
        ("seed_oss", {"attention_bias": True, "output_bias": True}, "no bias of the attention output in seed_oss"),
        ("seed_oss", {"attention_bias": True, "tied": True, "head_size": 32}, None),
        ("qwen3", {"attention_bias": True, "output_bias": True}, "no bias of the attention output in qwen3"),
        ("qwen2moe", {"tied": True}, "an output matrix in qwen2moe"),
        ("qwen2moe", {"sparse": (False, True)}, "experts in every layer of qwen2moe"),
        ("glm4moe", {"sparse": (True, False)}, "dense layers of glm4moe only before the first with experts"),
        ("glm4moe", {"sparse": (False, True), "tied": True}, None),
        ("dots1", {"kv_heads": 2}, "as many key as query heads in dots1"),
        ("exaone-moe", {}, "it wants windows in exaone-moe"),
        ("bailingmoe", {"sparse": (False, True)}, "experts in every layer of bailingmoe"),
        ("bailingmoe2", {"head_size": 32}, "query heads together as wide as the model in bailingmoe2"),
        ("bailingmoe2", {"attention_bias": True}, "no biases in bailingmoe2"),
        ("qwen2moe", {"head_size": 32}, "query heads together as wide as the model in qwen2moe"),
        ("qwen2moe", {"attention_bias": True, "kv_heads": 1}, None),
        ("llama", {"attention_bias": True, "output_bias": True, "tied": True, "kv_heads": 1}, None),
        ("qwen3moe", {"attention_bias": True, "tied": True, "kv_heads": 1}, None),
        (
            "qwen3moe",
            {"rope": Rope(dims=16, layout=RopeLayout.HALVES, factors=True)},
            "no rope scaling llama3 in qwen3m",
        ),
        ("llama", {"rope": Rope(dims=16, layout=RopeLayout.INTERLEAVED, factors=True)}, None),
    ],
)
def test_files_that_llama_cpp_does_not_load(architecture: str, changes: dict[str, Any], reason: str | None) -> None:
    router = Router(normalize=architecture not in ("olmoe", "qwen2moe"))
    spec = tiny_spec(architecture, **{"kv_heads": 4, "router": router, **changes})
    found = llama_cpp_differences(spec)
    assert len(found) == (reason is not None)
    assert reason is None or (found[0].startswith("llama.cpp will not load the file: it ") and reason in found[0])


def test_a_stored_output_matrix_wins_over_a_tie(tmp_path: Path) -> None:
    """As in transformers and llama.cpp; one that is the embedding's copy is left out."""
    tensors = load(FOLDER / "qwen3")
    config = json.loads((FOLDER / "qwen3" / "config.json").read_text()) | {"tie_word_embeddings": True}
    convert(save(tmp_path / "other", tensors, config), tmp_path / "other.gguf", type="f32")
    with GgufFile.open(tmp_path / "other.gguf") as file:
        stored, copied = (file.read(f"{name}.weight") for name in ("output", "token_embd"))
        assert not np.array_equal(stored, copied)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    convert(save(tmp_path / "same", tensors, config), tmp_path / "same.gguf", type="f32")
    with GgufFile.open(tmp_path / "same.gguf") as file:
        assert "output.weight" not in file.tensors


def test_a_tied_olmoe_gets_the_output_matrix_that_llama_cpp_wants(tmp_path: Path) -> None:
    tensors = load(FOLDER / "olmoe")
    del tensors["lm_head.weight"]
    config = json.loads((FOLDER / "olmoe" / "config.json").read_text()) | {"tie_word_embeddings": True}
    report = convert(save(tmp_path / "tied", tensors, config), tmp_path / "model.gguf", type="f32")
    assert not any("llama.cpp" in text for text in report.warnings)
    with GgufFile.open(tmp_path / "model.gguf") as file:
        np.testing.assert_array_equal(file.read("output.weight"), file.read("token_embd.weight"))


def changed(tmp_path: Path, change: object, name: str = "qwen3moe") -> Path:
    """A copy of a golden checkpoint after `change(tensors)`."""
    tensors = load(FOLDER / name)
    assert callable(change)
    change(tensors)
    return save(tmp_path / "changed", tensors, FOLDER / name / "config.json")


def test_missing_tensor(tmp_path: Path) -> None:
    folder = changed(tmp_path, lambda t: t.pop("model.layers.1.self_attn.q_proj.weight"))
    with pytest.raises(
        ConversionError, match=r"no tensor model.layers.1.self_attn.q_proj.weight, needed for blk.1.attn_q"
    ):
        convert(folder, tmp_path / "model.gguf")
    folder = changed(tmp_path, lambda t: t.pop("model.layers.1.mlp.experts.4.up_proj.weight"))
    with pytest.raises(ConversionError, match=r"experts.4.up_proj.weight, needed for blk.1.ffn_up_exps.weight"):
        convert(folder, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_wrong_shape(tmp_path: Path) -> None:
    def cut(tensors: Tensors) -> None:
        tensors["model.norm.weight"] = tensors["model.norm.weight"][:-1]

    with pytest.raises(ConversionError, match=r"model.norm.weight has shape \[63\], and config.json says \[64\]"):
        convert(changed(tmp_path, cut), tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["DeepseekV4ForCausalLM"]}, "model class DeepseekV4ForCausalLM is not supported: it needs"),
        ({"architectures": ["MadeUpForCausalLM"]}, "model class MadeUpForCausalLM is not supported; supported: "),
        ({"hidden_act": "gelu_new"}, "hidden_act='gelu_new' is not supported; supported: 'silu'"),
        ({"rope_parameters": {"rope_type": "ntk"}}, "rope scaling 'ntk' is not supported; supported: default, "),
        ({"quantization_config": {"quant_method": "hqq"}}, "quantized already ('hqq'); give the original, or one in"),
    ],
)
def test_what_is_not_supported_is_named_before_weights_are_looked_for(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    config = json.loads((FOLDER / "qwen3moe" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UnsupportedError, match=re.escape(message)):
        convert(tmp_path, tmp_path / "model.gguf")


def test_unknown_tensor(tmp_path: Path) -> None:
    def add(tensors: Tensors) -> None:
        tensors["model.layers.0.self_attn.q_proj.scale"] = np.zeros(128, np.float32)

    with pytest.raises(ConversionError, match=r"no place for model.layers.0.self_attn.q_proj.scale"):
        convert(changed(tmp_path, add), tmp_path / "model.gguf")


def test_unknown_biases(tmp_path: Path) -> None:
    def add(tensors: Tensors) -> None:
        tensors["model.layers.0.self_attn.q_proj.bias"] = np.zeros(128, np.float32)

    message = r"qwen3moe has no place for the biases model.layers.0.self_attn.q_proj.bias"
    with pytest.raises(UnsupportedError, match=message):
        convert(changed(tmp_path, add), tmp_path / "model.gguf")


def test_harmless_tensors(tmp_path: Path) -> None:
    def add(tensors: Tensors) -> None:
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(16, np.float32)
        tensors["model.layers.2.self_attn.q_proj.weight"] = np.ones((4, 4), np.float32)

    report = convert(changed(tmp_path, add), tmp_path / "model.gguf")
    assert "left out, beyond the last of 2 layers: model.layers.2.self_attn.q_proj.weight" in report.warnings

    def add_output(tensors: Tensors) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]

    convert(changed(tmp_path, add_output, "qwen3moe-fused"), tmp_path / "model.gguf")
    with GgufFile.open(tmp_path / "model.gguf") as file:
        assert "output.weight" not in file.tensors


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers(value: float, tmp_path: Path) -> None:
    def spoil(tensors: Tensors) -> None:
        tensors["model.layers.1.mlp.experts.3.down_proj.weight"][17, 5] = value

    (tmp_path / "model.gguf").write_bytes(b"older")
    with pytest.raises(
        ConversionError, match=r"tensor blk.1.ffn_down_exps.weight: the weight at \[3, 17, 5\] is -?(nan|inf)"
    ):
        convert(changed(tmp_path, spoil), tmp_path / "model.gguf", type="q8_0")
    assert (tmp_path / "model.gguf").read_bytes() == b"older"
    assert {path.name for path in tmp_path.iterdir()} == {"model.gguf", "changed"}


def test_weights_too_large_for_the_type(tmp_path: Path) -> None:
    def spoil(tensors: Tensors) -> None:
        tensors["lm_head.weight"][2, 3] = 1e5

    folder = changed(tmp_path, spoil)
    with pytest.raises(
        ConversionError, match=r"output.weight: the weight at \[2, 3\] is 100000, which is too large for F16"
    ):
        convert(folder, tmp_path / "model.gguf", type="f16")
    convert(folder, tmp_path / "model.gguf", type="f32")


def test_types_and_sources_that_do_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedError, match="type 'q7' is not supported; supported: f32, "):
        convert(FOLDER / "llama", tmp_path / "model.gguf", type="q7")
    with pytest.raises(RequestError, match=r"there is no such folder or file$"):
        convert(tmp_path / "nowhere", tmp_path / "model.gguf")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(RequestError, match=r"lab/model: .* no such model in the Hugging Face cache at .*cache"):
        convert("lab/model", tmp_path / "model.gguf")
    (tmp_path / "model.gguf").touch()
    with pytest.raises(ConversionError, match="there is such a file already"):
        convert(FOLDER / "llama", tmp_path / "model.gguf", overwrite=False)


def test_hub_id_in_the_local_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    revision = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "cache" / "models--lab--Tiny-Llama"
    (repository / "snapshots").mkdir(parents=True)
    (repository / "snapshots" / revision).symlink_to(FOLDER / "llama", target_is_directory=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    report = convert("lab/Tiny-Llama", tmp_path / "model.gguf", type="q8_0")
    assert report.source == "lab/Tiny-Llama"
    with GgufFile.open(tmp_path / "model.gguf") as file:
        assert file.metadata["general.name"] == "Tiny-Llama"


def test_output_depends_on_the_source_alone(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", load(FOLDER / "qwen3moe"), FOLDER / "qwen3moe/config.json")
    program = (
        "import sys; from edgert_quant.convert import convert; "
        "convert(sys.argv[1], sys.argv[2], type='q4_0', threads=int(sys.argv[3]))"
    )
    hashes = set()
    for i, (threads, locale, mask) in enumerate(((1, "C", 0o022), (2, "de_DE.UTF-8", 0o077), (3, "C.UTF-8", 0o000))):
        elsewhere = tmp_path / str(i)
        elsewhere.mkdir()
        subprocess.run(
            [sys.executable, "-c", program, os.path.relpath(folder, elsewhere), "out.gguf", str(threads)],
            cwd=elsewhere,
            env={**os.environ, "LC_ALL": locale, "PYTHONHASHSEED": str(i), "PYTHONPATH": os.pathsep.join(sys.path)},
            umask=mask,
            check=True,
        )
        hashes.add(hashlib.sha256((elsewhere / "out.gguf").read_bytes()).hexdigest())
    assert len(hashes) == 1


@pytest.mark.parametrize("name", ["llama-biased", "mixtral", "mixtral-fused", "qwen3moe-sharded", "llama-llama3"])
@pytest.mark.parametrize("piece", [1, 700, 5000])
def test_output_does_not_depend_on_the_pieces(
    name: str, piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(FOLDER / name, tmp_path / "whole.gguf", type="q8_0")
    monkeypatch.setattr(pipeline, "_PIECE", piece)
    convert(FOLDER / name, tmp_path / "pieces.gguf", type="q8_0")
    assert (tmp_path / "pieces.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()
