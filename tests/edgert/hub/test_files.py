"""Which files make a model, and what a reference means."""

from __future__ import annotations

import pytest
from edgert_models.errors import RequestError
from hypothesis import given
from hypothesis import strategies as st

from edgert.hub.files import GgufSet, HubReference, checkpoint_files, choose, gguf_sets, name_of

PARTS = (
    "model",
    "Qwen3-30B",
    "UD-Q4_K_XL",
    "Q4_K_M",
    "Q4_K_S",
    "Q4_K",
    "q8_0",
    "IQ4_XS",
    "BF16",
    "mmproj",
    "imatrix",
    "v1.5",
)
NAMES = st.lists(st.sampled_from(PARTS), min_size=1, max_size=3).flatmap(
    lambda parts: st.sampled_from(("-", ".", "/", "_")).map(lambda mark: mark.join(parts) + ".gguf")
)
SHARDS = st.tuples(NAMES, st.integers(1, 3)).map(
    lambda made: [f"{made[0].removesuffix('.gguf')}-{n:05}-of-{made[1]:05}.gguf" for n in range(1, made[1] + 1)]
)


def tags(*names: str) -> list[str]:
    return [one.tag for one in gguf_sets(names)]


def test_tags() -> None:
    assert tags("m-q4_k_m.gguf", "M.IQ2_XXS.gguf", "m-UD-Q4_K_XL.gguf", "m_f16.gguf") == [
        "IQ2_XXS",
        "UD-Q4_K_XL",
        "Q4_K_M",
        "F16",
    ]
    assert tags("Q8_0/m-00001-of-00001.gguf", "m.gguf", "mxfp4_moe.gguf") == ["Q8_0", "m.gguf", "MXFP4_MOE"]


def test_what_is_no_model() -> None:
    names = ("mmproj-F16.gguf", "m-imatrix.gguf", "sub/mmproj.gguf", "m.bin", "m.gguf.part")
    assert gguf_sets(names) == []


def test_a_part_of_a_name_is_no_quantization() -> None:
    sets = gguf_sets(("m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m-IQ4_XS.gguf", "m-UD-Q4_K_M.gguf"))
    for wanted, name in (
        ("Q4_K_M", "m-Q4_K_M"),
        ("q4_k_s", "m-Q4_K_S"),
        ("IQ4_XS", "m-IQ4_XS"),
        ("UD-Q4_K_M", "m-UD-Q4_K_M"),
    ):
        assert choose(sets, HubReference("a/b", wanted)).first == f"{name}.gguf"
    for wanted in ("Q4_K", "Q4_XS", "Q4"):
        with pytest.raises(RequestError, match=f"has no file of {wanted}"):
            choose(sets, HubReference("a/b", wanted))


@given(st.lists(NAMES, max_size=6), st.lists(SHARDS, max_size=3))
def test_what_is_listed_means_what_it_lists(single: list[str], split: list[list[str]]) -> None:
    names = {*single, *(name for shards in split for name in shards)}
    sets = gguf_sets(names)
    assert len({name for one in sets for name in one.files}) == sum(len(one.files) for one in sets)
    for one in sets:
        if not one.missing:
            reference = HubReference.parse(f"hf://org/name:{name_of(one, sets)}")
            assert choose(sets, reference) == one


@pytest.mark.parametrize("prefix", ["", "hf://", "hf.co/", "https://huggingface.co/"])
def test_references(prefix: str) -> None:
    assert HubReference.parse(f"{prefix}org/name:Q8_0") == HubReference("org/name", "Q8_0")
    assert str(HubReference.parse(f"{prefix}org/name")) == "org/name"
    with pytest.raises(RequestError, match="is not of the form org/name"):
        HubReference.parse(f"{prefix}org")


def test_checkpoints() -> None:
    files = {"config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "tokenizer.model"}
    assert set(checkpoint_files({*files, "consolidated.safetensors", "x/y.json", "pytorch_model.bin"})) == files
    assert checkpoint_files({"config.json", "consolidated.safetensors"}) == ["config.json", "consolidated.safetensors"]
    assert checkpoint_files({"config.json", "pytorch_model.bin"}) == []
    assert checkpoint_files({"model.safetensors"}) == []


def test_a_set_lacks_shards() -> None:
    (one,) = gguf_sets(("m-00002-of-00003.gguf",))
    assert one == GgufSet(("m-00002-of-00003.gguf",), missing=2)
