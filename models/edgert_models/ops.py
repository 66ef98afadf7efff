"""The op vocabulary: LLM-sized operations over values [rows, width] of float32. Each docstring is the definition.

`rows` is the flattened batch: row r is one token, of sequence `sequence[r]` at `position[r]`. It is never in the plan.
Weights are named; matrices are [out, in], and `y = x Wᵀ`. The NumPy form of every op is in `edgert_runtimes.reference`.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgert_models.rope import RopeLayout
from edgert_models.router import SOFTMAX, Router


@dataclass(frozen=True, slots=True)
class Value:
    """A float32 array [rows, width] (of the picked rows only, once `picked`); `id` counts from 0 in order of making."""

    id: int
    width: int
    picked: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Op:
    """What all ops share: where the result goes."""

    out: Value

    @property
    def inputs(self) -> tuple[Value, ...]:
        """The values this op reads, in the order of its fields."""
        found = (getattr(self, name) for name in self.__dataclass_fields__ if name != "out")
        return tuple(value for value in found if isinstance(value, Value))


@dataclass(frozen=True, kw_only=True, slots=True)
class Embed(Op):
    """out[r] = weight[token[r]]; weight [vocabulary, width]."""

    weight: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RmsNorm(Op):
    """Each of `groups` equal parts of a row, without its last `rest` elements, is a g: out = g / sqrt(mean(g²) + eps) ·
    weight. The rest stays.

    weight [width / groups - rest] serves every group (queries normalised head by head have one group a head), or is
    [groups, width / groups - rest] where each has its `own`, or None for ones.
    """

    x: Value
    weight: str | None
    eps: float
    groups: int = 1
    rest: int = 0
    own: bool = False

    @property
    def size(self) -> int:
        """Elements of a group that are normalised."""
        return self.x.width // self.groups - self.rest


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerNorm(Op):
    """out = (x − mean(x)) / sqrt(mean((x − mean(x))²) + eps) · weight + bias, row by row.

    weight [width]; bias [width], or None for none.
    """

    x: Value
    weight: str
    eps: float
    bias: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Linear(Op):
    """out = x Wᵀ + bias; weight [out.width, x.width], or [x.width] where out.width is 1; bias [out.width] or None."""

    x: Value
    weight: str
    bias: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LowRank(Op):
    """What an adapter adds to a linear op's result y: out = y + (x a[n]ᵀ) b[n], n being the adapter of the row's
    sequence (`Batch.adapters`); y where it has none.

    a [adapters, rank, x.width], b [adapters, rank, out.width]. LoRA (Hu et al. 2021), with the scale in b; an adapter
    of a lower rank, or without this matrix, has zeros.
    """

    x: Value
    y: Value
    a: str
    b: str
    rank: int


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadLinear(Op):
    """Each head by a matrix of its own: of head h, all but the last `rest` elements are an a: out = a weight[h]ᵀ, and
    then the rest as it is.

    weight [heads, n, m]; x.width = heads · (m + rest), out.width = heads · (n + rest).
    """

    x: Value
    weight: str
    heads: int
    rest: int = 0

    @property
    def inward(self) -> int:
        """Elements of a head that are multiplied."""
        return self.x.width // self.heads - self.rest

    @property
    def outward(self) -> int:
        """Elements of what a head's matrix gives."""
        return self.out.width // self.heads - self.rest


@dataclass(frozen=True, kw_only=True, slots=True)
class Add(Op):
    """out = a + b."""

    a: Value
    b: Value


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale(Op):
    """out = factor · x, or factor · weight · x where `weight` names a single number [1]."""

    x: Value
    factor: float
    weight: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PositionScale(Op):
    """out = (1 + strength · ln(1 + floor((position + ahead) / length))) · x: queries far into a text attend more
    sharply.
    """

    x: Value
    strength: float
    length: int
    ahead: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class SoftCap(Op):
    """out = cap · tanh(x / cap)."""

    x: Value
    cap: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Clamp(Op):
    """out = max(−limit, min(x, limit))."""

    x: Value
    limit: float


@dataclass(frozen=True, kw_only=True, slots=True)
class GatedActivation(Op):
    """out = the activation `kind` of gate z and up y:

    "silu": z / (1 + exp(−z)) · y;
    "gelu": z / 2 · (1 + tanh(√(2/π) · (z + 0.044715 z³))) · y, GELU as its authors approximate it;
    "swiglu_oai": a / (1 + exp(−1.702 a)) · (1 + b) with a = min(z, 7) and b = max(−7, min(y, 7)), as gpt-oss has it;
    "sigmoid": 1 / (1 + exp(−z)) · y;
    "softplus": log(1 + exp(z)) · y;
    "relu": max(z, 0) · y, which is the square of ReLU where both are one value;
    "bilinear": z · y.
    A gate of a "sigmoid" or "softplus" may be narrower than y: each of its elements holds for an equal part of a row.
    """

    gate: Value
    up: Value
    kind: str = "silu"

    @property
    def parts(self) -> int:
        """Parts of a row that have one gate each; 0 where each element has its own."""
        return self.gate.width if self.gate.width < self.up.width else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice(Op):
    """Of each of `groups` equal parts of a row the elements from `start` on: out.width / groups of them."""

    x: Value
    start: int
    groups: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Rope(Op):
    """Rotate pair i of each head by the angle t = position · frequencies[i] (radians), for len(frequencies) pairs:

    (a, b) → (a cos t − b sin t, a sin t + b cos t) · magnitude. `layout` says which elements pair i is made of, counted
    from element `first` of a head; elements before it and past the pairs stay. `factors` names a weight [pairs] that
    divides the frequencies, or is None. t is computed in float32 or better; out.width = heads · head_size.
    """

    x: Value
    heads: int
    head_size: int
    frequencies: tuple[float, ...]
    magnitude: float
    layout: RopeLayout
    factors: str | None = None
    first: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Attend(Op):
    """Causal attention with a cache, which is no value: store k and v of every row in the cache of `layer`, then

    out[r, head h] = Σ_p softmax_p(scale · q[r, h] · K[p, h·kv_heads/heads]) V[p, h·kv_heads/heads]
    over positions p of the row's own sequence: p ≤ position[r], and p > position[r] − window if there is a window, or
    where it is `chunked`, and does not slide, p ≥ position[r] − position[r] mod window.
    q [rows, heads · head_size]; k [rows, kv_heads · head_size]; v [rows, kv_heads · value_size], or None: V are the
    first value_size elements of each head of K then, which the cache holds once. `sinks` names a weight [heads], or is
    None: the softmax of head h then has one more score, sinks[h], whose share goes nowhere. With a `softcap`, scores s
    are softcap · tanh(s / softcap) before the softmax.
    """

    q: Value
    k: Value
    v: Value | None
    layer: int
    heads: int
    kv_heads: int
    head_size: int
    value_size: int
    scale: float
    window: int | None = None
    sinks: str | None = None
    softcap: float | None = None
    chunked: bool = False

    @property
    def reach(self) -> int:
        """The window in one number, as kernels take it: negative where it is chunked, 0 for none."""
        return -(self.window or 0) if self.chunked else self.window or 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ShortConv(Op):
    """A causal convolution over the rows of a sequence, of each channel by itself, with a state, which is no value:

    out[p, c] = f(bias[c] + Σ_j weight[c, j] · x[p − kernel + 1 + j, c]) over j < kernel, at positions p of the row's
    own sequence, where x is 0 before position 0. State number `state` of the plan keeps the last kernel − 1 rows of x.
    weight [x.width, kernel]; bias [x.width] or None; f is the identity, or z / (1 + exp(−z)) where `silu`.
    """

    x: Value
    weight: str
    state: int
    kernel: int
    bias: str | None = None
    silu: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class DeltaRule(Op):
    """Linear attention by the gated delta rule, with a state, which is no value: a matrix S [key_size, value_size] for
    each of `heads` heads of values, zeros before position 0. At each position, in their order,

    S ← diag(γ) S;  S ← S + k (β (v − kᵀ S))ᵀ;  out = qᵀ S,  with β = 1 / (1 + exp(−b)).
    γ is exp(A · log(1 + exp(a + d))), or with a `floor`, which is negative, exp(floor / (1 + exp(−A · (a + d)))): one
    number of a head, or as many as it has rows of S (`decays`; Kimi Delta Attention).
    A row of x has the queries and keys of `key_heads` heads, then the values of `heads`; or where there are `k` and
    `v`, queries alone. The queries of a head are divided by √(Σ q² + 1e-6) and √key_size, its keys by √(Σ k² + 1e-6).
    Head h of values goes with head h · key_heads / heads of keys, or with head h mod key_heads where `tiled`.
    a [rows, heads · decays]; b [rows, heads]; `decay` names A [heads], which is negative, or positive with a floor,
    `bias` d [heads · decays]; out.width = heads · value_size. State number `state` of the plan is S. Sources:
    transformers' `modeling_qwen3_next`, `modeling_kimi_linear` and `modeling_bailing_hybrid`.
    """

    x: Value
    a: Value
    b: Value
    decay: str
    bias: str
    state: int
    heads: int
    key_heads: int
    key_size: int
    tiled: bool = False
    floor: float = 0.0
    k: Value | None = None
    v: Value | None = None

    @property
    def value_size(self) -> int:
        """Elements of a head of values."""
        return self.out.width // self.heads

    @property
    def key_width(self) -> int:
        """Elements of all keys of a row."""
        return self.key_heads * self.key_size

    @property
    def decays(self) -> int:
        """Numbers of a head by which its state decays: 1 or key_size."""
        return self.a.width // self.heads

    def keys_of(self, head: int) -> int:
        """The head of keys that a head of values goes with."""
        return head % self.key_heads if self.tiled else head * self.key_heads // self.heads


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan(Op):
    """A selective state space (Mamba, Mamba 2), with a state, which is no value: S [size, state_size] for each of
    `heads`, zeros before position 0. At each position, in their order, with Δ = log(1 + exp(t + d)),

    S[i, n] ← exp(Δ A[n]) S[i, n] + Δ x[i] b[n];  out[i] = Σ_n S[i, n] c[n] + D x[i]. Δ is at least `least`.
    x [rows, heads · size]; t [rows, heads]; b and c [rows, groups · state_size], of which head h reads group
    h · groups / heads. `decay` names A [heads, state_size] or [heads, 1], which is negative, `bias` d [heads], `skip`
    D [heads, 1] or [heads]. State number `state` of the plan is S. Source: transformers' `modeling_mamba2`.
    """

    x: Value
    t: Value
    b: Value
    c: Value
    decay: str
    bias: str
    skip: str
    state: int
    heads: int
    groups: int
    state_size: int
    decays: int = 1
    least: float = 0.0

    @property
    def size(self) -> int:
        """Elements of a head."""
        return self.out.width // self.heads


@dataclass(frozen=True, kw_only=True, slots=True)
class Moe(Op):
    """A mixture of gated feed-forward networks. For each row `router` chooses `used` experts e and their weights w_e;
    out = Σ_e w_e · down_e f(gate_e x, up_e x), with the activation f = `kind` as in GatedActivation, or where the
    router `weighs_inputs`, Σ_e down_e f(gate_e (w_e · x), up_e (w_e · x)).

    logits [rows, experts]; gate and up [experts, hidden, x.width]; down [experts, out.width, hidden]. Each of the
    products may have a bias: names of weights [experts, hidden], the same, and [experts, out.width], or None.
    `selection_bias` names the router's vector b [experts], or is None where `router.bias` is false, `expert_scale` a
    vector [experts] by which the weights of the chosen are multiplied, or None.
    """

    x: Value
    logits: Value
    gate: str
    up: str
    down: str
    experts: int
    used: int
    hidden: int
    router: Router = SOFTMAX
    selection_bias: str | None = None
    kind: str = "silu"
    gate_bias: str | None = None
    up_bias: str | None = None
    down_bias: str | None = None
    expert_scale: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PickRows(Op):
    """out = the rows of x named by the batch's `pick`, in that order."""

    x: Value
