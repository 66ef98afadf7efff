"""Vocabularies: read from GGUF metadata or a checkpoint folder, written for the converter, and cut text into token ids.

What a user of the running model sees (begin and end tokens, decoding, streaming) is `edgert.text`'s; this package holds
what the converter needs as well. Importing it does not import `tokenizers`.
"""

from edgert_quant.vocabulary.encoders import HUGGINGFACE_JSON, Encoder, build_encoder, rebuild_encoder
from edgert_quant.vocabulary.pieces import token_bytes
from edgert_quant.vocabulary.table import TokenType, Vocabulary

__all__ = [
    "HUGGINGFACE_JSON",
    "Encoder",
    "TokenType",
    "Vocabulary",
    "build_encoder",
    "rebuild_encoder",
    "token_bytes",
]
