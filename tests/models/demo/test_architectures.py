"""The student starts from its teacher, and what is saved is what was trained. Needs torch and transformers."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from demo import architectures, tokenizer, train  # noqa: E402
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


def test_saved_student_loads_and_gives_the_same_logits(tmp_path: Path) -> None:
    tokenizer.save(tokenizer.build(documents=300), tmp_path / "tokenizer")
    student = architectures.student(3).eval()
    for parameter in student.parameters():
        parameter.data = parameter.data.bfloat16().float()
    train.save(student, tmp_path, "student")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "student", dtype=torch.float32)
    loaded.set_experts_implementation("eager")
    ids = torch.arange(3, 67)[None]
    with torch.no_grad():
        assert torch.allclose(student(input_ids=ids).logits, loaded(input_ids=ids).logits, atol=1e-4)
