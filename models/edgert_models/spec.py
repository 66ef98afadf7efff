"""ModelSpec: the numbers that, with an architecture's wiring, fix a model completely."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgert_models.errors import UnsupportedError
from edgert_models.rope import Rope
from edgert_models.router import SOFTMAX, Router

_LIMIT = 1 << 31
MAX_LAYERS = 4096
_MAX_EXPERTS = 65536
_MAX_KERNEL = 1024


@dataclass(frozen=True, kw_only=True)
class Recurrence:
    """What layers with a state of fixed size have in place of attention. `layers` says of every layer whether it is one
    of these; `period`: every so-manieth is not, or 0 for no such rule. `kernel` rows go through the convolution.

    What is more than a convolution has `heads`, `inner` elements together, each with `state` numbers for each element,
    and `groups` of heads that share keys: time_step_rank, inner_size, state_size and group_count in GGUF. Time steps
    are at least `least`. `channels`: each head is a delta net whose state decays by channel, in one step to no less
    than e to the `floor` where that is not 0. `norm`: what it gives is normalised. `feeds` says of every layer whether
    it is nothing but a feed-forward network (empty: every layer has one beside the rest). With `beside` layers attend
    as well.
    """

    layers: tuple[bool, ...]
    kernel: int
    period: int = 0
    inner: int = 0
    state: int = 0
    heads: int = 0
    groups: int = 0
    least: float = 0.0
    channels: bool = False
    floor: float = 0.0
    norm: bool = True
    feeds: tuple[bool, ...] = ()
    beside: bool = False

    def fault(self) -> str:
        """What makes no sense, an empty text if nothing does."""
        if not 1 < self.kernel <= _MAX_KERNEL:
            return f"a convolution of {self.kernel} rows"
        if not (self.inner or self.heads or self.state or self.groups):
            return ""
        if not -math.inf < self.floor <= 0.0:
            return f"a floor of decays of {self.floor}"
        whole = min(self.heads, self.groups) > 0 and self.inner % self.heads == 0 == self.heads % self.groups
        if not whole or not 0 < self.state * max(self.inner, self.groups) < _LIMIT:
            sizes = f"{self.heads} heads in {self.groups} groups, together of {self.inner}"
            return f"{sizes}, with states of {self.state} each"
        return ""


@dataclass(frozen=True, kw_only=True)
class Latent:
    """Latent attention: keys and values of all heads are made of a latent of `rank` elements, queries of one of
    `query_rank` (0: of the layer's input). A head's query and key have `key_size` elements, of which rope turns the
    last, and its value has `value_size`. (Where these products are absorbed, attention sees keys of `head_size`, the
    latent and the turned elements, and values of `value_length`, the latent.)
    """

    rank: int
    query_rank: int = 0
    key_size: int
    value_size: int


@dataclass(frozen=True, kw_only=True)
class Scales:
    """Factors on embeddings, on what a layer adds to its input, on values, and on scores of attention (None:
    1 / √head_size); what logits are multiplied with, or divided by; caps of scores, logits and those of routers (see
    `ops.SoftCap`), and the limit of queries, keys and values (`ops.Clamp`);
    `queries` is the strength and `queries_length` the length by which positions scale queries (see
    `ops.PositionScale`). None for none.
    """

    embedding: float = 1.0
    residual: float = 1.0
    values: float = 1.0
    logits: float | None = None
    logits_divisor: float | None = None
    attention: float | None = None
    attention_cap: float | None = None
    logits_cap: float | None = None
    router_cap: float | None = None
    clamp: float | None = None
    queries: float | None = None
    queries_length: int | None = None


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One model's sizes: elements, heads, layers or experts. `architecture` is GGUF's general.architecture.

    `feed_forward` is the width of a dense feed-forward network, `expert_feed_forward` of one expert,
    `shared_feed_forward` of all shared experts beside those (0: there are none), which a `shared_gate` lets through.
    `sparse` says of every layer whether it has experts (empty: all have, if any), and `dense_beside` that those have a
    dense network, too. `router` says how they are chosen,
    `selection_bias` what the tensor of its bias is called, and `network_norm` that of the norm of what experts give.
    `qk_norm` is "head" (each head by itself), "plain" (the same without weights), "all" (the whole width) or None.
    `window` lets a position see only that many positions, itself included, or where it is `chunked`, those from the
    last multiple of it on; `windowed` says of every layer whether it holds there (empty: it holds for all), and
    `rotated`, in families that say so, whether it has rope (empty: all have).
    `tied` uses the token embedding as the output matrix. `layer_norm`: norms are `ops.LayerNorm`, with biases where
    `norm_bias`. `activation` is that of gates (see `ops.GatedActivation`), `window_rope` the rope of layers with a
    window, where it is another one, `window_heads` and `window_kv_heads` so their heads and key heads, and
    `window_head_size` their size. `head_gates`: gates on what attention gives have one number a head. The last
    `shared_kv_layers` attend to keys and values of an earlier layer (see `keys_from`), and with `wide_sharers`
    their feed-forward networks are twice as wide. `layer_embedding` elements of an embedding of its own enter each
    layer. With `keys_as_values` layers without a window have no values of their own. `recurrence` is that of models
    whose layers do not all attend; where not `positions`, nothing is rotated in these. `value_length` is the size
    of a value head where it is not `head_size` (0: it is). `fused_attention`: queries, keys and values come of one
    product, `fused_feed_forward`: so do gates and ups. `nextn` layers for multi-token prediction follow in the
    file, which are not run. Raises UnsupportedError naming the figure if they do not fit together.
    """

    architecture: str
    name: str = ""
    vocabulary: int
    context: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    value_length: int = 0
    rope: Rope
    norm_eps: float
    feed_forward: int = 0
    experts: int = 0
    experts_used: int = 0
    expert_feed_forward: int = 0
    shared_feed_forward: int = 0
    shared_gate: bool = False
    sparse: tuple[bool, ...] = ()
    dense_beside: bool = False
    network_norm: str = "post_ffw_norm"
    router: Router = SOFTMAX
    nextn: int = 0
    selection_bias: str = "exp_probs_b.bias"
    qk_norm: str | None = None
    window: int | None = None
    windowed: tuple[bool, ...] = ()
    chunked: bool = False
    rotated: tuple[bool, ...] = ()
    tied: bool = False
    attention_bias: bool = False
    output_bias: bool = False
    feed_forward_bias: bool = False
    activation: str = "silu"
    scales: Scales = Scales()
    window_rope: Rope | None = None
    window_heads: int = 0
    window_kv_heads: int = 0
    window_head_size: int = 0
    keys_as_values: bool = False
    head_gates: bool = False
    shared_kv_layers: int = 0
    wide_sharers: bool = False
    layer_embedding: int = 0
    layer_norm: bool = False
    norm_bias: bool = False
    logits_bias: bool = False
    fused_attention: bool = False
    fused_feed_forward: bool = False
    recurrence: Recurrence | None = None
    latent: Latent | None = None
    positions: bool = True

    def __post_init__(self) -> None:
        sizes = {
            key: getattr(self, key) for key in ("vocabulary", "context", "width", "heads", "kv_heads", "head_size")
        }
        for key, value in sizes.items():
            self._require(0 < value < _LIMIT, f"{key} is {value}")
        self._require(0 < self.layers <= MAX_LAYERS, f"layers is {self.layers}")
        pairs = (self.heads, self.kv_heads), (self.window_heads or self.heads, self.window_kv_heads or self.kv_heads)
        for heads, count in pairs:
            self._require(heads > 0 < count and heads % count == 0, f"{heads} heads do not divide by {count} kv heads")
        self._require(0 < self.value_size < _LIMIT, f"value_length is {self.value_length}")
        largest = max(self.heads, self.window_heads) * max(self.head_size, self.value_size)
        self._require(largest < _LIMIT, "heads times head_size is out of range")
        self._require(
            0 < self.rope.dims <= self.head_size and self.rope.dims % 2 == 0,
            f"{self.rope.dims} rotated elements in heads of {self.head_size}",
        )
        self._require(self.rope.base > 1.0 and self.rope.factor > 0.0, "rope base or factor is out of range")
        if self.rope.scaling in ("yarn", "longrope"):
            known = 0 < self.rope.original_context < _LIMIT
            self._require(known, f"{self.rope.scaling} needs the original context length")
        self._require(0.0 <= self.norm_eps < 1.0, f"norm_eps is {self.norm_eps}")
        for key, factor in vars(self.scales).items():
            self._require(factor is None or 0.0 < abs(factor) < math.inf, f"the scale {key} is {factor}")
        whole = (self.scales.queries is None) is (self.scales.queries_length is None)
        self._require(whole and (self.scales.queries_length or 1) > 0, "queries are scaled by no positions")
        size = self.window_head_size
        self._require(0 <= size < _LIMIT and size % 2 == 0, f"the size of heads within windows is {size}")
        dims = self.window_rope.dims if self.window_rope else 0
        self._require(dims <= (size or self.head_size), f"{dims} rotated elements in heads within windows")
        self._require(self.window is None or 0 < self.window < _LIMIT, f"window is {self.window}")
        self._require(len(self.windowed) in (0, self.layers), f"{len(self.windowed)} layers with or without a window")
        self._require(len(self.rotated) in (0, self.layers), f"{len(self.rotated)} layers with or without rope")
        self._require(0 <= self.layer_embedding < _LIMIT, f"layer_embedding is {self.layer_embedding}")
        own = self.layers - self.shared_kv_layers
        kinds = [{bool(self.window_of(i)) for i in each} for each in (range(own), range(max(own, 0), self.layers))]
        self._require(0 < own <= self.layers and kinds[1] <= kinds[0], f"{self.shared_kv_layers} layers share keys")
        if self.recurrence:
            count, fault = len(self.recurrence.layers), self.recurrence.fault()
            self._require(count == self.layers, f"{count} layers with or without a state")
            feeds = len(self.recurrence.feeds)
            self._require(feeds in (0, count), f"{feeds} layers that feed forward or not")
            self._require(not fault, fault)
        if self.latent:
            for key, value in vars(self.latent).items():
                self._require((0 if key == "query_rank" else 1) <= value < _LIMIT, f"the latent's {key} is {value}")
            self._require(self.rope.dims < self.latent.key_size, f"keys of {self.latent.key_size} are all rotated")
            largest = self.heads * max(self.latent.key_size, self.latent.value_size)
            self._require(largest < _LIMIT, "heads times the latent's key_size is out of range")
            absorbed = (1, self.latent.rank + self.rope.dims, self.latent.rank)
            self._require((self.kv_heads, self.head_size, self.value_size) == absorbed, "heads are not the latent's")
        if self.experts:
            self._require(self.experts <= _MAX_EXPERTS, f"experts is {self.experts}")
            self._require(0 < self.experts_used <= self.experts, f"{self.experts_used} experts used of {self.experts}")
            self._require(0 < self.expert_feed_forward < _LIMIT, f"expert_feed_forward is {self.expert_feed_forward}")
            self._require(0 <= self.shared_feed_forward < _LIMIT, f"shared_feed_forward is {self.shared_feed_forward}")
            fault = self.router.fault(self.experts, self.experts_used)
            self._require(not fault, fault)
        self._require(len(self.sparse) in (0, self.layers), f"{len(self.sparse)} layers with or without experts")
        if not all(self.has_experts(layer) for layer in range(self.layers)):
            self._require(0 < self.feed_forward < _LIMIT, f"feed_forward is {self.feed_forward}")

    @property
    def usual_context(self) -> int:
        """The longest context in which positions turn as they do in short ones."""
        longrope = self.rope.scaling == "longrope"
        return min(self.context, self.rope.original_context) if longrope else self.context

    @property
    def query_width(self) -> int:
        """Elements of all query heads of one position."""
        return self.heads * self.head_size

    @property
    def kv_width(self) -> int:
        """Elements of all key heads of one position."""
        return self.kv_heads * self.head_size

    @property
    def value_size(self) -> int:
        """Elements of a value head."""
        return self.value_length or self.head_size

    @property
    def value_width(self) -> int:
        """Elements of all value heads of one position."""
        return self.kv_heads * self.value_size

    def has_experts(self, layer: int) -> bool:
        """Whether a layer is a mixture of experts, or dense."""
        return self.experts > 0 and (not self.sparse or self.sparse[layer])

    @property
    def leading_dense(self) -> int:
        """Dense layers before the first with experts."""
        return next((i for i in range(self.layers) if self.has_experts(i)), self.layers)

    def window_of(self, layer: int) -> int | None:
        """The window of a layer, None if it sees everything."""
        return self.window if not self.windowed or self.windowed[layer] else None

    def keys_from(self, layer: int) -> int:
        """The layer whose keys and values a layer attends to: itself, or the last of its kind that has its own."""
        own = self.layers - self.shared_kv_layers
        if layer < own:
            return layer
        return max(i for i in range(own) if bool(self.window_of(i)) is bool(self.window_of(layer)))

    def rope_of(self, layer: int) -> Rope:
        """The rope of a layer."""
        return self.window_rope if self.window_rope and self.window_of(layer) else self.rope

    def recurs(self, layer: int) -> bool:
        """Whether a layer has a state in place of attention."""
        return self.recurrence is not None and self.recurrence.layers[layer]

    def attends(self, layer: int) -> bool:
        """Whether a layer attends to earlier positions, beside its state or without one."""
        r = self.recurrence
        return r is None or r.beside or not (r.layers[layer] or (r.feeds and r.feeds[layer]))

    def _require(self, condition: bool, reason: str) -> None:
        if not condition:
            raise UnsupportedError(f"model of architecture '{self.architecture}' is out of range: {reason}")
