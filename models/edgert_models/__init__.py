"""What a model is: specification, operations, plan, architectures and the error tree. Standard library only."""

from edgert_models.graph import Cache, Graph, Plan, Role, Weight
from edgert_models.registry import all_architectures, build_plan, spec_from_config, spec_from_gguf
from edgert_models.spec import ModelSpec

__all__ = [
    "Cache",
    "Graph",
    "ModelSpec",
    "Plan",
    "Role",
    "Weight",
    "all_architectures",
    "build_plan",
    "spec_from_config",
    "spec_from_gguf",
]
