"""The vocabulary of a GGUF file as data: the `tokenizer.ggml.*` keys, read, checked and typed.

Sources: the GGUF specification ("Tokenizer" in ggml's `docs/gguf.md`) and, for the defaults of absent keys, llama.cpp's
`src/llama-vocab.cpp` (`llama_vocab::impl::load`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

import numpy as np
from edgert_models.errors import FileFormatError, UnsupportedError

from edgert_quant.vocabulary.pretokenizers import PRE_TOKENIZERS, SPACED_BPE


class TokenType(IntEnum):
    """What a token is; the number is its `tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


MODELS = {
    "gpt2": "byte-level BPE",
    "llama": "SentencePiece BPE",
    "t5": "SentencePiece unigram",
    "gemma4": "SentencePiece BPE by merges",
    "bert": "WordPiece",
    "rwkv": "longest match",
    "plamo2": "best sum of scores",
    "whitespace": "BPE of words",
    "hybriddna": "byte-level BPE and DNA",
}
"""The values of `tokenizer.ggml.model` that edgert knows: all of llama.cpp's but its dummy for tests."""

BYTE_LEVEL = ("gpt2", "hybriddna")
"""Those that write bytes as letters, and cut text by `tokenizer.ggml.pre` first."""

BASES_MARK = "\ue000"
"""What "hybriddna" has after the names of its tokens of DNA, so that none is called as a token of BPE's."""

HUGGINGFACE_JSON = "tokenizer.huggingface.json"
"""The key that holds a whole `tokenizer.json`."""

NORMALIZER = "edgert.tokenizer.normalizer"
"""edgert's own: "nfc" where the tokenizer composes characters before it cuts (byte-level), else "none"."""

SPACE_PREFIX = "edgert.tokenizer.space_prefix"
"""edgert's own, finer than `tokenizer.ggml.add_space_prefix`: one of `SPACE_PREFIXES`."""

SPACE_PREFIXES = ("always", "unless-space", "first-unless-space", "never")
"""Where SentencePiece text gets a space put before it: always (at the start and after each special token), unless the
text begins with a space, so but only at the very start, never. llama.cpp knows the first and the last."""

LSTRIP, RSTRIP = "edgert.tokenizer.lstrip_token_ids", "edgert.tokenizer.rstrip_token_ids"
"""edgert's own: the special tokens that take the white space before them, or after them, out of a text."""

STOP_IDS = "edgert.tokenizer.stop_token_ids"
"""edgert's own: every token id that ends an answer, as the checkpoint's generation_config.json lists them."""

END_NAMES = frozenset(
    {
        *("<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>"),
        *("<|return|>", "<|call|>", "<|calls|>", "<|flush|>", "<end_of_turn>", "<turn|>", "<eos>", "</s>"),
        "<|tool_response>",
        *("<EOT>", "_<EOT>", "[EOT]", "[EOS]", "[e~[", "<end_of_utterance>", "<\uff5cend\u2581of\u2581sentence\uff5c>"),
    }
)
"""Tokens that end an answer, by name; files seldom list them all. Source: llama.cpp, `src/llama-vocab.cpp`
(`special_eog_ids`)."""

_PREFIX = "tokenizer.ggml."
LARGEST_VOCABULARY = 1 << 24
_DEFAULT_IDS = {"llama": (1, 2, 0), "t5": (None, 1, 2), "bert": (101, 102, 100), "plamo2": (1, 2, 0)}
# Files of other writers do not say which tokens take white space; llama.cpp goes by the model's name.
_PHI3 = re.compile("phi-?3", re.IGNORECASE)
_PHI3_PLAIN = ("<unk>", "<s>", "<|endoftext|>")


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a model, with what is needed to cut text into them.

    `tokens[i]` is the text of token i as the file has it (byte-level BPE writes bytes as letters, SentencePiece writes
    spaces as U+2581, WordPiece so the beginning of a word), `types[i]` its type, `scores[i]` its score (SentencePiece;
    higher merges first). `merges` are BPE's, "left right", in order of rank. Ids are None where the model has no such
    token; WordPiece's [CLS] and [SEP] are its begin and end. `lstrip` and `rstrip` are the special tokens that take the
    white space before them, or after them, out of a text.
    """

    model: str
    pre: str
    tokens: list[str]
    types: np.ndarray
    scores: np.ndarray
    merges: list[str]
    bos_id: int | None
    eos_id: int | None
    unk_id: int | None
    end_ids: frozenset[int]
    add_bos: bool
    add_eos: bool
    space_prefix: str
    nfc: bool
    remove_extra_whitespaces: bool
    lowercase: bool
    strip_accents: bool
    charsmap: bytes
    lstrip: frozenset[int]
    rstrip: frozenset[int]
    source: str

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Token text → id; of two tokens with the same text, the first."""
        return {text: index for index, text in reversed(list(enumerate(self.tokens)))}

    def of_type(self, *types: TokenType) -> list[int]:
        """The ids of the tokens of these types, ascending."""
        return [int(index) for index in np.flatnonzero(np.isin(self.types, types))]

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, object]) -> Vocabulary:
        """Read the `tokenizer.ggml.*` keys.

        Raises `FileFormatError` (naming the key) for what is missing, mistyped or out of range, `UnsupportedError` for
        a tokenizer model that edgert does not know.
        """
        keys = _Keys(metadata)
        model = keys.text("model")
        if model in ("none", "no_vocab"):
            raise UnsupportedError("the file has no tokenizer; it takes token ids only")
        if model not in MODELS:
            known = ", ".join(f"{name} ({what})" for name, what in MODELS.items())
            raise UnsupportedError(f"the tokenizer model {model[:80]!r} is unknown; edgert knows {known}")
        pre = keys.text("pre", "default")
        if model == "gpt2" and pre in (*SPACED_BPE, "whitespace"):
            model = "whitespace" if pre == "whitespace" else "gemma4"
        tokens = [text or f"[EMPTY_{index}]" for index, text in enumerate(keys.texts("tokens"))]
        count = len(tokens)
        if not 0 < count <= LARGEST_VOCABULARY:
            raise keys.error("tokens", f"has {count} entries; from 1 to {LARGEST_VOCABULARY} are possible")
        types = keys.numbers("token_type", count, np.int32, TokenType.NORMAL)
        if HUGGINGFACE_JSON not in metadata:
            # Old files have these as user-defined, so that plain text could end an answer. llama.cpp does likewise.
            for index in np.flatnonzero(types == TokenType.USER_DEFINED).tolist():
                if tokens[index] in END_NAMES:
                    types[index] = TokenType.CONTROL
        scores = keys.numbers("scores", count, np.float32, 0)
        if np.isnan(scores).any():
            raise keys.error("scores", f"entry {int(np.isnan(scores).argmax())} is not a number")
        defaults = _DEFAULT_IDS.get(model, (None, None, None))
        ends = ("cls", "seperator") if model == "bert" else ("bos", "eos")  # so misspelt in GGUF
        bos, eos, unknown = (
            keys.token_id(f"{name}_token_id", count, default)
            for name, default in zip((*ends, "unknown"), defaults, strict=True)
        )
        family = PRE_TOKENIZERS.get(pre) if model in BYTE_LEVEL else None
        add_bos = keys.flag("add_bos_token", model in ("llama", "bert") or (family is not None and family.add_bos))
        add_eos = keys.flag("add_eos_token", model in ("t5", "bert"))
        for wanted, found, key in ((add_bos, bos, "bos_token_id"), (add_eos, eos, "eos_token_id")):
            if wanted and found is None:
                raise keys.error(key, "is missing, though the tokenizer adds this token to every text")
        turn_ends = [keys.token_id(name, count, None) for name in ("eot_token_id", "eom_token_id")]
        listed = keys.integers(STOP_IDS, count)
        add_space = keys.flag("add_space_prefix", model in ("llama", "t5", "bert"))
        lowercase = keys.flag("normalizer.lowercase", model != "whitespace")
        rstrip = keys.integers(RSTRIP, count)
        if (
            RSTRIP not in metadata
            and HUGGINGFACE_JSON not in metadata
            and _PHI3.search(str(metadata.get("general.name")))
        ):
            special = np.flatnonzero(np.isin(types, (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)))
            rstrip = [index for index in special.tolist() if tokens[index] not in _PHI3_PLAIN]
        return cls(
            model=model,
            pre=pre,
            tokens=tokens,
            types=types,
            scores=scores,
            merges=keys.texts("merges") if model in (*BYTE_LEVEL, "gemma4", "whitespace") else [],
            bos_id=bos,
            eos_id=eos,
            unk_id=unknown,
            end_ids=frozenset(index for index in (eos, *turn_ends, *listed) if index is not None),
            add_bos=add_bos,
            add_eos=add_eos,
            space_prefix=keys.choice(SPACE_PREFIX, SPACE_PREFIXES, "always" if add_space else "never"),
            nfc=keys.choice(NORMALIZER, ("none", "nfc"), "nfc" if family is not None and family.nfc else "none")
            == "nfc",
            remove_extra_whitespaces=keys.flag("remove_extra_whitespaces", False),
            lowercase=lowercase,
            strip_accents=keys.flag("normalizer.strip_accents", lowercase),
            charsmap=keys.data("precompiled_charsmap"),
            lstrip=frozenset(keys.integers(LSTRIP, count)),
            rstrip=frozenset(rstrip),
            source=keys.source,
        )


class _Keys:
    """Typed access to the `tokenizer.ggml.*` keys of a mapping, and to others by their full names."""

    def __init__(self, metadata: Mapping[str, object]) -> None:
        self._metadata = metadata
        self.source = str(getattr(metadata, "path", "tokenizer metadata"))

    def error(self, key: str, reason: str) -> FileFormatError:
        return FileFormatError(self.source, reason, field=self._full(key))

    def _full(self, key: str) -> str:
        return key if key.startswith("edgert.") else _PREFIX + key

    def _get(self, key: str) -> object:
        return self._metadata.get(self._full(key))

    def choice(self, key: str, allowed: tuple[str, ...], default: str) -> str:
        value = self.text(key, default)
        if value not in allowed:
            raise self.error(key, f"is {value[:40]!r}, not one of {', '.join(allowed)}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self._get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise self.error(key, "is missing" if value is None else "is not a string")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self._get(key)
        if value is None:
            return default
        if not isinstance(value, bool | np.bool_):
            raise self.error(key, "is not a boolean")
        return bool(value)

    def texts(self, key: str) -> list[str]:
        value = self._get(key)
        if value is None:
            raise self.error(key, "is missing")
        if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
            raise self.error(key, "is not an array of strings")
        result = list(value)
        if not all(isinstance(item, str) for item in result):
            raise self.error(key, "is not an array of strings")
        return result

    def numbers(self, key: str, count: int, dtype: type[np.generic], default: float) -> np.ndarray:
        """`count` numbers; where the key is absent, all are `default`. More than `count` are cut, as in llama.cpp."""
        value = self._get(key)
        if value is None:
            return np.full(count, default, dtype)
        array = np.asarray(value)
        if array.ndim != 1 or array.dtype.kind not in "iuf":
            raise self.error(key, "is not an array of numbers")
        if len(array) < count:
            raise self.error(key, f"has {len(array)} entries, but there are {count} tokens")
        return array[:count].astype(dtype)

    def integers(self, key: str, limit: int) -> list[int]:
        value = self._get(key)
        if value is None:
            return []
        array = np.asarray(value)
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            raise self.error(key, "is not an array of integers")
        for index in array.tolist():
            if not 0 <= index < limit:
                raise self.error(key, f"token id {index} is outside the vocabulary of {limit} tokens")
        return [int(index) for index in array.tolist()]

    def token_id(self, key: str, count: int, default: int | None) -> int | None:
        value = self._get(key)
        if value is None:
            return default if default is not None and default < count else None
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise self.error(key, "is not an integer")
        if not 0 <= int(value) < count:
            # 2^32 - 1 is how some writers say "none".
            if int(value) in (-1, 2**32 - 1):
                return None
            raise self.error(key, f"token id {int(value)} is outside the vocabulary of {count} tokens")
        return int(value)

    def data(self, key: str) -> bytes:
        value = self._get(key)
        if value is None:
            return b""
        array = np.asarray(value)
        if array.ndim != 1 or array.dtype.kind not in "iu" or math.prod(array.shape) > 1 << 26:
            raise self.error(key, "is not an array of bytes")
        return array.astype(np.uint8).tobytes()
