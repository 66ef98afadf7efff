"""Choosing tokens on the device."""

from __future__ import annotations

from edgert_runtimes.cuda.kernels.kernel import Kernel


def argmax() -> Kernel:
    """tokens [rows]: the lowest index of the largest of logits [rows, vocabulary]; certain [rows]: the same, but -1
    where that is not finite.
    """
    return Kernel(
        name="argmax",
        header="sample.cuh",
        call="argmax",
        signature="const float *logits, int *tokens, int *certain, int rows, int vocabulary",
        threads=1024,
        blocks=lambda a: a["rows"],
    )


def sample() -> Kernel:
    """tokens [rows] drawn from logits [rows, vocabulary] as `Draw` says, each of its fields an array [rows]; certain
    [rows]: the same, but -1 where exact arithmetic might give another, or the largest logit is not finite.
    """
    return Kernel(
        name="sample",
        header="sample.cuh",
        call="sample",
        signature="const float *logits, const float *temperatures, const int *top_ks, const float *top_ps, "
        "const float *min_ps, const double *numbers, int *tokens, int *certain, int rows, int vocabulary",
        threads=1024,
        blocks=lambda a: a["rows"],
    )
