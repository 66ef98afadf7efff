"""Tokenizers of the `tokenizers` library, rebuilt from `tokenizer.ggml.*`. The library is imported when one is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgert_models.errors import FileFormatError, UnsupportedError

from edgert_quant.vocabulary.pieces import SPACE
from edgert_quant.vocabulary.pretokenizers import pre_tokenizer
from edgert_quant.vocabulary.table import BYTE_LEVEL, TokenType, Vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_CONTROL = (TokenType.CONTROL, TokenType.UNKNOWN)


def _byte_level(vocabulary: Vocabulary, parse_special: bool) -> Tokenizer:
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


def _spaced_bpe(vocabulary: Vocabulary, parse_special: bool) -> Tokenizer:
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


def _wordpiece(vocabulary: Vocabulary, parse_special: bool) -> Tokenizer:
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


def _unigram(vocabulary: Vocabulary, parse_special: bool) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    if vocabulary.unk_id is None:
        raise UnsupportedError("a unigram vocabulary without an unknown token cannot be rebuilt")
    if len(vocabulary.ids) != len(vocabulary):
        raise UnsupportedError("a unigram vocabulary with two tokens of the same text cannot be rebuilt")
    scored = list(zip(vocabulary.tokens, vocabulary.scores.tolist(), strict=True))
    if not parse_special:
        for index in vocabulary.of_type(*_CONTROL):
            scored[index] = hidden(vocabulary.tokens[index]), scored[index][1]
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
    _add_tokens(tokenizer, vocabulary, control=parse_special)
    return tokenizer


def hidden(name: str) -> str:
    """What a control token is called in a unigram model that must not find it in text."""
    return f"\0 {name}"


def _words(vocabulary: Vocabulary, parse_special: bool) -> Tokenizer:
    """BPE over the letters of words; white space between them is dropped, and what no token covers is too.

    Source: llama.cpp, `src/llama-vocab.cpp` (`llm_tokenizer_whitespace_session`).
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(vocabulary.ids, _merges(vocabulary)))
    if vocabulary.lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    letters = "".join(f"\\x{{{ord(text):x}}}" for text in vocabulary.tokens if len(text) == 1)
    # The library would merge what stands beside a letter without a token.
    others = pre_tokenizers.Split(Regex(f"[^{letters}]"), "removed")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), others])
    _add_tokens(tokenizer, vocabulary)
    return tokenizer


def _add_tokens(tokenizer: Tokenizer, vocabulary: Vocabulary, *, control: bool = True) -> None:
    """Make control and user-defined tokens recognised in text."""
    from tokenizers import AddedToken

    def added(index: int, special: bool) -> AddedToken:
        left, right = index in vocabulary.lstrip, index in vocabulary.rstrip
        return AddedToken(vocabulary.tokens[index], lstrip=left, rstrip=right, normalized=False, special=special)

    if control:
        tokenizer.add_special_tokens([added(index, True) for index in vocabulary.of_type(*_CONTROL)])
    tokenizer.add_tokens([added(index, False) for index in vocabulary.of_type(TokenType.USER_DEFINED)])


MAKERS: dict[str, Callable[[Vocabulary, bool], Tokenizer]] = {
    **dict.fromkeys(BYTE_LEVEL, _byte_level),
    "t5": _unigram,
    "gemma4": _spaced_bpe,
    "bert": _wordpiece,
    "whitespace": _words,
}
"""What makes a tokenizer of a vocabulary, by `tokenizer.ggml.model`; the flag tells whether text may name control
tokens.
"""
