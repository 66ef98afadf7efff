"""Vocabularies: read from GGUF metadata or a checkpoint folder, written for the converter, and cut text into token ids.

What a user of the running model sees (begin and end tokens, decoding, streaming) is `edgert.text`'s; this package holds
what the converter needs as well. Importing it does not import `tokenizers`.
"""

from edgert_quant.vocabulary.encoders import Encoder, build_encoder, rebuild_encoder
from edgert_quant.vocabulary.folder import ggml_metadata, has_tokenizer
from edgert_quant.vocabulary.parity import AWKWARD_TEXTS, Difference, check_parity, require_parity
from edgert_quant.vocabulary.pieces import token_bytes
from edgert_quant.vocabulary.special import WHITE_SPACE
from edgert_quant.vocabulary.table import BYTE_LEVEL, END_NAMES, HUGGINGFACE_JSON, TokenType, Vocabulary

__all__ = [
    "AWKWARD_TEXTS",
    "BYTE_LEVEL",
    "END_NAMES",
    "HUGGINGFACE_JSON",
    "WHITE_SPACE",
    "Difference",
    "Encoder",
    "TokenType",
    "Vocabulary",
    "build_encoder",
    "check_parity",
    "ggml_metadata",
    "has_tokenizer",
    "rebuild_encoder",
    "require_parity",
    "token_bytes",
]
