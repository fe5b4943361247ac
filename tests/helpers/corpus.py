"""Every hostile file, by its attack and by the format that must refuse it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import hostile_orbax
import hostile_pickles as pickles
import hostile_sharded
from attacks import Attack
from hostile_legacy import STREAMS, legacy
from hostile_msgpack import TREES
from hostile_npz import ARCHIVES as ARCHIVES_OF_NUMPY
from hostile_pickles import Kind, Table
from hostile_safetensors import HEADERS
from hostile_torch import ARCHIVES, LIES, archive, tensor

Spoiled = dict[tuple[Attack, Kind], dict[str, Callable[[Path], object]]]
FORMATS = ("megengine", "paddle", "torch", "torch_legacy", "jax", "safetensors", "safetensors_sharded", "npz", "orbax")


@dataclass(frozen=True)
class Case:
    """A hostile file.

    `make` writes it into an empty folder and returns its path. `kinds` are the kinds of error that
    may refuse it.
    """

    attack: Attack
    format: str
    name: str
    kinds: tuple[Kind, ...]
    make: Callable[[Path], Path]

    def __str__(self) -> str:
        return f"{self.attack.name.lower()}-{self.format}-{self.name}"


def _written(content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "file").write_bytes(content)
        return folder / "file"

    return make


def _cases(format: str, *tables: Table, wrap: Callable[[bytes], bytes] = bytes) -> Iterator[Case]:
    for table in tables:
        for (attack, kind), contents in table.items():
            for name, content in contents.items():
                yield Case(attack, format, name, (kind,), _written(wrap(content)))


def _folders(format: str, cases: Spoiled, entry: str) -> Iterator[Case]:
    def made(spoil: Callable[[Path], object]) -> Callable[[Path], Path]:
        def make(folder: Path) -> Path:
            path = folder / "folder"
            path.mkdir()
            spoil(path)
            return path / entry

        return make

    for (attack, kind), spoils in cases.items():
        for name, spoil in spoils.items():
            yield Case(attack, format, name, (kind,), made(spoil))


def _others(format: str) -> Iterator[Case]:
    """Yield files that are not checkpoints of any kind."""
    yield Case(Attack.INCOMPLETE, format, "an empty file", ("corrupt",), _written(b""))
    for name, content in {
        "a page of HTML": b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>\n",
        "a pointer of git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n",
        "zeros": bytes(4096),
        "text": b"weights\n" * 100,
    }.items():
        yield Case(Attack.OTHER_FILE, format, name, ("corrupt", "unsupported"), _written(content))


def _large_header(folder: Path) -> Path:
    with (folder / "file").open("wb") as file:
        file.write(struct.pack("<Q", 30_000_000) + b"{")
        file.truncate(30_000_008)
    return folder / "file"


def _for_torch(programs: Table) -> Table:
    """Adapt pickles to PyTorch: tensors are not ndarrays, and persistent ids are storages."""
    ndarrays = ((Attack.ARRAY_CLASS, "corrupt"), (Attack.SHAPE, "corrupt"))
    adapted = {key: dict(contents) for key, contents in programs.items() if key not in ndarrays}
    calls = adapted.get((Attack.INSTANTIATION, "unsafe"), {})
    persistent = {name: calls.pop(name) for name in ("persistent", "binary persistent") if name in calls}
    adapted[Attack.INSTANTIATION, "unsupported"] = persistent
    return adapted


def _without(attack: Attack, table: Table) -> Table:
    return {key: contents for key, contents in table.items() if key[0] is not attack}


PAYLOADS = pickles.payloads("exit 1")
PROGRAMS: tuple[Table, ...] = (PAYLOADS, pickles.PROGRAMS, pickles.BOMBS)
CASES: list[Case] = [
    *chain.from_iterable(_cases(format, *PROGRAMS, pickles.ARRAY_BOMBS) for format in ("megengine", "paddle")),
    *_cases("paddle", pickles.PADDLE),
    *chain.from_iterable(_cases("torch", _for_torch(table), wrap=archive) for table in PROGRAMS),
    *_cases("torch", ARCHIVES),
    *_cases("torch", {key: {name: archive(tensor(**lie)) for name, lie in lies.items()} for key, lies in LIES.items()}),
    # In this format another pickle follows the state anyway.
    *chain.from_iterable(
        _cases("torch_legacy", _for_torch(_without(Attack.SECOND_PICKLE, table)), wrap=legacy) for table in PROGRAMS
    ),
    *_cases("torch_legacy", STREAMS),
    *_cases("jax", TREES),
    *_cases("npz", ARCHIVES_OF_NUMPY),
    *_folders("safetensors_sharded", hostile_sharded.CASES, hostile_sharded.INDEX),
    *_folders("orbax", hostile_orbax.CASES, ""),
    *_cases("safetensors", HEADERS),
    Case(Attack.JSON_HEADER, "safetensors", "a header of 30 MB", ("unsupported",), _large_header),
    *chain.from_iterable(_others(format) for format in FORMATS if format != "orbax"),
]

_PICKLES, _TORCH = ("megengine", "paddle"), ("torch", "torch_legacy")
_TENSORS, _JSON = ("safetensors", "safetensors_sharded", "npz", "jax", "orbax"), ("safetensors", "safetensors_sharded", "orbax")
_NOT_ORBAX = tuple(name for name in FORMATS if name != "orbax")
# Attacks that do not concern a format: formats, attacks, and why.
NOT_APPLICABLE: list[tuple[tuple[str, ...], set[Attack], str]] = [
    (
        FORMATS,
        {Attack.LINK_AS_TARGET, Attack.INTERRUPTION, Attack.MEMORY_LAYOUT, Attack.TRUNCATED_SOURCE},
        "about writing: test_atomic_write, test_round_trip",
    ),
    (_NOT_ORBAX, {Attack.KEY_AS_PATH}, "about writing: test_round_trip"),
    (("jax", *_JSON), {Attack.SYSTEM_CALL, Attack.EVAL}, "it contains no pickles and no expressions"),
    (
        _TENSORS,
        {
            Attack.PADDLE_EVAL,
            Attack.ATTRIBUTE_CHAIN,
            Attack.NUMPY_GADGET,
            Attack.DOTTED_GLOBAL,
            Attack.MEMOIZED_GLOBAL,
            Attack.INSTANTIATION,
            Attack.BUILD,
            Attack.OPERAND_TYPE,
            Attack.MEMO_INDEX,
            Attack.BILLION_LAUGHS,
            Attack.CYCLE,
            Attack.SECOND_PICKLE,
            Attack.TEXT_CODEC,
            Attack.ARRAY_CLASS,
        },
        "it contains no pickles",
    ),
    (("jax", *_JSON), {Attack.LENGTH}, "its lengths are in JSON_HEADER, BYTE_RANGE and MSGPACK"),
    (_JSON, {Attack.NESTING}, "only its JSON nests: JSON_HEADER"),
    (
        (*_PICKLES, *_TENSORS),
        {Attack.STRIDES, Attack.STORAGE, Attack.TENSOR_METADATA},
        "its arrays have no strides, no storages and no metadata",
    ),
    (_TENSORS, {Attack.AMPLIFICATION}, "its arrays share no bytes"),
    (
        (*_PICKLES, "torch_legacy", "jax", "safetensors", "safetensors_sharded"),
        {Attack.COMPRESSION},
        "nothing in it is compressed",
    ),
    ((*_PICKLES, "torch_legacy", "jax", *_JSON), {Attack.ZIP_STRUCTURE}, "it is not a zip"),
    ((*_PICKLES, "torch_legacy", "jax", "safetensors"), {Attack.FILE_NAME}, "it names no files"),
    ((*_PICKLES, "jax", "safetensors"), {Attack.CONTENT}, "an array's bytes are where it is described"),
    ((*_PICKLES, *_TORCH, "jax", "npz"), {Attack.JSON_HEADER, Attack.BYTE_RANGE}, "it has no header in JSON"),
    ((*_PICKLES, *_TORCH, *_JSON, "npz"), {Attack.MSGPACK}, "msgpack alone"),
    (_NOT_ORBAX, {Attack.OCDBT, Attack.ZARR}, "Orbax alone"),
    (
        ("orbax",),
        {
            Attack.INCOMPLETE,
            Attack.DICT_KEY,
            Attack.ENCODING,
            Attack.DTYPE,
            Attack.SHAPE,
            Attack.FILE_NAME,
            Attack.CONTENT,
            Attack.BYTE_RANGE,
        },
        "its trees are in JSON_HEADER, its files in OCDBT, its arrays in ZARR",
    ),
    (("megengine", *_TORCH, *_TENSORS), {Attack.PADDLE_SLICES}, "Paddle alone"),
]


def reasons(format: str, attack: Attack) -> list[str]:
    """Return why an attack does not concern a format; empty if it does."""
    return [why for formats, attacks, why in NOT_APPLICABLE if format in formats and attack in attacks]
