"""The options of sampling, and what a command is given of them."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
import typer
from edgert_models.errors import RequestError
from typer.testing import CliRunner

from edgert import SamplingParams
from edgert.cli.sampling import changed, sampling_options
from tests.edgert.cli.support import QUICK, run


def given_by(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    app = typer.Typer()

    @app.command()
    @sampling_options
    def command(word: str, sampling: Mapping[str, Any]) -> None:
        found.update(sampling)

    result = CliRunner().invoke(app, ["word", *arguments])
    assert result.exit_code == 0, result.output
    return found


def test_only_what_was_given() -> None:
    assert given_by() == {}
    assert given_by("--top-k", "3", "--xtc-probability", "0.5") == {"top_k": 3, "xtc_probability": 0.5}
    assert given_by("--set", "dry_base=2", "--set", "min_tokens=3") == {"set": ["dry_base=2", "min_tokens=3"]}


def test_what_becomes_of_it() -> None:
    params = SamplingParams(seed=4)
    assert changed(params, {}) == params
    options = {"temperature": 0.5, "samplers": "top_k; typ_p,temperature", "set": ["dry_base=2", "top_p=none"]}
    assert changed(params, options) == SamplingParams(
        seed=4, temperature=0.5, samplers=("top_k", "typical_p", "temperature"), dry_base=2, top_p=None
    )
    assert changed(params, {"set": ['dry_sequence_breakers=["a", "b"]']}).dry_sequence_breakers == ("a", "b")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"set": ["dry_base"]}, "--set dry_base: write it like --set dry_base=2"),
        ({"set": ["warmth=1"]}, "unknown setting 'warmth'; there are: dry_allowed_length, "),
        ({"set": ["dry_base=x"]}, "dry_base must be a number from 1 to 100, not 'x'"),
        ({"samplers": "best"}, "samplers: 'best' is none of"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be a number from 0.001 to 1000"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        changed(SamplingParams(), options)


def test_generate_honours_them() -> None:
    common = ("generate", "demo", "One day", *QUICK, "--max-tokens", "12", "--seed", "1", "--json")

    def text(*options: str) -> str:
        result = run(*common, *options)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)["text"]  # type: ignore[no-any-return]

    greedy = text("--temperature", "0")
    assert text("--temperature", "2", "--top-k", "1") == greedy
    assert text("--temperature", "2", "--samplers", "temperature") != greedy
    assert text("--temperature", "0", "--set", "frequency_penalty=2", "--presence-penalty", "2") != greedy
