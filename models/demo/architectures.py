"""The dense teacher and the Mixture-of-Experts student, both in transformers' own modules."""

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from demo.tokenizer import VOCABULARY

WIDTH, LAYERS, HEADS, KEY_HEADS, HEAD_DIM, CONTEXT = 256, 4, 8, 4, 32, 1024
TEACHER_HIDDEN = 1024
EXPERTS, EXPERTS_PER_TOKEN, EXPERT_HIDDEN = 8, 2, 256
SLICE_GAIN = 2.5
BALANCE = 0.02  # weight of the router's load-balancing loss


def _shared() -> dict[str, object]:
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS,
        "head_dim": HEAD_DIM,
        "max_position_embeddings": CONTEXT,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "initializer_range": 0.02,
        "use_cache": False,
    }


def teacher(seed: int = 0) -> Qwen3ForCausalLM:
    """The dense teacher, untrained."""
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(Qwen3Config(intermediate_size=TEACHER_HIDDEN, **_shared()))


def student(seed: int = 0) -> Qwen3MoeForCausalLM:
    """The Mixture-of-Experts student, untrained."""
    torch.manual_seed(seed)
    config = Qwen3MoeConfig(
        intermediate_size=TEACHER_HIDDEN,
        moe_intermediate_size=EXPERT_HIDDEN,
        num_experts=EXPERTS,
        num_experts_per_tok=EXPERTS_PER_TOKEN,
        norm_topk_prob=True,
        decoder_sparse_step=1,
        mlp_only_layers=[],
        router_aux_loss_coef=BALANCE,
        **_shared(),
    )
    model = Qwen3MoeForCausalLM(config)
    model.set_experts_implementation("grouped_mm")  # the same sums, faster than a loop over experts
    return model


@torch.no_grad()
def inherit(student_model: Qwen3MoeForCausalLM, teacher_model: Qwen3ForCausalLM) -> None:
    """Start the student from the teacher ("sparse upcycling", arXiv:2212.05055).

    Embeddings, norms and attention are copied. Each expert takes a slice of the teacher's feed-forward neurons: the
    first four experts are its contiguous quarters, the other four its interleaved ones, so that no two are alike.
    Routers start at random; the output is scaled up because only two of the slices answer at a time.
    """
    own = student_model.state_dict()
    taken = {name: tensor for name, tensor in teacher_model.state_dict().items() if ".mlp." not in name}
    student_model.load_state_dict(own | taken)
    parts = TEACHER_HIDDEN // EXPERT_HIDDEN
    neurons = torch.arange(TEACHER_HIDDEN)
    slices = (*neurons.view(parts, EXPERT_HIDDEN), *neurons.view(EXPERT_HIDDEN, parts).T)
    for layer, parent in zip(student_model.model.layers, teacher_model.model.layers, strict=True):
        experts, dense = layer.mlp.experts, parent.mlp
        for expert, chosen in enumerate(slices):
            gate_up = torch.cat([dense.gate_proj.weight[chosen], dense.up_proj.weight[chosen]])
            experts.gate_up_proj[expert] = gate_up
            experts.down_proj[expert] = SLICE_GAIN * dense.down_proj.weight[:, chosen]
