"""Indices of shards that lie, and shards that are not what their index says: each case spoils a good set of files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hostile_pickles import Kind
from hostile_safetensors import HEADERS

from acon_core.checkpoint.codecs import sharded

Spoil = Callable[[Path], object]
INDEX = "model.safetensors.index.json"
TENSORS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "v": np.arange(5, dtype=np.int32)}


def good(folder: Path) -> list[Path]:
    """An index and two shards, whose paths are returned in the order of the tensors in them."""
    sharded.write(folder / INDEX, TENSORS, shard_bytes=24)
    places = json.loads((folder / INDEX).read_text())["weight_map"]
    return [folder / places[key] for key in TENSORS]


def index(content: bytes) -> Spoil:
    """Another index."""

    def make(folder: Path) -> None:
        good(folder)
        (folder / INDEX).write_bytes(content)

    return make


def place(name: Any, key: str = "w") -> Spoil:
    """One more entry in the index, or another; `name` may be that of a shard by its number."""

    def make(folder: Path) -> None:
        shards = good(folder)
        told = json.loads((folder / INDEX).read_text())
        told["weight_map"][key] = shards[name].name if type(name) is int else name
        (folder / INDEX).write_text(json.dumps(told))

    return make


def shard(change: Callable[[Path], object]) -> Spoil:
    """The second shard changed."""
    return lambda folder: change(good(folder)[1])


def linked(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


CASES: dict[tuple[int, Kind], dict[str, Spoil]] = {
    (18, "corrupt"): {"a name twice": index(b'{"weight_map": {"w": "x.safetensors", "w": "x.safetensors"}}')},
    (20, "corrupt"): {
        "not UTF-8": index(b'{"weight_map": {"\xff": "x.safetensors"}}'),
        "half a surrogate pair": index(b'{"weight_map": {"\\ud800": "x.safetensors"}}'),
    },
    (21, "unsupported"): {"shards of pickles": index(b'{"weight_map": {"w": "pytorch_model-00001-of-00002.bin"}}')},
    (23, "corrupt"): {
        name: shard(lambda path, content=content: path.write_bytes(content)) for name, content in HEADERS[23, "corrupt"].items()
    },
    (30, "unsafe"): {
        f"shard {name!r}": place(name)
        for name in (
            "../s.safetensors",
            "/etc/s.safetensors",
            "a/s.safetensors",
            "a\\s.safetensors",
            "..",
            "",
            "a\0b",
            None,
            [],
        )
    }
    | {"a shard that is a link": shard(linked)},
    (31, "corrupt"): {
        "a shard missing": shard(Path.unlink),
        "a shard cut short": shard(lambda path: path.write_bytes(path.read_bytes()[:-4])),
        "a shard of HTML": shard(lambda path: path.write_bytes(b"<!DOCTYPE html>")),
        "a tensor in no shard": place(0, "u"),
        "a tensor in another shard": place(1),
    },
    (32, "corrupt"): {
        name: index(content)
        for name, content in {
            "a list": b"[]",
            "no map": b'{"metadata": {}}',
            "a list as map": b'{"weight_map": []}',
            "a number as metadata": b'{"weight_map": {}, "metadata": 3}',
            "cut JSON": b'{"weight_map": {"w": "x.safetensors"',
            "deep": b'{"weight_map": ' + b'{"a":' * 100_000,
            "NaN": b'{"weight_map": {"w": NaN}}',
            "many digits": b'{"weight_map": {"w": ' + b"9" * 5000 + b"}}",
        }.items()
    }
    | {
        f"shard: {name}": shard(lambda path, c=content: path.write_bytes(c)) for name, content in HEADERS[32, "corrupt"].items()
    },
    (33, "corrupt"): {
        name: shard(lambda path, content=content: path.write_bytes(content)) for name, content in HEADERS[33, "corrupt"].items()
    },
}
