"""The zip that `torch.save` and `numpy.savez` write: nothing hidden, every byte accounted for.

Zip tells everything twice, in each member's own header and in a directory at the end, and readers that believe one or
the other can be shown two different files. Here both must agree, and members must lie one after another from byte 0.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn

from acon_core.checkpoint.codecs import limits
from acon_core.checkpoint.codecs.mapped_file import check_still_there
from acon_core.errors import CheckpointError

try:
    from zlib_ng.zlib_ng import crc32  # the extra `fast`: takes a sixth of the time of zlib
except ImportError:
    from zlib import crc32

_ALIGNMENT = 64
_SATURATED = 0xFFFFFFFF
_DEFLATED = 8
_DATE = 0, 0x21  # 1980-01-01 00:00, zip's own beginning of time
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_DESCRIPTORS = struct.Struct("<4sLLL"), struct.Struct("<4sLQQ")


@dataclass(frozen=True)
class Member:
    """One file in a zip, as the directory describes it; `data`, packed by `method`, is not yet checked against `crc`."""

    name: str
    method: int
    crc: int
    size: int
    data: memoryview


class _Region(NamedTuple):
    begin: int
    end: int
    described: bool
    crc: int
    packed: int
    size: int


class Zip:
    """The members of a zip by name, and the one top folder that holds them, where it is `rooted`.

    Raises CheckpointError for a file that contradicts itself. Compressed members are listed, and unpacked when `unpacked`
    is asked for them; `read` refuses them.
    """

    def __init__(self, data: memoryview, path: Path, *, rooted: bool = True) -> None:
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
            self.corrupt("the zip's directory has another size than it says")
        self._check_regions(sorted(regions), start)
        if rooted:
            roots = {name.partition("/")[0] for name in self.members}
            if len(roots) != 1 or not all("/" in name for name in self.members):
                self.corrupt(f"expected one folder in the zip, found {len(roots)}")
            self.root = roots.pop()

    def __contains__(self, name: str) -> bool:
        return _joined(self.root, name) in self.members

    def read(self, name: str) -> memoryview:
        """A member's bytes, with their checksum verified, which PyTorch does not do."""
        member = self.members.get(_joined(self.root, name))
        if member is None:
            self.corrupt(f"the zip has no {name}")
        if member.method:
            self.corrupt(f"{member.name} is compressed, which torch.save never does; save the file again")
        return self._checked(member, member.data)

    def unpacked(self, member: Member, first: int | None = None) -> memoryview:
        """A member's bytes, inflated where they are deflated, with their size and checksum verified.

        `first`: only so many of them, of which nothing is verified. No more is unpacked than the directory says there is.
        """
        if member.method not in (0, _DEFLATED):
            raise CheckpointError(
                "unsupported", f"{self.path}: {member.name} is packed by method {member.method}, expected deflate or none"
            )
        check_still_there(member.data.obj)
        if member.method == 0:
            return member.data[:first] if first is not None else self._checked(member, member.data)
        stream = zlib.decompressobj(-15)
        try:
            # One more than there should be, so that a stream which goes on is found out.
            content = memoryview(stream.decompress(member.data, (member.size if first is None else first) + 1))
        except zlib.error as error:
            self.corrupt(f"{member.name}: cannot be inflated: {str(error)[:80]}; download it again")
        if first is not None:
            return content[:first]
        if len(content) != member.size or not stream.eof or stream.unused_data:
            self.corrupt(f"{member.name}: inflates to another size than the {member.size} bytes that the zip says")
        return self._checked(member, content)

    def _checked(self, member: Member, content: memoryview) -> memoryview:
        if crc32(content) != member.crc:
            self.corrupt(f"{member.name}: its checksum does not match, so its bytes have changed; download it again")
        return content

    def corrupt(self, message: str) -> NoReturn:
        """Raise CheckpointError, naming the file."""
        raise CheckpointError("corrupt", f"{self.path}: {message}")

    def _unpack(self, layout: struct.Struct, at: int, magic: bytes, what: str) -> tuple[int, ...]:
        if at < 0 or at + layout.size > len(self.data) or bytes(self.data[at : at + 4]) != magic:
            self.corrupt(f"the zip has no {what} where it should be; the file is cut short or has bytes added")
        return layout.unpack_from(self.data, at)[1:]

    def _directory(self) -> tuple[int, int, int, int]:
        """How many members, where the directory starts, its size, and where it must end."""
        at = len(self.data) - _END.size
        disk, start_disk, here, count, size, start, comment = self._unpack(_END, at, b"PK\5\6", "end record")
        if disk or start_disk or here != count or comment:
            self.corrupt("the zip spans several disks or has a comment")
        if bytes(self.data[max(at - _LOCATOR.size, 0) :][:4]) != b"PK\6\7":
            return count, start, size, at
        _, end, disks = self._unpack(_LOCATOR, at - _LOCATOR.size, b"PK\6\7", "zip64 locator")
        if end != at - _LOCATOR.size - _END64.size or disks != 1:
            self.corrupt("the zip64 end record is not where the zip says")
        record = self._unpack(_END64, end, b"PK\6\6", "zip64 end record")
        length, _, _, disk, start_disk, here, count64, size64, start64 = record
        if length != _END64.size - 12 or disk or start_disk or here != count64:
            self.corrupt("the zip64 end record contradicts itself")
        for short, long, saturated in ((count, count64, 0xFFFF), (size, size64, _SATURATED), (start, start64, _SATURATED)):
            if short not in (long, saturated):
                self.corrupt("the zip's two end records disagree")
        return count64, start64, size64, end

    def _member(self, at: int, end: int) -> tuple[int, _Region]:
        """Read the directory's entry at `at`; returns where the next begins, and the bytes that this member takes."""
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
            self.corrupt(f"{name}: the zip's directory and the member's own header disagree")
        # NumPy has its sizes in the zip64 field here, whatever they are.
        told = (local_crc, *self._zip64(self.data[begin - local_extra : begin], local_size, local_packed)[::-1])
        later = flags & 8 and told == (0, 0, 0)  # PyTorch tells them in a descriptor behind the bytes
        if not later and told != (crc, packed, size):
            self.corrupt(f"{name}: the zip's directory and the member's own header disagree on size or checksum")
        if begin + packed > len(self.data) or (method == 0 and packed != size):
            self.corrupt(f"{name}: {packed} bytes do not fit into the file")
        self.members[name] = Member(name, method, crc, size, self.data[begin : begin + packed])
        return after, _Region(offset, begin + packed, bool(flags & 8), crc, packed, size)

    def _zip64(self, extra: memoryview, *fields: int) -> list[int]:
        """Sizes and offset, taken from the zip64 extra field where the entry has no room for them."""
        long = memoryview(b"")
        while len(extra):
            if len(extra) < 4 or len(extra) < 4 + struct.unpack("<H", extra[2:4])[0]:
                self.corrupt("an extra field of the zip is cut short")
            tag, length = struct.unpack("<2H", extra[:4])
            if tag == 1:
                long = extra[4 : 4 + length]
            extra = extra[4 + length :]
        found = list(fields)
        for index, value in enumerate(found):
            if value == _SATURATED:
                if len(long) < 8:
                    self.corrupt("the zip64 extra field is missing or cut short")
                found[index] = struct.unpack("<Q", long[:8])[0]
                long = long[8:]
        # Before 3.11, Python tells the sizes here too where there was room for them; whatever stands twice must be the same.
        if bytes(long) not in (b"", struct.pack(f"<{len(found)}Q", *found)):
            self.corrupt("the zip64 extra field says more than it should, or something else than the header")
        return found

    def _name(self, encoded: bytes) -> str:
        try:
            name = encoded.decode("utf-8")
        except UnicodeDecodeError:
            self.corrupt(f"the zip has a member whose name is not UTF-8: {encoded[:60]!r}")
        if not is_plain(name):
            self.corrupt(f"the zip has a member with a name that no checkpoint's has: {name[:60]!r}")
        if name in self.members:
            self.corrupt(f"{name} is in the zip twice")
        return name

    def _check_regions(self, regions: list[_Region], directory: int) -> None:
        """Members follow one another from byte 0 to the directory; only their descriptors may lie between."""
        position = 0
        for region in regions:
            if region.begin != position:
                self.corrupt("members of the zip overlap, or bytes lie between them")
            position = region.end + (self._descriptor(region) if region.described else 0)
        if position != directory:
            self.corrupt("bytes that belong to no member lie in the zip")

    def _descriptor(self, region: _Region) -> int:
        """The length of the data descriptor, which repeats the checksum, and the sizes in 4 or 8 bytes each."""
        for layout in _DESCRIPTORS:
            found = bytes(self.data[region.end : region.end + layout.size])
            fits = region.packed <= _SATURATED and region.size <= _SATURATED
            if (fits or layout.size == 24) and found == layout.pack(b"PK\7\x08", region.crc, region.packed, region.size):
                return layout.size
        self.corrupt("a member of the zip lacks its descriptor, or the descriptor disagrees with the directory")


def is_plain(name: str) -> bool:
    """Whether a member's name is one that every system unpacks where it says: a relative path of printable letters."""
    steps = name.split("/")
    return name.isprintable() and "\\" not in name and not any(step in ("", ".", "..") for step in steps)


def _joined(root: str, name: str) -> str:
    return f"{root}/{name}" if root else name


class ZipWriter:
    """Writes members as torch.save lays them out: stored, each one's bytes at a multiple of 64, one date for all.

    Use `add` for each member and `close` once. There is no `.format_version`, which would let PyTorch compute where the
    bytes lie from its own habits instead of reading it. Members lie in the folder `root`, where it has a name.
    """

    def __init__(self, file: BinaryIO, root: str = "archive") -> None:
        self.file, self.root = file, root
        self.position = 0
        self.directory: list[bytes] = []

    def add(self, name: str, *parts: memoryview | bytes) -> None:
        """Append one member, whose bytes are the parts one after another."""
        encoded, size, crc, offset = _joined(self.root, name).encode(), sum(map(len, parts)), 0, self.position
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
        """Write the directory and the end records, the zip64 ones always, as PyTorch does."""
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
