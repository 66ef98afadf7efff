"""Hugging Face checkpoints in safetensors: one file or many, read piece by piece. Nothing in them is executed."""

from edgert_quant.checkpoint.folder import Checkpoint
from edgert_quant.checkpoint.safetensors import CheckpointTensor

__all__ = ["Checkpoint", "CheckpointTensor"]
