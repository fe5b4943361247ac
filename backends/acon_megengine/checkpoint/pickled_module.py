"""Tensors and modules in MegEngine's pickles, as `Module.state_dict()` would give them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from acon_core.checkpoint.codecs import limits
from acon_core.checkpoint.codecs.numpy_pickle import PickledArray
from acon_core.checkpoint.codecs.pickle_values import Instance
from acon_core.checkpoint.codecs.pickled_module import ModuleMembers, NameBudget
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensor

# The tensors of these have four axes as attributes and one axis in the state dict.
_NORMS = {
    *(("megengine.module.batchnorm", name) for name in ("BatchNorm1d", "BatchNorm2d", "SyncBatchNorm")),
    *(("megengine.module.normalization", name) for name in ("GroupNorm", "InstanceNorm", "LayerNorm")),
}
# Attributes that tell a user's own subclass of BatchNorm.
_BATCH_NORM = {"num_features", "track_running_stats", "running_mean", "running_var"}


@dataclass(frozen=True, eq=False)
class PickledTensor:
    """A Tensor or Parameter. A bare array among a module's attributes is not part of its state."""

    array: PickledArray
    flat: bool = False

    def to_lazy(self, array: LazyTensor) -> LazyTensor:
        """Return `array`, made of `self.array`, in the shape that it has in the state dict."""
        return flatten(array) if self.flat else array


def flatten(tensor: LazyTensor) -> LazyTensor:
    """Return the same values along one axis."""
    return LazyTensor((math.prod(tensor.shape),), tensor.dtype, lambda: tensor.load().reshape(-1))


def module_members(module: Instance, budget: NameBudget) -> ModuleMembers | None:
    """Return the tensors and child modules that a pickled `Module` has in `state_dict()`.

    Members are sorted by name. Those in lists, tuples and dicts count; what has two names counts
    under the first. Returns None for an instance of another class. Raises CheckpointError for a
    broken module.
    """
    if not is_module(module):
        return None
    state = module.state or {}
    tensors: dict[str, object] = {}
    modules: dict[str, Instance] = {}
    seen = {id(module)}
    is_norm = (module.name.module, module.name.name) in _NORMS or set(state) >= _BATCH_NORM

    def expand(name: str, value: object, depth: int) -> None:
        budget.spend(len(name) + 1)
        if not isinstance(value, PickledTensor | Instance | dict | list | tuple) or id(value) in seen:
            return
        if depth > limits.LIMITS.depth:
            raise CheckpointError("corrupt", f"an attribute of a {module.name} is nested more than {limits.LIMITS.depth} deep")
        seen.add(id(value))
        if name in tensors or name in modules:
            raise CheckpointError("corrupt", f"a {module.name} with two attributes named {name!r:.80}")
        if isinstance(value, PickledTensor):
            tensors[name] = replace(value, flat=is_norm)
        elif isinstance(value, Instance):
            if is_module(value):
                modules[name] = value
        else:
            items = sorted(value.items(), key=_key_text) if isinstance(value, dict) else enumerate(value)
            for key, each in items:
                expand(f"{name}.{key}", each, depth + 1)

    for name, value in sorted(state.items(), key=_key_text):
        expand(str(name), value, 0)
    return ModuleMembers(tensors, modules)


def is_module(instance: Instance) -> bool:
    """Whether an object is a `Module`, by its attributes."""
    state = instance.state or {}
    return type(state.get("_forward_hooks")) is dict and type(state.get("_forward_pre_hooks")) is dict


def _key_text(item: tuple[object, object]) -> str:
    return str(item[0])
