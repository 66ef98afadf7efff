"""GGUF files: a reader that trusts nothing in them, and a writer that streams.

Source of the format: the GGUF specification, `docs/gguf.md` in ggml.
"""

from edgert_quant.gguf.checksum import weights_sha256
from edgert_quant.gguf.header import GgufTensor
from edgert_quant.gguf.metadata import GgufMetadata
from edgert_quant.gguf.reader import GgufFile
from edgert_quant.gguf.rewrite import rewrite_metadata
from edgert_quant.gguf.values import ValueType
from edgert_quant.gguf.writer import GgufWriter

__all__ = ["GgufFile", "GgufMetadata", "GgufTensor", "GgufWriter", "ValueType", "rewrite_metadata", "weights_sha256"]
