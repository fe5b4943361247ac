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

import hostile_pickles as pickles
from hostile_msgpack import TREES
from hostile_pickles import Kind, Table
from hostile_safetensors import HEADERS
from hostile_torch import ARCHIVES, LIES, archive, tensor

POINTS = range(1, 44)
FORMATS = ("megengine", "paddle", "torch", "jax", "safetensors")


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


PAYLOADS = pickles.payloads("exit 1")
PROGRAMS: tuple[Table, ...] = (PAYLOADS, pickles.PROGRAMS, pickles.BOMBS)
CASES: list[Case] = [
    *chain.from_iterable(_cases(format, *PROGRAMS, pickles.ARRAY_BOMBS) for format in ("megengine", "paddle")),
    *_cases("paddle", pickles.PADDLE),
    *chain.from_iterable(_cases("torch", _of_torch(table), wrap=archive) for table in PROGRAMS),
    *_cases("torch", ARCHIVES),
    *_cases("torch", {place: {name: archive(tensor(**lie)) for name, lie in lies.items()} for place, lies in LIES.items()}),
    *_cases("jax", TREES),
    *_cases("safetensors", HEADERS),
    Case(32, "safetensors", "a header of 30 MB", ("unsupported",), _large_header),
    *chain.from_iterable(_others(format) for format in FORMATS),
]

_PICKLED = ("megengine", "paddle", "torch")
# Where a point says nothing of a format: formats, points, and why.
WITHOUT: list[tuple[tuple[str, ...], tuple[int, ...], str]] = [
    (FORMATS, (39, 40, 41, 42, 43), "a matter of writing: test_atomic_write, test_round_trip"),
    (("jax", "safetensors"), (*range(1, 14), 15, 17, 19, 22), "no pickle is in it"),
    (("safetensors",), (14,), "its only nesting is JSON's, point 32"),
    (("megengine", "paddle"), (24, 26, 27), "its arrays have no strides, no storages and no metadata"),
    (("jax", "safetensors"), (24, 25, 26, 27), "its arrays have no strides, no storages and no metadata, and share no bytes"),
    (("megengine", "paddle", "jax", "safetensors"), (28, 29, 30, 31), "it is not a zip"),
    (("megengine", "paddle", "torch", "jax"), (32, 33), "of safetensors alone"),
    (("megengine", "paddle", "torch", "safetensors"), (34,), "of msgpack alone"),
    (FORMATS, (35, 36), "of Orbax alone"),
    (("megengine", "torch", "jax", "safetensors"), (37,), "of Paddle alone"),
]


def reasons(format: str, point: int) -> list[str]:
    """Why a point says nothing of a format; none where it does."""
    return [why for formats, points, why in WITHOUT if format in formats and point in points]
