"""Which parts of a large file are searched."""

from __future__ import annotations

from pathlib import Path

from acon_core.checkpoint.codecs.mapped_file import ends_contain, map_file


def test_ends_contain(tmp_path: Path) -> None:
    mib = 1 << 20
    for name, at, seen in (("first", 5, True), ("last", 3 * mib - 9, True), ("middle", mib + mib // 2, False)):
        content = bytearray(3 * mib)
        content[at : at + 4] = b"mark"
        (tmp_path / name).write_bytes(content)
        assert ends_contain(map_file(tmp_path / name), b"mark") is seen, name
