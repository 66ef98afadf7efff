"""Graph → Plan: a model file wires ops through a Graph once, and gets an immutable Plan that every backend runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from math import prod
from types import MappingProxyType
from typing import Any

from edgert_models import ops
from edgert_models.ops import Value
from edgert_models.rope import Rope
from edgert_models.spec import ModelSpec


class Role(Enum):
    """What a weight is to the op that reads it; recipes and backends decide by it how to store it."""

    EMBEDDING = "embedding"  # [vocabulary, width], read a row at a time (and as a matrix where tied)
    MATRIX = "matrix"  # [out, in]
    EXPERTS = "experts"  # [experts, out, in]
    HEADS = "heads"  # [heads, out, in]
    ROUTER = "router"  # [experts, in]; kept in F32, routing flips on small errors
    ADAPTER = "adapter"  # [adapters, rank, in or out], of all adapters that may be asked for; always F32
    VECTOR = "vector"  # [n] (or [experts, n], [n, kernel]): norms, biases, sinks, frequency factors, …; always F32

    @property
    def stays_float(self) -> bool:
        """Whether it is kept in F32, whatever the matrices are stored in."""
        return self in (Role.VECTOR, Role.ROUTER, Role.ADAPTER)

    @property
    def stacked(self) -> bool:
        """Whether it is several matrices of a shape."""
        return self in (Role.EXPERTS, Role.HEADS)


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor the plan reads: GGUF name, shape (outermost first) and role."""

    name: str
    shape: tuple[int, ...]
    role: Role

    def stored_as(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of this shape is the weight: dimensions of 1 do not count in vectors, which other programs'
        files and checkpoints have anywhere.
        """
        own, found = ([size for size in each if size > 1] for each in (self.shape, shape))
        return shape == self.shape or (self.role is Role.VECTOR and found == own)


@dataclass(frozen=True, slots=True)
class Cache:
    """What one attention layer stores for a position: kv_heads keys of head_size floats, and as many values of
    value_size, which where `shared` are the first elements of the keys.
    """

    kv_heads: int
    head_size: int
    value_size: int
    window: int | None
    shared: bool = False

    @property
    def key_width(self) -> int:
        """Elements of the keys of one position."""
        return self.kv_heads * self.head_size

    @property
    def value_width(self) -> int:
        """Elements of the values of one position that are stored beside the keys."""
        return 0 if self.shared else self.kv_heads * self.value_size

    @property
    def width(self) -> int:
        """Elements of one position."""
        return self.key_width + self.value_width


@dataclass(frozen=True, slots=True)
class State:
    """What one op keeps of a sequence from step to step, whatever its length: float32 of this shape, at first zeros."""

    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class Plan:
    """A model as a list of ops. `hidden` is the last normalised value of the picked rows, `logits` follows from it."""

    spec: ModelSpec
    ops: tuple[ops.Op, ...]
    values: tuple[Value, ...]
    weights: Mapping[str, Weight]
    caches: tuple[Cache, ...]
    hidden: Value
    logits: Value
    states: tuple[State, ...] = ()

    @cached_property
    def reach(self) -> int:
        """The window of its layers as `Attend.reach` has it: the widest where they differ; 0 where none has one."""
        found = {op.reach for op in self.ops if isinstance(op, ops.Attend) and op.reach}
        return found.pop() if len(found) == 1 else max(map(abs, found), default=0)


@dataclass(frozen=True, slots=True)
class Adapters:
    """How many adapters a plan serves, and the highest rank among them by the name of the matrix that they adapt."""

    count: int
    ranks: Mapping[str, int]


NO_ADAPTERS = Adapters(0, {})


class Graph:
    """Records ops and the weights they name. Methods are the ops; each returns its result. `context` is the longest
    that sequences may become, where that is known.
    """

    def __init__(self, spec: ModelSpec, context: int = 0, adapters: Adapters = NO_ADAPTERS) -> None:
        self.spec = spec
        self.context = context
        self._adapters = adapters
        self._ops: list[ops.Op] = []
        self._values: list[Value] = []
        self._weights: dict[str, Weight] = {}
        self._caches: list[Cache] = []
        self._states: list[State] = []

    def embed(self, weight: str = "token_embd.weight", width: int = 0) -> Value:
        """Token embeddings, as wide as the model or `width`."""
        width = width or self.spec.width
        self._weight(weight, (self.spec.vocabulary, width), Role.EMBEDDING)
        return self._add(ops.Embed, width, weight=weight)

    def rms_norm(
        self,
        x: Value,
        weight: str | None,
        *,
        groups: int = 1,
        rest: int = 0,
        eps: float | None = None,
        own: bool = False,
    ) -> Value:
        """See `ops.RmsNorm`; eps is the model's unless it is given. One group needs no weight of its own."""
        own = own and groups > 1
        size = x.width // groups - rest
        if weight:
            self._weight(weight, (groups, size) if own else (size,), Role.VECTOR)
        eps = self.spec.norm_eps if eps is None else eps
        return self._add(ops.RmsNorm, x.width, x=x, weight=weight, eps=eps, groups=groups, rest=rest, own=own)

    def layer_norm(self, x: Value, name: str, *, bias: bool = False) -> Value:
        """`name`.weight and, with `bias`, `name`.bias; see `ops.LayerNorm`. eps is the model's."""
        weight, bias_name = f"{name}.weight", f"{name}.bias" if bias else None
        for vector in (weight, bias_name):
            if vector:
                self._weight(vector, (x.width,), Role.VECTOR)
        return self._add(ops.LayerNorm, x.width, x=x, weight=weight, eps=self.spec.norm_eps, bias=bias_name)

    def linear(self, x: Value, name: str, width: int, *, bias: bool = False, role: Role = Role.MATRIX) -> Value:
        """`name`.weight and, with `bias`, `name`.bias; the result has `width` columns."""
        weight, bias_name = f"{name}.weight", f"{name}.bias" if bias else None
        if self._weights.get(weight, None) is None or self._weights[weight].role is not Role.EMBEDDING:
            self._weight(weight, (width, x.width), role)
        if bias_name:
            self._weight(bias_name, (width,), Role.VECTOR)
        y = self._add(ops.Linear, width, x=x, weight=weight, bias=bias_name)
        return self._adapted(x, y, weight) if weight in self._adapters.ranks else y

    def head_linear(self, x: Value, weight: str, heads: int, size: int, *, rest: int = 0) -> Value:
        """See `ops.HeadLinear`; each head of the result has `size` elements and the rest."""
        self._weight(weight, (heads, size, x.width // heads - rest), Role.HEADS)
        return self._add(ops.HeadLinear, heads * (size + rest), x=x, weight=weight, heads=heads, rest=rest)

    def dot(self, x: Value, weight: str) -> Value:
        """The product with one vector, of width 1."""
        self._weight(weight, (x.width,), Role.VECTOR)
        return self._add(ops.Linear, 1, x=x, weight=weight)

    def add(self, a: Value, b: Value) -> Value:
        """a + b."""
        return self._add(ops.Add, a.width, a=a, b=b)

    def scale(self, x: Value, factor: float) -> Value:
        """factor · x, which is x itself where the factor is 1."""
        return x if factor == 1.0 else self._add(ops.Scale, x.width, x=x, factor=factor)

    def position_scale(self, x: Value, strength: float, length: int, *, ahead: int = 0) -> Value:
        """See `ops.PositionScale`; x itself where the strength is 0."""
        if not strength:
            return x
        return self._add(ops.PositionScale, x.width, x=x, strength=strength, length=length, ahead=ahead)

    def scale_by(self, x: Value, weight: str) -> Value:
        """x times a number that is a weight."""
        self._weight(weight, (1,), Role.VECTOR)
        return self._add(ops.Scale, x.width, x=x, factor=1.0, weight=weight)

    def soft_cap(self, x: Value, cap: float | None) -> Value:
        """See `ops.SoftCap`; x itself where there is no cap."""
        return self._add(ops.SoftCap, x.width, x=x, cap=cap) if cap else x

    def clamp(self, x: Value, limit: float | None) -> Value:
        """See `ops.Clamp`; x itself where there is no limit."""
        return self._add(ops.Clamp, x.width, x=x, limit=limit) if limit else x

    def gated(self, gate: Value, up: Value, kind: str = "silu") -> Value:
        """See `ops.GatedActivation`."""
        return self._add(ops.GatedActivation, up.width, gate=gate, up=up, kind=kind)

    def slice(self, x: Value, start: int, width: int, *, groups: int = 1) -> Value:
        """`width` elements of each of `groups` parts; see `ops.Slice`."""
        return self._add(ops.Slice, groups * width, x=x, start=start, groups=groups)

    def rope(self, x: Value, heads: int, rope: Rope, *, first: int = 0) -> Value:
        """Rotate `heads` heads, from their element `first` on."""
        for name in rope.factor_weights:
            self._weight(name, (rope.dims // 2,), Role.VECTOR)
        long = self.context > rope.original_context
        factors = next(iter(rope.factor_weights[-1:] if long else rope.factor_weights), None)
        return self._add(
            ops.Rope,
            x.width,
            x=x,
            heads=heads,
            head_size=x.width // heads,
            frequencies=rope.frequencies(),
            magnitude=rope.magnitude(),
            layout=rope.layout,
            factors=factors,
            first=first,
        )

    def attend(
        self,
        q: Value,
        k: Value,
        v: Value | None,
        *,
        window: int | None = None,
        sinks: str | None = None,
        scale: float | None = None,
        chunked: bool = False,
        cache: int | None = None,
    ) -> Value:
        """Attention of the next layer, with a cache of its own, or where that is given the `cache` that an earlier one
        has for the same keys and values; the scale is 1 / sqrt(head_size) unless it is given. Heads are as large as the
        model says of layers with a window, or of those without.
        """
        s = self.spec
        own = bool(window and s.window_head_size)
        head_size = s.window_head_size if own else s.head_size
        value_size = head_size if own else s.value_size
        heads, kv_heads = q.width // head_size, k.width // head_size
        if cache is None:
            self._caches.append(Cache(kv_heads, head_size, value_size, window, shared=v is None))
        if sinks:
            self._weight(sinks, (heads,), Role.VECTOR)
        return self._add(
            ops.Attend,
            heads * value_size,
            q=q,
            k=k,
            v=v,
            layer=len(self._caches) - 1 if cache is None else cache,
            heads=heads,
            kv_heads=kv_heads,
            head_size=head_size,
            value_size=value_size,
            scale=scale or s.scales.attention or head_size**-0.5,
            window=window,
            sinks=sinks,
            softcap=s.scales.attention_cap,
            chunked=chunked and window is not None,
        )

    def short_conv(
        self, x: Value, name: str, kernel: int, *, bias: bool = False, silu: bool = False, inner: tuple[int, ...] = ()
    ) -> Value:
        """A convolution over rows with a state of its own: `name`.weight and, with `bias`, `name`.bias. `inner`: a
        dimension of 1 that files of the family have in the weight.
        """
        weight, bias_name = f"{name}.weight", f"{name}.bias" if bias else None
        self._weight(weight, (x.width, *inner, kernel), Role.VECTOR)
        if bias_name:
            self._weight(bias_name, (x.width,), Role.VECTOR)
        fields: dict[str, Any] = {"weight": weight, "bias": bias_name, "kernel": kernel, "silu": silu}
        return self._add(ops.ShortConv, x.width, x=x, state=self._state(kernel - 1, x.width), **fields)

    def delta_rule(
        self,
        x: Value,
        a: Value,
        b: Value,
        prefix: str,
        *,
        k: Value | None = None,
        v: Value | None = None,
        tiled: bool = False,
    ) -> Value:
        """See `ops.DeltaRule`: `prefix`.ssm_a and .ssm_dt.bias, and the sizes of the model's recurrence."""
        r = self.spec.recurrence
        assert r is not None
        decay, bias = f"{prefix}.ssm_a", f"{prefix}.ssm_dt.bias"
        self._weight(decay, (r.heads,) if a.width == r.heads else (r.heads, 1), Role.VECTOR)
        self._weight(bias, (a.width,), Role.VECTOR)
        return self._add(
            ops.DeltaRule,
            r.inner,
            x=x,
            a=a,
            b=b,
            decay=decay,
            bias=bias,
            state=self._state(r.heads, r.state, r.inner // r.heads),
            heads=r.heads,
            key_heads=r.groups,
            key_size=r.state,
            tiled=tiled,
            floor=r.floor,
            k=k,
            v=v,
        )

    def scan(self, x: Value, t: Value, b: Value, c: Value, prefix: str, *, decays: int = 1) -> Value:
        """See `ops.Scan`: `prefix`.ssm_a [heads, decays], .ssm_d and .ssm_dt.bias; as many heads as t is wide."""
        r = self.spec.recurrence
        assert r is not None
        heads = t.width
        decay, bias, skip = (f"{prefix}.{name}" for name in ("ssm_a", "ssm_dt.bias", "ssm_d"))
        self._weight(decay, (heads, decays), Role.VECTOR)
        self._weight(bias, (heads,), Role.VECTOR)
        self._weight(skip, (heads, 1) if decays == 1 else (heads,), Role.VECTOR)
        return self._add(
            ops.Scan,
            x.width,
            x=x,
            t=t,
            b=b,
            c=c,
            decay=decay,
            bias=bias,
            skip=skip,
            state=self._state(heads, x.width // heads, r.state),
            heads=heads,
            groups=b.width // r.state,
            state_size=r.state,
            decays=decays,
            least=r.least,
        )

    def moe(
        self,
        x: Value,
        logits: Value,
        prefix: str,
        *,
        kind: str | None = None,
        bias: bool = False,
        gated: bool = True,
        scaled: bool = False,
    ) -> Value:
        """The experts `prefix`.ffn_{gate,up,down}_exps.weight and, with `bias`, .bias, chosen by the model's router;
        with `scaled` their weights are multiplied by `prefix`.ffn_down_exps.scale. The activation is the model's or
        `kind`. Experts that are not `gated` have ups in place of gates.
        """
        s = self.spec
        expert_scale = f"{prefix}.ffn_down_exps.scale" if scaled else None
        if expert_scale:
            self._weight(expert_scale, (s.experts,), Role.VECTOR)
        selection_bias = f"{prefix}.{s.selection_bias}" if s.router.bias else None
        if selection_bias:
            self._weight(selection_bias, (s.experts,), Role.VECTOR)
        first = "gate" if gated else "up"
        gate, up, down = (f"{prefix}.ffn_{part}_exps.weight" for part in (first, "up", "down"))
        biases: dict[str, Any] = {
            f"{part}_bias": f"{prefix}.ffn_{part}_exps.bias" for part in ("gate", "up", "down") if bias
        }
        for part, name in biases.items():
            width = x.width if part == "down_bias" else s.expert_feed_forward
            self._weight(name, (s.experts, width), Role.VECTOR)
        for name in (gate, up):
            self._weight(name, (s.experts, s.expert_feed_forward, x.width), Role.EXPERTS)
        self._weight(down, (s.experts, x.width, s.expert_feed_forward), Role.EXPERTS)
        return self._add(
            ops.Moe,
            x.width,
            x=x,
            logits=logits,
            gate=gate,
            up=up,
            down=down,
            experts=s.experts,
            used=s.experts_used,
            hidden=s.expert_feed_forward,
            router=s.router,
            selection_bias=selection_bias,
            kind=kind or s.activation,
            expert_scale=expert_scale,
            **biases,
        )

    def pick_rows(self, x: Value) -> Value:
        """Only the rows whose result is wanted."""
        return self._add(ops.PickRows, x.width, x=x, picked=True)

    def plan(self, hidden: Value, logits: Value) -> Plan:
        """The finished plan."""
        return Plan(
            self.spec,
            tuple(self._ops),
            tuple(self._values),
            MappingProxyType(dict(self._weights)),
            tuple(self._caches),
            hidden,
            logits,
            tuple(self._states),
        )

    def _adapted(self, x: Value, y: Value, weight: str) -> Value:
        """y and what adapters add to it."""
        count, rank = self._adapters.count, self._adapters.ranks[weight]
        a, b = f"{weight}.lora_a", f"{weight}.lora_b"
        self._weight(a, (count, rank, x.width), Role.ADAPTER)
        self._weight(b, (count, rank, y.width), Role.ADAPTER)
        return self._add(ops.LowRank, y.width, x=x, y=y, a=a, b=b, rank=rank)

    def _state(self, *shape: int) -> int:
        """The number of a new state."""
        self._states.append(State(shape))
        return len(self._states) - 1

    def _weight(self, name: str, shape: tuple[int, ...], role: Role) -> None:
        weight = Weight(name, shape, role)
        if self._weights.setdefault(name, weight) != weight:
            raise ValueError(f"weight {name} is used as {self._weights[name]} and as {weight}")

    def _add(self, op: type[ops.Op], width: int, *, picked: bool = False, **fields: Any) -> Value:
        picked = picked or any(isinstance(value, Value) and value.picked for value in fields.values())
        out = Value(len(self._values), width, picked)
        self._values.append(out)
        self._ops.append(op(out=out, **fields))
        return out
