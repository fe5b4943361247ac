"""The state dict in what a file of PyTorch's holds: bare, inside of a training checkpoint, or that of a whole module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from acon_core.checkpoint.codecs.codec import CheckpointFile
from acon_core.checkpoint.codecs.limits import Budget
from acon_core.checkpoint.codecs.pickled_module import Parts, Steps, load_state
from acon_core.checkpoint.codecs.state_dict import find_state
from acon_core.checkpoint.codecs.text import printable
from acon_core.checkpoint.codecs.unpickler import Instance, Pickled
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensors
from acon_torch.checkpoint.pickled import Tensor


def read_state(
    load: Callable[[bool], Pickled],
    contents: Callable[[str], memoryview],
    path: Path,
    size: int,
    big: bool,
) -> CheckpointFile:
    """The tensors of the state dict in what `load` reads, as views of their storages; a whole module is one too.

    `load` is `modules.load_state`'s; `contents` gives the bytes of a storage by its key; `size`: of the file, in bytes.
    Raises CheckpointError, naming file and tensor.
    """
    pickled, notes = load_state(load, _parts, path)
    values, more = find_state(pickled.value, lambda value: type(value) is Tensor, path)
    budget = Budget(size)
    found = {key: tensor for key, tensor in values.items() if isinstance(tensor, Tensor)}  # which all are
    storages = {key: contents(key) for key in dict.fromkeys(tensor.storage.key for tensor in found.values())}
    tensors = {}
    for key, tensor in found.items():
        try:
            tensors[key] = tensor.lazy(storages[tensor.storage.key], big, budget)
        except CheckpointError as error:
            raise CheckpointError(error.kind, f"{path}: {printable(key)}: {error}") from None
    return CheckpointFile(
        LazyTensors(tensors), notes=[*notes, *more], globals_seen=pickled.globals_seen, foreign=pickled.foreign
    )


def _parts(module: Instance, steps: Steps) -> Parts | None:
    """The tensors and modules of one module; none for an instance of something else. Raises CheckpointError."""
    state = module.state or {}
    parameters, buffers, modules = (state.get(key) for key in ("_parameters", "_buffers", "_modules"))
    if not (isinstance(parameters, dict) and isinstance(buffers, dict) and isinstance(modules, dict)):
        return None
    passing = state.get("_non_persistent_buffers_set", [])
    if type(passing) not in (list, tuple):
        raise CheckpointError("corrupt", f"a {module.name} whose _non_persistent_buffers_set is a {type(passing).__name__}")
    steps.spend(sum(map(len, (parameters, buffers, modules, passing))))
    if not all(type(name) is str for names in (parameters, buffers, modules, passing) for name in names):
        raise CheckpointError("corrupt", f"a {module.name} with a tensor or module whose name is not text")
    left_out = set(passing)
    tensors = parameters | {name: buffer for name, buffer in buffers.items() if name not in left_out}
    if not all(tensor is None or type(tensor) is Tensor for tensor in tensors.values()):
        raise CheckpointError("unsupported", f"a {module.name} with a parameter or buffer that is not a tensor")
    if not all(child is None or type(child) is Instance for child in modules.values()):
        raise CheckpointError("corrupt", f"a {module.name} with a module inside of it that is none")
    return Parts(
        {name: tensor for name, tensor in tensors.items() if tensor is not None},
        {name: child for name, child in modules.items() if child is not None},
    )
