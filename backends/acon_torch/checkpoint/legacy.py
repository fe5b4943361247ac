"""The file that PyTorch wrote before 1.6: five pickles one after another, then the bytes of the storages."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import numpy as np

from acon_core.checkpoint.codecs.arrays import little_endian_bytes
from acon_core.checkpoint.codecs.atomic_write import atomic_write
from acon_core.checkpoint.codecs.codec import CheckpointFile, check_writable
from acon_core.checkpoint.codecs.mapped_file import map_file
from acon_core.checkpoint.codecs.numpy_pickle import text_opcode
from acon_core.checkpoint.codecs.text import printable
from acon_core.checkpoint.codecs.unpickler import Pickled, Table, load
from acon_core.errors import CheckpointError
from acon_core.tensors import lazy_items
from acon_torch.checkpoint.pickled import TABLE, TYPED_NAMES, Storage, persistent, state_pickle
from acon_torch.checkpoint.state import read_state

FRAMEWORK = "torch"
SUFFIXES: tuple[str, ...] = ()  # the same as the zip's, which is what PyTorch writes today
IS_DIRECTORY = False
DTYPES = TYPED_NAMES

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_NUMBER = b"\x8a\x0a" + _MAGIC.to_bytes(10, "little")
_SIZES = (
    b"}(" + b"".join(text_opcode(name) + b"K" + bytes([size]) for name, size in (("short", 2), ("int", 4), ("long", 4))) + b"u"
)
_SYSTEM = b"}(" + text_opcode("protocol_version") + b"M\xe9\x03" + text_opcode("little_endian") + b"\x88"
# The magic number, the version of the format, and what the machine was like that wrote it.
_HEADER = b"\x80\x02" + _NUMBER + b".\x80\x02M\xe9\x03.\x80\x02" + _SYSTEM + text_opcode("type_sizes") + _SIZES + b"u."


def sniff(path: Path) -> bool:
    """Whether the content begins with the magic number, which every protocol but the first two writes alike."""
    head = bytes(map_file(path)[:40])
    return (head[:1] == b"\x80" and _NUMBER in head) or head.startswith(b"L%dL\n" % _MAGIC)


def read(path: Path) -> CheckpointFile:
    """Read the tensors of such a file: a state dict, the one in a training checkpoint, or a whole module's.

    Nothing in the pickles is run, and source code in them is skipped. The storages are little-endian, whatever machine wrote
    them. Every byte of the file must belong to something. Raises CheckpointError.
    """
    path = Path(path)
    data = map_file(path)
    if not sniff(path):
        raise CheckpointError("unsupported", f"{path}: not a file of PyTorch before 1.6, which begins with a magic number")
    stream = _Stream(data, path)
    magic, version, system = (stream.pickle(what, {}).value for what in ("magic number", "version", "system"))
    if (magic, version) != (_MAGIC, _VERSION) or type(system) is not dict:
        raise CheckpointError("corrupt", f"{path}: expected version {_VERSION} and a description of the system in the header")
    begin = stream.position
    contents: dict[str, memoryview] = {}

    def pickled(instances: bool) -> Pickled:
        stream.position = begin
        storages: dict[str, Storage] = {}
        found = stream.pickle("state", TABLE, lambda value: _remembered(persistent(value), storages), instances)
        contents.update(stream.contents(storages))
        return found

    return read_state(pickled, contents.__getitem__, path, len(data), False)


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write a bare state dict that `torch.load(weights_only=True)` takes; whole or not at all.

    Every tensor gets a storage of its own. Equal tensors give equal bytes. The format has no place for `metadata`. Raises
    CheckpointError for a dtype that PyTorch does not have, or could not read back from this format.
    """
    check_writable(tensors, path, DTYPES, "PyTorch's format before 1.6")
    lazies = lazy_items(tensors)
    with atomic_write(path) as file:
        file.write(_HEADER + state_pickle(lazies, b"N"))
        file.write(b"\x80\x02](" + b"".join(text_opcode(str(index)) for index in range(len(lazies))) + b"e.")
        for tensor in lazies.values():
            file.write(struct.pack("<q", tensor.nbytes // tensor.dtype.itemsize))
            file.write(little_endian_bytes(tensor.load()))


def _remembered(found: object, storages: dict[str, Storage]) -> object:
    """What a persistent id stands for; the first storage of each key says how large the file's is."""
    if isinstance(found, Storage):
        first = storages.setdefault(found.key, found)
        if found.length * found.itemsize != first.length * first.itemsize:
            raise CheckpointError("corrupt", f"storage {printable(found.key)} has two sizes")
    return found


class _Stream:
    """A file, and how far it was read."""

    def __init__(self, data: memoryview, path: Path) -> None:
        self.data, self.path = data, path
        self.position = 0

    def pickle(
        self, what: str, table: Table, persistent: Callable[[object], object] | None = None, instances: bool = False
    ) -> Pickled:
        """The next pickle."""
        where = f"{self.path}: pickle of the {what}, from byte {self.position}"
        found = load(self.data[self.position :], table, where, persistent, instances=instances)
        self.position += found.end
        return found

    def contents(self, storages: Mapping[str, Storage]) -> dict[str, memoryview]:
        """The bytes of every storage that the state mentions, with which the file must end."""
        keys = self.pickle("storages", {}).value
        if type(keys) is not list or not all(type(key) is str for key in keys) or sorted(keys) != sorted(storages):
            self.corrupt("the storages that follow are not those that the state mentions")
        found = {}
        for key in keys:
            length, size = storages[key].length, storages[key].length * storages[key].itemsize
            stated = int.from_bytes(self.take(8), "little", signed=True)
            if stated != length:
                self.corrupt(f"storage {printable(key)} has {stated} values, expected {length}")
            found[key] = self.take(size)
        if self.position != len(self.data):
            self.corrupt(f"{len(self.data) - self.position} bytes after the last storage; copy or download it again")
        return found

    def take(self, count: int) -> memoryview:
        """The next `count` bytes."""
        if count > len(self.data) - self.position:
            self.corrupt(f"the file ends early: {count} bytes wanted, {len(self.data) - self.position} left")
        self.position += count
        return self.data[self.position - count : self.position]

    def corrupt(self, message: str) -> NoReturn:
        """Raise CheckpointError, naming the file."""
        raise CheckpointError("corrupt", f"{self.path}: {message}")
