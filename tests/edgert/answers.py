"""What tests of answers ask for, and what they look at."""

import dataclasses
import time
from typing import Any

from edgert import LLM, Completion, SamplingParams

MESSAGES = [{"role": "user", "content": "hello world"}]
GREEDY = SamplingParams(max_tokens=12, temperature=0, ignore_eos=True, seed=0)


def free_of_clocks(completion: Completion) -> dict[str, Any]:
    """Everything that must not depend on time, company or the cache."""
    fields = dataclasses.asdict(completion)
    del fields["timings"]
    del fields["usage"]["cached_tokens"]
    return fields


def quiet(llm: LLM) -> bool:
    """Whether the engine becomes idle, with every block given back, within a second."""
    until = time.monotonic() + 1
    while time.monotonic() < until:
        now = llm.statistics()
        if not (now.running or now.waiting or now.blocks_held):
            return True
        time.sleep(0.005)
    return False
