"""From text to token ids, without beginning and end: one encoder per kind of tokenizer.

`build_encoder` picks: the model's own `tokenizer.huggingface.json` where the file has it, else a tokenizer rebuilt from
`tokenizer.ggml.*`. `tokenizers` is imported only when an encoder is built.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar

from edgert_models.errors import EdgertError, FileFormatError

from edgert_quant.vocabulary.dna import DnaAndText
from edgert_quant.vocabulary.library import MAKERS, hidden
from edgert_quant.vocabulary.pieces import SPACE
from edgert_quant.vocabulary.plamo import BestSum
from edgert_quant.vocabulary.rwkv import LongestMatch
from edgert_quant.vocabulary.special import SpecialEncoder
from edgert_quant.vocabulary.spm import SentencePieceBpe
from edgert_quant.vocabulary.table import HUGGINGFACE_JSON, Vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_T = TypeVar("_T")


class Encoder(Protocol):
    """Cuts text into token ids; safe to use from several threads."""

    def encode(self, text: str, *, parse_special: bool) -> list[int]:
        """The ids of `text`, with no begin or end token added.

        `text` must be encodable as UTF-8. Control tokens written out in it are recognised only with `parse_special`;
        user-defined tokens are part of the ordinary vocabulary and always are.
        """
        ...


def build_encoder(metadata: Mapping[str, object], vocabulary: Vocabulary) -> Encoder:
    """The encoder of a GGUF file: from its `tokenizer.huggingface.json`, else rebuilt from `vocabulary`."""
    text = metadata.get(HUGGINGFACE_JSON)
    if text is None:
        return rebuild_encoder(vocabulary)
    if not isinstance(text, str):
        raise FileFormatError(vocabulary.source, "is not a string", field=HUGGINGFACE_JSON)
    return LibraryEncoder.from_json(text, len(vocabulary), source=vocabulary.source)


def rebuild_encoder(vocabulary: Vocabulary) -> Encoder:
    """An encoder from `tokenizer.ggml.*` alone; `UnsupportedError` for a pre-tokenizer that is not in the table."""
    return _OURS.get(vocabulary.model, _from_library)(vocabulary)


class LibraryEncoder:
    """An encoder that a `tokenizers.Tokenizer` does the work of.

    Whether it recognises control tokens is what `make` is told, and a setting of the tokenizer; so there are two of
    them, the second made when first needed.
    """

    def __init__(self, make: Callable[[bool], Tokenizer], limit: int, *, field: str, source: str) -> None:
        self._make, self._limit, self._field, self._source = make, limit, field, source
        self._lock = threading.Lock()
        self._tokenizers: dict[bool, Tokenizer] = {}
        tokenizer = self._tokenizer(parse_special=True)
        highest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        if highest >= limit:
            reason = f"has a token id {highest}, but the vocabulary has {limit} tokens"
            raise FileFormatError(source, reason, field=field)

    @classmethod
    def from_json(cls, text: str, limit: int, *, source: str) -> LibraryEncoder:
        """The tokenizer that a `tokenizer.json` describes; `FileFormatError` where it describes none."""
        from tokenizers import Tokenizer

        def make(parse_special: bool) -> Tokenizer:
            return Tokenizer.from_str(text if parse_special or '"Unigram"' not in text else _without_special(text))

        return cls(make, limit, field=HUGGINGFACE_JSON, source=source)

    def _tokenizer(self, *, parse_special: bool) -> Tokenizer:
        with self._lock:
            if parse_special not in self._tokenizers:
                tokenizer = self._guarded(lambda: self._make(parse_special), "cannot be used")
                tokenizer.no_truncation()
                tokenizer.no_padding()
                tokenizer.encode_special_tokens = not parse_special
                self._tokenizers[parse_special] = tokenizer
            return self._tokenizers[parse_special]

    def encode(self, text: str, *, parse_special: bool) -> list[int]:
        """See `Encoder.encode`."""
        tokenizer = self._tokenizer(parse_special=parse_special)
        return self._guarded(lambda: tokenizer.encode(text, add_special_tokens=False).ids, "failed on a text")

    def _guarded(self, call: Callable[[], _T], what: str) -> _T:
        """Run `call`; the library raises plain `Exception`, and panics (a `BaseException`) on some damaged files."""
        try:
            return call()
        except EdgertError:
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            reason = f"{what}: {str(error)[:200]}"
            raise FileFormatError(self._source, reason, field=self._field) from error


def _without_special(text: str) -> str:
    """A `tokenizer.json` whose unigram model does not find special tokens in text: it looks for all of its pieces."""
    document = json.loads(text)
    model = document["model"]
    if model.get("type") != "Unigram":
        return text
    inside = [
        token
        for token in document.get("added_tokens") or []
        if token["special"] and token["id"] < len(model["vocab"]) and model["vocab"][token["id"]][0] == token["content"]
    ]
    if not inside:
        return text
    for token in inside:
        model["vocab"][token["id"]][0] = hidden(token["content"])
    document["added_tokens"] = [token for token in document["added_tokens"] if token not in inside]
    return json.dumps(document, ensure_ascii=False)


def _sentencepiece(vocabulary: Vocabulary) -> Encoder:
    """SentencePiece BPE between special tokens; `SPACE_PREFIXES` says which texts get a space before them."""
    bpe, prefix = SentencePieceBpe(vocabulary), vocabulary.space_prefix

    def gets_space(text: str, first: bool) -> bool:
        if prefix in ("always", "never"):
            return prefix == "always"
        return (first or prefix == "unless-space") and not text.startswith((" ", SPACE))

    return SpecialEncoder(vocabulary, lambda text, first: bpe.encode(" " + text if gets_space(text, first) else text))


def _dna_and_text(vocabulary: Vocabulary) -> Encoder:
    text = _from_library(vocabulary)
    return SpecialEncoder(vocabulary, DnaAndText(vocabulary, lambda part: text.encode(part, parse_special=False)).cut)


def _from_library(vocabulary: Vocabulary) -> LibraryEncoder:
    make = MAKERS[vocabulary.model]
    return LibraryEncoder(
        lambda parse_special: make(vocabulary, parse_special),
        len(vocabulary),
        field="tokenizer.ggml",
        source=vocabulary.source,
    )


_OURS: dict[str, Callable[[Vocabulary], Encoder]] = {
    "llama": _sentencepiece,
    "hybriddna": _dna_and_text,
    "rwkv": lambda vocabulary: SpecialEncoder(vocabulary, LongestMatch(vocabulary).cut),
    "plamo2": lambda vocabulary: SpecialEncoder(vocabulary, BestSum(vocabulary).cut),
}
