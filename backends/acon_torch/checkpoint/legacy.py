"""PyTorch's format before 1.6: five pickles, then the storages."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NoReturn

import numpy as np

from acon_core.checkpoint.codecs.arrays import little_endian_bytes
from acon_core.checkpoint.codecs.atomic_write import atomic_write
from acon_core.checkpoint.codecs.codec import CheckpointFile, check_writable
from acon_core.checkpoint.codecs.mapped_file import map_file
from acon_core.checkpoint.codecs.numpy_pickle import text_opcode
from acon_core.checkpoint.codecs.pickle_values import GlobalTable, PersistentLoad
from acon_core.checkpoint.codecs.text import printable
from acon_core.checkpoint.codecs.unpickler import Unpickled, load
from acon_core.errors import CheckpointError
from acon_core.tensors import lazy_items
from acon_torch.checkpoint.pickled_module import read_state_dict
from acon_torch.checkpoint.pickled_tensors import TORCH_GLOBALS, Storage, encode_state_dict, persistent_load
from acon_torch.checkpoint.pickled_tensors import TYPED_DTYPES as DTYPES

FRAMEWORK = "torch"
SUFFIXES: tuple[str, ...] = ()  # the zip format has the same ones
IS_DIRECTORY = False

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_NUMBER = b"\x8a\x0a" + _MAGIC.to_bytes(10, "little")
_SIZES = (
    b"}(" + b"".join(text_opcode(name) + b"K" + bytes([size]) for name, size in (("short", 2), ("int", 4), ("long", 4))) + b"u"
)
_SYSTEM = b"}(" + text_opcode("protocol_version") + b"M\xe9\x03" + text_opcode("little_endian") + b"\x88"
# The magic number, the format version, and a description of the machine.
_HEADER = b"\x80\x02" + _NUMBER + b".\x80\x02M\xe9\x03.\x80\x02" + _SYSTEM + text_opcode("type_sizes") + _SIZES + b"u."


def sniff(path: Path) -> bool:
    """Whether the file begins with the magic number, in pickle protocol 0 or from 2 on."""
    head = bytes(map_file(path)[:40])
    return (head[:1] == b"\x80" and _NUMBER in head) or head.startswith(b"L%dL\n" % _MAGIC)


def read(path: Path, key: str = "") -> CheckpointFile:
    """Read a file of PyTorch before 1.6: a state dict, a training checkpoint, or a whole module.

    Nothing in the pickles is executed; source code in them is ignored. Storages are always
    little-endian. The file must not have unused bytes. Raises CheckpointError.
    """
    path = Path(path)
    data = map_file(path)
    if not sniff(path):
        raise CheckpointError("unsupported", f"{path}: not a file of PyTorch before 1.6: the magic number is missing")
    stream = _Stream(data, path)
    magic, version, system = (stream.pickle(what, {}).value for what in ("magic number", "version", "system"))
    if (magic, version) != (_MAGIC, _VERSION) or type(system) is not dict:
        raise CheckpointError("corrupt", f"{path}: expected version {_VERSION} and a description of the system in the header")
    begin = stream.position
    storages: dict[str, Storage] = {}
    keys: list[str] = []

    def unpickle(allow_foreign: bool) -> Unpickled:
        stream.position = begin
        storages.clear()
        unpickled = stream.pickle(
            "state", TORCH_GLOBALS, lambda value: _register(persistent_load(value), storages), allow_foreign
        )
        keys[:] = stream.storage_keys(storages)
        return unpickled

    @cache  # the sizes are wrong where a tensor is of an unsupported dtype, and that error comes first
    def contents() -> dict[str, memoryview]:
        return stream.storages(keys, storages)

    return read_state_dict(unpickle, lambda name: contents()[name], path, key, len(data), big_endian=False)


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write a state dict that `torch.load(weights_only=True)` reads; completely or not at all.

    Every tensor has its own storage. Equal tensors give equal bytes. `metadata` is ignored: the
    format cannot store it. Raises CheckpointError for a dtype that PyTorch could not read back.
    """
    check_writable(tensors, path, DTYPES, "PyTorch's format before 1.6")
    lazies = lazy_items(tensors)
    with atomic_write(path) as file:
        file.write(_HEADER + encode_state_dict(lazies, b"N"))
        file.write(b"\x80\x02](" + b"".join(text_opcode(str(index)) for index in range(len(lazies))) + b"e.")
        for tensor in lazies.values():
            file.write(struct.pack("<q", tensor.nbytes // tensor.dtype.itemsize))
            file.write(little_endian_bytes(tensor.load()))


def _register(value: object, storages: dict[str, Storage]) -> object:
    """Add a storage to `storages`, unless its key is there already, with the same size."""
    if isinstance(value, Storage):
        first = storages.setdefault(value.key, value)
        if value.length * value.itemsize != first.length * first.itemsize:
            raise CheckpointError("corrupt", f"storage {printable(value.key)} has two sizes")
    return value


class _Stream:
    """A file and a position in it."""

    def __init__(self, data: memoryview, path: Path) -> None:
        self.data, self.path = data, path
        self.position = 0

    def pickle(
        self,
        what: str,
        table: GlobalTable,
        persistent_load: PersistentLoad | None = None,
        allow_foreign: bool = False,
    ) -> Unpickled:
        """Read the next pickle."""
        where = f"{self.path}: pickle of the {what}, from byte {self.position}"
        unpickled = load(
            self.data[self.position :], table, where, persistent_load, allow_foreign=allow_foreign, allow_more=True
        )
        self.position += unpickled.end
        return unpickled

    def storage_keys(self, storages: Mapping[str, Storage]) -> list[str]:
        """Read the keys of all storages that the state refers to, in the order of the file."""
        keys = self.pickle("storages", {}).value
        if type(keys) is not list or not all(type(key) is str for key in keys) or sorted(keys) != sorted(storages):
            self.corrupt("the file's storages are not those that the state refers to")
        return keys

    def storages(self, keys: Sequence[str], storages: Mapping[str, Storage]) -> dict[str, memoryview]:
        """Read the bytes of all storages, up to the end of the file."""
        contents = {}
        for key in keys:
            length, size = storages[key].length, storages[key].length * storages[key].itemsize
            stated = int.from_bytes(self.take(8), "little", signed=True)
            if stated != length:
                self.corrupt(f"storage {printable(key)} has {stated} values, expected {length}")
            contents[key] = self.take(size)
        if self.position != len(self.data):
            self.corrupt(f"{len(self.data) - self.position} bytes after the last storage; copy or download it again")
        return contents

    def take(self, count: int) -> memoryview:
        """Return the next `count` bytes."""
        if count > len(self.data) - self.position:
            self.corrupt(f"the file ends early: expected {count} more bytes, found {len(self.data) - self.position}")
        self.position += count
        return self.data[self.position - count : self.position]

    def corrupt(self, message: str) -> NoReturn:
        """Raise CheckpointError, naming the file."""
        raise CheckpointError("corrupt", f"{self.path}: {message}")
