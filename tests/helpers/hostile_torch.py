"""Hostile files of PyTorch: tensors outside their storages, and other files of PyTorch."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any

import numpy as np
from attacks import Attack
from hostile_pickles import Kind, Table, text
from hostile_zips import added, rezipped, zips

from acon_core.checkpoint.codecs.zip_archive import ZipWriter

WEIGHT = np.arange(6, dtype=np.float32)


def archive(program: bytes, members: dict[str, bytes] | None = None, root: str = "archive") -> bytes:
    """Write a file of PyTorch with this pickle."""
    target = io.BytesIO()
    writer = ZipWriter(target, root)
    for name, data in ({"data.pkl": program, "version": b"3\n", "data/0": WEIGHT.tobytes()} | (members or {})).items():
        writer.add(name, data)
    writer.close()
    return target.getvalue()


def tensor(
    *,
    kind: str = "torch\nFloatStorage",
    key: bytes = text("0"),
    numel: bytes = b"K\x06",
    metadata: bytes = b"",
    offset: bytes = b"K\x00",
    size: bytes = b"K\x06\x85",
    stride: bytes = b"K\x01\x85",
    extra: bytes = b"",
    call: str = "_rebuild_tensor_v2",
) -> bytes:
    """Pickle a state dict of one tensor, w.

    `metadata` is the last part of the storage's persistent id, which only the older format has.
    """
    storage = b"(" + text("storage") + f"c{kind}\n".encode() + key + text("cpu") + numel + metadata + b"tQ"
    rebuild = f"ctorch._utils\n{call}\n(".encode() + storage + offset + size + stride
    return b"\x80\x02}" + text("w") + rebuild + b"\x89ccollections\nOrderedDict\n)R" + extra + b"tRs."


def big(value: int) -> bytes:
    """Pickle an integer in 9 bytes."""
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


GOOD = archive(tensor())


def two(first: bytes, second: bytes) -> bytes:
    """Join two state dicts; the tensor of the second becomes v."""
    return first[:-1] + second[3:].replace(text("w"), text("v"), 1)


# Arguments of `tensor` that contradict the file.
LIES: dict[tuple[Attack, Kind], dict[str, dict[str, Any]]] = {
    (Attack.OPERAND_TYPE, "corrupt"): {
        "seven arguments of v3": {"call": "_rebuild_tensor_v3"},
    },
    (Attack.SHAPE, "corrupt"): {
        "negative size": {"size": b"J\xff\xff\xff\xff\x85"},
        "huge size": {"size": big(1 << 62) + b"\x85", "stride": b"K\x00\x85"},
    },
    (Attack.STRIDES, "corrupt"): {
        "past the end": {"offset": b"K\x01"},
        "far past the end": {"offset": big(1 << 62)},
        "negative offset": {"offset": b"J\xff\xff\xff\xff"},
        "wrapping offset": {"offset": big((1 << 62) + 1)},
        "float offset": {"offset": b"G" + struct.pack(">d", 0)},
        "bool offset": {"offset": b"\x89"},
        "negative stride": {"offset": b"K\x05", "stride": b"J\xff\xff\xff\xff\x85"},
        "wide stride": {"stride": b"K\x02\x85"},
        "wrapping stride": {"stride": big(1 << 62) + b"\x85"},
        "longer stride": {"stride": b"K\x01K\x01\x86"},
        "list as size": {"size": b"]"},
    },
    (Attack.AMPLIFICATION, "corrupt"): {
        "amplified": {"size": big(1 << 40) + b"\x85", "stride": b"K\x00\x85"},
        "amplified within memory": {"size": big(1 << 25) + b"\x85", "stride": b"K\x00\x85"},
        "amplified bools": {
            "kind": "torch\nBoolStorage",
            "numel": b"K\x18",
            "size": big(1 << 60) + b"\x85",
            "stride": b"K\x00\x85",
        },
    },
    (Attack.STORAGE, "corrupt"): {
        "numel too large": {"numel": b"K\x07"},
        "numel too small": {"numel": b"K\x05", "size": b"K\x05\x85"},
        "numel negative": {"numel": b"J\xff\xff\xff\xff"},
        "numel wrapping": {"numel": big((1 << 62) + 6)},
        "another dtype": {"kind": "torch\nDoubleStorage"},
        "traversal": {"key": text("../../../etc/passwd")},
        "number as key": {"key": b"K\x00"},
    },
    (Attack.CONTENT, "corrupt"): {
        "no such storage": {"key": text("7")},
    },
    (Attack.DTYPE, "unsupported"): {
        "quantised": {"kind": "torch\nQInt8Storage"},
        "untyped and no dtype": {"kind": "torch.storage\nUntypedStorage", "numel": b"K\x18"},
        "a device as dtype": {
            "kind": "torch.storage\nUntypedStorage",
            "numel": b"K\x18",
            "call": "_rebuild_tensor_v3",
            "extra": b"ctorch\ndevice\n",
        },
    },
    (Attack.DTYPE, "unsafe"): {"a function as storage": {"kind": "torch\nsystem"}},
    (Attack.TENSOR_METADATA, "unsupported"): {
        "a conjugate bit on reals": {"extra": b"}" + text("conj") + b"\x88s"},
        "a negative bit on integers": {"kind": "torch\nIntStorage", "extra": b"}" + text("neg") + b"\x88s"},
        "a bit that is no bool": {"extra": b"}" + text("neg") + b"K\x01s"},
        "unknown metadata": {"extra": b"}" + text("new") + b"Ns"},
        "a number as metadata": {"extra": b"K\x01"},
    },
}


ARCHIVES: Table = {
    **zips(GOOD),
    (Attack.COMPRESSION, "corrupt"): {
        "deflated": rezipped(GOOD, compression=zipfile.ZIP_DEFLATED),
        "bzip2": rezipped(GOOD, compression=zipfile.ZIP_BZIP2),
        "lzma": rezipped(GOOD, compression=zipfile.ZIP_LZMA),
        "a storage of 16 MB in 16 kB": added(
            archive(two(tensor(), tensor(key=text("1"), numel=b"J\x00\x09\x3d\x00", size=b"J\x00\x09\x3d\x00\x85"))),
            "archive/data/1",
            bytes(16_000_000),
            zipfile.ZIP_DEFLATED,
        ),
    },
    (Attack.CONTENT, "corrupt"): {
        **zips(GOOD)[Attack.CONTENT, "corrupt"],
        "a storage that is short": archive(tensor(), {"data/0": WEIGHT.tobytes()[:-1]}),
        "a storage that is long": archive(tensor(), {"data/0": WEIGHT.tobytes() + b"\0"}),
        "a bit of the weights": GOOD.replace(WEIGHT.tobytes(), WEIGHT.tobytes()[:-1] + b"\x41"),
        "a bit of the pickle": GOOD.replace(text("cpu"), text("cpv")),
        "another byte order": archive(tensor(), {"byteorder": b"middle"}),
    },
    (Attack.OTHER_FILE, "unsupported"): {
        "TorchScript": archive(tensor(), {"constants.pkl": b"x"}),
        "torch.export": archive(tensor(), {"models/model.json": b"{}"}),
        "no pickle": GOOD.replace(b"data.pkl", b"data.pkx"),
        "tar": bytes(257) + b"ustar" + bytes(250),
    },
}
ARCHIVES[Attack.FILE_NAME, "corrupt"] |= {
    "two roots": added(GOOD, "other/data/0"),
    "no root": added(GOOD, "flat"),
}
