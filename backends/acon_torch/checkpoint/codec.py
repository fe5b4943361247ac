"""PyTorch's checkpoint file: a zip of one pickle, which says what the tensors are, and their bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from acon_core.checkpoint.codecs import strict_json
from acon_core.checkpoint.codecs.arrays import little_endian_bytes
from acon_core.checkpoint.codecs.atomic_write import atomic_write
from acon_core.checkpoint.codecs.codec import CheckpointFile, check_writable
from acon_core.checkpoint.codecs.mapped_file import contains, map_file
from acon_core.checkpoint.codecs.unpickler import Pickled, load
from acon_core.checkpoint.codecs.zip_archive import Zip, ZipWriter
from acon_core.errors import CheckpointError
from acon_core.tensors import lazy_items
from acon_torch.checkpoint import legacy
from acon_torch.checkpoint.pickled import NAMES, TABLE, persistent, state_pickle
from acon_torch.checkpoint.state import read_state

FRAMEWORK = "torch"
SUFFIXES = (".pth", ".pth.tar", ".pt")
IS_DIRECTORY = False
DTYPES = NAMES
EXTRA_CODECS = {"torch_legacy": legacy}

_METADATA = "acon_metadata.json"
_SAVE = "torch.save({}.state_dict(), 'new.pth')"
_KINDS = {
    "constants.pkl": f"a TorchScript archive; in PyTorch: {_SAVE.format('torch.jit.load(...)')}",
    "models/model.json": f"a torch.export archive; in PyTorch: {_SAVE.format('torch.export.load(...).module()')}",
}
_TAR = (
    "a tar, as PyTorch wrote before 0.1.2; in PyTorch, if you trust the file: "
    "torch.save(torch.load(..., weights_only=False), 'new.pth')"
)
_OTHER = f"not one of torch.save, whose files begin with PK and hold a data.pkl; in PyTorch: {_SAVE.format('model')}"


def sniff(path: Path) -> bool:
    """Whether the content is a zip of PyTorch's, or one of the kinds that `read` refuses by name."""
    data = map_file(path)
    if bytes(data[:4]) == b"PK\3\4":
        return contains(data, b"/data.pkl") or contains(data, b"/data/weights/")
    return bytes(data[257:262]) == b"ustar"


def read(path: Path) -> CheckpointFile:
    """Read the tensors of a file of `torch.save`: a state dict, the one in a training checkpoint, or a whole module's.

    Nothing in the pickle is run. Storages are checked against the zip's checksums, which PyTorch does not do, and views
    against their storages. A prefix such as `module.` stays. Raises CheckpointError; so for TorchScript, torch.export and
    tars, whose message says how to save them again.
    """
    path = Path(path)
    data = map_file(path)
    if bytes(data[:4]) != b"PK\3\4":
        raise CheckpointError("unsupported", f"{path}: {_TAR if bytes(data[257:262]) == b'ustar' else _OTHER}")
    archive = Zip(data, path)
    for name, kind in _KINDS.items():
        if name in archive:
            raise CheckpointError("unsupported", f"{path}: {kind}")
    if "data.pkl" not in archive:
        raise CheckpointError("unsupported", f"{path}: {_OTHER}")
    order = bytes(archive.read("byteorder")) if "byteorder" in archive else b"little"
    if order not in (b"little", b"big"):
        archive.corrupt(f"byteorder is {order[:20]!r}, expected little or big")
    program = archive.read("data.pkl")

    def pickled(instances: bool) -> Pickled:
        found = load(program, TABLE, f"{path}: {archive.root}/data.pkl", persistent, instances=instances)
        if found.end != len(program):
            archive.corrupt("data.pkl goes on after the pickle's end")
        return found

    file = read_state(pickled, lambda key: archive.read(f"data/{key}"), path, len(data), order == b"big")
    if _METADATA in archive:
        file.metadata = strict_json.decode(archive.read(_METADATA), f"{path}: {_METADATA}")
    return file


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write a bare state dict that `torch.load(weights_only=True)` takes, with and without `mmap`; whole or not at all.

    Every tensor gets a storage of its own. Equal arguments give equal bytes. `metadata` is one more member of the zip, which
    PyTorch does not look at. Raises CheckpointError for a dtype that PyTorch does not have.
    """
    check_writable(tensors, path, DTYPES, "PyTorch")
    with atomic_write(path) as file:
        archive = ZipWriter(file)
        lazies = lazy_items(tensors)
        archive.add("data.pkl", state_pickle(lazies))
        archive.add("byteorder", b"little")
        for index, tensor in enumerate(lazies.values()):
            archive.add(f"data/{index}", little_endian_bytes(tensor.load()))
        archive.add("version", b"3\n")
        if metadata:
            archive.add(_METADATA, strict_json.encode(metadata))
        archive.close()
