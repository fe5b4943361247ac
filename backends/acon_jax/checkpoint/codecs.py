"""What the bytes of an Orbax folder went through: zstd, and the checksum CRC-32C."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import numpy as np

from acon_core.errors import CheckpointError


def unzstd(data: memoryview, most: int) -> bytes:
    """What one frame of zstd holds. Raises CheckpointError when that is more than `most` bytes, or bytes follow the frame."""
    zstandard = _zstandard()
    try:
        # What a frame says of its own size is believed by the library, whatever limit it is given.
        stated = zstandard.get_frame_parameters(data).content_size
        if stated != zstandard.CONTENTSIZE_UNKNOWN and stated > most:
            raise CheckpointError("corrupt", f"zstd says that it holds {stated} bytes, expected no more than {most}")
        return bytes(zstandard.ZstdDecompressor().decompress(data, max_output_size=most, allow_extra_data=False))
    except zstandard.ZstdError as error:
        raise CheckpointError("corrupt", f"no frame of zstd of up to {most} bytes: {str(error)[:80]}") from None


def _zstandard() -> Any:
    try:
        return import_module("zstandard")
    except ImportError:
        raise CheckpointError("unsupported", "is compressed with zstd; pip install 'acon-ports[orbax]' to read it") from None


def crc32c(data: bytes | memoryview) -> int:
    """The checksum of iSCSI, with the polynomial of Castagnoli."""
    lanes = math.isqrt(len(data)) if len(data) >= _LONG else 0
    state = 0xFFFFFFFF
    step = len(data) // lanes if lanes else 0
    if lanes:
        state = _by_lanes(np.frombuffer(data, np.uint8)[: lanes * step].reshape(lanes, step), state)
    for byte in data[lanes * step :]:
        state = _BYTES[(state ^ byte) & 0xFF] ^ state >> 8
    return state ^ 0xFFFFFFFF


def _by_lanes(rows: np.ndarray, state: int) -> int:
    """The state after all rows, which are gone through at once and then joined: the checksum is linear in its bits."""
    count = len(rows)
    # After the rows' own states come those of 4 times 256 words under `step` bytes of 0: a table that moves a state on.
    words = np.arange(256, dtype=np.uint32)
    states = np.concatenate([np.zeros(count, np.uint32), words, words << 8, words << 16, words << 24])
    states[0] = state
    for column in np.ascontiguousarray(rows.T):
        low = states & 0xFF
        low[:count] ^= column
        states = _TABLE[low] ^ states >> 8
    first, *rest = states[:count].tolist()
    moved = states[count:].reshape(4, 256).tolist()
    for each in rest:
        low, high = moved[0][first & 0xFF] ^ moved[1][first >> 8 & 0xFF], moved[2][first >> 16 & 0xFF] ^ moved[3][first >> 24]
        first = low ^ high ^ each
    return int(first)


_LONG = 4096  # below, a loop over bytes is as fast


def _table() -> np.ndarray:
    table: np.ndarray = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = table >> 1 ^ (table & 1) * np.uint32(0x82F63B78)
    return table


_TABLE = _table()
_BYTES: list[int] = _TABLE.tolist()
