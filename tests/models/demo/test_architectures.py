"""The student starts from its teacher, and what is saved is what was trained. Needs torch and transformers."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from demo import architectures, distill, tokenizer, train  # noqa: E402
from demo.batches import Batch  # noqa: E402
from demo.optimizer import Muon  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402


def test_student_inherits_all_but_its_routers() -> None:
    student, teacher = architectures.student(1), architectures.teacher(2)
    architectures.inherit(student, teacher)
    ours, theirs = student.state_dict(), teacher.state_dict()
    assert torch.equal(ours["model.embed_tokens.weight"], theirs["model.embed_tokens.weight"])
    assert torch.equal(ours["model.layers.3.self_attn.q_proj.weight"], theirs["model.layers.3.self_attn.q_proj.weight"])
    up = theirs["model.layers.2.mlp.up_proj.weight"]
    experts = ours["model.layers.2.mlp.experts.gate_up_proj"][:, architectures.EXPERT_HIDDEN :]
    assert torch.equal(experts[:4].flatten(0, 1), up)
    assert torch.equal(experts[4:].flatten(0, 1).sort(0).values, up.sort(0).values)


def test_student_with_a_shared_expert() -> None:
    student, teacher = architectures.student(1, "qwen2moe"), architectures.teacher(2)
    with torch.no_grad():
        teacher.model.layers[1].self_attn.q_norm.weight.uniform_(0.5, 2.0)
    architectures.inherit(student, teacher)
    ours, theirs = student.state_dict(), teacher.state_dict()
    assert torch.equal(ours["lm_head.weight"], theirs["model.embed_tokens.weight"])
    hidden = architectures.SHARED_HIDDEN
    gate = theirs["model.layers.2.mlp.gate_proj.weight"][:hidden]
    assert torch.equal(ours["model.layers.2.mlp.shared_expert.gate_proj.weight"], gate)
    assert not ours["model.layers.0.self_attn.k_proj.bias"].any()
    layer, parent = student.model.layers[1].self_attn, teacher.model.layers[1].self_attn
    x = torch.randn(400, architectures.WIDTH)  # of no preferred direction: norms hardly change it
    wanted = parent.q_norm(parent.q_proj(x).unflatten(-1, (-1, architectures.HEAD_DIM))).flatten(-2)
    assert (layer.q_proj(x) - wanted).norm() < 0.2 * wanted.norm()
    widths = [parameter.shape[-1] for name, parameter in student.named_parameters() if parameter.ndim > 1]
    assert all(width % 256 == 0 for width in widths)


@pytest.mark.parametrize("variant", architectures.VARIANTS)
def test_saved_student_loads_and_gives_the_same_logits(variant: str, tmp_path: Path) -> None:
    tokenizer.save(tokenizer.build(documents=300), tmp_path / "tokenizer")
    student = architectures.student(3, variant).eval()
    for parameter in student.parameters():
        parameter.data = parameter.data.bfloat16().float()
    train.save(student, tmp_path, "student")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "student", dtype=torch.float32)
    loaded.set_experts_implementation("eager")
    ids = torch.arange(3, 67)[None]
    with torch.no_grad():
        assert torch.allclose(student(input_ids=ids).logits, loaded(input_ids=ids).logits, atol=1e-4)


def test_students_of_other_seeds_are_others() -> None:
    name = "model.layers.0.mlp.experts.gate_up_proj"
    first, again, other = (architectures.student(seed).state_dict()[name] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("variant", architectures.VARIANTS)
def test_a_step_of_distillation_in_float32(variant: str) -> None:
    """Every weight gets a gradient but of experts that nothing chose, and the loss is one of a distribution."""
    student, guide = architectures.student(1, variant), architectures.student(2).eval()
    ids = torch.randint(3, 2048, (2, 64), generator=torch.Generator().manual_seed(0))
    loss = distill.loss(student, Batch(ids, torch.ones(2, 64)), guide, torch.float32)
    loss.backward()
    assert 0 < loss.item() < 20
    assert all(parameter.grad is not None for parameter in student.parameters())


def test_muon_is_the_same_step_in_both_precisions() -> None:
    steps = []
    for dtype in (torch.bfloat16, torch.float32):
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(64, 96))
        before = weight.detach().clone()
        weight.grad = torch.randn(64, 96)
        Muon([weight], lr=0.1, dtype=dtype).step()
        steps.append(weight.detach() - before)
    assert (steps[0] - steps[1]).norm() < 0.05 * steps[1].norm()
