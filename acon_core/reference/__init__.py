"""The definition of what every node computes, forward and backward, in NumPy float64.

The backends are tested against it.
"""

from acon_core.reference import gated, layers, pointwise, tokens  # noqa: F401  (registers the rules)
from acon_core.reference.core import Gradients, Result, forward

__all__ = ["Gradients", "Result", "forward"]
