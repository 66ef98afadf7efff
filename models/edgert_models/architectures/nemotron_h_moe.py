"""Nemotron-H with experts, as files call it; checkpoints are of the class of `nemotron_h`."""

from __future__ import annotations

from dataclasses import replace

from edgert_models.architectures import nemotron_h
from edgert_models.llama_cpp import LlamaCpp
from edgert_models.router import Router

ARCHITECTURE = replace(
    nemotron_h.ARCHITECTURE,
    name="nemotron_h_moe",
    title="Nemotron-H with experts, Nemotron 3",
    hf_classes=(),
    router=Router(scoring="sigmoid", epsilon=1e-20, bias=True),
    llama_cpp=LlamaCpp(dense_layers="any"),
    notes="",
)
