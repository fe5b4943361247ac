"""The state dict in a PyTorch file: bare, inside a training checkpoint, or of a pickled module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from acon_core.checkpoint.codecs.codec import CheckpointFile
from acon_core.checkpoint.codecs.limits import Budget
from acon_core.checkpoint.codecs.pickle_values import Instance
from acon_core.checkpoint.codecs.pickled_module import ModuleMembers, NameBudget, load_state
from acon_core.checkpoint.codecs.text import ErrorPrefix, printable
from acon_core.checkpoint.codecs.unpickler import Unpickled
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensors
from acon_torch.checkpoint.pickled_tensors import PickledTensor, UnsupportedTensor


def read_state_dict(
    load: Callable[..., Unpickled],
    storage_bytes: Callable[[str], memoryview],
    path: Path,
    key: str,
    file_bytes: int,
    *,
    big_endian: bool,
) -> CheckpointFile:
    """Return the tensors of the state dict that `load` finds, as views of their storages.

    `load` and `key` are as for `load_state`; `storage_bytes` returns the bytes of a storage by its
    key. Raises CheckpointError naming file and tensor.
    """

    def explain(unpickled: Unpickled) -> CheckpointError | None:
        quantized = next((name for name in unpickled.foreign_globals if ".quantized." in name), None)
        return _quantized(path, quantized) if quantized else None

    found = load_state(load, path, key, _is_tensor, is_module, module_members, explain)
    budget = Budget(file_bytes)
    for name, value in found.tensors.items():
        if "_packed_params" in name.split("."):
            raise _quantized(path, name)
        if isinstance(value, UnsupportedTensor):
            raise CheckpointError("unsupported", f"{path}: {printable(name)}: {value.message}")
    pickled = {name: tensor for name, tensor in found.tensors.items() if isinstance(tensor, PickledTensor)}
    storages = {key: storage_bytes(key) for key in dict.fromkeys(tensor.storage.key for tensor in pickled.values())}
    tensors = {}
    for key, tensor in pickled.items():
        with ErrorPrefix(path, key):
            tensors[key] = tensor.to_lazy(storages[tensor.storage.key], budget, big_endian=big_endian)
    return CheckpointFile(
        LazyTensors(tensors),
        notes=found.notes,
        globals_seen=found.unpickled.globals_seen,
        foreign_globals=found.unpickled.foreign_globals,
        place=found.place,
    )


def _is_tensor(value: object) -> bool:
    """Whether a value is a tensor, or a tuple of them, as a quantized layer packs its weight."""
    if type(value) is tuple:
        return any(type(each) is UnsupportedTensor for each in value)
    return type(value) in (PickledTensor, UnsupportedTensor)


def _quantized(path: Path, where: str) -> CheckpointError:
    return CheckpointError(
        "unsupported",
        f"{path}: a model after dynamic quantization (quantize_dynamic) or static quantization, whose weights are packed "
        f"integers ({printable(where)}); in PyTorch: save the state_dict() that the float model had before",
    )


def is_module(instance: Instance) -> bool:
    """Whether an object is an `nn.Module`, by its attributes."""
    state = instance.state or {}
    return all(isinstance(state.get(name), dict) for name in ("_parameters", "_buffers", "_modules"))


def module_members(module: Instance, budget: NameBudget) -> ModuleMembers | None:
    """Return the tensors and child modules that a pickled `nn.Module` has in `state_dict()`.

    Returns None for an instance of another class. Raises CheckpointError for a broken module.
    """
    if not is_module(module):
        return None
    state = module.state or {}
    parameters, buffers, modules = (state[key] for key in ("_parameters", "_buffers", "_modules"))
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
    if not all(tensor is None or type(tensor) in (PickledTensor, UnsupportedTensor) for tensor in tensors.values()):
        raise CheckpointError("unsupported", f"a {module.name} with a parameter or buffer that is not a tensor")
    if not all(child is None or type(child) is Instance for child in modules.values()):
        raise CheckpointError("corrupt", f"a {module.name} with a child that is not a module")
    return ModuleMembers(
        {name: tensor for name, tensor in tensors.items() if tensor is not None},
        {name: child for name, child in modules.items() if child is not None},
    )
