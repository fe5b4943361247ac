"""Hostile Orbax folders, by attack and by the kind of error that refuses them."""

from __future__ import annotations

from typing import Any

from attacks import Attack
from hostile_pickles import Kind
from orbax_folders import (
    END,
    GOOD,
    MANIFEST,
    NODE,
    PLAIN,
    ROW,
    SHARDS,
    ZERO,
    Case,
    fan,
    files,
    framed,
    good,
    inner,
    interior,
    leaf,
    linked,
    metadata,
    nested_shards,
    ocdbt,
    outside,
    pipe,
    raw_tree,
    shard,
    tree,
    varint,
    zarr2,
    zarr3,
    zstd,
)

Table = dict[tuple[Attack, Kind], dict[str, Case]]
BOMB = zstd(bytes(1 << 26))
UNSIZED = zstd(bytes(1 << 26), sized=False)
NODE_BOMB = bytes([0]) + b"\0" + varint(1 << 24) + bytes(1 << 26)


def deep(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


# What the refusal must say, where something else would refuse it too.
SAID = {
    **{"chunk bomb": "End of data expected", "node bomb": "exceeds limit", "a circle": "Expected height of 0"},
    **{"fan-out": "First key", "root of another height": "Expected height of 1", "height of 255": "Expected height of 255"},
    **{"a child of another height": "Expected height of 1", "keys out of order": "key order", "a key twice": "key order"},
    **{"a value far away": "Invalid offset/length", "a node within a node": "Length in header"},
    **{"shares more than there is": "Prefix length of 5", "another data file's number": "Data file id 1"},
    **{"10^8 chunks": "fill the memory", "a chunk of 10^12": "fill the memory", "10^7 chunks left out": "fill the memory"},
    **{"chunks of padding": "fill the memory", "10^8 pieces": "fill the memory", "a piece far away": "shard"},
    **{"data file above": "../outside", "a piece past the end": "shard", "filters": "filters", "a group": "node_type"},
    **{"another version": "version", "another compression": "compression format", "bytes after a node": "remaining length: 1"},
    **{"data file at a URL": "http:", "data file at the root": "/etc/hostname", "an array at a URL": "Invalid key"},
}


CIRCLE = framed(NODE, interior(1, files(b"d"), [(b"a", 0, 33)]))
assert len(CIRCLE) == 33

CASES: Table = {
    (Attack.COMPRESSION, "corrupt"): {
        "chunk bomb": zarr2(BOMB),
        "chunk bomb of unknown size": zarr2(UNSIZED),
        "shard bomb": zarr3(shard([(0, len(BOMB))] * 2, BOMB)),
        "node bomb": ocdbt(framed(NODE, NODE_BOMB, packed=True)),
        "manifest bomb": ocdbt(good(), framing={"packed": True}, name=bytes(1 << 26)),
        "two frames": zarr2(ZERO + ZERO),
        "bytes after the frame": zarr2(ZERO + b"x"),
        "half a frame": zarr2(ZERO[:-1]),
        "a frame of less": zarr2(zstd(bytes(23))),
        "a frame of more": zarr2(zstd(bytes(25))),
        "no frame": zarr2(b"x" * 24),
        "an empty chunk": zarr2(b""),
    },
    (Attack.JSON_HEADER, "corrupt"): {
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
    (Attack.OCDBT, "corrupt"): {
        "checksum of the manifest": ocdbt(good(), framing={"checksum": 1}),
        "checksum of a node": ocdbt(good(checksum=1)),
        "data file above": outside(b"../outside"),
        "data file by its path": outside(b"PARENT/outside"),
        "data file at the root": outside(b"/etc/hostname"),
        "data file at a URL": outside(b"http://127.0.0.1:9/d"),
        "data file at a URL of files": outside(b"file:///etc/hostname"),
        "folder of a data file above": ocdbt(good(), name=b"../outside/d", base=len("../outside/")),
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
        "ten large values in a node": ocdbt(good({**GOOD, **{b"x%d" % i: bytes(1 << 21) for i in range(10)}}, packed=True)),
        "another version": ocdbt(good(version=1)),
        "another compression": ocdbt(good(packed=2)),  # type: ignore[arg-type]
        "another kind of manifest": ocdbt(good(), kind=2),
    },
    (Attack.ZARR, "corrupt"): {
        "shards in shards": inner(codecs=[SHARDS]),
        "a grid that is text": zarr3(chunk_grid="regular"),
        "an irregular grid": zarr3(chunk_grid={"name": "rectilinear"}),
        "a shape of 10^15": zarr2(shape=[10**9, 10**6], chunks=[10**9, 10**6]),
        "a shape of 10^15 with chunks left out": zarr2(whole=False, shape=[10**9, 10**6]),
        "a shape past 62 bits": zarr2(shape=[1 << 62, 3]),
        "10^8 chunks": zarr2(shape=[10**4, 10**4], chunks=[1, 1], dtype="|b1"),
        "10^7 chunks left out": zarr2(whole=False, shape=[10**4, 10**3], chunks=[1, 1], dtype="|b1"),
        "a chunk of 10^12": zarr2(chunks=[10**6, 10**6]),
        "chunks of padding": zarr2(whole=False, shape=[1, 10**4], chunks=[10**5, 1]),
        "a negative chunk": zarr2(chunks=[-1, 3]),
        "a negative shape": zarr2(shape=[-2, 3]),
        "a shape of floats": zarr2(shape=[2.0, 3]),
        "a shape of bools": zarr2(shape=[True, 3]),
        "a shape in text": zarr2(shape="23"),
        "a nested shape": zarr2(shape=[[2], 3]),
        "a deep shape": zarr2(shape=deep(400)),
        "40 dimensions": zarr2(shape=[1] * 40, chunks=[1] * 40),
        "a chunk missing": zarr2(key="0.1"),
        "no shape": zarr2(shape=None),
        "a bool of 2": zarr2(zstd(b"\2" * 6), dtype="|b1"),
        "a plain chunk cut short": zarr2(bytes(23), compressor=None),
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
    },
    (Attack.ZARR, "unsupported"): {
        "configuration is a list": zarr3(chunk_key_encoding={"name": "default", "configuration": []}),
        "codecs without names": zarr3(codecs=[{}]),
        "codecs are text": zarr3(codecs="bytes"),
        "pieces of 0": inner(chunk_shape=[0, 3]),
        "pieces that do not fit": inner(chunk_shape=[2, 2]),
        "chunks of another rank": zarr2(chunks=[6]),
        "a chunk of 0": zarr2(chunks=[0, 3]),
        "a shape that wraps": zarr2(shape=[1 << 61, 1 << 61], chunks=[1 << 61, 1 << 61]),
        "filters": zarr2(filters=[{"id": "delta"}]),
        "blosc": zarr2(compressor={"id": "blosc"}),
        "a deep compressor": zarr2(compressor=deep(400)),
        "a deep order": zarr2(order=deep(400)),
        "a deep dtype": zarr3(data_type=deep(400)),
        "a deep fill value": zarr2(fill_value=deep(400), key="other", whole=False),
        "an object's dtype": zarr2(dtype="|O"),
        "int4": zarr2(dtype="int4"),
        "datetime": zarr2(dtype="<M8[s]"),
        "another separator": zarr2(dimension_separator="../"),
        "zarr 4": zarr2(zarr_format=4),
        "an entry of no version": zarr2(storage="x"),
        "a long description": zarr3(attributes={"a": "x" * 5000}),
        "no dtype": zarr3(data_type=None),
        "a group": zarr3(node_type="group"),
        "transposed": zarr3(codecs=[{"name": "transpose"}, *PLAIN]),
        "shards of gzip": inner(codecs=[{"name": "bytes"}, {"name": "gzip"}]),
        "many shards in shards": inner(codecs=[nested_shards(200)]),
        "a packed index": inner(index_codecs=PLAIN),
        "an index of half a letter": inner(index_codecs=[{"name": "bytes"}, {"name": "\ud800"}]),
        "codecs of several lines": zarr3(codecs=[{"name": "a\nb"}]),
        "an index in the middle": inner(index_location="middle"),
        "storage transformers": zarr3(storage_transformers=[{"name": "x"}]),
    },
    (Attack.ZARR, "unsafe"): {
        "a chunk is a link": linked("w/0.0"),
        "a chunk is a link to itself": linked("w/0.0", "moved"),
        "an array is a link": linked("w", "moved"),
        "a description is a link": linked("w/.zarray", "moved"),
        "the tree is a link": linked("_METADATA", "moved"),
        "the tree is a link to nothing": linked("_METADATA", "nowhere"),
        "a chunk that may be left out is a link": linked("w/0.0", "moved", like=zarr2(whole=False)),
        "a chunk is a pipe": pipe("w/0.0"),
        "the tree is a pipe": pipe("_METADATA"),
        "a data file is a link": linked("d", "moved", like=ocdbt(good())),
        "a shard's folder is a link": linked("w/c", "moved", like=zarr3()),
        "a link that no array needs": lambda path: (zarr2()(path), (path / "x").symlink_to("/etc/hostname")),
        "a link to the folder itself": lambda path: (zarr2()(path), (path / "x").symlink_to(path)),
    },
    (Attack.OTHER_FILE, "corrupt"): {
        "HTML page": raw_tree(b"<!DOCTYPE html><html></html>"),
        "git-lfs pointer": raw_tree(b"version https://git-lfs.github.com/spec/v1\n"),
        "an empty file": raw_tree(b""),
        "parts of processes alone": lambda path: (zarr2()(path), (path / "p").mkdir(), (path / "p/manifest.ocdbt").touch()),
    },
    (Attack.OTHER_FILE, "unsupported"): {
        "no arrays": raw_tree(metadata()),
        "numbers alone": raw_tree(metadata(("w",), kind="scalar")),
    },
    (Attack.KEY_AS_PATH, "corrupt"): {
        "a key that leads up": raw_tree(metadata(("..", "w"))),
        "a key that leads to the root": raw_tree(metadata(("/etc/hostname",))),
        "a key with NUL": raw_tree(metadata(("w\0",))),
        "a key of 300 bytes": raw_tree(metadata(("w" * 300,))),
        "a key that leads back": raw_tree(metadata(("w/../w",))),
        "an array at a URL": raw_tree(metadata(("http://127.0.0.1:9/w",))),
        "the metadata beside the folder of the array": lambda path: (
            zarr2()(path),
            (path / "w/.zarray").rename(path / ".zarray"),
        ),
    },
}
