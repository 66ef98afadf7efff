"""What it means that a backend computes what it should: small plans of a few ops, compared with the reference.

`CASES` covers every op, every type of weights and of caches. The tests run it, and on a user's machine
`edgert doctor --self-test`.
"""

from edgert_runtimes.conformance.attention import attention_cases
from edgert_runtimes.conformance.cases import Case, compare
from edgert_runtimes.conformance.check import Outcome, check
from edgert_runtimes.conformance.moe import moe_cases
from edgert_runtimes.conformance.ops import op_cases
from edgert_runtimes.conformance.recurrent import recurrent_cases

CASES: tuple[Case, ...] = (*op_cases(), *moe_cases(), *attention_cases(), *recurrent_cases())

__all__ = ["CASES", "Case", "Outcome", "check", "compare"]
