"""The state dict in a PyTorch file: bare, inside a training checkpoint, or of a pickled module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from acon_core.checkpoint.codecs.codec import CheckpointFile
from acon_core.checkpoint.codecs.limits import Budget
from acon_core.checkpoint.codecs.pickled_module import ModuleMembers, NameBudget, load_state
from acon_core.checkpoint.codecs.state_dict import find_state_dict
from acon_core.checkpoint.codecs.text import ErrorPrefix
from acon_core.checkpoint.codecs.unpickler import Instance, Unpickled
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensors
from acon_torch.checkpoint.pickled_tensors import PickledTensor


def read_state_dict(
    load: Callable[..., Unpickled],
    storage_bytes: Callable[[str], memoryview],
    path: Path,
    file_bytes: int,
    *,
    big_endian: bool,
) -> CheckpointFile:
    """Return the tensors of the state dict that `load` finds, as views of their storages.

    `load` is as for `load_state`; `storage_bytes` returns the bytes of a storage by its key. Raises
    CheckpointError naming file and tensor.
    """
    unpickled, notes = load_state(load, module_members, path)
    values, more_notes = find_state_dict(unpickled.value, lambda value: type(value) is PickledTensor, path)
    budget = Budget(file_bytes)
    pickled = {key: tensor for key, tensor in values.items() if isinstance(tensor, PickledTensor)}
    storages = {key: storage_bytes(key) for key in dict.fromkeys(tensor.storage.key for tensor in pickled.values())}
    tensors = {}
    for key, tensor in pickled.items():
        with ErrorPrefix(path, key):
            tensors[key] = tensor.to_lazy(storages[tensor.storage.key], budget, big_endian=big_endian)
    return CheckpointFile(
        LazyTensors(tensors),
        notes=[*notes, *more_notes],
        globals_seen=unpickled.globals_seen,
        foreign_globals=unpickled.foreign_globals,
    )


def module_members(module: Instance, budget: NameBudget) -> ModuleMembers | None:
    """Return the tensors and child modules that a pickled `nn.Module` has in `state_dict()`.

    Returns None for an instance of another class. Raises CheckpointError for a broken module.
    """
    state = module.state or {}
    parameters, buffers, modules = (state.get(key) for key in ("_parameters", "_buffers", "_modules"))
    if not (isinstance(parameters, dict) and isinstance(buffers, dict) and isinstance(modules, dict)):
        return None
    non_persistent = state.get("_non_persistent_buffers_set", [])
    if type(non_persistent) not in (list, tuple):
        raise CheckpointError(
            "corrupt",
            f"expected a set as _non_persistent_buffers_set of a {module.name}, found a {type(non_persistent).__name__}",
        )
    budget.spend(sum(map(len, (parameters, buffers, modules, non_persistent))))
    if not all(type(name) is str for names in (parameters, buffers, modules, non_persistent) for name in names):
        raise CheckpointError("corrupt", f"a {module.name} with a tensor or module whose name is not text")
    left_out = set(non_persistent)
    tensors = parameters | {name: buffer for name, buffer in buffers.items() if name not in left_out}
    if not all(tensor is None or type(tensor) is PickledTensor for tensor in tensors.values()):
        raise CheckpointError("unsupported", f"a {module.name} with a parameter or buffer that is not a tensor")
    if not all(child is None or type(child) is Instance for child in modules.values()):
        raise CheckpointError("corrupt", f"a {module.name} with a child that is not a module")
    return ModuleMembers(
        {name: tensor for name, tensor in tensors.items() if tensor is not None},
        {name: child for name, child in modules.items() if child is not None},
    )
