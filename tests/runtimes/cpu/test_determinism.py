"""The same bytes whatever the threads, the chunks, the company and the blocks."""

from collections.abc import Sequence

import numpy as np
import pytest
from edgert_models.graph import Plan
from edgert_models.registry import build_plan
from edgert_quant.blocks import BlockType
from edgert_runtimes.cpu.backend import CpuBackend, CpuSession
from edgert_runtimes.weights import MemoryWeights

from tests.support.tiny import batch, limits, random_weights, tiny_spec, type_of_role

TYPES = [BlockType.F32, BlockType.Q8_0, BlockType.Q4_K]


def model(block_type: BlockType, window: int | None = None) -> tuple[Plan, MemoryWeights]:
    """Large enough that matrices and experts are divided among threads."""
    sizes = {"width": 512, "heads": 8, "kv_heads": 2, "head_size": 64, "experts": 12, "experts_used": 3}
    plan = build_plan(tiny_spec(**sizes, expert_feed_forward=256, vocabulary=512, window=window))
    return plan, random_weights(plan, 5, type_of_role(block_type))


def prompt(length: int, seed: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, 512, length)]


def alone(session: CpuSession, tokens: Sequence[int]) -> np.ndarray:
    """One prefill of everything, on blocks in order."""
    return session.step(batch([(tokens, 0, range(16))]))


def random_walk(session: CpuSession, prompts: Sequence[Sequence[int]], seed: int) -> list[np.ndarray]:
    """All prompts at once, in random chunks and company, on random blocks."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(64)
    blocks = [order[16 * i : 16 * i + 16].tolist() for i in range(len(prompts))]
    done = [0] * len(prompts)
    results: list[list[np.ndarray]] = [[] for _ in prompts]
    while any(d < len(p) for d, p in zip(done, prompts, strict=True)):
        waiting = [i for i, p in enumerate(prompts) if done[i] < len(p)]
        chosen = rng.permutation(waiting)[: rng.integers(1, len(waiting) + 1)]
        parts = []
        for i in chosen:
            count = min(int(rng.choice([1, 2, 5, 17, 64])), len(prompts[i]) - done[i])
            parts.append((prompts[i][done[i] : done[i] + count], done[i], blocks[i]))
        logits = session.step(batch(parts))
        at = 0
        for i, (new, *_) in zip(chosen, parts, strict=True):
            results[i].append(logits[at : at + len(new)])
            done[i] += len(new)
            at += len(new)
    return [np.concatenate(rows) for rows in results]


@pytest.mark.parametrize("block_type", TYPES)
@pytest.mark.parametrize("kv_type", ["f16", "f32"])
def test_chunks_company_blocks_and_threads_change_nothing(block_type: BlockType, kv_type: str) -> None:
    plan, weights = model(block_type, window=None if kv_type == "f16" else 37)
    prompts = [prompt(n, n) for n in (97, 40, 1)]
    expected = None
    for threads in (1, 2, 3):
        session = CpuBackend().load(plan, weights, limits(threads=threads, kv_type=kv_type))
        found = [alone(session, tokens) for tokens in prompts]
        if expected is None:
            expected = found
        for seed in range(4):
            found += random_walk(session, prompts, 10 * threads + seed)
        session.close()
        for i, rows in enumerate(found):
            assert rows.tobytes() == expected[i % 3].tobytes(), (threads, i)


def test_other_rows_that_are_not_finite_change_nothing() -> None:
    """A neighbour in the batch overflows; its numbers must not leak through padding or scratch memory."""
    plan, weights = model(BlockType.F32)
    session = CpuBackend().load(plan, weights, limits())
    tokens = prompt(20, 1)
    expected = alone(session, tokens)
    session._cache[:] = 0xFF  # NaN wherever nothing was stored
    session._workspace[:] = 0xFF
    assert alone(session, tokens).tobytes() == expected.tobytes()
    session.close()


def test_hidden_values_and_picked_rows() -> None:
    plan, weights = model(BlockType.Q8_0)
    session = CpuBackend().load(plan, weights, limits())
    tokens = prompt(33, 2)
    whole = alone(session, tokens)
    some = session.step(batch([(tokens, 0, range(16))], pick=[32, 0, 7]))
    assert some.tobytes() == whole[[32, 0, 7]].tobytes()
    hidden = session.step(batch([(tokens, 0, range(16))], pick=[5]), hidden=True)
    assert hidden.shape == (1, 512)
    assert alone(session, tokens).tobytes() == whole.tobytes()
    assert session.step(batch([(tokens, 0, range(16))], pick=[])).shape == (0, 512)
    session.close()


def test_copied_blocks_are_the_same_cache() -> None:
    plan, weights = model(BlockType.F32)
    session = CpuBackend().load(plan, weights, limits(kv_type="f16"))
    tokens = prompt(48, 3)
    session.step(batch([(tokens, 0, [3, 1, 2])]))
    expected = session.step(batch([(prompt(1, 4), 48, [3, 1, 2, 9])]))
    session.copy_blocks([(3, 20), (1, 21), (2, 22)])
    session.step(batch([(prompt(48, 5), 0, [3, 1, 2])]))  # overwrite the originals
    found = session.step(batch([(prompt(1, 4), 48, [20, 21, 22, 10])]))
    assert found.tobytes() == expected.tobytes()
    session.close()
