"""`convert`, with measurement: from a model and a calibration text to a quantized file.

Steps: the source as it is (a checkpoint becomes a BF16 file in the work folder first) → importance → sensitivities
→ allocation, checked on the true divergence → rounding, layer by layer → tuning of scales → the file. What was measured
is kept in the work folder until the file is there, so that a stopped run goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from edgert_models.errors import RequestError
from edgert_models.graph import Role
from edgert_quant.blocks import BlockType
from edgert_quant.convert import ConversionReport
from edgert_quant.convert import convert as write
from edgert_quant.convert.locate import locate
from edgert_quant.convert.plan import plan_text, planned, read_plan
from edgert_quant.convert.report import tensor_bytes
from edgert_quant.convert.rules import Rule, apply_rules
from edgert_quant.convert.run import open_source
from edgert_quant.gguf.output import write_whole
from edgert_quant.recipes import DEFAULT, NATIVE, RECIPES, recipe_named

from edgert.tuning.allocation import Allocation, allocate, curve
from edgert.tuning.finish import finish as tune
from edgert.tuning.importance import Importance
from edgert.tuning.material import WINDOW, Material, Model
from edgert.tuning.packed import Packed, pack
from edgert.tuning.rounding import Rounder
from edgert.tuning.sensitivity import Costs, Progress, Sensitivities

FLOATS = (Role.VECTOR, Role.ROUTER)
HEADER_ROOM = 4096
"""Bytes kept free under a budget for what the file says of itself."""
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
        reference = _reference(source, work, said, more)
        model = Model(reference)
        stack.callback(model.close)
        material = Material(model, options.calibration, window=options.window, tokens=options.tokens)
        if options.teacher is not None:
            teacher = Model(locate(options.teacher))
            stack.callback(teacher.close)
        fixed = _fixed(reference, model, more.pop("tensors", ()))
        job = _Job(material, options, work, said, fixed)
        types, expected = job.choose()
        if options.save_plan is not None:
            notes = {"divergence": round(expected, 6)} if expected is not None else {}
            text = plan_text(model.plan.spec.architecture, types, notes)
            write_whole(options.save_plan, text.encode())
        found: dict[str, float] = {} if expected is None else {"chosen": expected}
        if options.only_plan:
            return Tuned(None, types, found, job.curve)
        packed = job.rounded(types, found)
        if options.steps:
            if options.teacher is not None:
                material.learn(teacher)
            found["before tuning"], found["tuned"] = tune(material, packed, steps=options.steps, progress=said)
        report = write(reference, output, plan=types, ready=packed.rows, threads=options.threads, **more)
    if not options.keep_work:
        shutil.rmtree(work, ignore_errors=True)
    return Tuned(replace(report, source=str(source)), types, found, job.curve)


def _reference(source: str | Path, work: Path, said: Progress, more: Mapping[str, Any]) -> Path:
    """The source as a GGUF of floats: itself, or what is made of a checkpoint in the work folder."""
    path = locate(source)
    work.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        return path
    made = work / "reference.gguf"
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


class _Job:
    """The steps between the reference and the file. `fixed` types prevail."""

    def __init__(
        self, material: Material, options: Options, work: Path, said: Progress, fixed: Mapping[str, BlockType]
    ) -> None:
        self._material, self._options, self._work, self._said = material, options, work, said
        self._fixed = fixed
        self._weights = material.model.plan.weights
        self.curve: list[tuple[int, float]] = []
        self._importance: Importance | None = None

    @property
    def importance(self) -> Importance:
        """Measured when it is first wanted."""
        if self._importance is None:
            self._said("importance", 0, 1)
            self._importance = Importance.measured(self._material)
            self._said("importance", 1, 1)
        return self._importance

    def choose(self) -> tuple[dict[str, BlockType], float | None]:
        """Types of all matrices, and their divergence on held-out windows if it was measured."""
        options, spec = self._options, self._material.model.plan.spec
        if options.plan is not None:
            return self._only_matrices(planned(read_plan(options.plan, spec.architecture), self._weights, {})), None
        budget = self._matrix_budget()
        if budget is None:
            recipe = recipe_named(options.type or DEFAULT)
            return self._only_matrices({n: recipe.choose(w, spec) for n, w in self._weights.items()}), None
        costs = Sensitivities(
            self._material, self.importance, self._work / "sensitivities.json", threads=options.threads
        ).measure(self._fixed, self._said)
        sizes = {
            name: {kind: tensor_bytes(kind, self._weights[name].shape) for kind in own} for name, own in costs.items()
        }
        self.curve = curve(costs, sizes)
        return self._best(costs, sizes, budget)

    def _only_matrices(self, types: Mapping[str, BlockType]) -> dict[str, BlockType]:
        return {
            name: self._fixed.get(name, kind) for name, kind in types.items() if self._weights[name].role not in FLOATS
        }

    def _matrix_budget(self) -> int | None:
        """Bytes that matrices may take, or None where there is no budget."""
        options, file = self._options, self._material.model.file
        kept = sum(
            tensor_bytes(BlockType.F32, weight.shape) for weight in self._weights.values() if weight.role in FLOATS
        )
        if options.bits is not None:
            weights = sum(int(np.prod(weight.shape)) for weight in self._weights.values())
            return int(options.bits * weights / 8) - kept
        if options.budget is None:
            return None
        stored = sum(tensor_bytes(tensor.type, tensor.shape) for tensor in file.tensors.values())
        header = sum(path.stat().st_size for path in file.paths) - stored
        return options.budget - kept - header - HEADER_ROOM

    def _best(
        self, costs: Costs, sizes: Mapping[str, Mapping[BlockType, int]], budget: int
    ) -> tuple[dict[str, BlockType], float]:
        """Of some promising choices the one that does best on the held-out windows: sums of divergences only guide."""
        tried: list[Allocation] = [
            allocate({n: {k: c**power for k, c in own.items()} for n, own in costs.items()}, sizes, budget)
            for power in POWERS
        ]
        plans = [dict(each.types) for each in tried] + self._recipes(sizes, budget)
        unlike = [plan for i, plan in enumerate(plans) if plan not in plans[:i]]
        found = []
        for done, plan in enumerate(unlike):
            self._said("verify", done, len(unlike))
            found.append(self._true(plan))
        self._said("verify", len(unlike), len(unlike))
        best = int(np.argmin(found))
        return unlike[best], found[best]

    def _recipes(self, sizes: Mapping[str, Mapping[BlockType, int]], budget: int) -> list[dict[str, BlockType]]:
        """The two largest named mixes that the budget has room for."""
        spec = self._material.model.plan.spec
        mixes = [
            self._only_matrices({n: recipe.choose(w, spec) for n, w in self._weights.items()})
            for recipe in RECIPES.values()
            if recipe.quantized
        ]
        totals = [sum(tensor_bytes(kind, self._weights[n].shape) for n, kind in mix.items()) for mix in mixes]
        fitting = sorted((total, i) for i, total in enumerate(totals) if total <= budget)
        return [mixes[i] for _, i in fitting[-2:]]

    def _true(self, types: Mapping[str, BlockType]) -> float:
        packed = self._plain(types)
        return self._material.divergence(self._material.model.walk(packed), self._material.held)

    def _plain(self, types: Mapping[str, BlockType]) -> Packed:
        """Each weight rounded for itself."""
        model = self._material.model
        packed, weights = Packed(model.provider), model.walk().weights
        for name, kind in types.items():
            same = model.provider.weights[name].type is kind
            rows = (
                model.provider.read(name) if same else pack(weights, name, kind, self.importance, self._options.threads)
            )
            packed.put(name, kind, rows)
        return packed

    def rounded(self, types: Mapping[str, BlockType], found: dict[str, float]) -> Packed:
        """All matrices in their bytes; `found` is told the divergences."""
        material, options = self._material, self._options
        plain = self._plain(types)
        found["rounded"] = material.divergence(material.model.walk(plain), material.held)
        if not options.compensate:
            return plain
        better = Rounder.run(material, types, self.importance, threads=options.threads, progress=self._said)
        found["compensated"] = material.divergence(material.model.walk(better), material.held)
        return better if found["compensated"] < found["rounded"] else plain
