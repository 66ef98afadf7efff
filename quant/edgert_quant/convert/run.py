"""`convert`: a checkpoint or a GGUF file in, a GGUF file out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
from edgert_models.errors import ConversionError, RequestError
from numpy.typing import NDArray

from edgert_quant.blocks import BlockType
from edgert_quant.convert.checkpoint_source import CheckpointSource
from edgert_quant.convert.gguf_source import GgufSource
from edgert_quant.convert.importance import UsedImportance
from edgert_quant.convert.locate import locate
from edgert_quant.convert.losses import LossMeter
from edgert_quant.convert.metadata import recipe_metadata
from edgert_quant.convert.pipeline import Progress, write_tensors
from edgert_quant.convert.plan import Types, plan_recipe, planned, read_plan
from edgert_quant.convert.provenance import with_origins
from edgert_quant.convert.ready import ReadySource
from edgert_quant.convert.report import ConversionReport, advice, totals
from edgert_quant.convert.rules import Rule, apply_rules
from edgert_quant.convert.source import MetadataEntry, Source
from edgert_quant.files import InputFile
from edgert_quant.gguf import GgufWriter
from edgert_quant.recipes import NATIVE, Recipe, file_type_of, recipe_named


def convert(
    source: str | Path,
    output: str | Path,
    *,
    type: str | None = None,  # noqa: A002
    tensors: Iterable[str] = (),
    plan: str | Path | Types | None = None,
    ready: Mapping[str, NDArray[np.uint8]] | None = None,
    notes: Mapping[str, str | int | float | bool] | None = None,
    name: str | None = None,
    distilled_from: Iterable[str] = (),
    datasets: Iterable[str] = (),
    threads: int | None = None,
    progress: Progress | None = None,
    overwrite: bool = True,
    parity: bool = True,
    imatrix: str | Path | None = None,
    weighed: bool = False,
    min_tokens_per_expert: int | None = None,
    mtp: bool | None = None,
) -> ConversionReport:
    """Convert a checkpoint folder, a hub id in the local Hugging Face cache, or a GGUF file, to a GGUF file.

    `type` names a recipe (`edgert_quant.recipes.RECIPES`, in upper or lower case), or is `native`: every tensor keeps
    its own form, bit by bit where GGUF has such a type. None: `native` for a checkpoint that is quantized already, else
    `q4_k_m`. A GGUF source is quantized again: tensors that have their type already are copied bit by bit. `tensors`
    are exceptions from the recipe, such as `blk.*.ffn_down_exps=q6_k`, of which later ones prevail. `plan`, a TOML file
    or types by tensor, takes the place of `type`. `ready` has rows, uint8 [rows, row bytes], of tensors that are in
    their type already; `notes` are keys and values that the file shall have besides. `name` is what to call the model
    (default: as its folder or source file is called). `distilled_from` names the teachers it was distilled from, and
    `datasets` what on (names, hub ids or addresses), to be noted in the file. `threads` None: all cores; the output
    does not depend on it. `progress(done, total, name)` counts bytes of tensors. Without `overwrite` an existing output
    is an error. `parity` False allows a tokenizer whose GGUF form cuts some texts otherwise than the original.
    `imatrix` is an importance matrix of the same model (`edgert.calibrate`, llama-imatrix): errors of weights count by
    what they are multiplied with, and some mixes choose otherwise; with `weighed` they do so without one.
    `min_tokens_per_expert` refuses one where an expert has seen fewer. `mtp`: whether layers for multi-token prediction
    of a checkpoint are kept; None: where llama.cpp loads files with them.

    The output appears complete or not at all; an older file survives until then. Memory stays bounded whatever the
    model's size. Raises RequestError (no such source), FileFormatError (damaged source), UnsupportedError (type,
    architecture, method of quantization) and ConversionError (missing or misshapen tensor, a weight that is no number,
    full disk, tokenizer mismatch, importance matrix of another model).
    """
    started = time.perf_counter()
    named_recipe, rules = None if type is None else recipe_named(type), [Rule.parse(text) for text in tensors]
    output = Path(output)
    if min_tokens_per_expert is not None and imatrix is None:
        raise RequestError("tokens per expert are those of an importance matrix: give one", parameter="imatrix")
    if not overwrite and output.exists():
        raise ConversionError(f"{output}: there is such a file already")
    with closing(open_source(source, parity=parity, mtp=mtp)) as found:
        opened = ReadySource(found, ready or {})
        for path in opened.paths:
            if output.exists() and output.samefile(path):
                raise RequestError(f"{output}: is the source itself; give another output", parameter="output")
        recipe = named_recipe or recipe_named(opened.default_type)
        if plan is None:
            types = chosen_types(opened, recipe, weighed=weighed or imatrix is not None)
        else:
            wanted = plan if isinstance(plan, Mapping) else read_plan(plan, opened.spec.architecture)
            types = planned(wanted, opened.weights, opened.fixed_types)
            recipe = plan_recipe(types, opened.weights)
        types = apply_rules({**types, **opened.fixed_types}, opened.weights, rules)
        used = None if imatrix is None else UsedImportance.open(imatrix, opened.weights, min_tokens_per_expert)
        meter = LossMeter(opened.forms(types), types, measured=recipe is NATIVE)
        sizes = totals({name: weight.shape for name, weight in opened.weights.items()}, types)
        if recipe is NATIVE:
            recipe = replace(recipe, file_type=file_type_of(BlockType[sizes[0].type]))
        with GgufWriter(output) as writer:
            weighted = {} if used is None else used.metadata()
            noted = {key: MetadataEntry(value) for key, value in (notes or {}).items()}
            named = {} if name is None else {"general.name": MetadataEntry(name)}
            own = with_origins(opened.metadata(), list(distilled_from), list(datasets))
            for key, entry in (own | recipe_metadata(recipe, rules) | weighted | named | noted).items():
                writer.add_metadata(key, entry.value, entry.type)
            for tensor, kind in types.items():
                writer.add_tensor(tensor, kind, opened.weights[tensor].shape)
            writer.begin()
            quantized = write_tensors(
                opened,
                types,
                writer,
                weighting=None if used is None else used.rows,
                noting=meter.note,
                threads=threads,
                progress=progress,
            )
        known = set() if used is None else set(used.importance.sums)
        said = [*meter.warnings(), *advice(types[tensor] for tensor in quantized - known)]
        return ConversionReport(
            source=str(source),
            output=output,
            architecture=opened.spec.architecture,
            recipe=recipe.name,
            types=sizes,
            bytes=output.stat().st_size,
            seconds=time.perf_counter() - started,
            warnings=(*opened.warnings, *said, *(() if used is None else used.warnings(types))),
            losses=meter.losses(),
        )


def chosen_types(source: Source, recipe: Recipe, *, weighed: bool) -> dict[str, BlockType]:
    """The type of every tensor: the recipe's choice, or with `NATIVE` the source's own."""
    types = (recipe.with_importance() if weighed else recipe).types(source.weights.values(), source.spec)
    return {**types, **source.native_types()} if recipe is NATIVE else types


def open_source(source: str | Path, *, parity: bool = True, mtp: bool | None = None) -> Source:
    """Find out what a source is, and open it."""
    path = locate(source)
    if path.is_file() and (path.suffix == ".gguf" or _starts_as_gguf(path)):
        if mtp is False:
            raise RequestError("layers are left out of checkpoints only, not of GGUF files", parameter="mtp")
        return GgufSource(path)
    return CheckpointSource(path, parity=parity, mtp=mtp)


def _starts_as_gguf(path: Path) -> bool:
    file = InputFile(path)
    try:
        return file.size >= 4 and file.read(0, 4, "magic") == b"GGUF"
    finally:
        file.close()
