"""`edgert inspect MODEL`: what a GGUF file says of itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from edgert_models.errors import FileFormatError, TemplateError, UnsupportedError

from edgert.cli import options

if TYPE_CHECKING:
    from edgert_quant.gguf import GgufFile, GgufMetadata

_LONG = 16
_RECEIPT = "edgert.quality."
_ORIGINS = (
    "general.license",
    "edgert.distill.",
    "edgert.source.",
    "edgert.convert.",
    "edgert.calibration.",
    "quantize.imatrix.",
)


@options.may_be_offline
def inspect_file(
    model: options.RequiredModel,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    as_json: options.Json = False,
) -> None:
    """Print a file's metadata, its tensors by type, and whether edgert can run it."""
    from edgert_quant.gguf import GgufFile

    from edgert.cli.console import out, print_json, size
    from edgert.resolve import as_reference, resolve_model

    file = resolve_model(as_reference(model))
    with GgufFile.open(file) as gguf:
        entries = {key: _brief(value) for key, value in gguf.metadata.items()}
        listed: list[dict[str, Any]] = [
            {"name": t.name, "type": t.type.name, "shape": list(t.shape), "bytes": t.nbytes}
            for t in gguf.tensors.values()
        ]
        runs, per_token = _runs(gguf)
        receipt, origin = _receipt(gguf.metadata), _provenance(gguf.metadata)
        text = _text(gguf.metadata)
    total, count = sum(t["bytes"] for t in listed), Counter(t["type"] for t in listed)
    if as_json:
        print_json(
            {
                "file": str(file),
                "metadata": entries,
                "tensors": listed,
                "bytes": total,
                "weight_bytes_per_token": per_token,
                "runs": runs,
                "text": text,
                "receipt": receipt,
                "provenance": origin,
            }
        )
        return
    for key, value in entries.items():
        if receipt and key.startswith(_RECEIPT):
            continue  # below
        out.print(f"{key} = {value}", markup=False, soft_wrap=True)
    out.print()
    if tensors:
        for t in listed:
            out.print(f"{t['type']:>8}  {t['shape']!s:<24} {t['name']}", markup=False, soft_wrap=True)
        out.print()
    by_type = ", ".join(f"{n} {name}" for name, n in count.most_common())
    out.print(f"{len(listed)} tensors, {size(total)}: {by_type}", markup=False)
    for title, block in (
        ("text", text),
        ("where it comes from", origin),
        ("quality, as the file says; edgert verify checks it", receipt),
    ):
        if block:
            out.print(f"{title}:", markup=False)
            width = max(map(len, block))
            for key, value in block.items():
                shown = f"{value:.6g}" if isinstance(value, float) else value
                out.print(f"  {key:<{width}}  {shown}", markup=False, soft_wrap=True)
    if per_token is not None:
        out.print(f"{size(per_token)} of weights are read for each token", markup=False)
    out.print(f"runs here: {runs}", markup=False, soft_wrap=True)


def _runs(gguf: GgufFile) -> tuple[str, int | None]:
    """Whether edgert can run it or why not, and the bytes of weights that a token takes."""
    from edgert_models.registry import build_plan, spec_from_gguf
    from edgert_runtimes.weights import GgufWeights, check_weights, weight_bytes_per_token

    kind = gguf.metadata.string("general.type", "model")
    if kind != "model":
        return f"no: it is no model but {kind}", None
    try:
        plan = build_plan(spec_from_gguf(gguf.metadata, {n: t.shape for n, t in gguf.tensors.items()}))
        check_weights(plan, GgufWeights(gguf), str(gguf.path))
        kept = f"; its {plan.spec.nextn} layers for multi-token prediction are kept, not run" if plan.spec.nextn else ""
        return f"yes{kept}", weight_bytes_per_token(plan, GgufWeights(gguf))
    except UnsupportedError as error:
        return f"no: {error}", None


def _text(metadata: GgufMetadata) -> dict[str, str]:
    """Which tokenizer and chat template will be used, and how tool calls and reasoning are found in answers."""
    from edgert_quant.vocabulary import BYTE_LEVEL, HUGGINGFACE_JSON
    from edgert_quant.vocabulary.table import MODELS

    from edgert.chat import Chat
    from edgert.text import Tokenizer
    from edgert.text.template import template_names

    try:
        tokenizer = Tokenizer.from_gguf(metadata)
        chat = Chat.from_gguf(metadata, tokenizer, None)
    except (FileFormatError, UnsupportedError, TemplateError) as error:
        return {"tokenizer": f"cannot be used: {error}"}
    vocabulary = tokenizer.vocabulary
    source = f"from {HUGGINGFACE_JSON}" if HUGGINGFACE_JSON in metadata else "rebuilt from tokenizer.ggml"
    pre = f", pre-tokenizer {vocabulary.pre}" if vocabulary.model in BYTE_LEVEL else ""
    found = {"tokenizer": f"{MODELS[vocabulary.model]}{pre}, {len(vocabulary)} tokens, {source}"}
    found["chat templates"] = ", ".join(template_names(metadata)) or "none"
    if chat is not None:
        calls, reasoning = chat.dialect.calls, chat.dialect.reasoning
        found["tool calls"] = "none" if calls is None else calls.name
        if reasoning is not None:
            found["reasoning"] = " … ".join(reasoning)
        else:
            found["reasoning"] = calls.name if chat.dialect.thoughts is not None and calls is not None else "none"
    return found


def _receipt(metadata: GgufMetadata) -> dict[str, Any] | None:
    """What the file says of its quality, if it says so."""
    from edgert.receipt import Receipt

    try:
        found = Receipt.read(metadata)
    except FileFormatError as error:
        return {"damaged": str(error)}
    return None if found is None else asdict(found)


def _provenance(metadata: GgufMetadata) -> dict[str, Any]:
    """What it was made from, of what the file says."""
    found: dict[str, Any] = {}
    for kind in ("base_model", "dataset"):
        count = metadata.integer(f"general.{kind}.count", 0, minimum=0)
        names = [_origin(metadata, f"general.{kind}.{i}") for i in range(min(count, _LONG))]
        if names:
            found[kind] = ", ".join(names)
    for key, value in metadata.items():
        if key.startswith(_ORIGINS):
            found[key] = ", ".join(value) if isinstance(value, list) else _brief(value)
    return found


def _origin(metadata: GgufMetadata, key: str) -> str:
    address = metadata.string(f"{key}.repo_url", "")
    name = metadata.string(f"{key}.name", "")
    return f"{name} ({address})" if name and address else name or address or "?"


def _brief(value: Any) -> Any:
    """Arrays and long texts by their beginning and length."""
    if isinstance(value, str):
        return value if len(value) <= 2000 else f"{value[:200]}… ({len(value)} characters)"
    if hasattr(value, "__len__"):
        head = [item.item() if hasattr(item, "item") else item for item in value[:_LONG]]
        return head if len(value) <= _LONG else f"{head[:8]}… ({len(value)} entries)"
    return value.item() if hasattr(value, "item") else value
