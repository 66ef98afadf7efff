"""What a training step minimizes: labels alone, or a teacher's distributions with a label term."""

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

from demo.batches import Batch
from demo.corpus.mix import ANSWER

LABEL_SHARE = 0.25  # of the distilled student's loss; the rest is the divergence from the teacher


def predictions(
    model: PreTrainedModel, batch: Batch, positions: Tensor, dtype: torch.dtype = torch.bfloat16
) -> tuple[Tensor, Tensor]:
    """Logits [positions, vocabulary] in float32 where the loss counts, and the routers' balancing loss (0 if dense).

    Matrix products are computed in `dtype`.
    """
    experts = getattr(model.config, "num_experts", 0)
    routing = {"output_router_logits": True} if experts else {}
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        output = model.model(input_ids=batch.ids, **routing)
        logits = model.lm_head(output.last_hidden_state.flatten(0, 1)[positions]).float()
    if not experts:
        return logits, logits.new_zeros(())
    # Layer by layer: over all layers at once, as transformers does it, one layer's idle expert is hidden by another's.
    losses = [
        load_balancing_loss_func((layer,), experts, model.config.num_experts_per_tok) for layer in output.router_logits
    ]
    balance = torch.stack(losses).mean()
    return logits, model.config.router_aux_loss_coef * balance


def loss(
    model: PreTrainedModel,
    batch: Batch,
    teacher: PreTrainedModel | None = None,
    dtype: torch.dtype = torch.bfloat16,
) -> Tensor:
    """Weighted mean over the positions that count.

    With a teacher: `LABEL_SHARE` cross entropy, the rest KL(teacher ‖ student) over the full vocabulary (Hinton et al.,
    arXiv:1503.02531, at temperature 1). Where an answer has one right token and the teacher would say another, only the
    label counts.
    """
    positions, targets, weights = batch.targets()
    logits, balance = predictions(model, batch, positions, dtype)
    each = functional.cross_entropy(logits, targets, reduction="none")
    if teacher is not None:
        with torch.no_grad():
            goal = predictions(teacher, batch, positions, dtype)[0].log_softmax(-1)
        divergence = functional.kl_div(logits.log_softmax(-1), goal, log_target=True, reduction="none").sum(-1)
        wrong = (weights == ANSWER) & (goal.argmax(-1) != targets)
        each = torch.where(wrong, each, LABEL_SHARE * each + (1 - LABEL_SHARE) * divergence)
    return (each * weights).sum() / weights.sum() + balance
