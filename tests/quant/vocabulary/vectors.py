"""llama.cpp's vocabularies and test vectors, read from beside the repository; tests skip where they are missing.

`EDGERT_LLAMA_CPP_MODELS` names the folder `models` of llama.cpp's sources, which has more of them.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest
from edgert_quant.gguf import GgufFile

FOLDER = Path(__file__).parents[3].parent / "shared" / "data" / "vocab"
MORE = Path(os.environ.get("EDGERT_LLAMA_CPP_MODELS", FOLDER))
NAMES = ("deepseek-llm", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2")
MORE_NAMES = ("bert-bge", "command-r", "deepseek-coder", "falcon", "gemma-4", "mpt", "qwen35", "refact", "starcoder")


def path_of(name: str) -> Path:
    """The vocabulary file; skips the test where it is missing."""
    path = (FOLDER if name in NAMES else MORE) / f"ggml-vocab-{name}.gguf"
    if not path.exists():
        pytest.skip(f"{path} is not there; EDGERT_LLAMA_CPP_MODELS may name a folder of llama.cpp's vocabularies")
    return path


@cache
def metadata(name: str) -> dict[str, object]:
    """The metadata of a vocabulary file."""
    with GgufFile.open(path_of(name)) as file:
        return dict(file.metadata)


def pairs(name: str) -> list[tuple[str, list[int]]]:
    """Texts and the token ids that llama.cpp's own tests expect of them."""
    path = path_of(name)
    texts = Path(f"{path}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    lines = Path(f"{path}.out").read_text().split("\n")[:-1]
    texts = texts[: len(lines)]  # in most files the last one ends with the separator too
    assert len(texts) == len(lines) > 40
    return [(text, [int(word) for word in line.split()]) for text, line in zip(texts, lines, strict=True)]
