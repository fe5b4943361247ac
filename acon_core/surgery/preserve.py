"""Parameters with which a new activation starts as the function of an old one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acon_core import spec
from acon_core.spec import Node

# The maximum of x sigmoid(-x). x sigmoid(beta x) differs from max(x, 0) by this / beta at most.
SHORT_OF_RELU = 0.278464542761074


@dataclass(frozen=True)
class Preserved:
    """Values that replace initial ones, and the largest |difference| that remains, 0 if exact."""

    values: dict[str, NDArray]
    bound: float = 0.0


def preserve(old: Node, old_state: Mapping[str, NDArray], new: Node, beta: float) -> Preserved | None:
    """Find values with which `new` starts as the function of `old`; None if there are none.

    Exact: SiLU, Swish and ACON-A to the ACONs and Swish; identity, ReLU, leaky ReLU, PReLU and
    HardSwish to RepAct I, its closed form and, in evaluation, RepAct III; two slopes to PReLU.
    To 0.2785 / beta: two slopes to ACON-A, B, C.
    """
    gate, negative = _gate(old, old_state), _negative(old, old_state)
    if any(values is not None and values.size > 1 and not _same_channels(old, new) for values in (gate, negative)):
        return None
    if isinstance(new, spec.AconA | spec.AconB | spec.AconC):
        return _into_acon(gate, negative, new, beta)
    if isinstance(new, spec.Swish):
        return Preserved({"weight": gate}) if gate is not None and gate.size == 1 else None
    if isinstance(new, spec.PReLU):
        if negative is None or (new.shared and negative.size > 1):
            return None
        return Preserved({"weight": np.broadcast_to(negative, (1 if new.shared else new.width,))})
    if isinstance(new, spec.RepAct | spec.FusedRepAct):
        return _into_repact(old, negative, new)
    return None


def _same_channels(old: Node, new: Node) -> bool:
    """Return whether both have as many channels, at the same axis."""
    pair = [each for each in (old, new) if isinstance(each, spec.ChannelwiseActivation)]
    return len(pair) == 2 and pair[0].channel_axis == pair[1].channel_axis and pair[0].channels == pair[1].channels


def _gate(old: Node, state: Mapping[str, NDArray]) -> NDArray | None:
    """Return beta if the old activation is x sigmoid(beta x)."""
    if isinstance(old, spec.SiLU):
        return np.ones(1)
    if isinstance(old, spec.Swish):
        return state["weight"]
    return state["beta"].reshape(-1) if isinstance(old, spec.AconA) else None


def _negative(old: Node, state: Mapping[str, NDArray]) -> NDArray | None:
    """Return the slope below 0 if the old activation is x above 0."""
    if isinstance(old, spec.LeakyReLU):
        return np.array([old.slope])
    if isinstance(old, spec.PReLU):
        return state["weight"]
    if isinstance(old, spec.ReLU | spec.Identity):
        return np.array([float(isinstance(old, spec.Identity))])
    return None


def _into_acon(
    gate: NDArray | None, negative: NDArray | None, new: spec.AconA | spec.AconB | spec.AconC, beta: float
) -> Preserved | None:
    shape = new.params["beta"].shape
    if any(values is not None and values.size > shape[1] for values in (gate, negative)):
        return None

    def filled(value: NDArray | float) -> NDArray:
        return np.broadcast_to(np.reshape(value, (1, -1, 1, 1)), shape)

    if gate is not None:
        values, bound = {"p1": filled(1.0), "p2": filled(0.0), "beta": filled(gate)}, 0.0
    elif negative is not None and (not isinstance(new, spec.AconA) or not negative.any()):
        # With a slope above 1, the smaller of the two lines is the function: a minimum, which beta
        # below 0 makes.
        values = {"p1": filled(1.0), "p2": filled(negative), "beta": filled(np.where(negative > 1.0, -beta, beta))}
        bound = 0.0 if (negative == 1.0).all() else SHORT_OF_RELU / beta
    else:
        return None
    return Preserved({name: value for name, value in values.items() if name in new.params}, bound)


def _into_repact(old: Node, negative: NDArray | None, new: spec.RepAct | spec.FusedRepAct) -> Preserved | None:
    if isinstance(old, spec.HardSwish):
        branches, alpha = [0.0, 0.0, 0.0, 1.0], np.array([0.25])
    elif isinstance(old, spec.Identity):
        branches, alpha = [1.0, 0.0, 0.0, 0.0], np.array([0.25])
    elif isinstance(old, spec.ReLU):
        branches, alpha = [0.0, 1.0, 0.0, 0.0], np.array([0.25])
    elif negative is not None and negative.size == 1:
        branches, alpha = [0.0, 0.0, 1.0, 0.0], negative
    else:
        return None
    state: dict[str, NDArray] = {"weights": np.array(branches), "alpha": alpha}
    if isinstance(new, spec.FusedRepAct):
        closed = dict(spec.fuse(spec.RepAct(), state)[1])
        return Preserved(closed | ({"shift": np.zeros(1)} if new.shift else {}))
    if new.variant == 2:  # a softmax has no weights of 0
        return None
    if new.variant == 3:  # its norm starts with mean 0 and variance 1, to which eps is added
        state["norm.weight"] = np.sqrt([1.0 + new.graph.members["norm"].eps])  # type: ignore[attr-defined]
    return Preserved(state)
