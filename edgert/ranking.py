"""How well documents answer a query: what models say that were trained to judge it, such as Qwen3-Reranker.

Such a file has `pooling_type` RANK (4), a head `cls.output` on the last token's hidden values, and a chat template
called `rerank` with places for `{query}` and `{document}`. Source: llama.cpp, `src/llama-graph.cpp` (`build_pooling`)
and `conversion/qwen.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import numpy as np
from edgert_models.errors import FileFormatError, UnsupportedError
from edgert_quant.blocks import dequantize
from edgert_quant.gguf import GgufFile
from numpy.typing import NDArray

from edgert.text import Tokenizer

RANK = 4
"""llama.cpp's number of this pooling (`llama_pooling_type`)."""
_HEAD = "cls.output"
_QUERY, _DOCUMENT = "{query}", "{document}"
_PRIVATE = range(0x100000, 0x10FFFD)
"""Characters for private use, of which two stand for the texts while the template is cut at its control tokens."""


@dataclass(frozen=True, slots=True)
class Ranker:
    """A head with its prompt. `weight` is float32 [classes, width], `bias` [classes]; the first class is the good one.
    A head of one class gives a score of any size, others a probability.
    """

    tokenizer: Tokenizer
    template: str
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    @classmethod
    def from_gguf(cls, file: GgufFile, tokenizer: Tokenizer | None, width: int) -> Ranker:
        """UnsupportedError where the file is of no such model, FileFormatError where its head does not fit."""
        metadata = file.metadata
        architecture, name = metadata.string("general.architecture"), metadata.path
        if metadata.integer(f"{architecture}.pooling_type", 0) != RANK or f"{_HEAD}.weight" not in file.tensors:
            raise UnsupportedError(
                f"{name} is no model for ranking: these have {architecture}.pooling_type {RANK} and {_HEAD}.weight"
            )
        if "cls.weight" in file.tensors:
            raise UnsupportedError(f"tensor cls.weight in {name}: a head of two layers is not supported")
        template = metadata.string("tokenizer.chat_template.rerank", None)
        if tokenizer is None or template is None or _QUERY not in template or _DOCUMENT not in template:
            reason = f"{name}: ranking needs tokenizer.chat_template.rerank with {{query}} and {{document}}"
            raise UnsupportedError(reason)
        weight = _floats(file, f"{_HEAD}.weight")
        bias = _floats(file, f"{_HEAD}.bias") if f"{_HEAD}.bias" in file.tensors else np.zeros(len(weight), np.float32)
        if weight.ndim != 2 or weight.shape[1] != width or bias.size != len(weight):
            raise FileFormatError(name, f"the shape is {list(weight.shape)}, not [classes, {width}]", field=_HEAD)
        return cls(tokenizer, template, weight, bias.reshape(-1))

    def prompt(self, query: str, document: str) -> list[int]:
        """Token ids. Control tokens that texts spell out are text."""
        taken = {*self.template, *query, *document}
        first, second = islice((chr(code) for code in _PRIVATE if chr(code) not in taken), 2)
        marked = self.template.replace(_QUERY, first).replace(_DOCUMENT, second)
        return self.tokenizer.encode_around(marked, {first: query, second: document})

    def score(self, hidden: NDArray[np.float32]) -> float:
        """Of a prompt's hidden values, float32 [tokens, width]."""
        classes = self.weight.astype(np.float64) @ hidden[-1] + self.bias
        if len(classes) == 1:
            return float(classes[0])
        odds = np.exp(classes - classes.max())
        return float(odds[0] / odds.sum())


def _floats(file: GgufFile, name: str) -> NDArray[np.float32]:
    tensor = file.tensors[name]
    values: NDArray[np.float32] = dequantize(file.read(name), tensor.type).reshape(tensor.shape)
    return values
