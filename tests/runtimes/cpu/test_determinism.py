"""The same bytes whatever the threads, the chunks, the company and the blocks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from edgert_models.graph import Plan, Role
from edgert_models.registry import build_plan
from edgert_models.rope import Rope, RopeLayout
from edgert_models.spec import Latent
from edgert_quant.blocks import BlockType
from edgert_runtimes.conformance.attention import attention, shared
from edgert_runtimes.conformance.cases import Wire, plan_of
from edgert_runtimes.conformance.tiny import batch, limits, random_weights, tiny_spec, type_of_role
from edgert_runtimes.cpu.backend import CpuBackend, CpuSession
from edgert_runtimes.cpu.kernels import attend, division
from edgert_runtimes.weights import MemoryWeights

TYPES = [BlockType.F32, BlockType.Q8_0, BlockType.Q4_K]
LATENT = Latent(rank=64, key_size=64, value_size=32)


def model(
    block_type: BlockType, window: int | None = None, architecture: str = "qwen3moe"
) -> tuple[Plan, MemoryWeights]:
    """Large enough that matrices and experts are divided among threads."""
    sizes: dict[str, Any] = {"width": 512, "heads": 8, "kv_heads": 2, "head_size": 64}
    sizes |= {"experts": 12, "experts_used": 3}
    if architecture == "qwen2moe":
        sizes["shared_feed_forward"] = 512
    if architecture == "deepseek2":
        sizes |= {"kv_heads": 1, "head_size": 96, "value_length": 64, "latent": LATENT}
        sizes["rope"] = Rope(dims=32, layout=RopeLayout.INTERLEAVED)
    plan = build_plan(tiny_spec(architecture, **sizes, expert_feed_forward=256, vocabulary=512, window=window))
    choose = type_of_role(block_type)
    small = {Role.HEADS: BlockType.Q8_0} if block_type is BlockType.Q4_K else {}  # rows are no whole block
    return plan, random_weights(plan, 5, lambda weight: small.get(weight.role, choose(weight)))


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
@pytest.mark.parametrize(
    ("architecture", "kv_type", "window"),
    [
        ("qwen3moe", "f16", None),
        ("qwen3moe", "f32", 37),
        ("gpt-oss", "f16", 37),
        ("qwen2moe", "f16", None),
        ("deepseek2", "f16", None),
    ],
)
def test_chunks_company_blocks_and_threads_change_nothing(
    block_type: BlockType, architecture: str, kv_type: str, window: int | None
) -> None:
    plan, weights = model(block_type, window, architecture)
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


@pytest.mark.parametrize(
    ("kv_type", "architecture"), [("f16", "qwen3moe"), ("q4_0", "qwen3moe"), ("q8_0", "deepseek2")]
)
def test_copied_blocks_are_the_same_cache(kv_type: str, architecture: str) -> None:
    plan, weights = model(BlockType.F32, architecture=architecture)
    session = CpuBackend().load(plan, weights, limits(kv_type=kv_type))
    tokens = prompt(48, 3)
    session.step(batch([(tokens, 0, [3, 1, 2])]))
    expected = session.step(batch([(prompt(1, 4), 48, [3, 1, 2, 9])]))
    session.copy_blocks([(3, 20), (1, 21), (2, 22)])
    session.step(batch([(prompt(48, 5), 0, [3, 1, 2])]))  # overwrite the originals
    found = session.step(batch([(prompt(1, 4), 48, [20, 21, 22, 10])]))
    assert found.tobytes() == expected.tobytes()
    session.close()


def divided_rows(session: CpuSession) -> list[int]:
    """Rows of every attention of the last step whose tiles were divided among threads."""
    words, start = session._linked.words, session._workspace.ctypes.data
    memory = session._workspace.view(np.int64)
    records = [i for i, record in enumerate(session._program.records) if record.run is attend.attend]
    return [int(memory[(words[i, division.DIVISION] - start) // 8 + division.DIVIDED]) for i in records]


@pytest.mark.parametrize(
    ("kv_type", "window", "heads", "wire"),
    [
        ("f16", None, 4, attention),
        ("q8_0", 600, 2, attention),
        ("f32", 300, 53, attention),
        ("bf16", 1100, 3, attention),
        ("q4_0", None, 8, attention),
        ("f16", None, 7, shared),
        ("q8_0", 600, 6, shared),
    ],
)
def test_a_long_context_divided_among_threads_is_the_same(
    kv_type: str, window: int | None, heads: int, wire: Wire
) -> None:
    """Alone or beside other sequences; decoding, and some rows at once across the end of a tile; blocks of any size."""
    plan = plan_of(wire, heads=heads, kv_heads=1, head_size=64, value_length=32, window=window, context=2048)
    weights = random_weights(plan, 3)
    tokens = [token % 96 for token in prompt(1540, 1)]
    expected: dict[str, np.ndarray] = {}
    for threads, block_size in ((1, 16), (2, 16), (3, 16), (3, 32), (2, 3), (3, 1)):
        count = -(-1600 // block_size)
        order = np.random.default_rng(threads).permutation(2 * count).tolist()
        mine, other = order[:count], order[count:]
        sizes = {"context": 1600, "rows": 600, "blocks": 2 * count, "block_size": block_size}
        session = CpuBackend().load(plan, weights, limits(threads=threads, kv_type=kv_type, **sizes))
        steps = {
            "first": [(tokens[:600], 0, mine)],
            "more": [(tokens[600:1100], 600, mine), (tokens[:50], 0, other)],
            "most": [(tokens[1100:1530], 1100, mine)],
            "alone": [(tokens[1530:1531], 1530, mine)],
            "beside": [(tokens[:1], 50, other), (tokens[1531:1532], 1531, mine)],
            "across": [(tokens[1532:1540], 1532, mine), (tokens[1:2], 51, other)],
        }
        for name, parts in steps.items():
            found = session.step(batch(parts, block_size=block_size))
            assert found.tobytes() == expected.setdefault(name, found).tobytes(), (name, threads, block_size)
            if name in ("alone", "beside"):
                assert divided_rows(session) == [int(threads > 1)]
        session.close()


def test_more_long_contexts_than_can_be_divided() -> None:
    plan = plan_of(attention, heads=4, kv_heads=1, head_size=64, context=1024)
    weights = random_weights(plan, 3)
    tokens = [token % 96 for token in prompt(900, 1)]
    expected = None
    for threads in (1, 3):
        session = CpuBackend().load(plan, weights, limits(threads=threads, context=900, rows=900, blocks=4 * 57))
        blocks = [list(range(57 * i, 57 * i + 57)) for i in range(4)]
        for i in range(4):
            session.step(batch([(tokens[: 899 - i], 0, blocks[i])]))
        found = session.step(batch([(tokens[i : i + 1], 899 - i, blocks[i]) for i in range(4)]))
        expected = found if expected is None else expected
        assert found.tobytes() == expected.tobytes()
        assert divided_rows(session) == [2 if threads > 1 else 0]
        session.close()


def test_later_rows_that_are_not_finite_change_nothing() -> None:
    """Rows of a chunk go through a tile together, but each sees its own positions only."""
    plan = plan_of(attention, heads=4, kv_heads=2, head_size=20)
    weights = random_weights(plan, 3)
    raw = weights.read("token_embd.weight")
    raw.view(np.float32)[95] = np.inf
    stored = {name: (weight.type, weight.shape, weights.read(name)) for name, weight in weights.weights.items()}
    stored["token_embd.weight"] = (*stored["token_embd.weight"][:2], raw)
    tokens = [token % 95 for token in prompt(60, 1)]
    session = CpuBackend().load(plan, MemoryWeights(stored), limits())
    expected = alone(session, tokens)
    assert np.isfinite(expected).all()
    found = alone(session, [*tokens[:50], 95, *tokens[51:]])
    assert found[:50].tobytes() == expected[:50].tobytes()
    assert np.isnan(found[50:]).any(axis=1).all()
    session.close()
