"""A pickled `megengine.module.Module` as its `state_dict()` would be, from its attributes alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from acon_core.checkpoint.codecs import limits
from acon_core.checkpoint.codecs.numpy_pickle import Array
from acon_core.checkpoint.codecs.pickled_module import Parts, Steps
from acon_core.checkpoint.codecs.unpickler import Instance
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensor

# Their tensors have four axes inside of the module and one in its state dict.
_NORMS = {
    *(("megengine.module.batchnorm", name) for name in ("BatchNorm1d", "BatchNorm2d", "SyncBatchNorm")),
    *(("megengine.module.normalization", name) for name in ("GroupNorm", "InstanceNorm", "LayerNorm")),
}
# What a class of the user's own that derives from BatchNorm has too.
_BATCH_NORM = {"num_features", "track_running_stats", "running_mean", "running_var"}


@dataclass(frozen=True, eq=False)
class Tensor:
    """A Tensor or Parameter. Beside it, an array among a module's attributes is an array and no part of the state."""

    array: Array
    flat: bool = False

    def lazy(self, found: LazyTensor) -> LazyTensor:
        """Its array, which was `found` by the array's description, as the state dict has it."""
        return flat(found) if self.flat else found


def flat(tensor: LazyTensor) -> LazyTensor:
    """The same values along one axis."""
    return LazyTensor((math.prod(tensor.shape),), tensor.dtype, lambda: tensor.load().reshape(-1))


def parts(module: Instance, steps: Steps) -> Parts | None:
    """The tensors and modules of one module, by sorted names; none for an instance of something else.

    Lists, tuples and dicts of them count, and what has two names counts under its first. Raises CheckpointError.
    """
    if not _is_module(module):
        return None
    state = module.state or {}
    tensors: dict[str, object] = {}
    modules: dict[str, Instance] = {}
    seen = {id(module)}
    flat = (module.name.module, module.name.name) in _NORMS or set(state) >= _BATCH_NORM

    def expand(name: str, value: object, depth: int) -> None:
        steps.spend(len(name) + 1)
        if not isinstance(value, Tensor | Instance | dict | list | tuple) or id(value) in seen:
            return
        if depth > limits.LIMITS.depth:
            raise CheckpointError("corrupt", f"an attribute of a {module.name} is nested more than {limits.LIMITS.depth} deep")
        seen.add(id(value))
        if name in tensors or name in modules:
            raise CheckpointError("corrupt", f"a {module.name} with two attributes of the name {name!r:.80}")
        if isinstance(value, Tensor):
            tensors[name] = replace(value, flat=flat)
        elif isinstance(value, Instance):
            if _is_module(value):
                modules[name] = value
        else:
            items = sorted(value.items(), key=_text) if isinstance(value, dict) else enumerate(value)
            for key, each in items:
                expand(f"{name}.{key}", each, depth + 1)

    for name, value in sorted(state.items(), key=_text):
        expand(str(name), value, 0)
    return Parts(tensors, modules)


def _is_module(instance: Instance) -> bool:
    state = instance.state or {}
    return type(state.get("_forward_hooks")) is dict and type(state.get("_forward_pre_hooks")) is dict


def _text(item: tuple[object, object]) -> str:
    return str(item[0])
