"""Adapters of PEFT and in GGUF: the same numbers, and refusals by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgert_models.errors import EdgertError, FileFormatError, RequestError, UnsupportedError
from edgert_models.graph import Plan
from edgert_models.registry import build_plan, spec_from_config
from edgert_quant.adapters import Pair, read_adapter

from tests.support.adapters import write_gguf
from tests.support.golden import FOLDER as GOLDEN

HERE = Path(__file__).parent
ALPHA = 6.0


def plan_of(name: str) -> Plan:
    return build_plan(spec_from_config(json.loads((GOLDEN / name / "config.json").read_text())))


LLAMA = plan_of("llama")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of an adapter to spoil."""
    return Path(shutil.copytree(HERE / "llama", tmp_path / "adapter"))


def spoil(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(path: Path, kind: type[EdgertError], *parts: str, scale: float = 1.0) -> None:
    with pytest.raises(kind) as caught:
        read_adapter(path, LLAMA, scale)
    assert all(part in str(caught.value) for part in parts), caught.value


def test_peft_and_gguf_are_the_same(tmp_path: Path) -> None:
    adapter = read_adapter(HERE / "llama", LLAMA)
    assert adapter.pairs["blk.0.attn_output.weight"].a.shape == (2, 64)
    assert adapter.pairs["output.weight"].b.shape == (96, 4)
    assert len(adapter.pairs) == 2 * 6 + 1
    for alpha in (0.0, ALPHA):
        again = read_adapter(write_gguf(tmp_path / "x.gguf", adapter.pairs, alpha=alpha), LLAMA)
        assert again.pairs.keys() == adapter.pairs.keys()
        for name, pair in adapter.pairs.items():
            assert np.array_equal(again.pairs[name].a, pair.a)
            assert np.allclose(again.pairs[name].b, pair.b, rtol=1e-6)
    half = read_adapter(HERE / "llama", LLAMA, 0.5)
    assert np.array_equal(half.pairs["output.weight"].b, adapter.pairs["output.weight"].b / 2)


def test_a_fused_module_is_cut() -> None:
    """What PEFT has on one module of a checkpoint belongs to several tensors of the file."""
    from edgert_models.sources import Stored
    from edgert_quant.adapters.peft import _rows

    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    assert np.array_equal(_rows(rows, Stored(("x",), part=1, parts=3)), rows[2:4])


@pytest.mark.parametrize(
    ("option", "value", "part"),
    [
        ("peft_type", "IA3", "peft_type 'IA3' is not supported; 'LORA' is"),
        ("use_dora", True, "use_dora True is not supported; False is"),
        ("bias", "all", "bias 'all' is not supported; 'none' is"),
        ("modules_to_save", ["lm_head"], "modules_to_save ['lm_head'] is not supported"),
        ("init_lora_weights", "pissa", "init_lora_weights 'pissa' is not supported"),
        ("layer_replication", [[0, 1]], "layer_replication"),
        ("alpha_pattern", {"(a+)+": 3}, "alpha_pattern '(a+)+' is not supported; plain names are"),
    ],
)
def test_options_that_are_not_served(folder: Path, option: str, value: Any, part: str) -> None:
    spoil(folder, **{option: value})
    refused(folder, UnsupportedError, part)


def test_damaged_folders(folder: Path, tmp_path: Path) -> None:
    spoil(folder, lora_alpha="much")
    refused(folder, FileFormatError, "lora_alpha", "is 'much', not a number")
    (folder / "adapter_config.json").write_text("[]")
    refused(folder, FileFormatError, "is not a JSON object")
    (folder / "adapter_config.json").unlink()
    refused(folder, FileFormatError, "has no adapter_config.json: it is no folder of PEFT")
    shutil.copy(HERE / "llama/adapter_config.json", folder)
    whole = (folder / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(whole[:-8])
    refused(folder, FileFormatError, "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").write_bytes(
        whole.replace(b"layers.1.mlp.down_proj", b"layers.7.mlp.down_proj")
    )
    refused(folder, UnsupportedError, "adapters on model.layers.7.mlp.down_proj are not supported for llama")
    (folder / "adapter_model.safetensors").write_bytes(whole.replace(b"lora_A.weight", b"lora_E.weight", 1))
    refused(folder, UnsupportedError, "lora_E.weight is not supported; matrices lora_A and lora_B are")
    (folder / "adapter_model.safetensors").unlink()
    refused(folder, FileFormatError, "has no adapter_model.safetensors")
    (folder / "adapter_model.bin").touch()
    refused(folder, UnsupportedError, "is a pickled checkpoint")
    refused(tmp_path / "none", RequestError, "there is no adapter '", "neither a GGUF file nor a PEFT folder")
    refused(HERE / "llama", RequestError, "the adapter's scale is nan", scale=float("nan"))


def test_what_is_of_another_model(tmp_path: Path) -> None:
    rank = 2

    def pair(out: int, width: int) -> Pair:
        return Pair(np.ones((rank, width), np.float32), np.ones((out, rank), np.float32))

    def gguf(name: str, made: Pair, **changes: Any) -> Path:
        return write_gguf(tmp_path / "x.gguf", {name: made}, **changes)

    refused(gguf("blk.9.attn_q.weight", pair(64, 64)), FileFormatError, "the model has no such tensor; is the adapter")
    refused(gguf("blk.0.attn_q.weight", pair(60, 64)), FileFormatError, "the shapes are [2, 64] and [60, 2]")
    refused(gguf("token_embd.weight", pair(96, 64)), UnsupportedError, "adapters on embedding are not supported")
    nan = Pair(np.full((rank, 64), np.nan, np.float32), np.ones((64, rank), np.float32))
    refused(gguf("blk.0.attn_q.weight", nan), FileFormatError, "has numbers that are not finite")
    own = {"general.architecture": "qwen2"}
    refused(gguf("blk.0.attn_q.weight", pair(64, 64), **own), FileFormatError, "is 'qwen2', and the model's is 'llama'")
    refused(gguf("x", pair(1, 1), **{"general.type": "model"}), FileFormatError, "is 'model': this is no adapter")
    refused(gguf("x", pair(1, 1), **{"adapter.type": "ia3"}), UnsupportedError, "adapters of type 'ia3'")
    experts = plan_of("qwen3moe")
    name = "blk.0.ffn_up_exps.weight"
    path = gguf(name, pair(32, 64), **{"general.architecture": "qwen3moe"})
    with pytest.raises(
        UnsupportedError, match=rf"{name}: adapters on experts are not supported; those on the matrices"
    ):
        read_adapter(path, experts)
