"""llama.cpp's vocabularies and test vectors, read from beside the repository; tests skip where they are missing."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from edgert_quant.gguf import GgufFile

FOLDER = Path(__file__).parents[3].parent / "shared" / "data" / "vocab"
NAMES = ("deepseek-llm", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2")


@cache
def metadata(name: str) -> dict[str, object]:
    """The metadata of a vocabulary file."""
    path = FOLDER / f"ggml-vocab-{name}.gguf"
    if not path.exists():
        pytest.skip(f"{path} is not there: llama.cpp's vocabularies are not part of the repository")
    with GgufFile.open(path) as file:
        return dict(file.metadata)


def pairs(name: str) -> list[tuple[str, list[int]]]:
    """Texts and the token ids that llama.cpp's own tests expect of them."""
    metadata(name)
    path = FOLDER / f"ggml-vocab-{name}.gguf"
    texts = Path(f"{path}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")[:-1]
    lines = Path(f"{path}.out").read_text().split("\n")[:-1]
    assert len(texts) == len(lines) > 40
    return [(text, [int(word) for word in line.split()]) for text, line in zip(texts, lines, strict=True)]
