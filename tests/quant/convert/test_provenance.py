"""Where a model comes from, as the user says."""

from pathlib import Path

import pytest
from edgert_models.errors import RequestError
from edgert_quant.convert import convert
from edgert_quant.gguf import GgufFile

from tests.support.golden import FOLDER

PREFIXES = ("general.base_model.", "general.dataset.", "edgert.distill.")


def origins(path: Path) -> dict[str, object]:
    with GgufFile.open(path) as file:
        return {key: value for key, value in file.metadata.items() if key.startswith(PREFIXES)}


def test_teachers_and_data_sets(tmp_path: Path) -> None:
    one, two = tmp_path / "one.gguf", tmp_path / "two.gguf"
    teachers = ["some-lab/Big-Teacher", "https://example.org/models/other-one/", "plain"]
    convert(
        FOLDER / "mistral", one, type="f16", distilled_from=teachers, datasets=["https://huggingface.co/datasets/a/b"]
    )
    found = origins(one)
    assert found == {
        "edgert.distill.teachers": teachers,
        "general.base_model.0.name": "Big Teacher",
        "general.base_model.0.organization": "some-lab",
        "general.base_model.0.repo_url": "https://huggingface.co/some-lab/Big-Teacher",
        "general.base_model.1.name": "other one",
        "general.base_model.1.repo_url": "https://example.org/models/other-one/",
        "general.base_model.2.name": "plain",
        "general.base_model.count": 3,
        "edgert.distill.datasets": ["https://huggingface.co/datasets/a/b"],
        "general.dataset.0.name": "b",
        "general.dataset.0.organization": "a",
        "general.dataset.0.repo_url": "https://huggingface.co/datasets/a/b",
        "general.dataset.count": 1,
    }
    convert(one, two, type="q8_0")
    assert origins(two) == found  # quantizing again changes nothing
    convert(one, two, type="q8_0", distilled_from=["plain", "a/new"])
    more = origins(two)
    assert more["general.base_model.count"] == 4  # what was there already is not there twice
    assert more["general.base_model.3.name"] == "new"
    assert more["edgert.distill.teachers"] == ["plain", "a/new"]


@pytest.mark.parametrize("name", ["", " / ", "two\nlines"])
def test_names_that_cannot_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(RequestError, match="is no name, hub id or address"):
        convert(FOLDER / "mistral", tmp_path / "a.gguf", type="f16", distilled_from=[name])
    assert not list(tmp_path.iterdir())
