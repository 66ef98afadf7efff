"""Walking through a plan, forward and backward."""

from __future__ import annotations

from collections.abc import Mapping

from edgert_models.graph import Plan
from edgert_models.ops import Linear

from edgert_runtimes.layerwise import backward, forward
from edgert_runtimes.layerwise.floats import Floats, Floats_
from edgert_runtimes.layerwise.forward import Observer
from edgert_runtimes.layerwise.sequences import Sequences

__all__ = ["Layerwise", "Observer", "Sink", "State"]

Sink = backward.Sink
State = dict[int, Floats_]
"""Values that later ops read, by their id."""


class Layerwise:
    """A plan with its weights. Nothing of a run is kept in it.

    `cuts` are indices of ops before which a single value is alive (the stream between layers): runs can be divided
    there at the least cost in memory.
    """

    def __init__(self, plan: Plan, weights: Floats) -> None:
        self.plan = plan
        self.weights = weights
        self._last = {value.id: i for i, op in enumerate(plan.ops) for value in op.inputs}
        made = {op.out.id: i for i, op in enumerate(plan.ops)}
        alive = [sum(made[v] < i <= last for v, last in self._last.items()) for i in range(len(plan.ops))]
        self.cuts = tuple(i for i, count in enumerate(alive) if count <= 1)

    def first_use(self, name: str) -> int:
        """The index of the first op that reads a weight."""
        return next(i for i, op in enumerate(self.plan.ops) if name in weights_of(op))

    def run(
        self,
        text: Sequences,
        *,
        state: Mapping[int, Floats_] | None = None,
        first: int = 0,
        end: int | None = None,
        observer: Observer | None = None,
        keep: bool = False,
    ) -> State:
        """Run the ops first … end (all) from `state`, the values alive before them; returns those alive after them.

        With `keep`, all values that were made or given. The plan's logits stay alive at the end.
        """
        values: State = dict(state or {})
        watching = observer or Observer()
        for i, op in enumerate(self.plan.ops[first:end], first):
            inputs = [values[value.id] for value in op.inputs]
            watching.before(op, inputs)
            values[op.out.id] = forward.run(op, text, self.weights, inputs, watching)
            watching.after(op)
            if not keep:
                for value in op.inputs:
                    if self._last[value.id] == i:
                        values.pop(value.id, None)
        return values

    def observe(self, text: Sequences, observer: Observer) -> None:
        """Show `observer` what enters every matrix. The last product, which gives the logits, is not made: they would
        be by far the largest value.
        """
        op = self.plan.ops[-1]
        if not isinstance(op, Linear):
            self.run(text, observer=observer)
            return
        x = self.run(text, end=len(self.plan.ops) - 1, observer=observer)[op.x.id]
        observer.before(op, [x])
        observer.matrix(op.weight, x)
        observer.after(op)

    def logits(self, text: Sequences, **options: object) -> Floats_:
        """Logits of the picked rows, [picked, vocabulary]; `options` are those of `run`."""
        return self.run(text, **options)[self.plan.logits.id]  # type: ignore[arg-type]

    def forward(self, text: Sequences) -> tuple[Floats_, dict[int, State]]:
        """Logits, and what was alive at every cut: what `backward` wants."""
        marks: dict[int, State] = {}
        state: State = {}
        for start, end in self._segments():
            marks[start] = state
            state = self.run(text, state=state, first=start, end=end)
        return state[self.plan.logits.id], marks

    def backward(self, text: Sequences, marks: Mapping[int, State], gradient: Floats_, sink: Sink) -> None:
        """Give `sink` the derivative by every weight it wants of a loss whose derivative by the logits is `gradient`.

        Segments between cuts are run again, so that the values of only one are in memory.
        """
        gradients: State = {self.plan.logits.id: gradient}
        for start, end in reversed(self._segments()):
            values = self.run(text, state=marks[start], first=start, end=end, keep=True)
            for op in reversed(self.plan.ops[start:end]):
                given = gradients.pop(op.out.id, None)
                if given is None:
                    continue
                inputs = [values[value.id] for value in op.inputs]
                found = backward.run(op, text, self.weights, inputs, given, sink)
                for value, part in zip(op.inputs, found, strict=True):
                    held = gradients.get(value.id)
                    gradients[value.id] = part if held is None else held + part

    def _segments(self) -> list[tuple[int, int]]:
        """What is between cuts."""
        starts = [0, *(cut for cut in self.cuts if cut > 0)]
        return list(zip(starts, [*starts[1:], len(self.plan.ops)], strict=True))


def weights_of(op: object) -> tuple[str, ...]:
    """Names of all weights that an op reads."""
    fields = ("weight", "bias", "factors", "sinks", "gate", "up", "down", "gate_bias", "up_bias", "down_bias")
    found = (getattr(op, field, None) for field in fields)
    return tuple(name for name in found if isinstance(name, str))
