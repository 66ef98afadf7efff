"""Synthetic models: every type opens and computes, with weights of the usual size."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from edgert_models.errors import UnsupportedError
from edgert_quant.blocks import BlockType, dequantize
from edgert_quant.gguf import GgufFile

from benchmarks import synthetic
from benchmarks.synthetic import SHAPES, choice, random_rows, size, within, write
from edgert import LLM, SamplingParams

DEMO = Path(__file__).parents[2] / "edgert/demo/model.gguf"
TYPES = ("q8_0", "q4_0", "q4_k_m", "q6_k", "iq4_xs", "mxfp4")
SMALL = replace(
    SHAPES["qwen3"],
    vocabulary=128,
    context=64,
    width=256,
    layers=2,
    heads=4,
    kv_heads=2,
    head_size=64,
    rope=replace(SHAPES["qwen3"].rope, dims=64),
    experts=8,
    experts_used=2,
    expert_feed_forward=256,
)
SIZES = {
    "width": 288,
    "expert_feed_forward": 288,
    "layers": 2,
    "vocabulary": 128,
    "experts": 8,
    "heads": 4,
    "kv_heads": 2,
}
ODD = replace(SHAPES["gpt-oss"], **SIZES, windowed=(True, False), context=64)  # rows have no blocks of 256


@pytest.mark.parametrize("spec", [SMALL, ODD], ids=["256", "288"])
@pytest.mark.parametrize("name", TYPES)
def test_every_type_opens_and_computes(name: str, spec: object, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write(spec, name, path)
    with LLM(path, backend="reference", kv_type="f32") as llm:
        logits = llm.logits([1, 2, 3])
    assert logits.shape == (3, 128)
    assert np.isfinite(logits).all()
    assert 0.1 < logits.std() < 10


def test_experts_in_mxfp4_and_the_rest_in_q8_0(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write(ODD, "mxfp4", path)
    with GgufFile.open(path) as file:
        types = {name: tensor.type for name, tensor in file.tensors.items()}
        assert file.metadata.integer("general.file_type") == 38
    assert types["blk.0.ffn_down_exps.weight"] is BlockType.MXFP4
    assert types["output.weight"] is types["token_embd.weight"] is types["blk.1.attn_k.weight"] is BlockType.Q8_0
    assert types["blk.0.ffn_gate_inp.weight"] is types["blk.0.attn_norm.weight"] is BlockType.F32


@pytest.mark.parametrize("kind", [BlockType.MXFP4, BlockType.IQ4_XS, BlockType.IQ4_NL, BlockType.Q4_K])
def test_random_rows_spread_as_weights_do(kind: BlockType) -> None:
    columns = 2048
    x = dequantize(random_rows(kind, 64, columns, np.random.default_rng(0)), kind)
    spread = x.std() * columns**0.5
    # Scales of MXFP4 are powers of two.
    assert 0.7 < spread < 1.42 if kind is BlockType.MXFP4 else abs(spread - 1) < 0.02
    assert abs(x.mean()) < 0.1 * x.std()


def test_layers_are_as_many_as_the_bytes_allow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, choose = choice("q4_0")
    large = replace(SMALL, layers=6)
    three = size(replace(large, layers=3), choose)
    assert within(large, choose, three).layers == 3
    assert within(large, choose, three - 1).layers == 2
    assert within(large, choose, 1 << 40).layers == 6
    with pytest.raises(UnsupportedError, match=r"one layer takes [0-9]+ bytes, more than 10"):
        within(large, choose, 10)
    monkeypatch.setitem(SHAPES, "small", large)
    path = tmp_path / "model.gguf"
    monkeypatch.setattr("sys.argv", ["synthetic", "small", "q4_0", str(path), "--bytes", str(three)])
    synthetic.main()
    with GgufFile.open(path) as file:
        assert file.metadata.integer("qwen3moe.block_count") == 3
        assert sum(tensor.nbytes for tensor in file.tensors.values()) == three


def test_unknown_types_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["synthetic", "olmoe", "q9", "out.gguf"])
    with pytest.raises(SystemExit):
        synthetic.main()
    assert "type 'q9' is not one of f32, " in capsys.readouterr().err


def test_another_files_tokenizer_comes_with_its_vocabulary(tmp_path: Path) -> None:
    tokenizer = synthetic.tokenizer_of(DEMO)
    tokens = next(value for key, value, _ in tokenizer if key == "tokenizer.ggml.tokens")
    path = tmp_path / "model.gguf"
    write(replace(SMALL, vocabulary=len(tokens)), "q8_0", path, tokenizer=tokenizer)
    with LLM(path, backend="reference", context=32) as llm, LLM(DEMO, backend="reference", context=32) as demo:
        assert llm.tokenize("12 plus 30") == demo.tokenize("12 plus 30")
        assert llm.generate("12 plus", SamplingParams(max_tokens=2)).usage.completion_tokens == 2
