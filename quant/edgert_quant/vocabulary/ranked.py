"""Vocabularies that rank byte strings: tiktoken's files, and Mistral's `tekken.json`.

A tiktoken file has a line for each token, its bytes in base64 and its rank; which bytes merge follows from the ranks
(openai/tiktoken, `tiktoken/_educational.py`). tekken.json is mistral-common's (`tokens/tokenizers/tekken.py`).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgert_models.errors import FileFormatError

from edgert_quant.vocabulary.pieces import BYTE_OF_LETTER
from edgert_quant.vocabulary.tokenizer_json import TokenizerJson

_LETTER_OF_BYTE = {byte: letter for letter, byte in BYTE_OF_LETTER.items()}
_TEKKEN_SPECIAL = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"),
    *("[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]"),
    *("[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
)
"""The special tokens of files that do not list them; the ids after them are `<SPECIAL_20>` and so on."""


def is_tiktoken(data: bytes) -> bool:
    """Whether the bytes of a `tokenizer.model` are a tiktoken file (Llama 3's) and no SentencePiece model."""
    token, space, rank = data[: data.find(b"\n")].partition(b" ")
    return bool(token and space) and rank.strip().isdigit()


def read_tiktoken(
    path: Path, data: bytes, special: Iterable[Mapping[str, Any]], expression: str | None
) -> TokenizerJson:
    """The vocabulary in the bytes of a tiktoken file; `special` are added tokens as a `tokenizer.json` lists them.

    `expression` is what text is cut by first, which the file does not say. Raises `FileFormatError` naming the line.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        token, _, rank = line.strip().partition(b" ")
        try:
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise FileFormatError(path, f"line {number} is no token in base64 and its rank: {error}") from None
    if not ranks:
        raise FileFormatError(path, "has no tokens")
    return _tokenizer(ranks, 0, special, expression)


def read_tekken(path: Path, document: Mapping[str, Any]) -> TokenizerJson:
    """The vocabulary in the parsed JSON of a `tekken.json`; `FileFormatError` for a document of another shape."""
    try:
        config = document["config"]
        count = int(config["default_num_special_tokens"])
        size = int(config["default_vocab_size"]) - count
        entries = sorted(document["vocab"], key=lambda entry: int(entry["rank"]))[:size]
        ranks = {base64.b64decode(entry["token_bytes"], validate=True): int(entry["rank"]) for entry in entries}
        listed = document.get("special_tokens") or [
            {"rank": rank, "token_str": name} for rank, name in enumerate(_TEKKEN_SPECIAL)
        ]
        names = {int(entry["rank"]): (str(entry["token_str"]), entry.get("is_control", True)) for entry in listed}
        special = [
            {"id": rank, "content": content, "special": bool(control)}
            for rank in range(count)
            for content, control in [names.get(rank, (f"<SPECIAL_{rank}>", True))]
        ]
        parts = _tokenizer(ranks, count, special, str(config["pattern"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileFormatError(path, f"is not shaped like a tekken.json: {type(error).__name__}: {error}") from error
    parts.unk_token = "<unk>"
    parts.starts = ["<s>"] if any(token["content"] == "<s>" for token in parts.added) else []
    return parts


def _tokenizer(
    ranks: Mapping[bytes, int], first: int, special: Iterable[Mapping[str, Any]], expression: str | None
) -> TokenizerJson:
    """A byte-level BPE; the token of rank r has the id `first` + r."""
    return TokenizerJson(
        kind="gpt2",
        vocabulary={_letters(token): first + rank for token, rank in ranks.items()},
        scores={},
        merges=_merges(ranks),
        ignore_merges=True,
        unk_token=None,
        added=[dict(token) for token in special],
        steps=["nothing: the file does not say"] if expression is None else [f"Split({expression})"],
        expressions=None if expression is None else (expression,),
    )


def _letters(token: bytes) -> str:
    return "".join(_LETTER_OF_BYTE[byte] for byte in token)


def _merges(ranks: Mapping[bytes, int]) -> list[tuple[str, str]]:
    """The pair that makes each token, in order of rank: what merging by the ranks below its own leaves of it."""
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = [bytes([byte]) for byte in token]
        while len(parts) > 2:
            places = [(ranks.get(parts[at] + parts[at + 1], rank), at) for at in range(len(parts) - 1)]
            best, at = min(places)
            if best >= rank:
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        # A token that merging does not reach has no pair; it is found where a word is that token as a whole.
        if len(parts) == 2 and all(part in ranks for part in parts):
            merges.append((_letters(parts[0]), _letters(parts[1])))
    return merges
