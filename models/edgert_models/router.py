"""How a mixture's router chooses experts and weighs what they give: the numbers, which every backend reads."""

from __future__ import annotations

from dataclasses import dataclass

SCORINGS = ("softmax", "sigmoid", "sparsemixer")


@dataclass(frozen=True, kw_only=True, slots=True)
class Router:
    """The rule from a row's logits [experts] to its experts and their weights.

    s = `scoring` of the logits: "softmax" over all experts, or "sigmoid" of each. Experts are chosen by s + b, where
    `bias` says that there is a vector b [experts] (`exp_probs_b.bias` in GGUF), or by their logits + b if
    `bias_logits`, else by their logits; the largest are chosen, and of equals the lower index. Experts are in `groups`
    of equal size, one after another: only those in the `groups_used` best groups may be chosen, where a group is as
    good as the sum of its `group_best` best s, or of what they are chosen by if there is b.

    The weights of the chosen are their s, without b, divided by their sum + `epsilon` if `normalize`, times `scale`.
    With softmax, `normalize` and no epsilon that is the softmax of the chosen logits alone.

    With "sparsemixer" experts are chosen by their logits, and the weight of the k-th best, whose logit is l, is that in
    a softmax over itself and the worse ones whose logits m are near: l − m ≤ `band` · max(|m|, l).

    Weights are of what experts give, or where the router `weighs_inputs`, of what enters them; those have no biases.

    Sources: transformers' `modeling_deepseek_v2` (one best expert a group), `modeling_deepseek_v3` (two, and b),
    `modeling_kolibri1` (logits + b), `modeling_phimoe` (SparseMixer, arXiv 2409.12136) and `modeling_llama4` (inputs).
    """

    scoring: str = "softmax"
    normalize: bool = True
    epsilon: float = 0.0
    scale: float = 1.0
    bias: bool = False
    bias_logits: bool = False
    groups: int = 1
    groups_used: int = 1
    group_best: int = 2
    band: float = 0.0
    weighs_inputs: bool = False

    @property
    def limited(self) -> bool:
        """Whether some groups are left out."""
        return self.groups_used < self.groups

    def fault(self, experts: int, used: int) -> str:
        """What keeps it from choosing `used` of `experts`, an empty text if nothing does."""
        if self.scoring not in SCORINGS:
            return f"the router's scoring is '{self.scoring}'; supported: {', '.join(SCORINGS)}"
        if not (self.scale > 0.0 and self.epsilon >= 0.0):
            return f"the router's scale is {self.scale} and its epsilon {self.epsilon}"
        if self.scoring == "sparsemixer" and (self.normalize or self.bias or self.limited or not 0.0 < self.band < 1.0):
            return f"a sparse mixer with a band of {self.band}, or with more than that"
        if not 1 <= self.groups_used <= self.groups or experts % self.groups:
            return f"{self.groups_used} groups used of {self.groups} with {experts} experts"
        size = experts // self.groups
        if self.limited and (used > self.groups_used * size or not 1 <= self.group_best <= min(2, size)):
            return f"{used} experts used of {self.groups_used} groups of {size}, ranked by their best {self.group_best}"
        return ""


SOFTMAX = Router()
"""The softmax of the chosen logits, and nothing else."""

BIASED_SIGMOID = Router(scoring="sigmoid", epsilon=1e-20, bias=True)
"""What DeepSeek-V3 began and many families have: sigmoids, and a bias that balances how often experts are chosen."""
