"""The tokenizer of a checkpoint folder as metadata of a GGUF file."""

from __future__ import annotations

from pathlib import Path

from edgert_quant.convert.source import MetadataEntry

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def tokenizer_metadata(folder: Path, *, vocabulary: int, parity: bool) -> tuple[dict[str, MetadataEntry], list[str]]:
    """The `tokenizer.*` entries, and warnings. `vocabulary` counts the rows of the embedding."""
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        # llama.cpp's name for a file that takes token ids only; it makes up as many tokens as `vocab_size` says.
        none = {"tokenizer.ggml.model": MetadataEntry("none")}
        return none, ["the checkpoint has no tokenizer: the file takes token ids only"]
    raise NotImplementedError
