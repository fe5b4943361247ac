"""The zip archives of `torch.save` and `numpy.savez`.

A zip describes each member twice, in a header before its bytes and in a directory at the end, so
two readers can see two different files. Here both descriptions must agree, and the members must
follow each other from byte 0 on, without gaps or overlaps.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn

from acon_core.checkpoint.codecs import limits
from acon_core.checkpoint.codecs.mapped_file import check_not_truncated
from acon_core.errors import CheckpointError

try:
    from zlib_ng.zlib_ng import crc32  # the extra `fast`: takes a sixth of the time of zlib
except ImportError:
    from zlib import crc32

_ALIGNMENT = 64
_SATURATED = 0xFFFFFFFF
_DEFLATED = 8
_DATE = 0, 0x21  # 1980-01-01 00:00, the earliest date of the format
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_DESCRIPTORS = struct.Struct("<4sLLL"), struct.Struct("<4sLQQ")


@dataclass(frozen=True)
class Member:
    """One file in a zip; `data` is compressed by `method` and not yet checked against `crc`."""

    name: str
    method: int
    crc: int
    size: int
    data: memoryview


class _Region(NamedTuple):
    """The bytes that a member takes, its header included and its data descriptor not."""

    begin: int
    end: int
    has_descriptor: bool
    crc: int
    packed: int
    size: int


class ZipArchive:
    """The members of a zip by name. With `single_root`, all lie in one top folder, `root`.

    Raises CheckpointError for a file that contradicts itself.
    """

    def __init__(self, data: memoryview, path: Path, *, single_root: bool = True) -> None:
        self.data, self.path, self.root = data, path, ""
        count, start, size, end = self._directory()
        if count > limits.LIMITS.members:
            raise CheckpointError("unsupported", f"{path}: {count} members, more than {limits.LIMITS.members}")
        self.members: dict[str, Member] = {}
        regions = []
        position = start
        for _ in range(count):
            position, region = self._member(position, start + size)
            regions.append(region)
        if position != start + size or position != end:
            self.corrupt("the zip's directory has another size than it states")
        self._check_regions(sorted(regions), start)
        if single_root:
            roots = {name.partition("/")[0] for name in self.members}
            if len(roots) != 1 or not all("/" in name for name in self.members):
                self.corrupt(f"expected one folder in the zip, found {len(roots)}")
            self.root = roots.pop()

    def __contains__(self, name: str) -> bool:
        return _join(self.root, name) in self.members

    def read(self, name: str) -> memoryview:
        """Return a stored member's bytes after verifying their checksum, which PyTorch does not."""
        member = self.members.get(_join(self.root, name))
        if member is None:
            self.corrupt(f"the zip has no member {name}")
        if member.method:
            self.corrupt(f"{member.name} is compressed, which torch.save never does; save the file again")
        return self._verified(member, member.data)

    def decompress(self, member: Member, count: int | None = None) -> memoryview:
        """Return the bytes of a stored or deflated member after verifying its size and checksum.

        With `count`, return only the first bytes and verify nothing. Never inflates to more than
        the size that the directory states.
        """
        if member.method not in (0, _DEFLATED):
            raise CheckpointError(
                "unsupported", f"{self.path}: {member.name}: expected deflate or none, found compression method {member.method}"
            )
        check_not_truncated(member.data.obj)
        if member.method == 0:
            return member.data[:count] if count is not None else self._verified(member, member.data)
        stream = zlib.decompressobj(-15)
        try:
            # One byte more than stated, so that a longer stream is detected.
            content = memoryview(stream.decompress(member.data, (member.size if count is None else count) + 1))
        except zlib.error as error:
            self.corrupt(f"{member.name}: cannot be inflated: {str(error)[:80]}; download it again")
        if count is not None:
            return content[:count]
        if len(content) != member.size or not stream.eof or stream.unused_data:
            self.corrupt(f"{member.name}: inflates to another size than the {member.size} bytes that the zip states")
        return self._verified(member, content)

    def _verified(self, member: Member, content: memoryview) -> memoryview:
        if crc32(content) != member.crc:
            self.corrupt(f"{member.name}: its checksum does not match, so its bytes have changed; download it again")
        return content

    def corrupt(self, message: str) -> NoReturn:
        """Raise CheckpointError, naming the file."""
        raise CheckpointError("corrupt", f"{self.path}: {message}")

    def _unpack(self, layout: struct.Struct, at: int, magic: bytes, what: str) -> tuple[int, ...]:
        if at < 0 or at + layout.size > len(self.data) or bytes(self.data[at : at + 4]) != magic:
            self.corrupt(f"the zip has no {what} where expected; the file is truncated or has bytes added")
        return layout.unpack_from(self.data, at)[1:]

    def _directory(self) -> tuple[int, int, int, int]:
        """Return the number of members, and the directory's begin, size and expected end."""
        at = len(self.data) - _END.size
        disk, start_disk, here, count, size, start, comment = self._unpack(_END, at, b"PK\5\6", "end record")
        if disk or start_disk or here != count or comment:
            self.corrupt("the zip spans several disks or has a comment")
        if bytes(self.data[max(at - _LOCATOR.size, 0) :][:4]) != b"PK\6\7":
            return count, start, size, at
        _, end, disks = self._unpack(_LOCATOR, at - _LOCATOR.size, b"PK\6\7", "zip64 locator")
        if end != at - _LOCATOR.size - _END64.size or disks != 1:
            self.corrupt("the zip64 end record is not where the zip states")
        record = self._unpack(_END64, end, b"PK\6\6", "zip64 end record")
        length, _, _, disk, start_disk, here, count64, size64, start64 = record
        if length != _END64.size - 12 or disk or start_disk or here != count64:
            self.corrupt("the zip64 end record contradicts itself")
        for short, long, saturated in ((count, count64, 0xFFFF), (size, size64, _SATURATED), (start, start64, _SATURATED)):
            if short not in (long, saturated):
                self.corrupt("the zip's two end records disagree")
        return count64, start64, size64, end

    def _member(self, at: int, end: int) -> tuple[int, _Region]:
        """Read a directory entry; return the offset of the next one and the member's region."""
        entry = self._unpack(_CENTRAL, at, b"PK\1\2", "directory entry")
        _, _, flags, method, _, _, crc, packed, size, n_name, n_extra, n_comment, disk, _, _, offset = entry
        after = at + _CENTRAL.size + n_name + n_extra
        if n_comment or disk or after > end or flags & ~(0x080E if method else 0x0808):
            self.corrupt("a member of the zip is encrypted, has a comment, or lies on another disk")
        encoded = bytes(self.data[at + _CENTRAL.size : at + _CENTRAL.size + n_name])
        size, packed, offset = self._zip64(self.data[after - n_extra : after], size, packed, offset)
        local = self._unpack(_LOCAL, offset, b"PK\3\4", "header for a member")
        _, local_flags, local_method, _, _, local_crc, local_packed, local_size, local_name, local_extra = local
        begin = offset + _LOCAL.size + local_name + local_extra
        name = self._name(encoded)
        if bytes(self.data[offset + _LOCAL.size :][:local_name]) != encoded or (local_flags, local_method) != (flags, method):
            self.corrupt(f"{name}: the zip's directory and the member's header disagree")
        # NumPy always states the sizes in the header's zip64 field.
        stated = (local_crc, *self._zip64(self.data[begin - local_extra : begin], local_size, local_packed)[::-1])
        in_descriptor = flags & 8 and stated == (0, 0, 0)  # PyTorch states them behind the bytes
        if not in_descriptor and stated != (crc, packed, size):
            self.corrupt(f"{name}: the zip's directory and the member's header disagree on size or checksum")
        if begin + packed > len(self.data) or (method == 0 and packed != size):
            self.corrupt(f"{name}: {packed} bytes do not fit into the file")
        self.members[name] = Member(name, method, crc, size, self.data[begin : begin + packed])
        return after, _Region(offset, begin + packed, bool(flags & 8), crc, packed, size)

    def _zip64(self, extra: memoryview, *fields: int) -> list[int]:
        """Return sizes and offset, taken from the zip64 extra field where they exceed 32 bits."""
        long = memoryview(b"")
        while len(extra):
            if len(extra) < 4 or len(extra) < 4 + struct.unpack("<H", extra[2:4])[0]:
                self.corrupt("an extra field of the zip is truncated")
            tag, length = struct.unpack("<2H", extra[:4])
            if tag == 1:
                long = extra[4 : 4 + length]
            extra = extra[4 + length :]
        values = list(fields)
        for index, value in enumerate(values):
            if value == _SATURATED:
                if len(long) < 8:
                    self.corrupt("the zip64 extra field is missing or truncated")
                values[index] = struct.unpack("<Q", long[:8])[0]
                long = long[8:]
        # Before 3.11, Python also repeats sizes here that fit into 32 bits.
        if bytes(long) not in (b"", struct.pack(f"<{len(values)}Q", *values)):
            self.corrupt("the zip64 extra field and the member's header disagree")
        return values

    def _name(self, encoded: bytes) -> str:
        try:
            name = encoded.decode("utf-8")
        except UnicodeDecodeError:
            self.corrupt(f"the zip has a member whose name is not UTF-8: {encoded[:60]!r}")
        if not is_relative_path(name):
            self.corrupt(f"the zip has a member whose name is not a relative path: {name[:60]!r}")
        if name in self.members:
            self.corrupt(f"the zip has two members with the name {name}")
        return name

    def _check_regions(self, regions: list[_Region], directory: int) -> None:
        """Check that members and data descriptors exactly fill the bytes before the directory."""
        position = 0
        for region in regions:
            if region.begin != position:
                self.corrupt("members of the zip overlap, or bytes lie between them")
            position = region.end + (self._descriptor_size(region) if region.has_descriptor else 0)
        if position != directory:
            self.corrupt("the zip has bytes that belong to no member")

    def _descriptor_size(self, region: _Region) -> int:
        """Return the length of the data descriptor, whose sizes take 4 or 8 bytes each."""
        for layout in _DESCRIPTORS:
            stored = bytes(self.data[region.end : region.end + layout.size])
            fits = region.packed <= _SATURATED and region.size <= _SATURATED
            if (fits or layout.size == 24) and stored == layout.pack(b"PK\7\x08", region.crc, region.packed, region.size):
                return layout.size
        self.corrupt("a member of the zip has no data descriptor, or one that disagrees with the directory")


def is_relative_path(name: str) -> bool:
    """Whether a name is the same relative path on every system, without `..`, `.` and backslash."""
    parts = name.split("/")
    return name.isprintable() and "\\" not in name and not any(part in ("", ".", "..") for part in parts)


def _join(root: str, name: str) -> str:
    return f"{root}/{name}" if root else name


class ZipWriter:
    """Writes a zip as `torch.save` does: members stored, their bytes aligned to 64, one fixed date.

    Call `add` for each member and `close` once. Members lie in the folder `root`, unless it is
    empty. There is no member `.format_version`: with it, PyTorch would compute the offsets of the
    bytes from its own writer's layout instead of reading them.
    """

    def __init__(self, file: BinaryIO, root: str = "archive") -> None:
        self.file, self.root = file, root
        self.position = 0
        self.directory: list[bytes] = []

    def add(self, name: str, *parts: memoryview | bytes) -> None:
        """Append one member, whose content is the concatenated parts."""
        encoded, size, crc, offset = _join(self.root, name).encode(), sum(map(len, parts)), 0, self.position
        for part in parts:
            crc = crc32(part, crc)
        extra = struct.pack("<2H2Q", 1, 16, size, size) if size >= _SATURATED else b""
        padding = -(offset + _LOCAL.size + len(encoded) + len(extra) + 4) % _ALIGNMENT
        extra += b"FB" + struct.pack("<H", padding) + b"Z" * padding
        short = min(size, _SATURATED)
        version = 45 if size >= _SATURATED or offset >= _SATURATED else 20
        common = (0x0800, 0, *_DATE, crc, short, short, len(encoded))
        self._write(_LOCAL.pack(b"PK\3\4", version, *common, len(extra)) + encoded + extra)
        for part in parts:
            self._write(part)
        long = [size, size] if size >= _SATURATED else []
        long += [offset] if offset >= _SATURATED else []
        extra = struct.pack(f"<2H{len(long)}Q", 1, 8 * len(long), *long) if long else b""
        tail = (len(extra), 0, 0, 0, 0, min(offset, _SATURATED))
        self.directory.append(_CENTRAL.pack(b"PK\1\2", version, version, *common, *tail) + encoded + extra)

    def close(self) -> None:
        """Write the directory and the end records, always with zip64 ones, as PyTorch does."""
        start, count = self.position, len(self.directory)
        for entry in self.directory:
            self._write(entry)
        size, end = self.position - start, self.position
        self._write(_END64.pack(b"PK\6\6", _END64.size - 12, 45, 45, 0, 0, count, count, size, start))
        self._write(_LOCATOR.pack(b"PK\6\7", 0, end, 1))
        short = min(count, 0xFFFF)
        self._write(_END.pack(b"PK\5\6", 0, 0, short, short, min(size, _SATURATED), min(start, _SATURATED), 0))

    def _write(self, data: bytes | memoryview) -> None:
        self.file.write(data)
        self.position += len(data)
