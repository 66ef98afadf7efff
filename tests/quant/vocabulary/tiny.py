"""Tiny vocabularies, as GGUF metadata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgert_quant.vocabulary.pieces import BYTE_OF_LETTER


def bpe_metadata(
    merges: Sequence[str] = ("t h", "th e", "Ġ the", "i n", "Ġ Ġ"),
    *,
    pre: str = "gpt-2",
    control: Sequence[str] = (),
    user_defined: Sequence[str] = (),
) -> dict[str, Any]:
    """Byte-level BPE: the 256 bytes, what the merges make, then the special tokens."""
    letters = sorted(BYTE_OF_LETTER, key=lambda letter: BYTE_OF_LETTER[letter])
    tokens = [*letters, *(merge.replace(" ", "") for merge in merges), *control, *user_defined]
    kinds = [1] * (256 + len(merges)) + [3] * len(control) + [4] * len(user_defined)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": list(merges),
    }


def spm_metadata(
    pieces: Sequence[str],
    scores: Sequence[float],
    *,
    user_defined: Sequence[str] = (),
    add_space_prefix: bool = True,
) -> dict[str, Any]:
    """SentencePiece BPE: <unk>, <s>, </s>, the 256 bytes, the pieces, then the user-defined tokens."""
    fixed = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [2, 3, 3] + [6] * 256 + [1] * len(pieces) + [4] * len(user_defined)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [*fixed, *pieces, *user_defined],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.scores": [0.0] * 259 + [float(score) for score in scores] + [0.0] * len(user_defined),
        "tokenizer.ggml.add_space_prefix": add_space_prefix,
    }
