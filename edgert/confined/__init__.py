"""Work that others' programs do (chat templates, grammars), in processes that may be killed."""

from edgert.confined.process import ConfinedProcess

__all__ = ["ConfinedProcess"]
