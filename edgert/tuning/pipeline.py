"""`convert`, with measurement: from a model and a calibration text to a quantized file.

Steps: the source as it is (a checkpoint becomes a BF16 file in the work folder first) → importance → sensitivities
→ allocation, checked on the true divergence → rounding, layer by layer → tuning of scales → the file. What was
measured, rounded and tuned is kept in the work folder until the file is there, so that a stopped run goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from edgert_models.errors import EdgertError, RequestError
from edgert_quant.blocks import BlockType
from edgert_quant.compensation.grids import GRIDS
from edgert_quant.convert import ConversionReport
from edgert_quant.convert import convert as write
from edgert_quant.convert.locate import locate
from edgert_quant.convert.plan import plan_text, planned, read_plan
from edgert_quant.convert.report import tensor_bytes
from edgert_quant.convert.rules import Rule, apply_rules
from edgert_quant.convert.run import open_source
from edgert_quant.gguf.output import write_whole
from edgert_quant.imatrix import Importance
from edgert_quant.recipes import DEFAULT, NATIVE, RECIPES, recipe_named
from edgert_runtimes.base import Progress

from edgert.calibration.model import Model as Opened
from edgert.tuning.allocation import allocate, curve, refuse_unreachable
from edgert.tuning.finish import finish as tune
from edgert.tuning.kept import Kept
from edgert.tuning.material import WINDOW, Material, Model
from edgert.tuning.packed import Packed, pack
from edgert.tuning.rounding import Rounder
from edgert.tuning.sensitivity import Costs, Sensitivities, choices

_REFERENCE = "reference-"
HEADER_ROOM = 4096
"""Bytes kept free under a budget for what the file says of itself."""
LEFT, LEFT_OF_GRIDS = 0.5, 0.85
"""Of the divergence after compensation, about: of types rounded one by one, and of those of grids of points."""
POWERS = (0.8, 1.0, 1.25)
"""Of the sensitivities: below 1 spreads bits more evenly, above 1 less."""


@dataclass(frozen=True)
class Tuned:
    """What came of it: the file, its plan, the divergence on held-out windows after each step, in nats, and the curve
    of bytes against expected divergence (empty without a budget).
    """

    report: ConversionReport | None
    plan: dict[str, BlockType]
    divergence: dict[str, float]
    curve: list[tuple[int, float]]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        written = {} if self.report is None else self.report.to_dict()
        types = {name: kind.name for name, kind in self.plan.items()}
        return {**written, "plan": types, "divergence": self.divergence, "curve": self.curve}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to do. `budget` is bytes of the whole file, `bits` bits per weight of all tensors; of these, `plan` and
    `type` one decides on types. `steps` of tuning; `teacher` a GGUF file with the same vocabulary.
    """

    calibration: str
    type: str | None = None
    plan: str | Path | None = None
    budget: int | None = None
    bits: float | None = None
    compensate: bool = True
    steps: int = 0
    teacher: str | Path | None = None
    window: int = WINDOW
    tokens: int | None = None
    threads: int | None = None
    work: Path | None = None
    keep_work: bool = False
    only_plan: bool = False
    save_plan: Path | None = None


def convert(
    source: str | Path,
    output: str | Path,
    options: Options,
    *,
    progress: Progress | None = None,
    **more: Any,
) -> Tuned:
    """Convert with measurement; `more` goes to `edgert_quant.convert.convert`.

    Raises what that raises; RequestError for a text that is too short, a budget that no choice reaches, a teacher of
    another vocabulary.
    """
    if options.type is not None and recipe_named(options.type) is NATIVE:
        reason = "the type native keeps what the source has and needs no calibration text: name another type"
        raise RequestError(reason, parameter="type")
    output = Path(output)
    work = options.work or output.with_name(output.name + ".work")
    said = progress or (lambda stage, done, total: None)
    with ExitStack() as stack:
        stack.enter_context(_removed_if_refused(work))
        reference = _reference(source, work, said)
        model = Model(reference)
        stack.callback(model.close)
        material = Material(model, options.calibration, window=options.window, tokens=options.tokens)
        if options.teacher is not None:
            teacher = Model(locate(options.teacher))
            stack.callback(teacher.close)
        rules = tuple(more.pop("tensors", ()))
        fixed = _fixed(reference, model, rules)
        job = _Job(material, options, work, said, fixed)
        plans = job.choose()
        types, packed, found = job.rounded(plans)
        if options.save_plan is not None:
            text = plan_text(model.plan.spec.architecture, types, {"divergence": round(min(found.values()), 6)})
            write_whole(options.save_plan, text.encode())
        if options.only_plan:
            return Tuned(None, types, found, job.curve)
        if options.steps:
            if options.teacher is not None:
                material.learn(teacher)
            found["before tuning"], found["tuned"] = tune(
                material, packed, steps=options.steps, work=work, progress=said
            )
        named = options.plan is None and options.budget is None and options.bits is None
        report = write(
            reference,
            output,
            type=options.type or DEFAULT if named else None,
            plan=None if named else types,
            tensors=rules,
            ready=packed.rows,
            weighed=True,
            notes=_notes(material, job.importance, options, found),
            threads=options.threads,
            **more,
        )
    if not options.keep_work:
        shutil.rmtree(work, ignore_errors=True)
    return Tuned(replace(report, source=str(source)), types, found, job.curve)


@contextmanager
def _removed_if_refused(work: Path) -> Iterator[None]:
    """Leaves no new work folder behind where what was asked, or the source, cannot be; what was measured stays."""
    fresh = not work.exists()
    try:
        yield
    except EdgertError:
        if fresh and all(path.name.startswith(_REFERENCE) for path in work.glob("*")):
            shutil.rmtree(work, ignore_errors=True)
        raise


def _reference(source: str | Path, work: Path, said: Progress) -> Path:
    """The source as a GGUF of floats: itself, or what is made of a checkpoint in the work folder."""
    path = locate(source)
    work.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        return path
    with Opened(path) as opened:
        made = work / f"{_REFERENCE}{opened.fingerprint()[:16]}.gguf"
    if not made.exists():
        write(path, made, type="bf16", progress=lambda done, total, name: said("read", done, total))
    return made


def _fixed(reference: Path, model: Model, rules: Iterable[str]) -> dict[str, BlockType]:
    """Types that are not to be chosen: of tensors that keep what they have, and by the user's rules."""
    with closing(open_source(reference)) as source:
        kept = {name: kind for name, kind in source.fixed_types.items() if name in model.plan.weights}
    weights = model.plan.weights
    unruled = dict.fromkeys(weights, BlockType.F32) | kept
    ruled = apply_rules(unruled, weights, [Rule.parse(text) for text in rules])
    return kept | {name: kind for name, kind in ruled.items() if kind is not unruled[name]}


def _notes(
    material: Material, importance: Importance, options: Options, found: Mapping[str, float]
) -> dict[str, str | int | float | bool]:
    """What the file says of how it was made."""
    least = [int(sums.counts.min()) for sums in importance.sums.values() if sums.by_expert]
    return {
        "edgert.calibration.text_sha256": material.text_sha256,
        "edgert.calibration.tokens": material.tokens,
        **({"edgert.calibration.least_tokens_per_expert": min(least)} if least else {}),
        "edgert.calibration.compensated": options.compensate,
        "edgert.calibration.steps": options.steps,
        "edgert.calibration.divergence": float(list(found.values())[-1]),
    }


class _Job:
    """The steps between the reference and the file. `fixed` types prevail."""

    def __init__(
        self, material: Material, options: Options, work: Path, said: Progress, fixed: Mapping[str, BlockType]
    ) -> None:
        self._material, self._options, self._work, self._said = material, options, work, said
        self._fixed = fixed
        self._weights = material.model.plan.weights
        self.curve: list[tuple[int, float]] = []

    @cached_property
    def importance(self) -> Importance:
        """Measured when it is first wanted."""
        self._said("importance", 0, 1)
        found = self._material.importance()
        self._said("importance", 1, 1)
        return found

    def choose(self) -> list[dict[str, BlockType]]:
        """Types of all matrices: of several plans the best is only seen when they are rounded."""
        options, spec = self._options, self._material.model.plan.spec
        if options.plan is not None:
            return [self._only_matrices(planned(read_plan(options.plan, spec.architecture), self._weights, {}))]
        budget = self._matrix_budget()
        if budget is None:
            recipe = recipe_named(options.type or DEFAULT).with_importance()
            return [self._only_matrices(recipe.types(self._weights.values(), spec))]
        sizes = {
            name: {kind: tensor_bytes(kind, self._weights[name].shape) for kind in own}
            for name, own in choices(self._material.model, self._fixed).items()
        }
        refuse_unreachable(sizes, budget)  # before hours of measuring
        costs = Sensitivities(
            self._material, self.importance, self._work / "sensitivities.json", threads=options.threads
        ).measure(self._fixed, self._said)
        self.curve = curve(costs, sizes)
        return self._promising(costs, sizes, budget)

    def _only_matrices(self, types: Mapping[str, BlockType]) -> dict[str, BlockType]:
        return {
            name: self._fixed.get(name, kind)
            for name, kind in types.items()
            if not self._weights[name].role.stays_float
        }

    def _matrix_budget(self) -> int | None:
        """Bytes that matrices may take, or None where there is no budget."""
        options, file = self._options, self._material.model.file
        kept = sum(
            tensor_bytes(BlockType.F32, weight.shape) for weight in self._weights.values() if weight.role.stays_float
        )
        if options.bits is not None:
            weights = sum(int(np.prod(weight.shape)) for weight in self._weights.values())
            return int(options.bits * weights / 8) - kept
        if options.budget is None:
            return None
        stored = sum(tensor_bytes(tensor.type, tensor.shape) for tensor in file.tensors.values())
        header = sum(path.stat().st_size for path in file.paths) - stored
        return options.budget - kept - header - HEADER_ROOM

    def _promising(
        self, costs: Costs, sizes: Mapping[str, Mapping[BlockType, int]], budget: int
    ) -> list[dict[str, BlockType]]:
        """Choices to decide between by the true divergence, as sums of divergences only guide: the best without
        compensation; and if there will be some, the best of what compensation is expected to leave, and the best of
        types whose weights are rounded one by one, which it helps most.
        """
        tables: list[dict[str, dict[BlockType, float]]] = [
            {n: {k: c**power for k, c in own.items()} for n, own in costs.items()} for power in POWERS
        ]
        plans = [allocate(table, sizes, budget).types for table in tables] + self._recipes(sizes, budget)
        best = self._least(plans)
        if not self._options.compensate:
            return [best]
        expected = {
            n: {k: c * (LEFT if k in GRIDS else LEFT_OF_GRIDS) for k, c in own.items()} for n, own in costs.items()
        }
        alone = {n: {k: c for k, c in own.items() if k in GRIDS} or own for n, own in costs.items()}
        return _unlike([best, allocate(expected, sizes, budget).types, *_if_it_fits(alone, sizes, budget)])

    def _least(self, plans: list[dict[str, BlockType]]) -> dict[str, BlockType]:
        """The plan that does best on the held-out windows, each weight rounded for itself."""
        unlike, found = _unlike(plans), list[float]()
        for done, plan in enumerate(unlike):
            self._said("verify", done, len(unlike))
            found.append(self._divergence(self._plain(plan)))
        self._said("verify", len(unlike), len(unlike))
        return unlike[int(np.argmin(found))]

    def _recipes(self, sizes: Mapping[str, Mapping[BlockType, int]], budget: int) -> list[dict[str, BlockType]]:
        """The two largest named mixes that the budget has room for."""
        spec = self._material.model.plan.spec
        mixes = [
            self._only_matrices(recipe.with_importance().types(self._weights.values(), spec))
            for recipe in RECIPES.values()
            if recipe.quantized
        ]
        totals = [sum(tensor_bytes(kind, self._weights[n].shape) for n, kind in mix.items()) for mix in mixes]
        fitting = sorted((total, i) for i, total in enumerate(totals) if total <= budget)
        return [mixes[i] for _, i in fitting[-2:]]

    def _divergence(self, packed: Packed) -> float:
        return self._material.divergence(self._material.model.walk(packed), self._material.held)

    def _plain(self, types: Mapping[str, BlockType]) -> Packed:
        """Each weight rounded for itself."""
        model, weights = self._material.model, self._material.reference.weights
        packed = Packed(model.provider)
        for name, kind in types.items():
            same = model.provider.weights[name].type is kind
            rows = (
                model.provider.read(name) if same else pack(weights, name, kind, self.importance, self._options.threads)
            )
            packed.put(name, kind, rows)
        return packed

    def rounded(self, plans: list[dict[str, BlockType]]) -> tuple[dict[str, BlockType], Packed, dict[str, float]]:
        """The plan that does best once its matrices are rounded, they in their bytes, and the divergences found."""
        best: tuple[float, dict[str, BlockType], Packed, dict[str, float]] | None = None
        for types in plans:
            packed = self._plain(types)
            found = {"rounded": self._divergence(packed)}
            if self._options.compensate:
                kept = Kept(
                    self._work, "rounded", self._material.key, *sorted(f"{n} {k.name}" for n, k in types.items())
                )
                better = Rounder.run(
                    self._material,
                    types,
                    self.importance,
                    kept=kept,
                    threads=self._options.threads,
                    progress=self._said,
                )
                found["compensated"] = self._divergence(better)
                if found["compensated"] < found["rounded"]:
                    packed = better
            least = min(found.values())
            if best is None or least < best[0]:
                best = least, types, packed, found
        assert best is not None
        return best[1:]


def _unlike(plans: list[dict[str, BlockType]]) -> list[dict[str, BlockType]]:
    return [plan for i, plan in enumerate(plans) if plan not in plans[:i]]


def _if_it_fits(
    costs: Mapping[str, Mapping[BlockType, float]], sizes: Mapping[str, Mapping[BlockType, int]], budget: int
) -> list[dict[str, BlockType]]:
    """The best choice, or nothing where the smallest types are too large."""
    if sum(min(sizes[name][kind] for kind in own) for name, own in costs.items()) > budget:
        return []
    return [allocate(costs, {n: {k: sizes[n][k] for k in own} for n, own in costs.items()}, budget).types]
