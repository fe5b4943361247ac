"""OCDBT, the store of keys that Orbax keeps its arrays in: a manifest, which names a tree of nodes, which name their values.

The nodes and the large values lie in data files; a value is where it was put, or in the node where it is small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from acon_core.checkpoint.codecs import limits
from acon_core.checkpoint.codecs.limits import Budget
from acon_core.errors import CheckpointError
from acon_jax.checkpoint.codecs import crc32c, unzstd
from acon_jax.checkpoint.folder import Folder, Span, Value

MANIFEST = "manifest.ocdbt"
_MANIFEST_MAGIC, _NODE_MAGIC = 0x0CDB3A2A, 0x0CDB20DE
_MISSING = (1 << 64) - 1  # the offset and the length of the root of an empty store


def entries(folder: Folder) -> dict[str, Value]:
    """Every key of the newest version, in order, and where its value is. Raises CheckpointError.

    A node is one of those that its parent's height allows, is read once, and all of them take no more than the folder has,
    so that neither a circle nor a tree of few bytes and many paths is followed.
    """
    return _Reader(folder).entries()


@dataclass(frozen=True)
class _File:
    """A data file, and what its own nodes put before the names of theirs."""

    name: bytes
    base: bytes


class _Reader:
    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.unread, self.budget = folder.size, Budget(folder.size)
        self.seen: set[Span] = set()
        self.found: dict[str, Value] = {}
        self.last = b""

    def entries(self) -> dict[str, Value]:
        body = self.body(self.folder.span(MANIFEST), _MANIFEST_MAGIC)
        body.take(16)
        if body.varint() != 0:
            raise CheckpointError("unsupported", f"{MANIFEST}: is kept in numbered files; save the state again with Orbax")
        body.varints(2)  # the largest value in a node, the largest node: advice to writers
        body.take(1)
        if body.varint() == 1:
            body.take(4)  # the level of compression
        files = self.files(body, b"")
        count = self.count(body, 1)
        body.varints(count)
        height = body.take(count)[-1]
        file, offset, size = (body.varints(count)[-1] for _ in range(3))
        if (offset, size) != (_MISSING, _MISSING):
            if height > limits.LIMITS.depth:
                _corrupt(f"a tree {height} high, more than {limits.LIMITS.depth}")
            self.node(_listed(files, file), offset, size, height, b"")
        return self.found

    def body(self, span: Span, magic: int) -> _Cursor:
        """What a manifest or a node holds, after its own checks of itself."""
        data = self.folder.fetch(span)
        self.unread -= len(data)
        if self.unread < 0 or span in self.seen or len(data) > limits.LIMITS.header_bytes:
            _corrupt(f"{span.file}: nodes name each other again and again, or one takes {len(data)} bytes")
        self.seen.add(span)
        if len(data) < 18 or int.from_bytes(data[:4], "big") != magic or int.from_bytes(data[4:12], "little") != len(data):
            _corrupt(f"{span.file}: byte {span.offset} begins no node of {len(data)} bytes")
        if int.from_bytes(data[-4:], "little") != crc32c(data[:-4]):
            _corrupt(f"{span.file}: the checksum of the node at byte {span.offset} is another: its bytes have changed")
        head = _Cursor(bytes(data[12:32]), span.file)
        version, compression = head.varints(2)
        if version != 0 or compression not in (0, 1):
            raise CheckpointError("unsupported", f"{span.file}: a node of version {version}, compression {compression}")
        packed = data[12 + head.position : -4]
        try:
            held = unzstd(packed, min(limits.LIMITS.header_bytes, self.budget.left)) if compression else bytes(packed)
        except CheckpointError as error:
            raise CheckpointError(error.kind, f"{span.file}: the node at byte {span.offset}: {error}") from None
        self.budget.spend(len(held))
        return _Cursor(held, span.file, len(data))

    def count(self, body: _Cursor, least: int = 0) -> int:
        """How many of something come next; zstd can make very many of a few bytes."""
        count = body.varint()
        if not least <= count <= min(limits.LIMITS.members, body.packed * limits.LIMITS.expansion):
            _corrupt(f"{body.where}: a node of {body.packed} bytes with {count} entries")
        return count

    def files(self, body: _Cursor, base: bytes) -> list[_File]:
        """The table of data files, in which a name is told by what it has in common with the one before."""
        count = self.count(body)
        shared = [0, *body.varints(max(count - 1, 0))]
        rest, bases = body.varints(count), body.varints(count)
        found: list[_File] = []
        path = b""
        for index in range(count):
            path = self.joined(path, shared[index], body.take(rest[index]), body)
            if bases[index] > len(path):
                _corrupt(f"{body.where}: a data file's base is longer than its name")
            found.append(_File(base + path, base + path[: bases[index]]))
        return found

    def joined(self, before: bytes, shared: int, rest: bytes, body: _Cursor) -> bytes:
        if shared > len(before) or shared + len(rest) > limits.LIMITS.line:
            _corrupt(f"{body.where}: a name of {shared + len(rest)} bytes that shares {shared} with one of {len(before)}")
        self.budget.spend(shared + len(rest))
        return before[:shared] + rest

    def node(self, file: _File, offset: int, size: int, height: int, prefix: bytes) -> None:
        """Add the keys at and below a node."""
        body = self.body(self.folder.part(_text(file.name), offset, size), _NODE_MAGIC)
        if body.take(1)[0] != height:
            _corrupt(f"{body.where}: a node of another height than its parent says")
        files = self.files(body, file.base)
        count = self.count(body, 1)
        shared, rest = [0, *body.varints(count - 1)], body.varints(count)
        common = body.varints(count) if height else []
        keys: list[bytes] = []
        for index in range(count):
            keys.append(self.joined(keys[-1] if keys else b"", shared[index], body.take(rest[index]), body))
        if height == 0:
            self.leaf(body, files, [prefix + key for key in keys])
            return
        places = [body.varints(count) for _ in range(3)]
        body.varints(3 * count)  # how many keys and bytes are below
        body.end()
        for key, length, *place in zip(keys, common, *places, strict=True):
            if length > len(key) or len(prefix) + length > limits.LIMITS.line:
                _corrupt(f"{body.where}: what the keys below have in common is longer than a key")
            self.node(_listed(files, place[0]), place[1], place[2], height - 1, prefix + key[:length])

    def leaf(self, body: _Cursor, files: list[_File], keys: list[bytes]) -> None:
        lengths, kinds = body.varints(len(keys)), body.take(len(keys))
        outside = kinds.count(1)
        if outside + kinds.count(0) != len(keys):
            _corrupt(f"{body.where}: a value that is neither in the node nor in a file")
        places = zip(body.varints(outside), body.varints(outside), strict=True)
        for key, length, kind in zip(keys, lengths, kinds, strict=True):
            if self.found and key <= self.last:
                _corrupt(f"{body.where}: keys that are not in order, or stand twice")
            self.last = key
            if kind:
                file, offset = next(places)
                self.found[_text(key)] = self.folder.part(_text(_listed(files, file).name), offset, length)
            else:
                self.found[_text(key)] = body.take(length)
        if len(self.found) > limits.LIMITS.members:
            _corrupt(f"{body.where}: more than {limits.LIMITS.members} keys")
        body.end()


class _Cursor:
    """Bytes that are read from the beginning on; `packed` is how many they were in the file."""

    def __init__(self, data: bytes, where: str, packed: int = 0) -> None:
        self.data, self.where, self.packed, self.position = data, where, packed, 0

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self.data):
            _corrupt(f"{self.where}: a node ends early: {count} bytes wanted, {len(self.data) - self.position} left")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def varint(self) -> int:
        return self.varints(1)[0]

    def varints(self, count: int) -> list[int]:
        """Whole numbers, each in groups of seven bits, the lowest first."""
        data, position, found = self.data, self.position, []
        if count > len(data) - position:
            _corrupt(f"{self.where}: a node ends early: {count} numbers wanted, {len(data) - position} bytes left")
        if data[position : position + count].isascii():  # most often each is one byte
            return list(self.take(count))
        for _ in range(count):
            value = shift = 0
            while True:
                if position == len(data) or shift > 63:
                    _corrupt(f"{self.where}: a number without an end")
                byte = data[position]
                position += 1
                value |= (byte & 0x7F) << shift
                if byte < 0x80:
                    break
                shift += 7
            if value >> 64:
                _corrupt(f"{self.where}: a number of more than 64 bits")
            found.append(value)
        self.position = position
        return found

    def end(self) -> None:
        if self.position != len(self.data):
            _corrupt(f"{self.where}: {len(self.data) - self.position} bytes after the end of a node")


def _listed(files: list[_File], index: int) -> _File:
    if index >= len(files):
        _corrupt(f"data file {index} of a table of {len(files)}")
    return files[index]


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        _corrupt(f"a name that is not UTF-8: {data[:40]!r}")


def _corrupt(message: str) -> NoReturn:
    raise CheckpointError("corrupt", message)
