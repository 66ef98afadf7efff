"""A plan run op by op over many whole sequences at once, in NumPy: what calibration and tuning need.

Each weight is read once for all tokens, so a model far larger than memory can be walked through; what enters every
matrix can be observed; and derivatives of a loss by every weight can be had. There is no cache: sequences are whole.
"""

from edgert_runtimes.layerwise.floats import Floats
from edgert_runtimes.layerwise.run import Layerwise, Observer, Sink
from edgert_runtimes.layerwise.sequences import Sequences

__all__ = ["Floats", "Layerwise", "Observer", "Sequences", "Sink"]
