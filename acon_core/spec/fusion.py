"""Simplify networks for inference without changing their function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from acon_core.errors import SpecError
from acon_core.spec.acon import MetaAconC
from acon_core.spec.node import Node, Rules, join, named_params
from acon_core.spec.repact import FusedRepAct, RepAct
from acon_core.spec.transforms import rewrite

__all__ = ["fold", "fuse"]

State = Mapping[str, NDArray]
Change = tuple[Node, dict[str, NDArray]]

fuse_rules: Rules[Change] = Rules("fuse")
"""`fuse_rules(layer, state) -> (layer, state)`: a layer of branches in closed form."""
fold_rules: Rules[Change] = Rules("fold")
"""`fold_rules(layer, state) -> (layer, state)`: a layer with its batch norms folded."""


def fuse(node: Node, state: State) -> Change:
    """Replace every RepAct by its closed form, the norm of RepAct III included.

    Parameters
    ----------
    node : Node
        The network.
    state : mapping of str to array
        Its state by path.

    Returns
    -------
    node : Node
        The network with `FusedRepAct` in place of `RepAct`; names stay.
    state : dict of str to array
        Its state, computed in float64 and stored in the old dtypes.

    Raises
    ------
    SpecError
        If there is no RepAct.

    Examples
    --------
    >>> from acon_core import spec
    >>> network = spec.sequential(act=spec.RepAct())
    >>> fused, state = spec.fuse(network, spec.initial_state(network))
    >>> list(state)
    ['act.identity', 'act.relu', 'act.hardswish']
    """
    return _all(node, state, fuse_rules, "RepAct")


def fold(node: Node, state: State) -> Change:
    """Fold the batch norms of every Meta-ACON generator into its convolutions.

    This is exact in evaluation, because the generator is linear up to its sigmoid.

    Parameters
    ----------
    node : Node
        The network.
    state : mapping of str to array
        Its state by path.

    Returns
    -------
    node : Node
        The network with norm "none" in its Meta-ACON layers; names stay.
    state : dict of str to array
        Its state: 2 (hidden + C) parameters and as many statistics fewer per layer.

    Raises
    ------
    SpecError
        If there is no Meta-ACON with batch norms.

    Examples
    --------
    >>> from acon_core import spec
    >>> network = spec.MetaAconC(64)
    >>> folded, state = spec.fold(network, spec.initial_state(network))
    >>> folded.norm
    'none'
    """
    return _all(node, state, fold_rules, "Meta-ACON with norm=batch")


def _all(node: Node, state: State, rules: Rules[Change], wanted: str) -> Change:
    changed, values = change_layers(node, state, rules)
    if changed is node:
        raise SpecError(f"{rules.operation}: nothing to do: the network has no {wanted}")
    return changed, values


def change_layers(node: Node, state: State, rules: Rules[Change]) -> Change:
    """Apply the rules to every layer that has one. Returns the same node if no layer changes."""
    values: dict[str, NDArray] = {}

    def change(path: str, part: Node) -> Node | None:
        if type(part) not in rules:
            return None
        made, own = rules(part, {name: state[join(path, name)] for name in named_params(part)})
        values.update({join(path, name): value for name, value in own.items()})
        return made

    changed = rewrite(node, change)
    return changed, {path: values[path] if path in values else state[path] for path in named_params(changed)}


@fuse_rules.register(RepAct)
def repact(node: RepAct, state: State) -> Change:
    dtype = state["weights"].dtype
    weights, alpha = state["weights"].astype(np.float64), state["alpha"].astype(np.float64)
    if node.variant == 2:
        weights = np.exp(weights - weights.max())
        weights = weights / weights.sum()
    w0, w1, w2, w3 = (weights[i : i + 1] for i in range(4))
    values = {"identity": w0 + alpha * w2, "relu": w1 + (1.0 - alpha) * w2, "hardswish": w3}
    if node.variant == 3:
        mean, variance = state["norm.running_mean"].astype(np.float64), state["norm.running_var"].astype(np.float64)
        gain = state["norm.weight"].astype(np.float64) / np.sqrt(variance + node.graph.members["norm"].eps)  # type: ignore[attr-defined]
        values = {name: gain * value for name, value in values.items()}
        values["shift"] = state["norm.bias"].astype(np.float64) - gain * mean
    return FusedRepAct(shift=node.variant == 3), {name: value.astype(dtype) for name, value in values.items()}


@fold_rules.register(MetaAconC)
def meta_acon(node: MetaAconC, state: State) -> Change:
    if node.level != "channel" or node.norm != "batch":
        return node, dict(state)
    values = {name: state[name] for name in ("p1", "p2")}
    for conv, norm in (("fc1", "bn1"), ("fc2", "bn2")):
        eps = node.graph.members[norm].eps  # type: ignore[attr-defined]
        wide = {name: state[f"{norm}.{name}"].astype(np.float64) for name in ("weight", "bias", "running_mean", "running_var")}
        gain = wide["weight"] / np.sqrt(wide["running_var"] + eps)
        weight, bias = (state[f"{conv}.{name}"] for name in ("weight", "bias"))
        values[f"{conv}.weight"] = (weight * gain[:, None, None, None]).astype(weight.dtype)
        values[f"{conv}.bias"] = ((bias - wide["running_mean"]) * gain + wide["bias"]).astype(bias.dtype)
    return replace(node, norm="none"), values
