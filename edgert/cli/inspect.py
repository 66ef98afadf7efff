"""`edgert inspect FILE`: what a GGUF file says of itself."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from edgert_models.errors import UnsupportedError

from edgert.cli import options

_LONG = 16


def inspect_file(
    file: Annotated[Path, typer.Argument(help="A GGUF file (of a split set: the first).")],
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    as_json: options.Json = False,
) -> None:
    """Print a file's metadata, its tensors by type, and whether edgert can run it."""
    from edgert_models.registry import build_plan, spec_from_gguf
    from edgert_quant.gguf import GgufFile

    from edgert.cli.console import out, print_json, size

    with GgufFile.open(file) as gguf:
        entries = {key: _brief(value) for key, value in gguf.metadata.items()}
        listed: list[dict[str, Any]] = [
            {"name": t.name, "type": t.type.name, "shape": list(t.shape), "bytes": t.nbytes}
            for t in gguf.tensors.values()
        ]
        runs, per_token = "yes", None
        try:
            from edgert_runtimes.weights import GgufWeights, check_weights, weight_bytes_per_token

            plan = build_plan(spec_from_gguf(gguf.metadata, {n: t.shape for n, t in gguf.tensors.items()}))
            check_weights(plan, GgufWeights(gguf), str(file))
            per_token = weight_bytes_per_token(plan, GgufWeights(gguf))
        except UnsupportedError as error:
            runs = f"no: {error}"
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
            }
        )
        return
    for key, value in entries.items():
        out.print(f"{key} = {value}", markup=False, soft_wrap=True)
    out.print()
    if tensors:
        for t in listed:
            out.print(f"{t['type']:>8}  {t['shape']!s:<24} {t['name']}", markup=False, soft_wrap=True)
        out.print()
    by_type = ", ".join(f"{n} {name}" for name, n in count.most_common())
    out.print(f"{len(listed)} tensors, {size(total)}: {by_type}", markup=False)
    if per_token is not None:
        out.print(f"{size(per_token)} of weights are read for each token", markup=False)
    out.print(f"runs here: {runs}", markup=False, soft_wrap=True)


def _brief(value: Any) -> Any:
    """Arrays and long texts by their beginning and length."""
    if isinstance(value, str):
        return value if len(value) <= 2000 else f"{value[:200]}… ({len(value)} characters)"
    if hasattr(value, "__len__"):
        head = [item.item() if hasattr(item, "item") else item for item in value[:_LONG]]
        return head if len(value) <= _LONG else f"{head[:8]}… ({len(value)} entries)"
    return value.item() if hasattr(value, "item") else value
