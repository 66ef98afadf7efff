"""Exceptions from a recipe, tensor by tensor."""

import re
from pathlib import Path

import pytest
from edgert_models.errors import RequestError
from edgert_quant.blocks import BlockType
from edgert_quant.convert import convert
from edgert_quant.convert.rules import Rule
from edgert_quant.gguf import GgufFile

from tests.support.golden import FOLDER


def types_of(path: Path) -> dict[str, str]:
    with GgufFile.open(path) as file:
        return {name: tensor.type.name for name, tensor in file.tensors.items()}


def test_rules_prevail_over_the_recipe_and_later_ones_over_earlier(tmp_path: Path) -> None:
    plain, ruled = tmp_path / "plain.gguf", tmp_path / "ruled.gguf"
    convert(FOLDER / "qwen3moe", plain, type="q8_0")
    rules = ["blk.*=q4_0", "blk.*.ffn_down_exps=q5_1", "token_embd.weight=F16"]
    report = convert(FOLDER / "qwen3moe", ruled, type="q8_0", tensors=rules)
    before, after = types_of(plain), types_of(ruled)
    for name, kind in after.items():
        expected = before[name]
        if name.startswith("blk.") and expected == "Q8_0":
            expected = "Q5_1" if "ffn_down_exps" in name else "Q4_0"
        if name == "token_embd.weight":
            expected = "F16"
        assert kind == expected, name
    assert "Q5_1" in {total.type for total in report.types}
    with GgufFile.open(ruled) as file:
        assert list(file.metadata["edgert.convert.tensors"]) == [*rules[:2], "token_embd.weight=f16"]
    with GgufFile.open(plain) as file:
        assert "edgert.convert.tensors" not in file.metadata


def test_a_gguf_is_quantized_again_by_rules(tmp_path: Path) -> None:
    convert(FOLDER / "qwen3moe", tmp_path / "a.gguf", type="f32", tensors=["output=bf16"])
    convert(tmp_path / "a.gguf", tmp_path / "b.gguf", type="q8_0", tensors=["output=q4_0"])
    assert types_of(tmp_path / "b.gguf")["output.weight"] == "Q4_0"
    with GgufFile.open(tmp_path / "b.gguf") as file:
        assert list(file.metadata["edgert.convert.tensors"]) == ["output=q4_0"]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("blk.0.ffn_up", "'blk.0.ffn_up' is no rule for tensors; write it like blk.*.ffn_down_exps=q6_k"),
        ("=q8_0", "'=q8_0' is no rule for tensors"),
        ("output=", "'output=': there is no writing nothing; there is f32, f16, bf16, "),
        ("output=nvfp4", "'output=nvfp4': there is no writing nvfp4; there is f32"),
        ("outputs=q8_0", "'outputs=q8_0' matches no tensor of this model"),
        ("*norm*=q8_0", "'*norm*=q8_0' matches only vectors and routers, which stay F32"),
        ("blk.*=q6_k", "'blk.*=q6_k': rows of "),
    ],
)
def test_rules_that_cannot_be_followed(rule: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        convert(FOLDER / "qwen3moe", tmp_path / "x.gguf", type="q8_0", tensors=[rule])
    assert not (tmp_path / "x.gguf").exists()


def test_patterns() -> None:
    rule = Rule.parse(" blk.[0-3].attn_? = Q8_0 ")
    assert rule == Rule("blk.[0-3].attn_?", BlockType.Q8_0)
    assert str(rule) == "blk.[0-3].attn_?=q8_0"
    assert rule.matches("blk.2.attn_q.weight")
    assert not rule.matches("blk.4.attn_q.weight")
    assert not rule.matches("blk.2.attn_norm.weight")
