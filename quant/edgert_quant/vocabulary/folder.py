"""The tokenizer of a checkpoint folder as GGUF metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from edgert_models.errors import ConversionError, FileFormatError, UnsupportedError

from edgert_quant.files import InputFile, human_bytes
from edgert_quant.vocabulary.pieces import byte_of_token
from edgert_quant.vocabulary.pretokenizers import PRE_TOKENIZERS, detect, pre_tokenizer
from edgert_quant.vocabulary.ranked import is_tiktoken, read_tekken, read_tiktoken
from edgert_quant.vocabulary.sentencepiece import SentencePieceModel, read_sentencepiece
from edgert_quant.vocabulary.table import (
    HUGGINGFACE_JSON,
    LARGEST_VOCABULARY,
    LSTRIP,
    NORMALIZER,
    RSTRIP,
    SPACE_PREFIX,
    STOP_IDS,
    TokenType,
)
from edgert_quant.vocabulary.tokenizer_json import TokenizerJson, read_tokenizer_json

_LARGEST_FILE = 64 << 20  # the longest string that GGUF files may hold
_FILES = ("tokenizer.json", "tokenizer.model", "tekken.json", "tiktoken.model")
# Files of tiktoken's do not say how text is cut first; this is by the class of the tokenizer, or else of the model.
_TIKTOKEN_PRE = {"TikTokenTokenizer": "kimi-k2", "llama": "llama-bpe"}
_TURN_ENDS = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>")
_MESSAGE_ENDS = ("<|eom_id|>",)


def has_tokenizer(folder: str | Path) -> bool:
    """Whether the folder has a file that `ggml_metadata` can make a tokenizer of."""
    return any((Path(folder) / name).is_file() for name in _FILES)


def ggml_metadata(
    folder: str | Path, *, vocab_size: int | None = None, pre: str | None = None, check_pre: bool = True
) -> dict[str, Any]:
    """The `tokenizer.*` keys of a GGUF file, for the tokenizer and chat templates in a checkpoint folder.

    `vocab_size` is the number of rows of the embedding (default: `vocab_size` of config.json, else the tokenizer's own
    number): ids above the tokenizer's are filled with unused tokens `[PAD{i}]`. `pre` names the pre-tokenizer instead
    of the one found by its expressions; with `check_pre` off, one that is in no table is left out instead of refused.
    Values are `str`, `bool`, NumPy integers, arrays, and lists of `str`.

    Raises `ConversionError` where tokenizer and model do not fit together, `UnsupportedError` (naming what was found)
    for a tokenizer that GGUF cannot describe, `FileFormatError` for a damaged file.
    """
    return _Folder(Path(folder)).metadata(vocab_size, pre, check_pre)


@dataclass
class _Draft:
    """A vocabulary in the making: token text, type and score by id."""

    kind: str
    tokens: dict[int, str] = field(default_factory=dict)
    types: dict[int, int] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)

    def put(self, index: int, text: str, kind: int, score: float = 0.0) -> None:
        self.tokens[index], self.types[index], self.scores[index] = text, kind, score


class _Folder:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = self._object("tokenizer_config.json")
        self.specials = self._object("special_tokens_map.json")
        self.model_config = self._object("config.json")
        self.generation = self._object("generation_config.json")

    def _bytes(self, name: str) -> bytes | None:
        path = self.folder / name
        if not path.exists():
            return None
        file = InputFile(path)
        try:
            if file.size > _LARGEST_FILE:
                reason = f"has {human_bytes(file.size)}; up to {human_bytes(_LARGEST_FILE)} are read"
                raise FileFormatError(path, reason)
            return file.read(0, file.size, "contents")
        finally:
            file.close()

    def _text(self, name: str) -> str | None:
        data = self._bytes(name)
        try:
            return None if data is None else data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise FileFormatError(self.folder / name, "is not UTF-8", offset=error.start) from error

    def _object(self, name: str) -> dict[str, Any]:
        text = self._text(name)
        return {} if text is None else self._parse(name, text)

    def _parse(self, name: str, text: str) -> dict[str, Any]:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FileFormatError(self.folder / name, f"is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise FileFormatError(self.folder / name, "is not a JSON object")
        return value

    def metadata(self, vocab_size: int | None, pre: str | None, check_pre: bool) -> dict[str, Any]:
        text, model = self._text("tokenizer.json"), self._bytes("tokenizer.model")
        ranked = None if text is not None else self._ranked(model)
        if model is None or (ranked is not None and is_tiktoken(model)):
            pieces = None
        else:
            pieces = read_sentencepiece(self.folder / "tokenizer.model", model)
        result: dict[str, Any] = {}
        parts: TokenizerJson | None
        if text is not None:
            parts = read_tokenizer_json(self.folder / "tokenizer.json", self._parse("tokenizer.json", text))
            draft = _from_json(parts, pieces)
            result |= self._json_keys("tokenizer.json", parts, pre, check_pre)
        elif ranked is not None:
            name, parts = ranked
            draft = _from_json(parts, None)
            result |= self._json_keys(name, parts, pre, check_pre)
        elif pieces is not None:
            draft, parts = _from_pieces(pieces), None
            result |= _pieces_keys(pieces, draft)
            self._add_listed(draft)
        else:
            raise ConversionError(f"{self.folder} has none of {', '.join(_FILES)}")
        ids = {name: index for index, name in sorted(draft.tokens.items(), reverse=True)}
        result = {"tokenizer.ggml.model": draft.kind} | result
        result |= self._tokens(draft, ids, vocab_size)
        result |= _strip_keys(self._listed() if parts is None else parts.added)
        result |= self._special_ids(parts, pieces, ids)
        result |= self._templates()
        if text is not None:
            result[HUGGINGFACE_JSON] = text
        self._check_text(result)
        return result

    def _check_text(self, keys: Mapping[str, Any]) -> None:
        """JSON can spell lone surrogates, which no file can hold as UTF-8."""
        for key, value in keys.items():
            if isinstance(value, str | list):
                try:
                    "".join(value).encode("utf-8")
                except UnicodeEncodeError as error:
                    raise FileFormatError(
                        self.folder, "the tokenizer's text has a lone surrogate", field=key
                    ) from error

    def _ranked(self, model: bytes | None) -> tuple[str, TokenizerJson] | None:
        """A vocabulary of ranked byte strings and its file's name, from tekken.json or tiktoken's form."""
        text = self._text("tekken.json")
        if text is not None:
            return "tekken.json", read_tekken(self.folder / "tekken.json", self._parse("tekken.json", text))
        for name in ("tiktoken.model", "tokenizer.model"):
            data = model if name == "tokenizer.model" else self._bytes(name)
            if data is not None and is_tiktoken(data):
                pre = _TIKTOKEN_PRE.get(str(self.config.get("tokenizer_class", self.model_config.get("model_type"))))
                expression = None if pre is None else PRE_TOKENIZERS[pre].expressions[0]
                return name, read_tiktoken(self.folder / name, data, self._listed(), expression)
        return None

    def _json_keys(self, file: str, parts: TokenizerJson, pre: str | None, check_pre: bool) -> dict[str, Any]:
        if parts.kind != "gpt2":
            keys: dict[str, Any] = {"tokenizer.ggml.pre": "default", SPACE_PREFIX: parts.space_prefix}
            keys["tokenizer.ggml.add_space_prefix"] = parts.space_prefix != "never"
            if parts.kind == "t5":
                keys["tokenizer.ggml.remove_extra_whitespaces"] = parts.remove_extra_whitespaces
                if parts.charsmap:
                    keys["tokenizer.ggml.precompiled_charsmap"] = np.frombuffer(parts.charsmap, np.uint8)
            return keys
        if pre is not None:
            pre_tokenizer(pre)  # refuses a name that is in no table
        elif parts.expressions is not None:
            pre = detect(parts.expressions, ignore_merges=parts.ignore_merges, nfc=parts.nfc)
        if pre is None and check_pre:
            steps = "; ".join(parts.steps)
            raise UnsupportedError(
                f"{self.folder / file}: the pre-tokenizer is none that GGUF has a name for. Found: "
                f"{steps}. If you know which name of tokenizer.ggml.pre fits, pass it as pre="
            )
        for place, merge in enumerate(parts.merges):
            if " " in "".join(merge):
                raise ConversionError(f"{self.folder / file}: merge {place} has a space in {merge}")
        keys = {} if pre is None else {"tokenizer.ggml.pre": pre}
        keys["tokenizer.ggml.merges"] = [f"{left} {right}" for left, right in parts.merges]
        keys[NORMALIZER] = "nfc" if parts.nfc else "none"
        return keys

    def _listed(self) -> list[dict[str, Any]]:
        """The added tokens of tokenizer_config.json and added_tokens.json, as a `tokenizer.json` has them."""
        listed: dict[int, dict[str, Any]] = {}
        try:
            for text, index in self._object("added_tokens.json").items():
                listed[int(index)] = {"id": int(index), "content": text}
            for index, token in dict(self.config.get("added_tokens_decoder") or {}).items():
                listed[int(index)] = {**token, "id": int(index), "content": str(token["content"])}
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            reason = f"the added tokens are not shaped as they should be: {type(error).__name__}: {error}"
            raise FileFormatError(self.folder / "tokenizer_config.json", reason) from error
        return list(listed.values())

    def _add_listed(self, draft: _Draft) -> None:
        """Add tokens that `tokenizer.model` does not know."""
        for token in self._listed():
            if draft.tokens.get(token["id"]) != token["content"]:
                kind = TokenType.CONTROL if token.get("special") else TokenType.USER_DEFINED
                draft.put(token["id"], token["content"], kind)

    def _tokens(self, draft: _Draft, ids: Mapping[str, int], vocab_size: int | None) -> dict[str, Any]:
        count = max(draft.tokens) + 1
        configured = self.model_config.get("vocab_size") if vocab_size is None else vocab_size
        if isinstance(configured, int) and not isinstance(configured, bool):
            if count > configured:
                reason = f"has token ids up to {count - 1}, but the model has {configured} embeddings"
                raise ConversionError(f"the tokenizer in {self.folder} {reason}")
            count = configured
        if min(draft.tokens) < 0 or count > LARGEST_VOCABULARY:
            reason = f"has token ids below 0 or above {LARGEST_VOCABULARY}"
            raise ConversionError(f"the tokenizer in {self.folder} {reason}")
        for index in range(count):
            if index not in draft.tokens:
                name = f"[PAD{index}]"
                draft.put(index, name if name not in ids else f"[PAD{index}:unused]", TokenType.UNUSED, -1e4)
        keys: dict[str, Any] = {
            "tokenizer.ggml.tokens": [draft.tokens[index] for index in range(count)],
            "tokenizer.ggml.token_type": np.array([draft.types[index] for index in range(count)], np.int32),
        }
        if draft.kind != "gpt2":
            keys["tokenizer.ggml.scores"] = np.array([draft.scores[index] for index in range(count)], np.float32)
        return keys

    def _special_ids(
        self, parts: TokenizerJson | None, pieces: SentencePieceModel | None, ids: Mapping[str, int]
    ) -> dict[str, Any]:
        found: dict[str, int | None] = {name: ids.get(self._name(name) or "") for name in ("bos", "eos", "unk", "pad")}
        if parts is None and pieces is not None:
            for name in found:
                index = int(getattr(pieces, f"{name}_id"))
                found[name] = index if found[name] is None and index >= 0 else found[name]
        if parts is not None and found["unk"] is None and parts.unk_token is not None:
            found["unk"] = ids.get(parts.unk_token)
        stops = [*self._stops(self.generation), *self._stops(self.model_config)]
        stops = [index for index in stops if 0 <= index < len(ids)]
        if found["eos"] is None and stops:
            found["eos"] = stops[0]
        starts, ends = (parts.starts, parts.ends) if parts is not None else ([], [])
        if found["bos"] is None and len(starts) == 1:
            found["bos"] = ids.get(starts[0])
        add = {
            "bos": self._adds("bos", starts, found["bos"], default=parts is None),
            "eos": self._adds("eos", ends, found["eos"], default=False),
        }
        keys: dict[str, Any] = {}
        for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
            known = found[name]
            if known is not None:
                keys[f"tokenizer.ggml.{key}_token_id"] = np.uint32(known)
        if not {"<|return|>", "<|call|>"} <= ids.keys():
            for key, names in (("eot", _TURN_ENDS), ("eom", _MESSAGE_ENDS)):
                present = [ids[name] for name in names if name in ids]
                if present:
                    keys[f"tokenizer.ggml.{key}_token_id"] = np.uint32(present[0])
        if stops:
            keys[STOP_IDS] = np.array(sorted(set(stops)), np.int32)
        keys["tokenizer.ggml.add_bos_token"] = add["bos"]
        keys["tokenizer.ggml.add_eos_token"] = add["eos"]
        return keys

    def _name(self, which: str) -> str | None:
        """The text of a special token, which the JSON files have plain or as `{"content": …}`."""
        for source in (self.config, self.specials):
            value = source.get(f"{which}_token")
            if isinstance(value, dict):
                value = value.get("content")
            if isinstance(value, str):
                return value
        return None

    @staticmethod
    def _stops(config: Mapping[str, Any]) -> list[int]:
        value = config.get("eos_token_id")
        values = value if isinstance(value, list) else [value]
        return [index for index in values if isinstance(index, int) and not isinstance(index, bool)]

    def _adds(self, which: str, names: list[str], index: int | None, *, default: bool) -> bool:
        """Whether the tokenizer adds its begin or end token. As in transformers, an explicit setting wins."""
        explicit = self.config.get(f"add_{which}_token")
        if isinstance(explicit, bool):
            return explicit and index is not None
        if not names:
            return default and index is not None
        if len(names) > 1 or index is None or names[0] != self._known(which, names[0]):
            place = "before" if which == "bos" else "after"
            raise UnsupportedError(
                f"the tokenizer in {self.folder} puts {' '.join(names)} {place} every text; GGUF can only describe the "
                f"{which} token there"
            )
        return True

    def _known(self, which: str, fallback: str) -> str:
        return self._name(which) or fallback

    def _templates(self) -> dict[str, Any]:
        """Chat templates, from chat_template.jinja, chat_template.json or tokenizer_config.json."""
        default: object = self._text("chat_template.jinja")
        named: dict[str, str] = {}
        if default is None:
            default = self._object("chat_template.json").get("chat_template", self.config.get("chat_template"))
        if isinstance(default, list):
            try:
                named = {str(item["name"]): str(item["template"]) for item in default}
            except (KeyError, TypeError) as error:
                reason = f"the chat templates are not a list of name and template: {type(error).__name__}: {error}"
                raise FileFormatError(self.folder / "tokenizer_config.json", reason) from error
            default = named.pop("default", None)
        extra = self.folder / "additional_chat_templates"
        for path in sorted(extra.glob("*.jinja")) if extra.is_dir() else ():
            named[path.stem] = self._text(f"{extra.name}/{path.name}") or ""
        keys: dict[str, Any] = {"tokenizer.chat_template": default} if isinstance(default, str) else {}
        if named:
            keys["tokenizer.chat_templates"] = sorted(named)
        return keys | {f"tokenizer.chat_template.{name}": text for name, text in sorted(named.items())}


def _strip_keys(added: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Which added tokens take the white space beside them out of a text."""
    found = {
        key: np.array(sorted(token["id"] for token in added if token.get(side)), np.int32)
        for key, side in ((LSTRIP, "lstrip"), (RSTRIP, "rstrip"))
    }
    return {key: ids for key, ids in found.items() if len(ids)}


def _from_json(parts: TokenizerJson, pieces: SentencePieceModel | None) -> _Draft:
    draft = _Draft(parts.kind)
    scores = parts.scores if parts.kind == "t5" else _scores(parts, pieces) if parts.kind == "llama" else {}
    for text, index in parts.vocabulary.items():
        kind = TokenType.NORMAL
        if parts.kind != "gpt2" and byte_of_token(text) is not None:
            kind = TokenType.BYTE
        draft.put(index, text, kind, scores.get(text, 0.0))
    for added in parts.added:
        index = added["id"]
        kind = TokenType.CONTROL if added.get("special") else TokenType.USER_DEFINED
        draft.put(index, added["content"], kind, draft.scores.get(index, 0.0))
    if parts.unk_token is not None and parts.kind != "gpt2" and parts.unk_token in parts.vocabulary:
        draft.types[parts.vocabulary[parts.unk_token]] = TokenType.UNKNOWN
    return draft


def _scores(parts: TokenizerJson, pieces: SentencePieceModel | None) -> dict[str, float]:
    """SentencePiece scores: those of `tokenizer.model` where it has the same pieces, else from the order of merges."""
    if pieces is not None and all(parts.vocabulary.get(text) == at for at, text in enumerate(pieces.pieces)):
        return dict(zip(pieces.pieces, pieces.scores, strict=True))
    scores: dict[str, float] = {}
    for rank, (left, right) in enumerate(parts.merges):
        scores.setdefault(left + right, -float(rank))
    # Pieces that nothing merges to: characters, and tokens that only stand for themselves.
    return {text: scores.get(text, -float(len(parts.merges) + index)) for text, index in parts.vocabulary.items()}


def _from_pieces(pieces: SentencePieceModel) -> _Draft:
    draft = _Draft("t5" if pieces.unigram else "llama")
    for index, (text, score, kind) in enumerate(zip(pieces.pieces, pieces.scores, pieces.types, strict=True)):
        draft.put(index, text, kind, score)
    return draft


def _pieces_keys(pieces: SentencePieceModel, draft: _Draft) -> dict[str, Any]:
    if draft.kind == "llama" and pieces.charsmap:
        raise UnsupportedError("tokenizer.model normalizes text before its BPE, which GGUF has no form for")
    if draft.kind == "llama" and pieces.remove_extra_whitespaces:
        raise UnsupportedError("tokenizer.model removes spaces before its BPE, which GGUF has no form for")
    keys: dict[str, Any] = {"tokenizer.ggml.pre": "default"}
    keys["tokenizer.ggml.add_space_prefix"] = pieces.add_space_prefix
    keys["tokenizer.ggml.remove_extra_whitespaces"] = pieces.remove_extra_whitespaces
    if pieces.charsmap:
        keys["tokenizer.ggml.precompiled_charsmap"] = np.frombuffer(pieces.charsmap, np.uint8)
    return keys
