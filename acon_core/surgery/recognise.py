"""Find out by its values which activation a module computes."""

from __future__ import annotations

from typing import Any

import numpy as np

from acon_core import spec
from acon_core.spec import Node, Shape
from acon_core.surgery.modules import Modules

# In this order: an earlier one wins where two agree to the tolerance.
CANDIDATES: tuple[Node, ...] = (
    spec.ReLU(), spec.ReLU6(), spec.SiLU(), spec.GELU(), spec.GELU("tanh"), spec.HardSwish(), spec.Mish(), spec.ELU(),
    spec.SELU(), spec.Softplus(), spec.HardSigmoid(), spec.Sigmoid(), spec.LeakyReLU(), spec.LeakyReLU(0.1),
    spec.LeakyReLU(0.2),
)  # fmt: skip
TOLERANCE = 1e-5


def recognise(modules: Modules, module: Any, model: Any, shape: Shape) -> Node | None:
    """Return the activation that a module without parameters computes; None if it is none.

    Parameters
    ----------
    modules : Modules
        Access to the framework's modules.
    module : Any
        The module.
    model : Any
        The model that it is in.
    shape : Shape
        A shape of inputs that it takes.

    Returns
    -------
    Node or None
        The identity is none: too much else is the identity in evaluation.
    """
    size = int(np.prod(shape))
    # Not in order, so that what depends on the place shows.
    values = np.linspace(-9.0, 9.0, 361)[np.arange(361) * 100 % 361]
    x = np.resize(values, size).reshape(shape).astype(np.float32)
    y = np.asarray(modules.run(module, x), np.float64)
    if y.shape != x.shape or not size or not np.isfinite(y).all():
        return None
    for node in CANDIDATES:
        ours = modules.run(modules.make(node, spec.initial_state(node), model, model), x)
        if np.abs(y - ours).max() <= TOLERANCE * (1 + np.abs(y).max()):
            return node
    return None
