"""Layers that are stacked for `nnx.scan` and `nnx.vmap`, and what a module holds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from acon_core import spec
from acon_core.errors import AconError
from acon_core.surgery import Layers
from acon_jax.arrays import precision


@dataclass(frozen=True, eq=False)
class Held:
    """A function that a module holds as an attribute, `self.act = nnx.relu`: also a site."""

    owner: nnx.Module
    name: str
    function: Callable[..., Any]


def variables(module: nnx.Module) -> Iterator[tuple[str, Any]]:
    """All variables of a module by dotted path, random streams apart."""
    for path, variable in nnx.to_flat_state(nnx.state(module, nnx.Not(nnx.RngState))):
        yield ".".join(map(str, path)), variable


def stacked_layers(sites: Mapping[str, Any], inner: Mapping[str, list[spec.Shape]]) -> dict[str, Layers]:
    """Return the layers of every site that a scan or vmap divides, by the shapes inside it.

    A site without variables is divided as the module is that holds it, or else as others in that.
    """
    shapes = {path: [variable.shape for _, variable in variables(sites[path])] for path in inner}
    calls = {path: (outside[0], inside[0]) for path, inside in inner.items() if (outside := shapes[path])}
    found = {}
    for path, site in sites.items():
        holder = path.rpartition(".")[0]
        near = [path, holder, *(other for other in calls if other.startswith(f"{holder}." if holder else ""))]
        whole, part = next((calls[other] for other in near if other in calls), ((), ()))
        if whole != part:
            leading = whole[: len(whole) - len(part)]
            found[path] = Layers(
                partial(_unstacked, path, site, (*leading, *part) == whole, leading), partial(_stacked, leading)
            )
    return found


def _unstacked(path: str, site: Any, in_front: bool, leading: spec.Shape) -> list[Any]:
    if not in_front:
        raise AconError(f"replace_activations: {path}: expected layers that are stacked along the first axis, found another")
    if isinstance(site, Held):
        return [site] * math.prod(leading)
    graphdef, state = nnx.split(site)
    return [nnx.merge(graphdef, jax.tree.map(itemgetter(index), state)) for index in np.ndindex(leading)]


def _stacked(leading: spec.Shape, made: Sequence[nnx.Module]) -> nnx.Module:
    graphdef, states = nnx.split(made[0])[0], [nnx.state(each) for each in made]

    def stack(*values: jax.Array) -> jax.Array:
        with precision(values[0].dtype):
            return jnp.stack(values).reshape(*leading, *values[0].shape)

    return nnx.merge(graphdef, jax.tree.map(stack, *states))
