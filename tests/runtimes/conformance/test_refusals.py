"""What every backend refuses at load, and in which words."""

import pytest
from edgert_models.errors import UnsupportedError
from edgert_runtimes.base import Backend
from edgert_runtimes.conformance.attention import attention
from edgert_runtimes.conformance.cases import plan_of
from edgert_runtimes.conformance.tiny import limits, random_weights


def test_an_unknown_activation(backend: Backend) -> None:
    plan = plan_of(lambda g, x: g.gated(x, x, "swish7"))
    with pytest.raises(UnsupportedError, match=r"^activation 'swish7' is not supported"):
        backend.load(plan, random_weights(plan), limits())


@pytest.mark.parametrize("kv_type", ["q8_0", "q4_0"])
def test_groups_that_do_not_divide_a_head(backend: Backend, kv_type: str) -> None:
    plan = plan_of(attention, head_size=80)
    message = (
        f"layer 0: a cache of type '{kv_type}' needs a head size that is a multiple of 32, this one is 80; use f16$"
    )
    with pytest.raises(UnsupportedError, match=message):
        backend.load(plan, random_weights(plan), limits(kv_type=kv_type))


def test_unknown_types_of_caches(backend: Backend) -> None:
    plan = plan_of(attention)
    with pytest.raises(UnsupportedError, match=r"'q3' is not supported; there are: f32, f16, bf16, q8_0, q4_0$"):
        backend.load(plan, random_weights(plan), limits(kv_type="q3"))
