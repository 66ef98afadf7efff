"""The dense teacher and the Mixture-of-Experts students, all in transformers' own modules."""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from demo.tokenizer import VOCABULARY

WIDTH, LAYERS, HEADS, KEY_HEADS, HEAD_DIM, CONTEXT = 256, 4, 8, 4, 32, 1024
TEACHER_HIDDEN = 1024
EXPERTS, EXPERTS_PER_TOKEN, EXPERT_HIDDEN = 8, 2, 256
SHARED_HIDDEN = 256  # of the shared expert, where there is one
SLICE_GAIN = 2.5
SHARED_GAIN = 2.0  # its gate starts near a half
VARIANTS = ("qwen3moe", "qwen2moe")
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


def student(seed: int = 0, variant: str = "qwen3moe") -> PreTrainedModel:
    """The Mixture-of-Experts student of a family in `VARIANTS`, untrained."""
    torch.manual_seed(seed)
    sizes = {
        "intermediate_size": TEACHER_HIDDEN,
        "moe_intermediate_size": EXPERT_HIDDEN,
        "num_experts": EXPERTS,
        "num_experts_per_tok": EXPERTS_PER_TOKEN,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "router_aux_loss_coef": BALANCE,
        **_shared(),
    }
    model: PreTrainedModel
    if variant == "qwen3moe":
        model = Qwen3MoeForCausalLM(Qwen3MoeConfig(norm_topk_prob=True, **sizes))
    else:  # as Qwen1.5-MoE: plain weights of experts, an output matrix of its own
        family = {"norm_topk_prob": False, "tie_word_embeddings": False}
        config = Qwen2MoeConfig(shared_expert_intermediate_size=SHARED_HIDDEN, **{**sizes, **family})
        model = Qwen2MoeForCausalLM(config)
    model.set_experts_implementation("grouped_mm")  # the same sums, faster than a loop over experts
    return model


def load(folder: Path) -> PreTrainedModel:
    """A trained model in float32, to start from or to learn from."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if hasattr(model.config, "num_experts"):
        model.set_experts_implementation("grouped_mm")
    return model.eval()


@torch.no_grad()
def inherit(student_model: PreTrainedModel, teacher_model: PreTrainedModel) -> None:
    """Start the student from the teacher ("sparse upcycling", arXiv:2212.05055).

    Embeddings, norms and attention are copied. Each expert takes a slice of the teacher's feed-forward neurons: the
    first four experts are its contiguous quarters, the other four its interleaved ones, so that no two are alike; a
    shared expert is the first quarter. Routers start at random; the output is scaled up because only two of the slices
    answer at a time.
    """
    own = student_model.state_dict()
    taken = {name: tensor for name, tensor in teacher_model.state_dict().items() if name in own and ".mlp." not in name}
    student_model.load_state_dict(own | taken)
    parts = TEACHER_HIDDEN // EXPERT_HIDDEN
    neurons = torch.arange(TEACHER_HIDDEN)
    slices = (*neurons.view(parts, EXPERT_HIDDEN), *neurons.view(EXPERT_HIDDEN, parts).T)
    for layer, parent in zip(student_model.model.layers, teacher_model.model.layers, strict=True):
        experts, dense = layer.mlp.experts, parent.mlp
        shared = getattr(layer.mlp, "shared_expert", None)
        gain = SLICE_GAIN
        if shared is not None:
            _take_slice(shared, dense, slices[0], SHARED_GAIN)
            gain *= EXPERTS / EXPERTS_PER_TOKEN  # weights that are not made to sum to one start near 1 / EXPERTS
            _without_norms(layer, parent)
        for expert, chosen in enumerate(slices):
            gate_up = torch.cat([dense.gate_proj.weight[chosen], dense.up_proj.weight[chosen]])
            experts.gate_up_proj[expert] = gate_up
            experts.down_proj[expert] = gain * dense.down_proj.weight[:, chosen]


def _take_slice(expert: nn.Module, dense: nn.Module, neurons: Tensor, gain: float) -> None:
    expert.gate_proj.weight.copy_(dense.gate_proj.weight[neurons])
    expert.up_proj.weight.copy_(dense.up_proj.weight[neurons])
    expert.down_proj.weight.copy_(gain * dense.down_proj.weight[:, neurons])


def _without_norms(layer: nn.Module, parent: nn.Module) -> None:
    """Queries and keys of a layer that does not normalise them: divided by the size they have on inputs of no
    preferred direction, times the weights of the norms.
    """
    for part in ("q", "k"):
        projection, norm = (getattr(parent.self_attn, f"{part}_{kind}") for kind in ("proj", "norm"))
        heads = projection.weight.view(-1, HEAD_DIM, WIDTH)
        size = (heads * parent.input_layernorm.weight).square().sum(dim=(1, 2), keepdim=True).div(HEAD_DIM).sqrt()
        own = getattr(layer.self_attn, f"{part}_proj")
        own.weight.copy_((heads / size * norm.weight[:, None]).flatten(0, 1))
        own.bias.zero_()
