"""The meaning of the spec: what every node computes, in NumPy float64, forward and back. Frameworks are measured against it."""

from acon_core.reference import gated, layers, pointwise, tokens  # noqa: F401  (register the rules)
from acon_core.reference.core import Gradients, Result, forward

__all__ = ["Gradients", "Result", "forward"]
