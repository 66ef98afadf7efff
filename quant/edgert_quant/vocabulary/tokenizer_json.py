"""`tokenizer.json`, taken apart into what GGUF has keys for.

The format is that of Hugging Face's `tokenizers` library (Apache-2.0), which has no other specification than its code.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgert_models.errors import FileFormatError, UnsupportedError

from edgert_quant.vocabulary.pieces import SPACE
from edgert_quant.vocabulary.pretokenizers import DIGIT, DIGITS, GPT2, PUNCTUATION

Json = dict[str, Any]


@dataclass
class TokenizerJson:
    """The parts of a `tokenizer.json`.

    `kind` is the value of `tokenizer.ggml.model`; `expressions` the pre-tokenizer's (byte-level only), None where it
    has a step that is no splitting by expression, which `steps` then describes. `starts` and `ends` are the tokens that
    the post-processor puts around a text.
    """

    kind: str
    vocabulary: dict[str, int]
    scores: dict[str, float]
    merges: list[tuple[str, str]]
    ignore_merges: bool
    unk_token: str | None
    added: list[Json]
    steps: list[str]
    expressions: tuple[str, ...] | None
    nfc: bool = False
    space_prefix: str = "never"
    charsmap: bytes = b""
    remove_extra_whitespaces: bool = False
    starts: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)


def read_tokenizer_json(path: Path, document: object) -> TokenizerJson:
    """Take the parsed JSON of the file at `path` apart.

    Raises `FileFormatError` for a document of another shape, `UnsupportedError` (naming what was found) for tokenizers
    that GGUF has no form for.
    """
    try:
        return _read(path, document)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise FileFormatError(path, f"is not shaped like a tokenizer.json: {type(error).__name__}: {error}") from error


def _read(path: Path, document: Any) -> TokenizerJson:
    model = document["model"]
    type_name = model.get("type", "BPE" if "merges" in model else "nothing")
    normalizers = list(_flat(document.get("normalizer"), "normalizers"))
    splitters = list(_flat(document.get("pre_tokenizer"), "pretokenizers"))
    names = [step.get("type", "?") for step in splitters]
    byte_level = "ByteLevel" in names
    spaced = "Metaspace" in names or any(
        step.get("type") == "Replace" and step.get("content") == SPACE for step in normalizers
    )
    if type_name == "Unigram":
        kind = "t5"
    elif type_name == "BPE" and byte_level:
        kind = "gpt2"
    elif type_name == "BPE" and spaced:
        kind = "llama"
    else:
        steps = ", ".join(names) or "no pre-tokenizer"
        raise UnsupportedError(
            f"{path}: a {type_name} tokenizer with {steps} has no form in GGUF that edgert can write"
        )
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise UnsupportedError(f"{path}: BPE with subword prefixes or suffixes has no form in GGUF")
    result = TokenizerJson(
        kind=kind,
        vocabulary={},
        scores={},
        merges=[],
        ignore_merges=bool(model.get("ignore_merges")),
        unk_token=None if model.get("unk_token") is None else str(model["unk_token"]),
        added=list(document.get("added_tokens") or []),
        steps=[_described(step) for step in splitters],
        expressions=_expressions(splitters) if byte_level else (),
        nfc=any(step.get("type") == "NFC" for step in normalizers),
    )
    if kind == "t5":
        for index, (piece, score) in enumerate(model["vocab"]):
            result.vocabulary[piece] = index
            result.scores[piece] = float(score)
        result.unk_token = None if model.get("unk_id") is None else model["vocab"][model["unk_id"]][0]
    else:
        result.vocabulary = {str(piece): int(index) for piece, index in model["vocab"].items()}
        result.merges = [_merge(merge) for merge in model["merges"]]
    for added in result.added:
        added["content"], added["id"] = str(added["content"]), int(added["id"])
    _read_normalizers(result, normalizers)
    if kind != "gpt2":
        _read_prefix(result, normalizers, splitters)
    _read_ends(path, result, document.get("post_processor"))
    return result


def _flat(step: Json | None, inner: str) -> Iterator[Json]:
    """The steps of a pipeline, with sequences unrolled."""
    if step is None:
        return
    if step.get("type") == "Sequence":
        for child in step[inner]:
            yield from _flat(child, inner)
    else:
        yield step


def _merge(merge: Any) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return str(left), str(right)


def _pattern(step: Json) -> str:
    pattern = step["pattern"]
    return str(pattern["Regex"]) if "Regex" in pattern else ""


def _described(step: Json) -> str:
    """A step of the pre-tokenizer for messages."""
    name = str(step.get("type", "?"))
    if name == "Split":
        return f"Split({step.get('pattern')}, {step.get('behavior')}{', inverted' if step.get('invert') else ''})"
    settings = ", ".join(f"{key}={value}" for key, value in step.items() if key not in ("type", "trim_offsets"))
    return f"{name}({settings})"


def _expressions(steps: Sequence[Json]) -> tuple[str, ...] | None:
    """The expressions that a byte-level pre-tokenizer splits by; None where a step is something else."""
    found = []
    for step in steps:
        kind = step.get("type")
        if kind == "Split" and _pattern(step) and _is_plain(step):
            found.append(_pattern(step))
        elif kind == "ByteLevel" and not step.get("add_prefix_space"):
            found += [GPT2] if step.get("use_regex", True) else []
        elif kind == "Digits":
            found.append(DIGIT if step.get("individual_digits") else DIGITS)
        elif kind == "Punctuation" and step.get("behavior") == "Contiguous":
            found.append(PUNCTUATION)
        else:
            return None
    return tuple(found)


def _is_plain(split: Json) -> bool:
    """Whether a split makes a word of each match. Removing all but the matches does so too, if they cover the text."""
    if split.get("invert"):
        return split.get("behavior") in ("Removed", "Isolated")
    return split.get("behavior") == "Isolated"


def _read_normalizers(result: TokenizerJson, steps: Sequence[Json]) -> None:
    for step in steps:
        if step.get("type") == "Precompiled":
            result.charsmap = base64.b64decode(step.get("precompiled_charsmap") or "")
        elif step.get("type") == "Replace" and step.get("pattern") == {"Regex": " {2,}"}:
            result.remove_extra_whitespaces = True


def _read_prefix(result: TokenizerJson, normalizers: Sequence[Json], splitters: Sequence[Json]) -> None:
    """Where a space is put before text: see `Vocabulary.space_prefix`."""
    if any(step.get("type") == "Prepend" and step.get("prepend") == SPACE for step in normalizers):
        result.space_prefix = "always"
    for step in splitters:
        if step.get("type") == "Metaspace":
            scheme = step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never")
            result.space_prefix = {"always": "unless-space", "first": "first-unless-space"}.get(scheme, "never")


def _read_ends(path: Path, result: TokenizerJson, processor: Json | None) -> None:
    for step in _flat(processor, "processors"):
        kind = step.get("type")
        if kind == "TemplateProcessing":
            names: list[str] = result.starts
            for part in step["single"]:
                if "Sequence" in part:
                    names = result.ends
                else:
                    names.append(str(part["SpecialToken"]["id"]))
        elif kind != "ByteLevel":
            raise UnsupportedError(f"{path}: the post-processor {kind} has no form in GGUF that edgert can write")
