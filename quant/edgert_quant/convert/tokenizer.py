"""The tokenizer of a checkpoint folder as metadata of a GGUF file."""

from __future__ import annotations

from pathlib import Path

from edgert_models.errors import ConversionError

from edgert_quant.convert.source import MetadataEntry
from edgert_quant.gguf import ValueType
from edgert_quant.vocabulary import ggml_metadata, has_tokenizer, require_parity


def tokenizer_metadata(folder: Path, *, vocabulary: int, parity: bool) -> tuple[dict[str, MetadataEntry], list[str]]:
    """The `tokenizer.*` entries, and warnings. `vocabulary` counts the rows of the embedding.

    ConversionError where tokenizer and model do not fit together, or (with `parity`) where the GGUF form of the
    tokenizer cuts a text otherwise than the original.
    """
    if not has_tokenizer(folder):
        # llama.cpp's name for a file that takes token ids only; it makes up as many tokens as `vocab_size` says.
        none = {"tokenizer.ggml.model": MetadataEntry("none")}
        missing = "no tokenizer.json, tokenizer.model, tekken.json or tiktoken.model"
        return none, [f"the checkpoint has {missing}: the file takes token ids only"]
    found = ggml_metadata(folder, vocab_size=vocabulary, check_pre=parity)
    if parity:
        try:
            require_parity(found)
        except ConversionError as error:
            raise ConversionError(f"{folder}: {error}; convert with parity=False to let that pass") from error
    strings = ValueType.STRING
    return {key: MetadataEntry(value, strings if isinstance(value, list) else None) for key, value in found.items()}, []
