"""Models answer the same, token by token, whoever guesses their tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from edgert_models.errors import RequestError, UnsupportedError
from edgert_quant.convert import convert

from edgert import LLM, SamplingParams, StructuredOutputs, drafting
from edgert.completion import Completion
from edgert.resolve import resolve_model
from tests.edgert.tiny_gguf import tokenizer_entries, write_tiny
from tests.support.golden import FOLDER

LIST = StructuredOutputs(json={"type": "array", "items": {"enum": ["red", "green"]}, "minItems": 12, "maxItems": 20})
PARAMS = [
    SamplingParams(max_tokens=60, temperature=0.0),
    SamplingParams(max_tokens=60, seed=1, repetition_penalty=1.1, logprobs=1),
    SamplingParams(max_tokens=120, seed=2, structured_outputs=LIST),
    SamplingParams(max_tokens=60, seed=3, temperature=0.3, stop=(".",)),
    SamplingParams(max_tokens=40, temperature=0.0, ignore_eos=True, min_tokens=20),
]
PROMPTS = ["one two three one two three one two", "Tell me: ", "Colours: ", "It is a lamp. It is a", "a b a b a b a"]


def answers(llm: LLM) -> list[Completion]:
    return llm.generate(PROMPTS, PARAMS)


@pytest.fixture(scope="module")
def plain() -> Iterator[tuple[LLM, list[Completion]]]:
    with LLM(context=512, speculate="off") as llm:
        yield llm, answers(llm)


@pytest.mark.parametrize("options", [{"speculate": "lookup"}, {"draft": None}, {"speculate": "auto"}], ids=str)
def test_answers_are_the_same(
    plain: tuple[LLM, list[Completion]], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drafting, "LEAST_BYTES", 0)
    if "draft" in options:  # the model itself: all of its guesses are right, but those after an answer's end
        options = {"speculate": "draft", "draft": resolve_model(None)}
    with LLM(context=512, **options) as llm:
        for expected, found in zip(plain[1], answers(llm), strict=True):
            assert found.token_ids == expected.token_ids
            assert (found.text, found.finish_reason, found.logprobs) == (
                expected.text,
                expected.finish_reason,
                expected.logprobs,
            )
        now = llm.statistics()
        timings = [llm.generate(PROMPTS[0], PARAMS[0]).timings for _ in range(2)]
        if options["speculate"] != "auto":
            assert now.guessed_tokens > 50
            assert all(timing.guessed_tokens >= timing.right_guesses > 0 for timing in timings)
        if "draft" in options:
            assert all(timing.right_guesses > 0.8 * timing.guessed_tokens for timing in timings)
        assert now.blocks_held == 0
    assert plain[0].statistics().guessed_tokens == 0


def test_small_models_are_not_guessed_for_unless_it_is_asked_for() -> None:
    with LLM(context=512) as llm:
        assert llm.report.weight_bytes < drafting.LEAST_BYTES
        llm.generate(PROMPTS[0], SamplingParams(max_tokens=60, temperature=0.0, ignore_eos=True))
        assert llm.statistics().guessed_tokens == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speculate": "always"}, "speculate must be one of auto, off, lookup, draft, not 'always'"),
        ({"speculate": "draft"}, r"there is no draft model \(draft, --draft\)"),
        ({"speculate": "off", "draft": "x.gguf"}, "a draft model has no use with speculate 'off'"),
        ({"speculate": "lookup", "draft": "x.gguf"}, "a draft model has no use with speculate 'lookup'"),
    ],
    ids=str,
)
def test_what_is_refused(tiny_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        LLM(tiny_path, backend="reference", **options)


def test_drafts_that_do_not_fit(tiny_path: Path, tmp_path: Path) -> None:
    entries = tokenizer_entries()
    texts = entries["tokenizer.ggml.tokens"]
    entries["tokenizer.ggml.tokens"] = ["OR" if text == "or" else text for text in texts]
    entries["tokenizer.ggml.merges"] = entries["tokenizer.ggml.merges"][:-1]
    other = write_tiny(tmp_path / "other.gguf", tokenizer=entries)
    with pytest.raises(UnsupportedError, match=r"other.gguf cannot be a draft model here: its tokens are not those"):
        LLM(tiny_path, backend="reference", draft=other)
    recurrent = tmp_path / "recurrent.gguf"
    convert(FOLDER / "lfm2", recurrent, type="f32")
    with pytest.raises(UnsupportedError, match="its recurrent states cannot take tokens back"):
        LLM(tiny_path, backend="reference", draft=recurrent)
    with pytest.raises(UnsupportedError, match="this model has recurrent states, which cannot take tokens back"):
        LLM(recurrent, backend="reference", speculate="lookup")
    with LLM(recurrent, backend="reference") as llm:
        llm.generate([1, 2], SamplingParams(max_tokens=3, ignore_eos=True))
        assert llm.statistics().guessed_tokens == 0


def test_another_draft(open_tiny: Callable[..., LLM], tmp_path: Path) -> None:
    """A draft of another family and size guesses wrongly, and changes nothing."""
    draft = write_tiny(tmp_path / "draft.gguf", "llama", seed=5, context=64)
    given = SamplingParams(max_tokens=80, temperature=0.8, seed=4, ignore_eos=True)
    alone = open_tiny(speculate="off").generate("hello world", given)
    llm = open_tiny(speculate="draft", draft=draft)
    found = llm.generate("hello world", given)
    if llm.report.backend in ("cpu", "reference"):  # of others the last bits may differ
        assert found.token_ids == alone.token_ids
    assert 0 < found.timings.guessed_tokens <= 5 * 64
