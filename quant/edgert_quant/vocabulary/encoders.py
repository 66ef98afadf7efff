"""From text to token ids, without beginning and end: one encoder per kind of tokenizer.

`build_encoder` picks: the model's own `tokenizer.huggingface.json` where the file has it, else a tokenizer rebuilt from
`tokenizer.ggml.*`. `tokenizers` is imported only when an encoder is built.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar

from edgert_models.errors import EdgertError, FileFormatError, UnsupportedError

from edgert_quant.vocabulary.pieces import SPACE
from edgert_quant.vocabulary.pretokenizers import pre_tokenizer
from edgert_quant.vocabulary.spm import SentencePieceBpe
from edgert_quant.vocabulary.table import HUGGINGFACE_JSON, TokenType, Vocabulary

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
    json = metadata.get(HUGGINGFACE_JSON)
    if json is None:
        return rebuild_encoder(vocabulary)
    if not isinstance(json, str):
        raise FileFormatError(vocabulary.source, "is not a string", field=HUGGINGFACE_JSON)
    return LibraryEncoder.from_json(json, len(vocabulary), source=vocabulary.source)


def rebuild_encoder(vocabulary: Vocabulary) -> Encoder:
    """An encoder from `tokenizer.ggml.*` alone; `UnsupportedError` for a pre-tokenizer that is not in the table."""
    if vocabulary.model == "llama":
        return SentencePieceEncoder(vocabulary)
    make = {"gpt2": _byte_level, "t5": _unigram, "gemma4": _spaced_bpe, "bert": _wordpiece}[vocabulary.model]
    return LibraryEncoder(lambda: make(vocabulary), len(vocabulary), field="tokenizer.ggml", source=vocabulary.source)


class LibraryEncoder:
    """An encoder that a `tokenizers.Tokenizer` does the work of.

    Recognising control tokens is a setting of the tokenizer object, so each of the two settings has an object of its
    own, the second made when first needed.
    """

    def __init__(self, make: Callable[[], Tokenizer], limit: int, *, field: str, source: str) -> None:
        self._make, self._limit, self._field, self._source = make, limit, field, source
        self._lock = threading.Lock()
        self._tokenizers: dict[bool, Tokenizer] = {}
        tokenizer = self._tokenizer(parse_special=True)
        highest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        if highest >= limit:
            reason = f"has a token id {highest}, but the vocabulary has {limit} tokens"
            raise FileFormatError(source, reason, field=field)

    @classmethod
    def from_json(cls, json: str, limit: int, *, source: str) -> LibraryEncoder:
        """The tokenizer that a `tokenizer.json` describes; `FileFormatError` where it describes none."""
        from tokenizers import Tokenizer

        return cls(lambda: Tokenizer.from_str(json), limit, field=HUGGINGFACE_JSON, source=source)

    def _tokenizer(self, *, parse_special: bool) -> Tokenizer:
        with self._lock:
            if parse_special not in self._tokenizers:
                tokenizer = self._guarded(self._make, "cannot be used")
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


class SentencePieceEncoder:
    """SentencePiece BPE around its special tokens: text between them is cut by `SentencePieceBpe`."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._bpe = SentencePieceBpe(vocabulary)
        self._prefix = vocabulary.space_prefix
        always = vocabulary.of_type(TokenType.USER_DEFINED)
        parsed = vocabulary.of_type(TokenType.USER_DEFINED, TokenType.CONTROL, TokenType.UNKNOWN)
        self._ids = {vocabulary.tokens[index]: index for index in parsed}
        self._patterns = {False: self._pattern(vocabulary, always), True: self._pattern(vocabulary, parsed)}

    @staticmethod
    def _pattern(vocabulary: Vocabulary, ids: list[int]) -> re.Pattern[str] | None:
        names = sorted((vocabulary.tokens[index] for index in ids), key=len, reverse=True)
        return re.compile("(" + "|".join(map(re.escape, names)) + ")") if names else None

    def encode(self, text: str, *, parse_special: bool) -> list[int]:
        """See `Encoder.encode`; `SPACE_PREFIXES` says which texts between special tokens get a space before them."""
        pattern = self._patterns[parse_special]
        ids: list[int] = []
        # A pattern with one group splits into text, token, text, token, …, text.
        for place, part in enumerate(pattern.split(text) if pattern else [text]):
            if place % 2:
                ids.append(self._ids[part])
            elif part:
                ids += self._bpe.encode(" " + part if self._gets_space(part, first=not place) else part)
        return ids

    def _gets_space(self, part: str, *, first: bool) -> bool:
        if self._prefix in ("always", "never"):
            return self._prefix == "always"
        return (first or self._prefix == "unless-space") and not part.startswith((" ", SPACE))


def _byte_level(vocabulary: Vocabulary) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    family = pre_tokenizer(vocabulary.pre)
    tokenizer = Tokenizer(models.BPE(vocabulary.ids, _merges(vocabulary), ignore_merges=family.ignore_merges))
    splits = [pre_tokenizers.Split(Regex(expression), "isolated") for expression in family.expressions]
    if vocabulary.nfc:
        tokenizer.normalizer = normalizers.NFC()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, byte_level])
    _add_tokens(tokenizer, vocabulary)
    return tokenizer


def _merges(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """The merges as pairs, checked."""
    merges = []
    for place, merge in enumerate(vocabulary.merges):
        left, space, right = merge.partition(" ")
        if not (left and space and right):
            reason = f"entry {place} is not two pieces with a space between: {merge[:80]!r}"
            raise FileFormatError(vocabulary.source, reason, field="tokenizer.ggml.merges")
        for part in (left, right, left + right):
            if part not in vocabulary.ids:
                reason = f"entry {place} names {part[:80]!r}, which is no token"
                raise FileFormatError(vocabulary.source, reason, field="tokenizer.ggml.merges")
        merges.append((left, right))
    return merges


def _spaced_bpe(vocabulary: Vocabulary) -> Tokenizer:
    """BPE over plain text with U+2581 for spaces, bytes where no token fits: Gemma 4's.

    Lines are cut from their ends first, as llama.cpp does; no merge joins the two.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    unknown = None if vocabulary.unk_id is None else vocabulary.tokens[vocabulary.unk_id]
    tokenizer = Tokenizer(
        models.BPE(vocabulary.ids, _merges(vocabulary), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^\n]+|\n+"), "isolated")
    _add_tokens(tokenizer, vocabulary)
    return tokenizer


def _wordpiece(vocabulary: Vocabulary) -> Tokenizer:
    """BERT's: words and marks, of each the longest pieces from the left, the unknown token where that fails.

    GGUF marks the beginning of a word, WordPiece what continues one. Source: llama.cpp, `convert_hf_to_gguf.py`
    (`BertModel.set_vocab`).
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    if vocabulary.unk_id is None:
        raise UnsupportedError("a WordPiece vocabulary without an unknown token cannot be rebuilt")
    pieces: dict[str, int] = {}
    for text, index in vocabulary.ids.items():
        named = text.startswith("[") and text.endswith("]")
        pieces[text if named else text[1:] if text.startswith(SPACE) else f"##{text}"] = index
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token=vocabulary.tokens[vocabulary.unk_id]))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=vocabulary.lowercase, strip_accents=vocabulary.strip_accents
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    _add_tokens(tokenizer, vocabulary)
    return tokenizer


def _unigram(vocabulary: Vocabulary) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    if vocabulary.unk_id is None:
        raise UnsupportedError("a unigram vocabulary without an unknown token cannot be rebuilt")
    if len(vocabulary.ids) != len(vocabulary):
        raise UnsupportedError("a unigram vocabulary with two tokens of the same text cannot be rebuilt")
    scored = list(zip(vocabulary.tokens, vocabulary.scores.tolist(), strict=True))
    tokenizer = Tokenizer(
        models.Unigram(scored, vocabulary.unk_id, byte_fallback=bool(vocabulary.of_type(TokenType.BYTE)))
    )
    steps: list[normalizers.Normalizer] = []
    if vocabulary.charsmap:
        steps.append(normalizers.Precompiled(vocabulary.charsmap))
    if vocabulary.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if steps:
        tokenizer.normalizer = normalizers.Sequence(steps)
    scheme = {"never": "never", "first-unless-space": "first"}.get(vocabulary.space_prefix, "always")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=scheme)
    _add_tokens(tokenizer, vocabulary)
    return tokenizer


def _add_tokens(tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    """Make control and user-defined tokens recognised in text."""
    from tokenizers import AddedToken

    control = vocabulary.of_type(TokenType.CONTROL, TokenType.UNKNOWN)
    defined = vocabulary.of_type(TokenType.USER_DEFINED)
    tokenizer.add_special_tokens([AddedToken(vocabulary.tokens[index], normalized=False) for index in control])
    tokenizer.add_tokens([AddedToken(vocabulary.tokens[index], normalized=False, special=False) for index in defined])
