"""Hostile indices and shards; each case spoils a valid set of files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from attacks import Attack
from hostile_pickles import Kind
from hostile_safetensors import HEADERS

from acon_core.checkpoint.codecs import sharded

Spoil = Callable[[Path], object]
INDEX = "model.safetensors.index.json"
TENSORS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "v": np.arange(5, dtype=np.int32)}


def good(folder: Path) -> list[Path]:
    """Write an index and two shards; return the shards in the order of their tensors."""
    sharded.write(folder / INDEX, TENSORS, shard_bytes=24)
    places = json.loads((folder / INDEX).read_text())["weight_map"]
    return [folder / places[key] for key in TENSORS]


def index(content: bytes) -> Spoil:
    """Replace the index."""

    def make(folder: Path) -> None:
        good(folder)
        (folder / INDEX).write_bytes(content)

    return make


def place(name: Any, key: str = "w") -> Spoil:
    """Set an entry of the index. `name` may be the number of a shard."""

    def make(folder: Path) -> None:
        shards = good(folder)
        told = json.loads((folder / INDEX).read_text())
        told["weight_map"][key] = shards[name].name if type(name) is int else name
        (folder / INDEX).write_text(json.dumps(told))

    return make


def shard(change: Callable[[Path], object]) -> Spoil:
    """Change the second shard."""
    return lambda folder: change(good(folder)[1])


def linked(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


CASES: dict[tuple[Attack, Kind], dict[str, Spoil]] = {
    (Attack.DICT_KEY, "corrupt"): {"a name twice": index(b'{"weight_map": {"w": "x.safetensors", "w": "x.safetensors"}}')},
    (Attack.ENCODING, "corrupt"): {
        "not UTF-8": index(b'{"weight_map": {"\xff": "x.safetensors"}}'),
        "half a surrogate pair": index(b'{"weight_map": {"\\ud800": "x.safetensors"}}'),
    },
    (Attack.DTYPE, "unsupported"): {"shards of pickles": index(b'{"weight_map": {"w": "pytorch_model-00001-of-00002.bin"}}')},
    (Attack.SHAPE, "corrupt"): {
        name: shard(lambda path, content=content: path.write_bytes(content))
        for name, content in HEADERS[Attack.SHAPE, "corrupt"].items()
    },
    (Attack.FILE_NAME, "unsafe"): {
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
    (Attack.CONTENT, "corrupt"): {
        "a shard missing": shard(Path.unlink),
        "a shard cut short": shard(lambda path: path.write_bytes(path.read_bytes()[:-4])),
        "a shard of HTML": shard(lambda path: path.write_bytes(b"<!DOCTYPE html>")),
        "a tensor in no shard": place(0, "u"),
        "a tensor in another shard": place(1),
    },
    (Attack.JSON_HEADER, "corrupt"): {
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
        f"shard: {name}": shard(lambda path, c=content: path.write_bytes(c))
        for name, content in HEADERS[Attack.JSON_HEADER, "corrupt"].items()
    },
    (Attack.BYTE_RANGE, "corrupt"): {
        name: shard(lambda path, content=content: path.write_bytes(content))
        for name, content in HEADERS[Attack.BYTE_RANGE, "corrupt"].items()
    },
}
