"""Loading, limits, errors, reports and forecasts of a session on MLX."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from edgert_models.errors import BackendError, CancelledError, RequestError, UnsupportedError
from edgert_models.graph import Role
from edgert_models.registry import build_plan
from edgert_quant.blocks import BlockType
from edgert_runtimes.base import AheadSession, Batch, Draw, Drawn, Session, undrawn
from edgert_runtimes.conformance.tiny import batch, limits, normalized_error, random_weights, tiny_spec, type_of_role
from edgert_runtimes.cpu.backend import CpuBackend
from edgert_runtimes.experts import CountingSession
from edgert_runtimes.reference.backend import ReferenceBackend
from edgert_runtimes.weights import MemoryWeights

from tests.support.packed import random_rows
from tests.support.sessions import PLAN, PROMPT, WEIGHTS, changed_weights, one

mx = pytest.importorskip("mlx.core", reason="the mlx package is not installed")
pytestmark = pytest.mark.mlx

from edgert_runtimes.mlx import counts  # noqa: E402
from edgert_runtimes.mlx.backend import MlxBackend  # noqa: E402
from edgert_runtimes.mlx.session import MlxSession  # noqa: E402

WIDE = {"width": 256, "head_size": 64, "expert_feed_forward": 256}


@pytest.fixture
def session() -> Iterator[MlxSession]:
    loaded = MlxBackend().load(PLAN, WEIGHTS, limits())
    yield loaded
    loaded.close()


def test_rows_of_sequences_may_be_mixed() -> None:
    ours, reference = (each.load(PLAN, WEIGHTS, limits()) for each in (MlxBackend(), ReferenceBackend()))
    ordered = batch([(PROMPT, 0, range(16)), ([9, 8, 7, 6], 0, range(16, 32))], pick=[9, 2])
    order = np.array([7, 0, 1, 8, 2, 3, 4, 9, 5, 10, 6])
    rows = {name: getattr(ordered, name)[order] for name in ("tokens", "positions", "sequence", "slots")}
    mixed = Batch(**rows, tables=ordered.tables, lengths=ordered.lengths, pick=np.array([10, 3, 0], np.int32))
    assert normalized_error(ours.step(mixed), reference.step(mixed)) < 1e-9
    ours.close()


def test_half_precision_is_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU computes in, on the CPU (where MLX has no float16 for experts that are not packed)."""
    monkeypatch.setenv("EDGERT_MLX_DTYPE", "float16")
    for architecture, block_type in (("llama", BlockType.F32), ("qwen3moe", BlockType.Q4_K), ("olmoe", BlockType.Q6_K)):
        plan = build_plan(tiny_spec(architecture, feed_forward=256, **WIDE))
        weights = random_weights(plan, 2, type_of_role(block_type))
        sizes = limits(kv_type="f16")
        ours, reference = (each.load(plan, weights, sizes) for each in (MlxBackend(), ReferenceBackend()))
        assert normalized_error(ours.step(one()), reference.step(one())) < 1e-3
        assert ours.report.precision == "float16"
        ours.close()


def test_numbers_that_half_precision_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGERT_MLX_DTYPE", "float16")
    output = np.full((96, 64), 1e6, np.float32)
    message = "tensor output.weight: its weights are too large for float16; set EDGERT_MLX_DTYPE=float32, or use"
    with pytest.raises(UnsupportedError, match=message):
        MlxBackend().load(PLAN, changed_weights({"output.weight": output}), limits())
    monkeypatch.setenv("EDGERT_MLX_DTYPE", "bfloat16")
    with pytest.raises(BackendError, match="EDGERT_MLX_DTYPE is 'bfloat16'; it can be float16 or float32"):
        MlxBackend().load(PLAN, WEIGHTS, limits())


def test_report(session: MlxSession) -> None:
    report = session.report
    assert (report.backend, report.precision) == ("mlx", "float32")
    assert {weight.name for weight in report.weights} == set(PLAN.weights)
    assert {weight.layout for weight in report.weights} == {"float32"}
    assert report.weight_bytes == sum(4 * int(np.prod(weight.shape)) for weight in PLAN.weights.values())
    assert report.cache_bytes == 2 * 2 * 64 * 16 * 32 * 4
    assert report.mapped_bytes == 0


def test_the_report_says_what_was_rounded_again() -> None:
    plan = build_plan(tiny_spec(**WIDE))
    types = {Role.EXPERTS: BlockType.Q6_K, Role.MATRIX: BlockType.Q4_K, Role.EMBEDDING: BlockType.Q5_0}
    weights = random_weights(plan, 1, lambda weight: types.get(weight.role, BlockType.F32))
    loaded = MlxBackend().load(plan, weights, limits())
    by_name = {weight.name: weight for weight in loaded.report.weights}
    experts = by_name["blk.0.ffn_up_exps.weight"]
    assert experts.layout == "affine, 8 bits"
    assert experts.note.startswith("no exact form in MLX: rounded again, relative error 4.")
    assert 1e-5 < experts.error < 3e-5
    assert by_name["blk.0.attn_q.weight"].layout == "affine, 4 bits"
    assert {weight.note for weight in loaded.report.weights if weight.type is not BlockType.Q6_K} == {""}
    for weight in loaded.report.weights:
        bits = {BlockType.Q6_K: 8 + 2, BlockType.Q4_K: 4 + 2, BlockType.Q5_0: 5 + 2, BlockType.F32: 32}[weight.type]
        assert weight.bytes == int(np.prod(plan.weights[weight.name].shape)) * bits // 8
    loaded.close()


def test_embeddings_without_an_exact_form_are_looked_up_by_the_host() -> None:
    """And are a matrix of the device too where they are multiplied by."""
    for tied in (False, True):
        plan = build_plan(tiny_spec(tied=tied, **WIDE))
        tensors = {n: (s.type, s.shape, r) for n, s, r in stored(plan, random_weights(plan, 1))}
        shape = tensors["token_embd.weight"][1]
        tensors["token_embd.weight"] = (BlockType.IQ3_S, shape, random_rows(BlockType.IQ3_S, *shape))
        given = MemoryWeights(tensors)
        ours, reference = (each.load(plan, given, limits()) for each in (MlxBackend(), ReferenceBackend()))
        assert ("token_embd.weight" in {weight.name for weight in ours.report.weights}) == tied
        bound = 1e-2 if tied else 1e-9
        assert normalized_error(ours.step(one(), hidden=True), reference.step(one(), hidden=True)) < 1e-9
        assert normalized_error(ours.step(one()), reference.step(one())) < bound
        ours.close()


def stored(plan: object, weights: MemoryWeights) -> Iterator[tuple[str, object, np.ndarray]]:
    for name, weight in weights.weights.items():
        yield name, weight, weights.read(name)


@pytest.mark.usefixtures("metal")
def test_blocks_that_metal_multiplies_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole model of a type without an exact form: with our kernels nothing is rounded."""
    from edgert_runtimes.mlx import device
    from edgert_runtimes.mlx.metal import RAW_TYPES

    monkeypatch.setattr(device, "raw_types", lambda: RAW_TYPES)
    monkeypatch.setenv("EDGERT_MLX_DTYPE", "float32")
    plan = build_plan(tiny_spec(**WIDE))
    weights = random_weights(plan, 2, type_of_role(BlockType.Q6_K))
    ours, reference = (each.load(plan, weights, limits()) for each in (MlxBackend(), ReferenceBackend()))
    prompt = batch([(PROMPT, 0, range(16)), (list(range(30)), 0, range(16, 32))])
    for step in (prompt, batch([([8], 7, range(16)), ([9], 30, range(16, 32))])):
        assert normalized_error(ours.step(step), reference.step(step)) < 1e-9
    layouts = {weight.layout for weight in ours.report.weights if weight.type is BlockType.Q6_K}
    assert layouts == {"Q6_K blocks"}
    assert not any(weight.note for weight in ours.report.weights)
    ours.close()


@pytest.mark.parametrize("kv_type", ["f32", "f16", "bf16", "q8_0", "q4_0"])
def test_copied_blocks_hold_the_same(kv_type: str) -> None:
    plan = build_plan(tiny_spec(head_size=32))
    loaded = MlxBackend().load(plan, random_weights(plan, 1), limits(kv_type=kv_type))
    loaded.step(one(list(range(20))))
    loaded.copy_blocks([(0, 40), (1, 41), (40, 50)])
    wanted = loaded.step(batch([([5], 20, range(16))]))
    np.testing.assert_allclose(loaded.step(batch([([5], 20, [50, 41])])), wanted, rtol=1e-5, atol=1e-6)
    with pytest.raises(RequestError, match="the cache has blocks 0 to 63"):
        loaded.copy_blocks([(0, 1), (1, 64)])
    loaded.close()


def test_an_interrupted_step_ends(session: MlxSession, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = mx.async_eval
    monkeypatch.setattr(mx, "async_eval", lambda *arrays: (evaluate(*arrays), session.interrupt()))
    with pytest.raises(CancelledError, match="the step was interrupted"):
        session.step(one())
    monkeypatch.undo()
    session.interrupt()  # without effect between steps
    assert np.isfinite(session.step(one())).all()


def test_progress_counts_what_is_read() -> None:
    told: list[tuple[str, int, int]] = []
    MlxBackend().load(PLAN, WEIGHTS, limits(), lambda *event: told.append(event)).close()
    total = sum(WEIGHTS.read(name).nbytes for name in PLAN.weights)
    assert told[-1] == ("load", total, total)
    assert MlxBackend().warmup() == 0


def test_profile(session: MlxSession) -> None:
    session.profile(True)
    session.step(one())
    times = {time.name: time for time in session.profile(False)}
    experts = times["Moe ffn_gate_exps ffn_up_exps ffn_down_exps"]
    assert (experts.calls, experts.operations) == (2, 2 * (7 * 2) * 2 * 3 * 64 * 32)
    assert times["Attend"].bytes == 2 * 7 * 2 * 4 * 32
    assert all(time.seconds > 0 for time in times.values())
    assert session.profile(False) == []


GREEDY = [Draw()]


def following(token: int, position: int) -> Batch:
    return batch([([token], position, range(16))])


@pytest.mark.parametrize("guess", ["right", "wrong", "hidden", "profiled"])
def test_a_step_ahead_changes_nothing(guess: str) -> None:
    ours, plain = (MlxBackend().load(PLAN, WEIGHTS, limits()) for _ in range(2))
    assert isinstance(ours, AheadSession)
    assert ours.step(one()).tobytes() == plain.step(one()).tobytes()
    token = 8
    if guess == "profiled":
        ours.profile(True)
    for position in range(7, 14):
        out = ours.step_ahead(following(token, position), GREEDY, following(0, position + 1))
        drawn = out if isinstance(out, Drawn) else undrawn(out)
        wanted = plain.step(following(token, position))
        assert drawn.tokens.tolist() == [-1 if guess == "profiled" else wanted[0].argmax()]
        assert drawn.among == 96
        assert normalized_error(drawn.logits, wanted) < 1e-10
        token = int(wanted[0].argmax()) if guess != "wrong" else (token * 7 + 1) % 96
        if guess == "hidden":
            assert ours.step(one(), hidden=True).shape == (7, 64)
            plain.step(one(), hidden=True)
    ours.close()
    plain.close()


def test_what_was_begun_is_used(session: MlxSession, monkeypatch: pytest.MonkeyPatch) -> None:
    session.step(one())
    drawn = session.step_ahead(following(8, 7), GREEDY, following(0, 8))
    assert isinstance(drawn, Drawn)
    begin: Callable[..., object] = session._begin
    begun: list[Batch] = []
    monkeypatch.setattr(session, "_begin", lambda *given: begun.append(given[0]) or begin(*given))
    session.step(following(int(drawn.tokens[0]), 8))
    assert not begun
    session.step(following(3, 9))
    assert len(begun) == 1


def test_experts_are_counted(session: MlxSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was begun ahead counts when it is asked for."""
    reference = CpuBackend().load(PLAN, WEIGHTS, limits())
    for each in (session, reference):
        each.step(one())
        each.step(one(), hidden=True)
    assert isinstance(session, CountingSession)
    assert isinstance(reference, CountingSession)
    assert (session.expert_load() == reference.expert_load()).all()
    before = session.expert_load().sum()
    session.step_ahead(following(8, 7), GREEDY, following(0, 8))
    assert session.expert_load().sum() == before + 2 * 2
    monkeypatch.setattr(counts, "KEPT", 2)
    for position in range(8, 13):
        session.step(following(1, position))
    assert session.expert_load().sum() == before + 2 * 2 * (1 + 5)
    reference.close()


def test_a_router_that_fails_in_a_step_ahead_is_told_at_once() -> None:
    name = "blk.1.ffn_gate_inp.weight"
    damaged = MlxBackend().load(PLAN, changed_weights({name: np.full((4, 64), np.nan, np.float32)}), limits())
    with pytest.raises(BackendError, match=r"the router before blk\.1\.ffn_gate_exps\.weight gave NaN"):
        damaged.step_ahead(following(8, 0), GREEDY, following(0, 1))
    damaged.close()


def test_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = MlxBackend().probe()
    assert probe.available
    assert {"device", "mlx", "floats"} <= set(probe.details)
    monkeypatch.setenv("EDGERT_MLX_DTYPE", "int4")
    assert MlxBackend().probe().reason == "EDGERT_MLX_DTYPE is 'int4'; it can be float16 or float32"


def test_compiled_functions_give_the_same() -> None:
    """Where g++ is there to compile them; elsewhere MLX runs them as they are."""
    mx.enable_compile()
    try:
        ours: Session = MlxBackend().load(PLAN, WEIGHTS, limits())
        reference = ReferenceBackend().load(PLAN, WEIGHTS, limits())
        for step in (one(), *(batch([([position], position, range(16))]) for position in range(7, 11))):
            assert normalized_error(ours.step(step), reference.step(step)) < 1e-9
        ours.close()
    finally:
        mx.disable_compile()
