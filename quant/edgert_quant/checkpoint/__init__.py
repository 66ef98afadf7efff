"""Hugging Face checkpoints in safetensors: one file or many, read piece by piece. Nothing in them is executed."""

from edgert_quant.checkpoint.folder import Checkpoint
from edgert_quant.checkpoint.methods import method_of, open_views
from edgert_quant.checkpoint.safetensors import CheckpointTensor
from edgert_quant.checkpoint.views import View

__all__ = ["Checkpoint", "CheckpointTensor", "View", "method_of", "open_views"]
