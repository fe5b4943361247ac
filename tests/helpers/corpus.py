"""Every hostile file, by the point of the list of hostile inputs that it makes and by the format that must refuse it.

The list's points. Of pickles: 1 calls of the system, 2 exec and eval, 3 Paddle's eval with other words, 4 getattr and its
kin, 5 gadgets of NumPy, 6 dotted names, 7 names by memo, 8 INST, OBJ, EXT, PERSID, NEWOBJ_EX, 9 BUILD that poisons, 10 REDUCE
of what is no global, 11 the memo, 12 billion laughs, 13 cycles, 14 nesting, 15 lengths and digits, 16 the stack, empty files,
17 second pickles, 18 keys, 19 codecs, 20 protocol and text. Of arrays: 21 dtypes, 22 subclasses and unfinished ones, 23 shapes,
24 views, 25 amplification, 26 storages, 27 unknown metadata. Of containers: 28 compression, 29 zips that contradict themselves,
30 names of members, 31 bytes of storages, 32 headers and 33 spans of safetensors, 34 msgpack, 35 OCDBT, 36 zarr, 37 Paddle's
slices, 38 other files. Of writing: 39 links, 40 interruptions, 41 names as files, 42 layouts of arrays, 43 a source that is cut
while it is mapped.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import hostile_orbax
import hostile_pickles as pickles
import hostile_sharded
from hostile_legacy import STREAMS, legacy
from hostile_msgpack import TREES
from hostile_npz import ARCHIVES as ARCHIVES_OF_NUMPY
from hostile_pickles import Kind, Table
from hostile_safetensors import HEADERS
from hostile_torch import ARCHIVES, LIES, archive, tensor

Spoiled = dict[tuple[int, Kind], dict[str, Callable[[Path], object]]]
POINTS = range(1, 44)
FORMATS = ("megengine", "paddle", "torch", "torch_legacy", "jax", "safetensors", "safetensors_sharded", "npz", "orbax")


@dataclass(frozen=True)
class Case:
    """A hostile file. `make` writes it into an empty folder and returns its path; `kinds` are those it may be refused with."""

    point: int
    format: str
    name: str
    kinds: tuple[Kind, ...]
    make: Callable[[Path], Path]

    def __str__(self) -> str:
        return f"{self.point}-{self.format}-{self.name}"


def _written(content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "file").write_bytes(content)
        return folder / "file"

    return make


def _cases(format: str, *tables: Table, wrap: Callable[[bytes], bytes] = bytes) -> Iterator[Case]:
    for table in tables:
        for (point, kind), contents in table.items():
            for name, content in contents.items():
                yield Case(point, format, name, (kind,), _written(wrap(content)))


def _folders(format: str, cases: Spoiled, entry: str) -> Iterator[Case]:
    def made(spoil: Callable[[Path], object]) -> Callable[[Path], Path]:
        def make(folder: Path) -> Path:
            path = folder / "folder"
            path.mkdir()
            spoil(path)
            return path / entry

        return make

    for (point, kind), spoils in cases.items():
        for name, spoil in spoils.items():
            yield Case(point, format, name, (kind,), made(spoil))


def _others(format: str) -> Iterator[Case]:
    """Files that are no checkpoint of any kind."""
    yield Case(16, format, "an empty file", ("corrupt",), _written(b""))
    for name, content in {
        "a page of HTML": b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>\n",
        "a pointer of git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n",
        "zeros": bytes(4096),
        "text": b"weights\n" * 100,
    }.items():
        yield Case(38, format, name, ("corrupt", "unsupported"), _written(content))


def _large_header(folder: Path) -> Path:
    with (folder / "file").open("wb") as file:
        file.write(struct.pack("<Q", 30_000_000) + b"{")
        file.truncate(30_000_008)
    return folder / "file"


def _of_torch(programs: Table) -> Table:
    """The programs that mean something in PyTorch's files, where tensors are no ndarrays and a persistent id is a storage."""
    kept = {place: dict(contents) for place, contents in programs.items() if place not in ((22, "corrupt"), (23, "corrupt"))}
    called = kept.get((8, "unsafe"), {})
    kept[8, "unsupported"] = {name: called.pop(name) for name in ("persistent", "binary persistent") if name in called}
    return kept


def _without(point: int, table: Table) -> Table:
    return {place: contents for place, contents in table.items() if place[0] != point}


PAYLOADS = pickles.payloads("exit 1")
PROGRAMS: tuple[Table, ...] = (PAYLOADS, pickles.PROGRAMS, pickles.BOMBS)
CASES: list[Case] = [
    *chain.from_iterable(_cases(format, *PROGRAMS, pickles.ARRAY_BOMBS) for format in ("megengine", "paddle")),
    *_cases("paddle", pickles.PADDLE),
    *chain.from_iterable(_cases("torch", _of_torch(table), wrap=archive) for table in PROGRAMS),
    *_cases("torch", ARCHIVES),
    *_cases("torch", {place: {name: archive(tensor(**lie)) for name, lie in lies.items()} for place, lies in LIES.items()}),
    # Behind the state comes another pickle anyway.
    *chain.from_iterable(_cases("torch_legacy", _of_torch(_without(17, table)), wrap=legacy) for table in PROGRAMS),
    *_cases("torch_legacy", STREAMS),
    *_cases("jax", TREES),
    *_cases("npz", ARCHIVES_OF_NUMPY),
    *_folders("safetensors_sharded", hostile_sharded.CASES, hostile_sharded.INDEX),
    *_folders("orbax", hostile_orbax.CASES, ""),
    *_cases("safetensors", HEADERS),
    Case(32, "safetensors", "a header of 30 MB", ("unsupported",), _large_header),
    *chain.from_iterable(_others(format) for format in FORMATS if format != "orbax"),
]

_PICKLES, _TORCH = ("megengine", "paddle"), ("torch", "torch_legacy")
_TENSORS, _JSON = ("safetensors", "safetensors_sharded", "npz", "jax", "orbax"), ("safetensors", "safetensors_sharded", "orbax")
_NOT_ORBAX = tuple(name for name in FORMATS if name != "orbax")
# Where a point says nothing of a format: formats, points, and why.
WITHOUT: list[tuple[tuple[str, ...], tuple[int, ...], str]] = [
    (FORMATS, (39, 40, 42, 43), "a matter of writing: test_atomic_write, test_round_trip"),
    (_NOT_ORBAX, (41,), "a matter of writing: test_round_trip"),
    (("jax", *_JSON), (1, 2), "no pickle is in it, and no expression"),
    (_TENSORS, (*range(3, 14), 17, 19, 22), "no pickle is in it"),
    (("jax", *_JSON), (15,), "its lengths are points 32 to 34"),
    (_JSON, (14,), "its only nesting is JSON's, point 32"),
    ((*_PICKLES, *_TENSORS), (24, 26, 27), "its arrays have no strides, no storages and no metadata"),
    (_TENSORS, (25,), "its arrays share no bytes"),
    ((*_PICKLES, "torch_legacy", "jax", "safetensors", "safetensors_sharded"), (28,), "nothing in it is compressed"),
    ((*_PICKLES, "torch_legacy", "jax", *_JSON), (29,), "it is not a zip"),
    ((*_PICKLES, "torch_legacy", "jax", "safetensors"), (30,), "it names no files"),
    ((*_PICKLES, "jax", "safetensors"), (31,), "an array's bytes are where it is described"),
    ((*_PICKLES, *_TORCH, "jax", "npz"), (32, 33), "it has no header in JSON"),
    ((*_PICKLES, *_TORCH, *_JSON, "npz"), (34,), "of msgpack alone"),
    (_NOT_ORBAX, (35, 36), "of Orbax alone"),
    (("orbax",), (16, 18, 20, 21, 23, 30, 31, 33), "its trees are point 32, its files 35, its arrays 36"),
    (("megengine", *_TORCH, *_TENSORS), (37,), "of Paddle alone"),
]


def reasons(format: str, point: int) -> list[str]:
    """Why a point says nothing of a format; none where it does."""
    return [why for formats, points, why in WITHOUT if format in formats and point in points]
