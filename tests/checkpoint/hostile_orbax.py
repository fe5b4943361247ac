"""Folders of Orbax that none is: each case makes one, or spoils the one that it is given."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import zstandard
from acon_jax.codecs import crc32c
from hostile_pickles import Kind

Case = Callable[[Path], object]
Table = dict[tuple[int, Kind], dict[str, Case]]
MANIFEST, NODE = 0x0CDB3A2A, 0x0CDB20DE
ZERO = zstandard.compress(bytes(24))  # the one chunk of a good array
END = (1 << 64) - 1


def varint(*values: int) -> bytes:
    found = bytearray()
    for value in values:
        while value > 0x7F:
            found.append(value & 0x7F | 0x80)
            value >>= 7
        found.append(value)
    return bytes(found)


def framed(magic: int, body: bytes, *, packed: bool = False, version: int = 0, checksum: int | None = None) -> bytes:
    """A manifest or a node around its body."""
    inside = varint(version, packed) + (zstandard.compress(body) if packed else body)
    head = struct.pack(">I", magic) + struct.pack("<Q", 12 + len(inside) + 4) + inside
    return head + struct.pack("<I", crc32c(head) if checksum is None else checksum)


def files(*names: bytes, base: int = 0) -> bytes:
    """A table of data files that have nothing in common."""
    count = len(names)
    return varint(count, *[0] * max(count - 1, 0), *map(len, names), *[base] * count) + b"".join(names)


def leaf(values: dict[bytes, bytes | tuple[int, int, int]], table: bytes = b"\0", height: int = 0) -> bytes:
    """A node of keys; a value is in it, or is a file's number, where it begins and how long it is."""
    count, there = len(values), [v for v in values.values() if isinstance(v, tuple)]
    lengths = [v[2] if isinstance(v, tuple) else len(v) for v in values.values()]
    kinds = bytes(isinstance(v, tuple) for v in values.values())
    shared = varint(*[0] * (count - 1), *map(len, values)) + b"".join(values)
    places = varint(*[v[0] for v in there], *[v[1] for v in there])
    inside = b"".join(v for v in values.values() if isinstance(v, bytes))
    return bytes([height]) + table + varint(count) + shared + varint(*lengths) + kinds + places + inside


def interior(height: int, table: bytes, children: Sequence[tuple[bytes, int, int]], common: int = 0) -> bytes:
    """A node of nodes: the first key of each, where it begins in the first file, and how long it is."""
    count = len(children)
    keys = varint(*[0] * (count - 1), *(len(c[0]) for c in children), *[common] * count) + b"".join(c[0] for c in children)
    places = varint(*[0] * count, *(c[1] for c in children), *(c[2] for c in children))
    return bytes([height]) + table + varint(count) + keys + places + varint(*[1] * (3 * count))


def manifest(name: bytes = b"d", height: int = 0, offset: int = 0, length: int = 0, kind: int = 0, base: int = 0) -> bytes:
    """The body of a manifest of one version whose root is in the data file `name`."""
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
PLAIN = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "zstd"}]
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


ROW = zstandard.compress(bytes(12))


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
    """A shard whose own description is changed."""
    return zarr3(content, codecs=[SHARDS | {"configuration": SHARDS["configuration"] | changes}])


GOOD: dict[bytes, bytes | tuple[int, int, int]] = {b"w/.zarray": json.dumps(ZARRAY).encode(), b"w/0.0": ZERO}


def ocdbt(*nodes: bytes, root: int = -1, height: int = 0, framing: dict[str, Any] | None = None, **changes: Any) -> Case:
    """A store whose data file `d` has these nodes, one after another; the root is the last of them."""

    def make(path: Path) -> None:
        (path / "_METADATA").write_bytes(metadata(("w",)))
        (path / "d").write_bytes(b"".join(nodes))
        options = {"length": len(nodes[root]), "offset": sum(map(len, nodes[:root])), "height": height} | changes
        (path / "manifest.ocdbt").write_bytes(framed(MANIFEST, manifest(**options), **(framing or {})))

    return make


def good(values: dict[bytes, Any] | None = None, table: bytes = b"\0", **options: Any) -> bytes:
    return framed(NODE, leaf(GOOD if values is None else values, table), **options)


def fan(levels: int, wide: int) -> Case:
    """A few nodes, and as many paths as `wide` to the power of `levels`."""
    nodes = [good()]
    for height in range(1, levels + 1):
        begin = sum(map(len, nodes[:-1]))
        keys = [struct.pack(">I", index) for index in range(wide)]
        nodes.append(framed(NODE, interior(height, files(b"d"), [(key, begin, len(nodes[-1])) for key in keys])))
    return ocdbt(*nodes, height=levels)


def tree(**entries: Any) -> Case:
    """What is not a `_METADATA`, beside a good array."""
    return raw_tree(json.dumps(entries).encode())


def raw_tree(content: bytes) -> Case:
    def make(path: Path) -> None:
        zarr2()(path)
        (path / "_METADATA").write_bytes(content)

    return make


def linked(name: str, to: str = "/etc/hostname", *, like: Case | None = None) -> Case:
    """A good folder in which one name is a link to where its content was moved, or to another place."""

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
    """A store whose data file is a good one, outside of the folder."""

    def make(path: Path) -> None:
        node = good()
        (path.parent / "outside").write_bytes(node)
        ocdbt(node, name=name.replace(b"PARENT", os.fsencode(path.parent)))(path)

    return make


BOMB = zstandard.compress(bytes(1 << 28))
UNSIZED = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 28))
NODE_BOMB = bytes([0]) + b"\0" + varint(1 << 24) + bytes(1 << 26)


def deep(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


CIRCLE = framed(NODE, interior(1, files(b"d"), [(b"a", 0, 33)]))
assert len(CIRCLE) == 33

CASES: Table = {
    (28, "corrupt"): {
        "chunk bomb": zarr2(BOMB),
        "chunk bomb of unknown size": zarr2(UNSIZED),
        "shard bomb": zarr3(shard([(0, len(BOMB))] * 2, BOMB)),
        "node bomb": ocdbt(framed(NODE, NODE_BOMB, packed=True)),
        "manifest bomb": ocdbt(good(), framing={"packed": True}, name=bytes(1 << 26)),
        "two frames": zarr2(ZERO + ZERO),
        "bytes after the frame": zarr2(ZERO + b"x"),
        "half a frame": zarr2(ZERO[:-1]),
        "a frame of less": zarr2(zstandard.compress(bytes(23))),
        "a frame of more": zarr2(zstandard.compress(bytes(25))),
        "no frame": zarr2(b"x" * 24),
        "an empty chunk": zarr2(b""),
    },
    (32, "corrupt"): {
        "tree is not JSON": raw_tree(b"{"),
        "tree is a list": raw_tree(b"[]"),
        "deep tree": raw_tree(b"[" * 100_000 + b"]" * 100_000),
        "deep value": raw_tree(b'{"tree_metadata": ' + b"[" * 900 + b"]" * 900 + b"}"),
        "tree of NaN": raw_tree(b'{"tree_metadata": NaN}'),
        "a name twice": raw_tree(b'{"tree_metadata": {}, "tree_metadata": {}}'),
        "many digits": raw_tree(b'{"tree_metadata": ' + b"9" * 5000 + b"}"),
        "not UTF-8": raw_tree(b'{"\xff": 1}'),
        "half a surrogate pair": raw_tree(metadata(("\ud800",))),
        "no tree": tree(),
        "entries are a list": tree(tree_metadata=[]),
        "an entry is a number": tree(tree_metadata={"w": 1}),
        "no keys": tree(tree_metadata={"w": {"key_metadata": [], "value_metadata": {"value_type": "np.ndarray"}}}),
        "keys are numbers": tree(tree_metadata={"w": {"key_metadata": [{"key": 1}], "value_metadata": {"value_type": "x"}}}),
        "no kind": tree(tree_metadata={"w": {"key_metadata": [{"key": "w", "key_type": 2}]}}),
        "a path twice": raw_tree(
            metadata(("w",)).replace(
                b'{"(', b'{"x": {"key_metadata": [{"key": "w"}], "value_metadata": {"value_type": "None"}}, "('
            )
        ),
        "a leaf on the way to another": raw_tree(metadata(("w",), ("w", "v"), kind="scalar")),
        "a leaf with leaves": raw_tree(metadata(("w", "v"), ("w",), kind="scalar")),
        "a long path": raw_tree(metadata(tuple("abc" * 100), kind="scalar")),
        "description is not JSON": zarr2(shape=float("nan")),
    },
    (35, "corrupt"): {
        "checksum of the manifest": ocdbt(good(), framing={"checksum": 1}),
        "checksum of a node": ocdbt(good(checksum=1)),
        "data file above": outside(b"../outside"),
        "data file by its path": outside(b"PARENT/outside"),
        "data file by a detour": outside(b"./d"),
        "data file with NUL": outside(b"d\0"),
        "data file that is a folder": outside(b""),
        "another data file's number": ocdbt(good({b"w/.zarray": (1, 0, 5)}, files(b"d"))),
        "no such data file's number": ocdbt(good({b"w/.zarray": (0, 0, 5)})),
        "a value after the file's end": ocdbt(good({b"w/.zarray": (0, 10, 5000)}, files(b"d"))),
        "a value far away": ocdbt(good({b"w/.zarray": (0, 1 << 63, 1 << 63)}, files(b"d"))),
        "root after the file's end": ocdbt(good(), length=5000),
        "root of another height": ocdbt(good(), height=1),
        "height of 255": ocdbt(good(), height=255),
        "a circle": ocdbt(CIRCLE, height=1),
        "the same node again": fan(1, 2),
        "fan-out": fan(8, 40),
        "a child of another height": ocdbt(good(), framed(NODE, interior(2, files(b"d"), [(b"", 0, len(good()))])), height=2),
        "a longer prefix than key": ocdbt(
            good(), framed(NODE, interior(1, files(b"d"), [(b"a", 0, len(good()))], common=2)), height=1
        ),
        "a key twice": ocdbt(good({b"w/.zarray": b"x"}), framed(NODE, leaf({b"a": b"", b"b": b""}).replace(b"ab", b"aa"))),
        "keys out of order": ocdbt(good({b"b": b"", b"a": b""})),
        "a key that is not UTF-8": ocdbt(good({b"\xff": b""})),
        "a key of 65 kB": ocdbt(good({b"k" * 65_000: b""})),
        "no entries": ocdbt(good({})),
        "many entries": ocdbt(framed(NODE, b"\0\0" + varint(1 << 30))),
        "many data files": ocdbt(framed(NODE, b"\0" + varint(1 << 30))),
        "shares more than there is": ocdbt(framed(NODE, b"\0\0" + varint(2, 5, 1, 1) + b"ab" + varint(0, 0) + b"\0\0")),
        "a base longer than its name": ocdbt(good(table=varint(1, 1, 2) + b"d")),
        "another kind of value": ocdbt(framed(NODE, leaf({b"a": b""})[:-1] + b"\2")),
        "bytes after a node": ocdbt(framed(NODE, leaf(GOOD) + b"x")),
        "half a node": ocdbt(framed(NODE, leaf(GOOD)[:-1])),
        "an endless number": ocdbt(framed(NODE, b"\0" + b"\xff" * 20)),
        "a number of 65 bits": ocdbt(framed(NODE, b"\0" + b"\xff" * 9 + b"\x7f")),
        "another magic": ocdbt(framed(MANIFEST, leaf(GOOD))),
        "a node of 17 bytes": ocdbt(b"x" * 17),
        "a node within a node": ocdbt(good(), length=30),
        "no version": ocdbt(good(), name=b"d\0\0\0"),
    },
    (35, "unsupported"): {
        "another version": ocdbt(good(version=1)),
        "another compression": ocdbt(good(packed=2)),  # type: ignore[arg-type]
        "numbered manifests": ocdbt(good(), kind=1),
    },
    (36, "corrupt"): {
        "a shape of 10^15": zarr2(shape=[10**9, 10**6], chunks=[10**9, 10**6]),
        "a shape of 10^15 with chunks left out": zarr2(whole=False, shape=[10**9, 10**6]),
        "a shape past 62 bits": zarr2(shape=[1 << 62, 3]),
        "a shape that wraps": zarr2(shape=[1 << 61, 1 << 61], chunks=[1 << 61, 1 << 61]),
        "10^8 chunks": zarr2(shape=[10**4, 10**4], chunks=[1, 1], dtype="|b1"),
        "10^7 chunks left out": zarr2(whole=False, shape=[10**4, 10**3], chunks=[1, 1], dtype="|b1"),
        "a chunk of 10^12": zarr2(chunks=[10**6, 10**6]),
        "a chunk of 0": zarr2(chunks=[0, 3]),
        "a negative chunk": zarr2(chunks=[-1, 3]),
        "a negative shape": zarr2(shape=[-2, 3]),
        "a shape of floats": zarr2(shape=[2.0, 3]),
        "a shape of bools": zarr2(shape=[True, 3]),
        "a shape in text": zarr2(shape="23"),
        "a nested shape": zarr2(shape=[[2], 3]),
        "a deep shape": zarr2(shape=deep(400)),
        "40 dimensions": zarr2(shape=[1] * 40, chunks=[1] * 40),
        "chunks of another rank": zarr2(chunks=[6]),
        "a chunk missing": zarr2(key="0.1"),
        "no shape": zarr2(shape=None),
        "a bool of 2": zarr2(zstandard.compress(b"\2" * 6), dtype="|b1"),
        "a plain chunk cut short": zarr2(bytes(23), compressor=None),
        "pieces that do not fit": inner(chunk_shape=[2, 2]),
        "pieces of 0": inner(chunk_shape=[0, 3]),
        "10^8 pieces": zarr3(
            shape=[10**4, 10**4],
            chunk_grid={"name": "regular", "configuration": {"chunk_shape": [10**4, 10**4]}},
            codecs=[SHARDS | {"configuration": SHARDS["configuration"] | {"chunk_shape": [1, 1]}}],
        ),
        "a shard without an index": zarr3(b"x" * 10),
        "checksum of an index": zarr3(shard([(0, len(ROW))] * 2, ROW, checksum=1)),
        "a piece past the end": zarr3(shard([(0, len(ROW)), (5, 1000)], ROW)),
        "a piece far away": zarr3(shard([(0, len(ROW)), (END - 1, 1)], ROW)),
        "a piece missing": zarr3(shard([(0, len(ROW)), (END, END)], ROW)),
        "codecs are text": zarr3(codecs="bytes"),
        "codecs without names": zarr3(codecs=[{}]),
        "configuration is a list": zarr3(chunk_key_encoding={"name": "default", "configuration": []}),
    },
    (36, "unsupported"): {
        "filters": zarr2(filters=[{"id": "delta"}]),
        "blosc": zarr2(compressor={"id": "blosc"}),
        "a deep compressor": zarr2(compressor=deep(400)),
        "a deep order": zarr2(order=deep(400)),
        "a deep dtype": zarr3(data_type=deep(400)),
        "a deep fill value": zarr2(fill_value=deep(400), key="other", whole=False),
        "order F": zarr2(order="F"),
        "an object's dtype": zarr2(dtype="|O"),
        "a structured dtype": zarr2(dtype=[["a", "<f4"]]),
        "big-endian": zarr2(dtype=">f4"),
        "int4": zarr2(dtype="int4"),
        "datetime": zarr2(dtype="<M8[s]"),
        "another separator": zarr2(dimension_separator="../"),
        "zarr 4": zarr2(zarr_format=4),
        "an entry of no version": zarr2(storage="x"),
        "no dtype": zarr3(data_type=None),
        "a group": zarr3(node_type="group"),
        "an irregular grid": zarr3(chunk_grid={"name": "rectilinear"}),
        "a grid that is text": zarr3(chunk_grid="regular"),
        "names of zarr 2": zarr3(chunk_key_encoding={"name": "v2"}),
        "names with dots": zarr3(chunk_key_encoding={"name": "default", "configuration": {"separator": "."}}),
        "transposed": zarr3(codecs=[{"name": "transpose"}, *PLAIN]),
        "big-endian bytes": zarr3(codecs=[{"name": "bytes", "configuration": {"endian": "big"}}]),
        "shards of gzip": inner(codecs=[{"name": "bytes"}, {"name": "gzip"}]),
        "shards in shards": inner(codecs=[SHARDS]),
        "many shards in shards": inner(codecs=[nested_shards(200)]),
        "a packed index": inner(index_codecs=PLAIN),
        "an index in the middle": inner(index_location="middle"),
        "storage transformers": zarr3(storage_transformers=[{"name": "x"}]),
    },
    (36, "unsafe"): {
        "a chunk is a link": linked("w/0.0"),
        "a chunk is a link to itself": linked("w/0.0", "moved"),
        "an array is a link": linked("w", "moved"),
        "a description is a link": linked("w/.zarray", "moved"),
        "the tree is a link": linked("_METADATA", "moved"),
        "the tree is a link to nothing": linked("_METADATA", "nowhere"),
        "a chunk is a pipe": pipe("w/0.0"),
        "the tree is a pipe": pipe("_METADATA"),
        "a data file is a link": linked("d", "moved", like=ocdbt(good())),
        "a shard's folder is a link": linked("w/c", "moved", like=zarr3()),
    },
    (38, "corrupt"): {
        "HTML page": raw_tree(b"<!DOCTYPE html><html></html>"),
        "git-lfs pointer": raw_tree(b"version https://git-lfs.github.com/spec/v1\n"),
        "an empty file": raw_tree(b""),
        "parts of processes alone": lambda path: (zarr2()(path), (path / "p").mkdir(), (path / "p/manifest.ocdbt").touch()),
    },
    (38, "unsupported"): {"no arrays": raw_tree(metadata()), "numbers alone": raw_tree(metadata(("w",), kind="scalar"))},
    (41, "corrupt"): {
        "a key that leads up": raw_tree(metadata(("..", "w"))),
        "a key that leads to the root": raw_tree(metadata(("/etc/hostname",))),
        "a key with NUL": raw_tree(metadata(("w\0",))),
        "a key of 300 bytes": raw_tree(metadata(("w" * 300,))),
        "a key that leads back": raw_tree(metadata(("w/../w",))),
    },
}
