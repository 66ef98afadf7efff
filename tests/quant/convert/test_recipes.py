import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from edgert_models.errors import UnsupportedError
from edgert_models.registry import build_plan
from edgert_models.spec import ModelSpec
from edgert_quant.blocks import BlockType
from edgert_quant.recipes import RECIPES, recipe_named

from tests.quant.convert.llama_quantize import MODELS, TABLE, WEIGHED, by_part, table, weights_of

PLAIN = {"q4_k", "q5_k"}
OBSERVED = json.loads(TABLE.read_text())


def chosen(spec: ModelSpec, recipe: str, *, weighed: bool = False) -> dict[str, str]:
    named = recipe_named(recipe)
    types = (named.with_importance() if weighed else named).types(weights_of(spec), spec)
    return {name: kind.name for name, kind in types.items()}


@pytest.mark.parametrize("model", OBSERVED)
def test_types_are_those_of_llama_quantize(model: str) -> None:
    for recipe in RECIPES.keys() - PLAIN:
        types = OBSERVED[model][recipe]
        assert by_part(chosen(MODELS[model], recipe)) == types, recipe
        weighed = OBSERVED[model].get(recipe + WEIGHED, types)
        assert by_part(chosen(MODELS[model], recipe, weighed=True)) == weighed, recipe


@pytest.mark.slow
def test_the_table_is_what_llama_cpp_does() -> None:
    folder = os.environ.get("EDGERT_LLAMA_CPP_BIN")
    if not folder:
        pytest.skip("EDGERT_LLAMA_CPP_BIN does not name the folder of llama.cpp's binaries")
    assert table(Path(folder)) == OBSERVED


def test_the_table_covers_every_named_mix() -> None:
    assert set(RECIPES) - PLAIN == {recipe.removesuffix(WEIGHED) for recipe in OBSERVED["llama"]}


@pytest.mark.parametrize(("recipe", "base"), [("q4_k", "Q4_K"), ("q5_k", "Q5_K")])
def test_plain_recipes_have_one_type_beside_the_output(recipe: str, base: str) -> None:
    types = chosen(MODELS["mixtral"], recipe)
    assert types.pop("output.weight") == "Q6_K"
    assert {types.pop(name) for name in list(types) if "norm" in name or "gate_inp" in name} == {"F32"}
    assert set(types.values()) == {base}


def test_vectors_and_routers_are_floats_in_every_recipe() -> None:
    spec = replace(MODELS["mixtral"], attention_bias=True)
    for recipe in RECIPES.values():
        weights = build_plan(spec).weights
        for name, kind in recipe.types(weights.values(), spec).items():
            if len(weights[name].shape) == 1 or name.endswith("ffn_gate_inp.weight"):
                assert kind is BlockType.F32, (recipe.name, name)


def test_names() -> None:
    assert recipe_named(" Q4_K_M ") is RECIPES["q4_k_m"]
    with pytest.raises(UnsupportedError, match=r"type 'iq3_l' is not supported; supported: f32, f16, bf16, q8_0"):
        recipe_named("iq3_l")
