"""What is said of stock llama.cpp."""

from dataclasses import replace

import pytest
from edgert_models.architectures import llama4, smallthinker
from edgert_models.llama_cpp import sees_the_same

from tests.quant.convert.llama_quantize import MODELS


@pytest.mark.parametrize(
    ("window", "context", "same"),
    [
        (None, 10_000, True),
        (4096, 10_000, True),
        (2048, 10_000, False),
        (10_000, 10_000, False),
        (20_000, 10_000, False),
        (20_000, 4096, True),
        (2048, 2048, True),
    ],
)
def test_windows_that_llama_cpp_has_fixed(window: int | None, context: int, same: bool) -> None:
    spec = replace(MODELS["llama"], window=window, context=context)
    assert sees_the_same(spec, 4096) is same
    assert (smallthinker.llama_cpp_differs(spec) == "") is same
    doubled = replace(spec, window=window and 2 * window, context=2 * context)
    assert (llama4.llama_cpp_chunks(doubled) == "") is same
