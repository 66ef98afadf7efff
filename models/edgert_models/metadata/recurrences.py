"""Keys of layers that carry a state."""

from __future__ import annotations

from edgert_models.metadata.keys import Metadata, Value
from edgert_models.spec import ModelSpec, Recurrence

_SHORT_CONV = "shortconv.l_cache"
_PERIOD = "full_attention_interval"
POSITIONS = "rope.scaling.finetuned"
_LEAST = "ssm.time_step_min"  # ours: llama.cpp knows no limit of time steps
_RECURRENT = "attention.recurrent_layers"
_HEAD_SIZE = "kda.head_dim"
_BOUNDED, _FLOOR = "kda.safe_gate", "kda.gate_lower_bound"
_SSM = {
    "kernel": "conv_kernel",
    "inner": "inner_size",
    "state": "state_size",
    "heads": "time_step_rank",
    "groups": "group_count",
}


def recurrence_of(
    metadata: Metadata, name: str, kv_heads: list[int], feeds: tuple[bool, ...], nextn: int, norm: bool
) -> Recurrence | None:
    """`feeds` says which layers have a feed-forward network, if some have none: they have nothing else then. `norm`:
    whether what a recurrence gives is normalised.
    """
    attends = tuple(not count for count in kv_heads)
    if f"{name}.{_SHORT_CONV}" in metadata:
        return Recurrence(layers=attends, kernel=metadata.integer(f"{name}.{_SHORT_CONV}"))
    if f"{name}.ssm.conv_kernel" not in metadata:
        return None
    period = metadata.integer(f"{name}.{_PERIOD}", 0)
    if period:
        attends = tuple((i + 1) % period != 0 for i in range(len(kv_heads)))
    flags = metadata.booleans(f"{name}.{_RECURRENT}", list(attends), count=None if nextn else len(attends))
    flags = flags[: len(attends)]
    if feeds and any(feeds):
        flags = [flag and not feed for flag, feed in zip(flags, feeds, strict=True)]
    if f"{name}.{_HEAD_SIZE}" in metadata:
        size = metadata.integer(f"{name}.{_HEAD_SIZE}")
        heads = metadata.integer(f"{name}.ssm.time_step_rank", metadata.integer(f"{name}.attention.head_count"))
        floor = metadata.number(f"{name}.{_FLOOR}", 0.0)
        return Recurrence(
            layers=tuple(flags),
            kernel=metadata.integer(f"{name}.ssm.conv_kernel"),
            inner=heads * size,
            state=size,
            heads=heads,
            groups=heads,
            channels=True,
            floor=floor if metadata.boolean(f"{name}.{_BOUNDED}", floor < 0) else 0.0,
        )
    return Recurrence(
        layers=tuple(flags),
        period=period,
        kernel=metadata.integer(f"{name}.ssm.conv_kernel"),
        inner=metadata.integer(f"{name}.ssm.inner_size"),
        state=metadata.integer(f"{name}.ssm.state_size"),
        heads=metadata.integer(f"{name}.ssm.time_step_rank"),
        groups=metadata.integer(f"{name}.ssm.group_count", 1),
        least=metadata.number(f"{name}.{_LEAST}", 0.0),
        norm=norm,
        feeds=feeds if any(feeds) else (),
    )


def recurrence_entries(spec: ModelSpec, recurrence: Recurrence) -> dict[str, Value]:
    """What is said of layers that carry a state, and of those that do not."""
    entries: dict[str, Value] = {}
    if recurrence.period:
        entries = {_PERIOD: recurrence.period, _RECURRENT: [*recurrence.layers, *[False] * spec.nextn]}
    elif not recurrence.beside:
        feeds = recurrence.feeds or (False,) * spec.layers
        layers = [recurs or feed for recurs, feed in zip(recurrence.layers, feeds, strict=True)]
        kv_heads = [0 if other else spec.kv_heads for other in layers]
        entries["attention.head_count_kv"] = kv_heads + [spec.kv_heads] * spec.nextn
    if recurrence.feeds:
        width = spec.expert_feed_forward if spec.experts else spec.feed_forward
        entries["feed_forward_length"] = [width if feed else 0 for feed in (*recurrence.feeds, *[True] * spec.nextn)]
    if recurrence.least:
        entries[_LEAST] = recurrence.least
    if not spec.positions:
        entries[POSITIONS] = False
    if not recurrence.inner:
        return entries | {_SHORT_CONV: recurrence.kernel}
    if recurrence.channels:
        entries |= {"ssm.conv_kernel": recurrence.kernel, "ssm.time_step_rank": recurrence.heads}
        entries |= {_BOUNDED: True, _FLOOR: recurrence.floor} if recurrence.floor else {}
        return entries | {_HEAD_SIZE: recurrence.state}
    return entries | {f"ssm.{key}": getattr(recurrence, field) for field, key in _SSM.items()}
