"""States with every dtype and memory layout, and what makes two states the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from types import ModuleType

import ml_dtypes
import numpy as np
import pytest

from acon_core.checkpoint.codecs import limits

FORMATS = {
    "torch": "acon_torch.checkpoint.codec",
    "torch_legacy": "acon_torch.checkpoint.legacy",
    "megengine": "acon_megengine.checkpoint.codec",
    "paddle": "acon_paddle.checkpoint.codec",
    "jax": "acon_jax.checkpoint.codec",
    "safetensors": "acon_core.checkpoint.codecs.safetensors_file",
    "safetensors_sharded": "acon_core.checkpoint.codecs.sharded",
    "npz": "acon_core.checkpoint.codecs.npz_file",
}
_COMMON = ("float32", "float16", "int32", "int16", "int8", "uint8", "bool")
_WIDE = ("float64", "int64", "bfloat16", "complex64")
_LATE = ("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu")
_FNUZ = ("float8_e4m3fnuz", "float8_e5m2fnuz")
DTYPES = {
    "torch": (*_COMMON, *_WIDE, *_LATE, *_FNUZ, "complex128"),
    "torch_legacy": (*_COMMON, *_WIDE, "complex128"),
    "megengine": (*_COMMON, "uint16"),
    "paddle": (*_COMMON, *_WIDE, "complex128"),
    "jax": (*_COMMON, *_WIDE, *_LATE, *_FNUZ, "complex128"),
    "safetensors": (*_COMMON, *_WIDE, *_LATE),
    "safetensors_sharded": (*_COMMON, *_WIDE, *_LATE),
    "npz": (*_COMMON, "float64", "int64", "complex64", "complex128", "uint16", "uint32", "uint64"),
}


def module(name: str) -> ModuleType:
    return import_module(FORMATS[name])


def dtype(name: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name, None) or name)


def bits(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Draw uniform bits; as floats, NaN payloads, infinities, denormals and both zeros occur."""
    kind = dtype(name)
    if name == "bool":
        return np.random.default_rng(seed).integers(0, 2, shape).astype(bool)
    count = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    return np.random.default_rng(seed).integers(0, 256, count, dtype=np.uint8).view(kind).reshape(shape)


def special() -> np.ndarray:
    words = [0x7FC00001, 0xFFC12345, 0x7F800001, 0x7F800000, 0xFF800000, 0x80000000, 0, 1, 0x807FFFFF, 0x7F7FFFFF]
    return np.array(words, np.uint32).view(np.float32)


def state(name: str) -> dict[str, np.ndarray]:
    """Return arrays of every dtype of the format and of every memory layout."""
    base = bits("float32", (4, 6, 5), 1)
    tensors = {f"every.{kind}": bits(kind, (3, 2), seed) for seed, kind in enumerate(DTYPES[name])}
    tensors |= {f"scalar.{kind}": bits(kind, (), seed) for seed, kind in enumerate(DTYPES[name])}
    return tensors | {
        "layout.special": special(),
        "layout.fortran": np.asfortranarray(base),
        "layout.step": base[::2, 1:, ::-1],
        "layout.expanded": np.broadcast_to(np.float32(1.5), (2, 3)),
        "layout.big_endian": special().astype(">f4"),
        "layout.unaligned": np.frombuffer(b"x" + special().tobytes(), np.uint8)[1:].view(np.float32),
        "empty.first": np.zeros((0, 3), np.float32),
        "empty.last": np.zeros((2, 0), np.float16),
        "empty.only": np.zeros((0,), np.uint8),
        "naïve.ключ.鍵": bits("float32", (1,), 5),
        "deep.a.b.c.0.1.weight": bits("float32", (1, 2, 3, 4, 5), 6),
    }


def assert_same(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], *, order: bool = True) -> None:
    assert set(found) == set(expected)
    assert not order or list(found) == list(expected)
    for key, array in expected.items():
        native = array.astype(array.dtype.newbyteorder("=")) if not array.dtype.isnative else array
        assert (key, found[key].dtype, found[key].shape) == (key, native.dtype, native.shape)
        assert found[key].tobytes() == native.tobytes(), key


@contextmanager
def limited(**changes: int) -> Iterator[None]:
    """Read files under other limits, given by their names in `limits.Limits`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "LIMITS", replace(limits.LIMITS, **changes))
        yield
