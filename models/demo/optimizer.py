"""Muon for the teacher's matrices, AdamW for the rest and for the students, which start near where they end.

Muon (K. Jordan, 2024, https://kellerjordan.github.io/posts/muon) replaces a matrix's momentum by the nearest orthogonal
matrix, by five Newton-Schulz steps. It needs markedly fewer tokens than AdamW on models of this size.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def _orthogonal(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """Newton-Schulz iteration in `dtype` on [..., rows, columns]: singular values go near 1."""
    a, b, c = _COEFFICIENTS
    wide = matrix.shape[-2] <= matrix.shape[-1]
    x = (matrix if wide else matrix.mT).to(dtype)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide else x.mT).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum with Nesterov's step, orthogonalized, for parameters of two dimensions."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        decay: float = 0.01,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "decay": decay})
        self._dtype = dtype

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                update = _orthogonal(parameter.grad.lerp(momentum, group["momentum"]), self._dtype)
                # Match the size of AdamW's usual step (Moonlight, arXiv:2502.16982), so both share one learning rate.
                scale = 0.2 * max(parameter.shape[-2:]) ** 0.5
                parameter.mul_(1 - group["lr"] * group["decay"]).add_(update, alpha=-group["lr"] * scale)


def optimizers(
    model: nn.Module, lr: float, muon: bool, dtype: torch.dtype = torch.bfloat16
) -> list[torch.optim.Optimizer]:
    """Muon (its iteration in `dtype`) over attention and feed-forward matrices, AdamW over the rest; or AdamW alone."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        matrix = parameter.ndim >= 2 and "embed" not in name and "lm_head" not in name
        (matrices if matrix and muon else others).append(parameter)
    adam = torch.optim.AdamW(others, lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    return [Muon(matrices, lr, dtype=dtype), adam] if muon else [adam]
