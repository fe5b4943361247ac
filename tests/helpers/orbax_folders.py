"""Orbax folders made byte by byte, each by a function that fills an empty folder."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Case = Callable[[Path], object]
MANIFEST, NODE = 0x0CDB3A2A, 0x0CDB20DE
END = (1 << 64) - 1


def zstd(data: bytes, *, sized: bool = True) -> bytes:
    """One frame: blocks of a repeated byte where there is one, else of the bytes as they are."""
    blocks = [data[begin : begin + (1 << 17)] for begin in range(0, len(data), 1 << 17)] or [b""]
    frame = b"\x28\xb5\x2f\xfd" + (b"\xc0\x58" + struct.pack("<Q", len(data)) if sized else b"\0\x58")
    for index, block in enumerate(blocks):
        repeated = len(block) > 1 and block == block[:1] * len(block)
        head = len(block) << 3 | repeated << 1 | (index == len(blocks) - 1)
        frame += struct.pack("<I", head)[:3] + (block[:1] if repeated else block)
    return frame


def crc32c(data: bytes) -> int:
    """Compute CRC-32C."""
    state = 0xFFFFFFFF
    for byte in data:
        state = _CRC32C[(state ^ byte) & 0xFF] ^ state >> 8
    return state ^ 0xFFFFFFFF


def _crc32c_of_byte(state: int) -> int:
    for _ in range(8):
        state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state


_CRC32C = [_crc32c_of_byte(byte) for byte in range(256)]
ZERO = zstd(bytes(24))  # the one chunk of a good array


def varint(*values: int) -> bytes:
    found = bytearray()
    for value in values:
        while value > 0x7F:
            found.append(value & 0x7F | 0x80)
            value >>= 7
        found.append(value)
    return bytes(found)


def framed(magic: int, body: bytes, *, packed: bool = False, version: int = 0, checksum: int | None = None) -> bytes:
    """Wrap the body of a manifest or a node."""
    inside = varint(version, packed) + (zstd(body) if packed else body)
    head = struct.pack(">I", magic) + struct.pack("<Q", 12 + len(inside) + 4) + inside
    return head + struct.pack("<I", crc32c(head) if checksum is None else checksum)


def files(*names: bytes, base: int = 0) -> bytes:
    """Encode a table of data files without common prefixes."""
    count = len(names)
    return varint(count, *[0] * max(count - 1, 0), *map(len, names), *[base] * count) + b"".join(names)


def leaf(values: Mapping[bytes, bytes | tuple[int, int, int]], table: bytes = b"\0", height: int = 0) -> bytes:
    """Encode a leaf node. A value is inline, or a file number, an offset and a length."""
    count, there = len(values), [v for v in values.values() if isinstance(v, tuple)]
    lengths = [v[2] if isinstance(v, tuple) else len(v) for v in values.values()]
    kinds = bytes(isinstance(v, tuple) for v in values.values())
    shared = varint(*[0] * (count - 1), *map(len, values)) + b"".join(values)
    places = varint(*[v[0] for v in there], *[v[1] for v in there])
    inside = b"".join(v for v in values.values() if isinstance(v, bytes))
    return bytes([height]) + table + varint(count) + shared + varint(*lengths) + kinds + places + inside


def interior(height: int, table: bytes, children: Sequence[tuple[bytes, int, int]], common: int = 0) -> bytes:
    """Encode an interior node: each child's first key, offset in the first file, and length."""
    count = len(children)
    keys = varint(*[0] * (count - 1), *(len(c[0]) for c in children), *[common] * count) + b"".join(c[0] for c in children)
    places = varint(*[0] * count, *(c[1] for c in children), *(c[2] for c in children))
    return bytes([height]) + table + varint(count) + keys + places + varint(*[1] * (3 * count))


def manifest(name: bytes = b"d", height: int = 0, offset: int = 0, length: int = 0, kind: int = 0, base: int = 0) -> bytes:
    """Encode the body of a manifest of one version whose root is in the data file `name`."""
    config = bytes(16) + varint(kind, 100, 1000) + b"\4" + varint(0)
    versions = varint(1, 1) + bytes([height]) + varint(0, offset, length, 1, 1, 1) + bytes(8)
    return config + files(name, base=base) + versions + varint(0)


def metadata(*paths: Sequence[str], kind: str = "np.ndarray") -> bytes:
    found = {
        str(path): {"key_metadata": [{"key": step, "key_type": 2} for step in path], "value_metadata": {"value_type": kind}}
        for path in paths
    }
    return json.dumps({"tree_metadata": found, "store_array_data_equal_to_fill_value": True}).encode()


ZARRAY: dict[str, Any] = {
    **{"zarr_format": 2, "shape": [2, 3], "chunks": [2, 3], "dtype": "<f4", "order": "C", "fill_value": None, "filters": None},
    **{"compressor": {"id": "zstd", "level": 1}, "dimension_separator": "."},
}
PLAIN = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "zstd", "configuration": {"level": 1}}]
SHARDS: dict[str, Any] = {
    "name": "sharding_indexed",
    "configuration": {
        "chunk_shape": [1, 3],
        "codecs": PLAIN,
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
    },
}
ZARR: dict[str, Any] = {
    **{"zarr_format": 3, "node_type": "array", "shape": [2, 3], "data_type": "float32", "fill_value": 0.0, "codecs": [SHARDS]},
    **{"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 3]}}, "chunk_key_encoding": {"name": "default"}},
}


def shard(places: Sequence[tuple[int, int]], body: bytes = b"", checksum: int | None = None) -> bytes:
    index = b"".join(struct.pack("<QQ", *place) for place in places)
    return body + index + struct.pack("<I", crc32c(index) if checksum is None else checksum)


def zarr2(content: bytes = ZERO, key: str = "0.0", whole: bool = True, **changes: Any) -> Case:
    """One array `w`, one folder; `whole` is whether no chunk may be left out."""

    def make(path: Path) -> None:
        tree = metadata(("w",))
        (path / "_METADATA").write_bytes(tree if whole else tree.replace(b"true", b"false"))
        (path / "w").mkdir()
        (path / "w/.zarray").write_text(json.dumps(ZARRAY | changes))
        (path / "w" / key).write_bytes(content)

    return make


ROW = zstd(bytes(12))


def zarr3(content: bytes | None = None, **changes: Any) -> Case:
    def make(path: Path) -> None:
        (path / "_METADATA").write_bytes(metadata(("w",)))
        (path / "w/c/0").mkdir(parents=True)
        (path / "w/zarr.json").write_text(json.dumps(ZARR | changes))
        (path / "w/c/0/0").write_bytes(SHARD if content is None else content)

    return make


def nested_shards(depth: int) -> dict[str, Any]:
    found = SHARDS
    for _ in range(depth):
        found = SHARDS | {"configuration": SHARDS["configuration"] | {"codecs": [found]}}
    return found


SHARD = shard([(0, len(ROW))] * 2, ROW)


def inner(content: bytes = SHARD, **changes: Any) -> Case:
    """Make a shard whose own metadata is changed."""
    return zarr3(content, codecs=[SHARDS | {"configuration": SHARDS["configuration"] | changes}])


GOOD: dict[bytes, bytes] = {b"w/.zarray": json.dumps(ZARRAY).encode(), b"w/0.0": ZERO}


def ocdbt(*nodes: bytes, root: int = -1, height: int = 0, framing: dict[str, Any] | None = None, **changes: Any) -> Case:
    """Make a store whose data file `d` has these nodes in turn; the last is the root."""

    def make(path: Path) -> None:
        (path / "_METADATA").write_bytes(metadata(("w",)))
        (path / "d").write_bytes(b"".join(nodes))
        options = {"length": len(nodes[root]), "offset": sum(map(len, nodes[:root])), "height": height} | changes
        (path / "manifest.ocdbt").write_bytes(framed(MANIFEST, manifest(**options), **(framing or {})))

    return make


def good(values: dict[bytes, Any] | None = None, table: bytes = b"\0", **options: Any) -> bytes:
    return framed(NODE, leaf(GOOD if values is None else values, table), **options)


def fan(levels: int, wide: int) -> Case:
    """Make a few nodes with `wide` to the power of `levels` paths."""
    nodes = [good()]
    for height in range(1, levels + 1):
        begin = sum(map(len, nodes[:-1]))
        keys = [struct.pack(">I", index) for index in range(wide)]
        nodes.append(framed(NODE, interior(height, files(b"d"), [(key, begin, len(nodes[-1])) for key in keys])))
    return ocdbt(*nodes, height=levels)


def tree(**entries: Any) -> Case:
    """Put an invalid `_METADATA` beside a good array."""
    return raw_tree(json.dumps(entries).encode())


def raw_tree(content: bytes) -> Case:
    def make(path: Path) -> None:
        zarr2()(path)
        (path / "_METADATA").write_bytes(content)

    return make


def linked(name: str, to: str = "/etc/hostname", *, like: Case | None = None) -> Case:
    """Make a good folder in which one name is a link to its content or to another place."""

    def make(path: Path) -> None:
        (like or zarr2())(path)
        target = path.parent / f"{path.name}.moved"
        (path / name).rename(target)
        (path / name).symlink_to(target if to == "moved" else to)

    return make


def pipe(name: str) -> Case:
    def make(path: Path) -> None:
        zarr2()(path)
        (path / name).unlink()
        os.mkfifo(path / name)

    return make


def outside(name: bytes) -> Case:
    """Make a store whose data file is outside of the folder."""

    def make(path: Path) -> None:
        node = good()
        (path.parent / "outside").write_bytes(node)
        ocdbt(node, name=name.replace(b"PARENT", os.fsencode(path.parent)))(path)

    return make
