"""Hostile zips, made of a valid one."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from collections.abc import Callable

from attacks import Attack
from hostile_pickles import Table

END64, LOCATOR, END = 56, 20, 22


def edited(content: bytes, at: int, layout: str, change: Callable[[int], int]) -> bytes:
    """Change one number in the bytes."""
    changed = bytearray(content)
    (value,) = struct.unpack_from(layout, content, at)
    struct.pack_into(layout, changed, at, change(value) & ((1 << 8 * struct.calcsize(layout)) - 1))
    return bytes(changed)


def rezipped(content: bytes, change: Callable[[zipfile.ZipFile], object] = lambda opened: None, **how: int) -> bytes:
    """Write the same members with Python's `zipfile`, whose layout is accepted too."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(target, "w", **how) as opened:  # type: ignore[arg-type]
        for info in source.infolist():
            opened.writestr(info.filename, source.read(info))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # for a duplicate name
            change(opened)
    return target.getvalue()


def added(content: bytes, name: str, data: bytes = b"x", how: int = zipfile.ZIP_STORED) -> bytes:
    """Add a member to a zip."""

    def add(opened: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo("placeholder")
        info.filename = name  # the constructor would cut the name at a NUL
        opened.writestr(info, data, how)

    return rezipped(content, add)


def entries(content: bytes) -> list[int]:
    """Return the offsets of the directory's entries."""
    return [at for at in range(len(content)) if content[at : at + 4] == b"PK\1\2"]


def zips(content: bytes) -> Table:
    """Return hostile zips made of `content`, a valid one with zip64 records at its end."""
    end = len(content) - END
    locator, end64 = end - LOCATOR, end - LOCATOR - END64
    first, second, *_, last = entries(content)
    local = content.index(b"PK\3\4", 4)
    root = content[30 : 30 + struct.unpack_from("<H", content, 26)[0]].decode().partition("/")[0]
    name = zipfile.ZipFile(io.BytesIO(content)).namelist()[-1]
    offsets = [struct.unpack_from("<L", content, at + 42)[0] for at in (first, second, last)]
    encrypted = edited(edited(content, 6, "<H", lambda v: v | 1), first + 8, "<H", lambda v: v | 1)
    return {
        (Attack.ZIP_STRUCTURE, "corrupt"): {
            "cut in half": content[: len(content) // 2],
            "the last byte gone": content[:-1],
            "a header before": b"PK\3\4" + content,
            "a byte after": content + b"x",
            "a comment": content[:-2] + b"\x01\x00x",
            "an end record in the comment": rezipped(content, lambda opened: setattr(opened, "comment", b"PK\5\6" + bytes(18))),
            "bytes before the directory": content[:first] + b"hidden" + content[first:],
            "bytes before the end": content[:end64] + b"hidden" + content[end64:],
            "a member twice": added(content, name),
            "an overlap": edited(content, last + 42, "<L", lambda _: offsets[1]),
            "encrypted": encrypted,
            "another name in the header": edited(content, local + 30, "<B", lambda v: v ^ 1),
            "another method in the header": edited(content, local + 8, "<H", lambda v: 8),
            "another size in the header": edited(content, local + 18, "<L", lambda v: v + 1),
            "another checksum in the header": edited(content, local + 14, "<L", lambda v: v ^ 1),
            "another size in the directory": edited(content, second + 24, "<L", lambda v: v + 1),
            "another offset in the directory": edited(content, second + 42, "<L", lambda v: v + 1),
            "a member past the end": edited(content, second + 20, "<L", lambda v: 1 << 30),
            "an offset past the end": edited(content, second + 42, "<L", lambda v: 1 << 30),
            "one member more": edited(content, end + 10, "<H", lambda v: v + 1),
            "one member fewer, everywhere": edited(
                edited(
                    edited(edited(content, end + 8, "<H", lambda v: v - 1), end + 10, "<H", lambda v: v - 1),
                    end64 + 24,
                    "<Q",
                    lambda v: v - 1,
                ),
                end64 + 32,
                "<Q",
                lambda v: v - 1,
            ),
            "2**63 members in zip64": edited(content, end64 + 32, "<Q", lambda v: 1 << 63),
            "another directory in zip64": edited(content, end64 + 48, "<Q", lambda v: v - 1),
            "a zip64 record elsewhere": edited(content, locator + 8, "<Q", lambda v: v - 1),
            "a second disk": edited(content, end + 4, "<H", lambda v: 1),
        },
        (Attack.FILE_NAME, "corrupt"): {
            f"member {bad!r}": added(content, bad)
            for bad in (
                "../evil",
                "/etc/passwd",
                f"{root}/../x",
                f"{root}\\x/y",
                f"{root}/x\0y/z",
                f"{root}//x",
                f"{root}/x\n/y",
                f"{root}/./x",
            )
        },
        (Attack.CONTENT, "corrupt"): {
            "a bit of the checksum": edited(content, last + 16, "<L", lambda v: v ^ 4),
        },
    }
