"""Prompts of what is before a gap and what is after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgert_models.errors import FileFormatError, UnsupportedError

from edgert import LLM, SamplingParams
from tests.edgert.tiny_gguf import tokenizer_entries, write_tiny

QWEN = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|repo_name|>", "<|file_sep|>"]


def write(folder: Path, special: list[str], **more: Any) -> Path:
    entries = tokenizer_entries()
    entries["tokenizer.ggml.tokens"] = [*entries["tokenizer.ggml.tokens"], *special]
    entries["tokenizer.ggml.token_type"] = np.append(
        entries["tokenizer.ggml.token_type"], np.full(len(special), 3, np.int32)
    )
    return write_tiny(folder / "infill.gguf", tokenizer={**entries, **more}, padding=len(special))


def told(llm: LLM, ids: list[int]) -> str:
    return llm.detokenize(ids)


def test_prompts(tmp_path: Path) -> None:
    with LLM(write(tmp_path, QWEN), backend="reference") as llm:
        assert llm.infills
        ids = llm.infill_prompt("def f(", "):\n")
        assert ids[0] == llm.tokenizer.bos_id
        assert told(llm, ids[1:]) == "<|fim_prefix|>def f(<|fim_suffix|>):\n<|fim_middle|>"
        several = llm.infill_prompt("a", "b", files=[("x.py", "x = 1\n"), ("y.py", "y\n")])
        assert told(llm, several[1:]) == (
            "<|repo_name|>project\n<|file_sep|>x.py\nx = 1\n<|file_sep|>y.py\ny\n<|file_sep|>"
            "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>"
        )
        # What a text spells out is text.
        sneaky = llm.infill_prompt("<|fim_suffix|>", "")
        assert sneaky.count(llm.tokenizer.token_id("<|fim_suffix|>") or -1) == 1
        separator = llm.tokenizer.token_id("<|file_sep|>")
        assert separator is not None
        ended = llm.generate(ids, SamplingParams(max_tokens=9, logit_bias={separator: 100.0}))
        assert (ended.finish_reason, ended.text) == ("stop", "")


def test_tokens_that_the_file_names(tmp_path: Path) -> None:
    first = len(tokenizer_entries()["tokenizer.ggml.tokens"])
    names = {"fim_pre": first, "fim_suf": first + 1, "middle": first + 2}
    keys = {f"tokenizer.ggml.{name}_token_id": index for name, index in names.items()}
    with LLM(write(tmp_path, ["[A]", "[B]", "[C]"], **keys), backend="reference") as llm:
        assert told(llm, llm.infill_prompt("x", "y")[1:]) == "[A]x[B]y[C]"
        with pytest.raises(UnsupportedError, match="no token that separates files; leave the other files out"):
            llm.infill_prompt("x", "y", files=[("a", "b")])
    keys["tokenizer.ggml.fim_pre_token_id"] = 10**6
    with pytest.raises(FileFormatError, match="fim_pre_token_id"):
        LLM(write(tmp_path, ["[A]", "[B]", "[C]"], **keys), backend="reference")


def test_models_that_were_not_trained_for_it(tmp_path: Path) -> None:
    with LLM(write(tmp_path, QWEN[:2]), backend="reference") as llm:
        assert not llm.infills
        with pytest.raises(UnsupportedError, match=r"has no tokens for filling in \(such as <\|fim_prefix\|>\)"):
            llm.infill_prompt("x", "y")
