"""Exceptions from a recipe, tensor by tensor: `blk.*.ffn_down_exps=q6_k`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from edgert_models.errors import RequestError
from edgert_models.graph import Weight

from edgert_quant.blocks import BlockType
from edgert_quant.blocks.quantizer import writable_types


@dataclass(frozen=True)
class Rule:
    """A pattern of shell style (`*`, `?`, `[…]`) for names of tensors, without `.weight` if need be, and their type."""

    pattern: str
    type: BlockType

    @classmethod
    def parse(cls, text: str) -> Rule:
        """`pattern=type`, the type in upper or lower case; RequestError says what is wrong with it."""
        pattern, sign, name = (part.strip() for part in text.partition("="))
        if not sign or not pattern:
            raise RequestError(
                f"'{text}' is no rule for tensors; write it like blk.*.ffn_down_exps=q6_k", parameter="tensor"
            )
        known = {kind.name.lower(): kind for kind in writable_types()}
        if name.lower() not in known:
            reason = f"'{text}': there is no writing {name or 'nothing'}; there is {', '.join(known)}"
            raise RequestError(reason, parameter="tensor")
        return cls(pattern, known[name.lower()])

    def matches(self, name: str) -> bool:
        """Whether it is about a tensor."""
        return any(fnmatchcase(each, self.pattern) for each in (name, name.removesuffix(".weight")))

    def __str__(self) -> str:
        return f"{self.pattern}={self.type.name.lower()}"


def apply_rules(
    types: Mapping[str, BlockType], weights: Mapping[str, Weight], rules: Iterable[Rule]
) -> dict[str, BlockType]:
    """Types by tensor after the rules, of which later ones prevail. Vectors and routers stay as they are.

    RequestError for a rule about no matrix, or one whose rows are no whole number of the type's blocks.
    """
    changed = dict(types)
    for rule in rules:
        found = [name for name in weights if rule.matches(name)]
        matrices = [name for name in found if not weights[name].role.stays_float]
        if not matrices:
            what = "matches only vectors and routers, which stay F32" if found else "matches no tensor of this model"
            raise RequestError(f"'{rule}' {what}", parameter="tensor")
        for name in matrices:
            row = weights[name].shape[-1]
            if row % rule.type.block_size:
                reason = f"'{rule}': rows of {row} weights ({name}) are no whole blocks of {rule.type.block_size}"
                raise RequestError(reason, parameter="tensor")
            changed[name] = rule.type
    return changed
