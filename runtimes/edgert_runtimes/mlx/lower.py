"""Plan → functions over MLX arrays, and the parts in which a step runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import mlx.core as mx
from edgert_models import ops
from edgert_models.errors import UnsupportedError
from edgert_models.graph import Plan
from edgert_models.ops import Value

from edgert_runtimes.mlx.matrices import HostRows
from edgert_runtimes.mlx.ops.attention import attend
from edgert_runtimes.mlx.ops.products import head_linear, linear, low_rank, moe
from edgert_runtimes.mlx.ops.recurrent import delta_rule, scan, short_conv
from edgert_runtimes.mlx.ops.rows import (
    add,
    clamp,
    embed,
    gated,
    layer_norm,
    pick_rows,
    position_scale,
    rms_norm,
    rope,
    scale,
    sliced,
    soft_cap,
)
from edgert_runtimes.mlx.step import Function, Inputs, Step
from edgert_runtimes.mlx.turns import Turns
from edgert_runtimes.mlx.weights import Weights

Values = dict[int, mx.array]
REMEMBERING = (ops.Attend, ops.ShortConv, ops.DeltaRule, ops.Scan)
"""Ops that keep something for later steps."""


@dataclass
class Part:
    """Ops that run one after another. Of values made before they read `inputs`, of which nothing reads `spent` later;
    `outputs` are what is read after them. Where `fusible`, nothing but arrays goes in or comes out, so that the part
    can be compiled as one function, which MLX keeps for every shape of its arguments.
    """

    ops: Sequence[tuple[ops.Op, Function]]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    spent: tuple[int, ...]
    fusible: bool

    remembers: bool = field(init=False)
    """Whether it is that which writes the cache of a layer, or its state."""

    def __post_init__(self) -> None:
        self.remembers = any(isinstance(op, REMEMBERING) for op, _ in self.ops)
        self._calls = [(op.out.id, function, [value.id for value in op.inputs]) for op, function in self.ops]
        self._compiled = mx.compile(self._pure) if self.fusible else None

    def close(self) -> None:
        """Let go of what was compiled, in the thread that ran it. MLX keeps it by thread, and would else ask for the
        interpreter when the thread ends; if that is going away by then, the process aborts.
        """
        self._compiled = None

    def run(self, step: Step, values: Values, *, compiled: bool) -> list[mx.array]:
        """Take what it reads from values and put the outputs there. `compiled` is for steps whose shapes come again and
        again.
        """
        given = [values[key] for key in self.inputs]
        if compiled and self._compiled is not None:
            outputs, peaks, chosen = self._compiled(step.inputs.arrays, given)
            step.peaks += peaks
            step.chosen += chosen
        else:
            outputs = self._apply(step, given)
        for key in self.spent:
            del values[key]
        for key, output in zip(self.outputs, outputs, strict=True):
            values[key] = output
        return outputs

    def _pure(self, inputs: list[Any], values: list[mx.array]) -> tuple[list[mx.array], ...]:
        step = Step(Inputs(*inputs))
        return self._apply(step, values), step.peaks, step.chosen

    def _apply(self, step: Step, given: list[mx.array]) -> list[mx.array]:
        values = dict(zip(self.inputs, given, strict=True))
        for out, function, inputs in self._calls:
            values[out] = function(step, *[values[key] for key in inputs])
        return [values[key] for key in self.outputs]


def make_parts(
    plan: Plan, functions: Sequence[Function], weights: Weights, target: Value, *, single: bool = False
) -> list[Part]:
    """The parts that lead to a value, in order; `single`: each of one op."""
    end = 1 + next(index for index, op in enumerate(plan.ops) if op.out.id == target.id)

    def fusible(index: int) -> bool:
        """Caches and states go by the slots of this step; and the host has to be asked for some embeddings."""
        op = plan.ops[index]
        on_host = isinstance(op, ops.Embed) and isinstance(weights.embeddings[op.weight], HostRows)
        return not (on_host or isinstance(op, REMEMBERING))

    runs = [(key, list(run)) for key, run in groupby(range(end), fusible)]
    if single:
        runs = [(key, [index]) for key, run in runs for index in run]
    parts = []
    for key, run in runs:
        made = {plan.ops[index].out.id for index in run}
        read = {value.id for index in run for value in plan.ops[index].inputs}
        later = {value.id for index in range(run[-1] + 1, end) for value in plan.ops[index].inputs} | {target.id}
        part = [(plan.ops[index], functions[index]) for index in run]
        before = read - made
        inputs, outputs, spent = (tuple(sorted(each)) for each in (before, made & later, before - later))
        parts.append(Part(part, inputs, outputs, spent, key))
    return parts


def run_parts(
    parts: Sequence[Part],
    step: Step,
    values: Values,
    *,
    compiled: bool,
    after: Callable[[Part, list[mx.array]], None] | None = None,
) -> None:
    """Run parts on `values`, which become those that are read later. `after` is told of the outputs of each."""
    for part in parts:
        outputs = part.run(step, values, compiled=compiled)
        if after is not None:
            after(part, outputs)


def lower(plan: Plan, weights: Weights, dtype: mx.Dtype, beside: mx.Stream, turns: Turns) -> list[Function]:
    """What runs each op of the plan. UnsupportedError names one that has none."""
    # Values that only such ops read as take heads apart themselves: to be put together for them costs a primitive.
    apart = {value.id for op in plan.ops if isinstance(op, ops.Rope | ops.Attend) for value in op.inputs}
    apart -= {value.id for op in plan.ops if not isinstance(op, ops.Rope | ops.Attend) for value in op.inputs}
    return [_function(op, weights, dtype, beside, turns, flat=op.out.id not in apart) for op in plan.ops]


def _function(
    op: ops.Op, weights: Weights, dtype: mx.Dtype, beside: mx.Stream, turns: Turns, *, flat: bool
) -> Function:
    match op:
        case ops.Embed():
            return embed(op, weights)
        case ops.RmsNorm():
            return rms_norm(op, weights, flat=flat)
        case ops.LayerNorm():
            return layer_norm(op, weights)
        case ops.Linear():
            return linear(op, weights)
        case ops.HeadLinear():
            return head_linear(op, weights)
        case ops.Add():
            return add(op, weights)
        case ops.Scale():
            return scale(op, weights)
        case ops.PositionScale():
            return position_scale(op, weights)
        case ops.SoftCap():
            return soft_cap(op, weights)
        case ops.Clamp():
            return clamp(op, weights)
        case ops.GatedActivation():
            return gated(op, weights)
        case ops.Slice():
            return sliced(op, weights)
        case ops.Rope():
            return rope(op, weights, turns, flat=flat)
        case ops.Attend():
            return attend(op, weights, dtype)
        case ops.ShortConv():
            return short_conv(op, weights)
        case ops.DeltaRule():
            return delta_rule(op, weights)
        case ops.Scan():
            return scan(op, weights)
        case ops.Moe():
            return moe(op, weights, beside)
        case ops.PickRows():
            return pick_rows(op, weights)
        case ops.LowRank():
            return low_rank(op, weights)
        case _:
            raise UnsupportedError(f"op {type(op).__name__} is not supported by the mlx backend")
