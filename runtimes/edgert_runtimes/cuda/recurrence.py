"""The lowering of ops with a state: one launch goes through the rows of every sequence."""

from __future__ import annotations

from edgert_models import ops
from edgert_models.errors import UnsupportedError

from edgert_runtimes.base import Limits
from edgert_runtimes.cuda.device import Launch
from edgert_runtimes.cuda.kernels import catalogue
from edgert_runtimes.cuda.placing import Lowering
from edgert_runtimes.cuda.program import Memory, Shape
from edgert_runtimes.memory import aligned


def state_bytes(size: int, limits: Limits) -> int:
    """One op's state of `size` numbers: its slots, and one more for rows that only pad a batch."""
    return aligned(4 * (limits.states + 1) * size)


class RecurrentLowering(Lowering):
    """See `lower`."""

    def short_conv(self, op: ops.ShortConv) -> None:
        """A thread goes through the rows of one sequence in one channel."""
        state, x = self._state(op.state), self.place(op.x)
        self.give(op)
        y, width = self.place(op.out), op.out.width

        def launches(s: Shape, m: Memory) -> list[Launch]:
            arguments = {
                "x": m.workspace + x,
                "runs": m.inputs["runs"],
                "weight": m.weights[op.weight],
                "bias": m.weights[op.bias] if op.bias else 0,
                "state": m.states + state,
                "y": m.workspace + y,
            }
            sizes = {"count": s.runs, "width": width, "taps": op.kernel, "silu": int(op.silu)}
            return [Launch(catalogue.short_conv(), **arguments, **sizes)]

        self.emit(op, launches)

    def delta_rule(self, op: ops.DeltaRule) -> None:
        """A block goes through the rows of one sequence in 32 columns of a head's matrix, kept in registers."""
        if op.key_size > max(catalogue.KEYS):
            raise UnsupportedError(
                f"{op.decay}: keys of {op.key_size} are not supported by the cuda backend, "
                f"only up to {max(catalogue.KEYS)}"
            )
        state, x, a, b, *others = self._state(op.state), *(self.place(value) for value in op.inputs)
        self.give(op)
        y = self.place(op.out)
        k, v = others or (x + 4 * op.key_width, x + 8 * op.key_width)
        sizes = {"heads": op.heads, "key_heads": op.key_heads, "key_size": op.key_size, "size": op.value_size}
        sizes |= {"tiled": int(op.tiled), "keys_stride": op.x.width, "stride": op.v.width if op.v else op.x.width}
        kernel = catalogue.delta_rule(op.key_size, op.decays > 1)

        def launches(s: Shape, m: Memory) -> list[Launch]:
            w = m.workspace
            arguments = {
                "qs": w + x,
                "ks": w + k,
                "vs": w + v,
                "a": w + a,
                "b": w + b,
                "runs": m.inputs["runs"],
                "decay": m.weights[op.decay],
                "bias": m.weights[op.bias],
                "state": m.states + state,
                "y": w + y,
            }
            return [Launch(kernel, **arguments, **sizes, count=s.runs, floor=op.floor)]

        self.emit(op, launches)

    def scan(self, op: ops.Scan) -> None:
        """A warp goes through the rows of one sequence for one element of a head."""
        if op.state_size > max(catalogue.SCANNED):
            raise UnsupportedError(
                f"{op.decay}: states of {op.state_size} numbers are not supported by the cuda backend, "
                f"only up to {max(catalogue.SCANNED)}"
            )
        state, x, t, b, c = self._state(op.state), *(self.place(value) for value in op.inputs)
        self.give(op)
        y = self.place(op.out)
        sizes = {
            "heads": op.heads,
            "size": op.size,
            "groups": op.groups,
            "numbers": op.state_size,
            "decays": op.decays,
        }

        def launches(s: Shape, m: Memory) -> list[Launch]:
            w, weights = m.workspace, m.weights
            arguments = {
                "x": w + x,
                "t": w + t,
                "b": w + b,
                "c": w + c,
                "runs": m.inputs["runs"],
                "decay": weights[op.decay],
                "bias": weights[op.bias],
                "skip": weights[op.skip],
                "state": m.states + state,
                "y": w + y,
            }
            return [Launch(catalogue.scan(op.state_size), **arguments, **sizes, count=s.runs, least=op.least)]

        self.emit(op, launches)

    def _state(self, number: int) -> int:
        """Where the slots of a state begin."""
        sizes = [state_bytes(state.size, self.limits) for state in self.plan.states]
        self.program.state_bytes = sum(sizes)
        return sum(sizes[:number])
