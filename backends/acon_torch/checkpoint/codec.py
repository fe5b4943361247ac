"""PyTorch's checkpoint file: a zip with a pickle that describes the tensors, and their storages."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from acon_core.checkpoint.codecs.arrays import little_endian_bytes
from acon_core.checkpoint.codecs.atomic_write import atomic_write
from acon_core.checkpoint.codecs.codec import CheckpointFile, check_writable
from acon_core.checkpoint.codecs.mapped_file import ends_contain, map_file
from acon_core.checkpoint.codecs.strict_json import decode_metadata, encode_metadata
from acon_core.checkpoint.codecs.unpickler import load
from acon_core.checkpoint.codecs.zip_archive import ZipArchive, ZipWriter
from acon_core.errors import CheckpointError
from acon_core.tensors import lazy_items
from acon_torch.checkpoint import legacy
from acon_torch.checkpoint.pickled_module import read_state_dict
from acon_torch.checkpoint.pickled_tensors import DTYPES as DTYPES
from acon_torch.checkpoint.pickled_tensors import TORCH_GLOBALS, encode_state_dict, persistent_load

FRAMEWORK = "torch"
SUFFIXES = (".pth", ".pth.tar", ".pt")
IS_DIRECTORY = False
EXTRA_CODECS = {"torch_legacy": legacy}

_METADATA = "acon_metadata.json"
_SAVE = "torch.save({}.state_dict(), 'new.pth')"
_OTHER_ARCHIVES = {
    "constants.pkl": f"a TorchScript archive; in PyTorch: {_SAVE.format('torch.jit.load(...)')}",
    "models/model.json": f"a torch.export archive; in PyTorch: {_SAVE.format('torch.export.load(...).module()')}",
}
_TAR = (
    "a tar, as PyTorch wrote before 0.1.2; in PyTorch, if you trust the file: "
    "torch.save(torch.load(..., weights_only=False), 'new.pth')"
)
_NOT_TORCH_SAVE = f"not a file of torch.save, which begins with PK and contains data.pkl; in PyTorch: {_SAVE.format('model')}"


def sniff(path: Path) -> bool:
    """Whether the file is a zip of PyTorch, or of another kind that `read` refuses by name."""
    data = map_file(path)
    if bytes(data[:4]) == b"PK\3\4":
        return ends_contain(data, b"/data.pkl") or ends_contain(data, b"/data/weights/")
    return bytes(data[257:262]) == b"ustar"


def read(path: Path, key: str = "") -> CheckpointFile:
    """Read a file of `torch.save`: a state dict, a training checkpoint, or a whole module.

    Nothing in the pickle is executed. The zip's checksums are verified, which PyTorch does not do,
    and views are checked against their storages. A prefix such as `module.` stays. Raises
    CheckpointError; for TorchScript, torch.export and tar files, the message says how to save them
    again.
    """
    path = Path(path)
    data = map_file(path)
    if bytes(data[:4]) != b"PK\3\4":
        raise CheckpointError("unsupported", f"{path}: {_TAR if bytes(data[257:262]) == b'ustar' else _NOT_TORCH_SAVE}")
    archive = ZipArchive(data, path)
    for name, kind in _OTHER_ARCHIVES.items():
        if name in archive:
            raise CheckpointError("unsupported", f"{path}: {kind}")
    if "data.pkl" not in archive:
        raise CheckpointError("unsupported", f"{path}: {_NOT_TORCH_SAVE}")
    order = bytes(archive.read("byteorder")) if "byteorder" in archive else b"little"
    if order not in (b"little", b"big"):
        archive.corrupt(f"expected byteorder little or big, found {order[:20]!r}")
    where = f"{path}: {archive.root}/data.pkl"
    unpickle = partial(load, archive.read("data.pkl"), TORCH_GLOBALS, where, persistent_load)
    big_endian = order == b"big"
    file = read_state_dict(unpickle, lambda name: archive.read(f"data/{name}"), path, key, len(data), big_endian=big_endian)
    if _METADATA in archive:
        file.metadata = decode_metadata(archive.read(_METADATA), f"{path}: {_METADATA}")
    return file


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write a state dict that `torch.load(weights_only=True)` reads; completely or not at all.

    Every tensor has its own storage. Equal arguments give equal bytes. `metadata` is a member of
    the zip that PyTorch ignores. Raises CheckpointError for a dtype that PyTorch does not have.
    """
    check_writable(tensors, path, DTYPES, "PyTorch")
    with atomic_write(path) as file:
        archive = ZipWriter(file)
        lazies = lazy_items(tensors)
        archive.add("data.pkl", encode_state_dict(lazies))
        archive.add("byteorder", b"little")
        for index, tensor in enumerate(lazies.values()):
            archive.add(f"data/{index}", little_endian_bytes(tensor.load()))
        archive.add("version", b"3\n")
        if metadata:
            archive.add(_METADATA, encode_metadata(metadata))
        archive.close()
