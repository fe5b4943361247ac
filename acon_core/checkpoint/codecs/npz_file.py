"""NumPy's `.npz`: a zip with one `.npy` member per array, a text header and the array's bytes.

`read` accepts the files of `numpy.savez` and `numpy.savez_compressed`. `write` makes files for
`numpy.load`. Metadata is in the member `acon_metadata.json`; `numpy.load` lists it beside the
arrays and returns it as bytes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from acon_core.checkpoint.codecs import limits
from acon_core.checkpoint.codecs.arrays import check_size, lazy_view, little_endian_bytes, view
from acon_core.checkpoint.codecs.atomic_write import atomic_write
from acon_core.checkpoint.codecs.codec import CheckpointFile, check_writable
from acon_core.checkpoint.codecs.limits import Budget
from acon_core.checkpoint.codecs.mapped_file import map_file
from acon_core.checkpoint.codecs.strict_json import decode_metadata, encode_metadata
from acon_core.checkpoint.codecs.text import ErrorPrefix, format_names, printable
from acon_core.checkpoint.codecs.zip_archive import Member, ZipArchive, ZipWriter, is_relative_path
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensor, LazyTensors, lazy_items

FRAMEWORK = ""
SUFFIXES = (".npz",)
IS_DIRECTORY = False

METADATA = "acon_metadata.json"
_SUFFIX = ".npy"
_MAGIC = b"\x93NUMPY"
_MAX_HEADER_BYTES = 10_000  # NumPy's own limit
_MAX_NAME_BYTES = 60_000  # a zip stores the length in 16 bits
_ALIGNMENT = 64

# The dtypes that NumPy itself defines, with their codes in a header. NumPy would read a bfloat16 or
# float8 array (of ml_dtypes) back as raw bytes.
DTYPES = {
    name: np.dtype(name).newbyteorder("<").str
    for name in (
        *("float16", "float32", "float64", "int8", "int16", "int32", "int64", "bool"),
        *("uint8", "uint16", "uint32", "uint64", "complex64", "complex128"),
    )
}
_DTYPE = re.compile(r"[<>|](b1|[iu][1248]|f[248]|c8|c16)")
# One entry of the dict literal in a header. Python 2 writes shapes as `(3L, 4L)`.
_ENTRY = re.compile(
    r"\s*(['\"])(?P<key>descr|fortran_order|shape)\1\s*:\s*"
    r"(?:(['\"])(?P<descr>[^'\"\\]*)\3|(?P<record>\[.*)|(?P<order>True|False)|\((?P<shape>[0-9L,\s]*)\))\s*(?P<end>,|\Z)",
    re.DOTALL,
)


class _Header(NamedTuple):
    dtype: np.dtype
    shape: tuple[int, ...]
    fortran_order: bool
    size: int


def sniff(path: Path) -> bool:
    """Tell whether the file is a zip whose first member is a `.npy` file or the metadata."""
    head = bytes(map_file(path)[: 30 + 4096])
    if head[:4] != b"PK\3\4" or len(head) < 30:
        return False
    name = head[30 : 30 + struct.unpack_from("<H", head, 26)[0]]
    return name.endswith(_SUFFIX.encode()) or name == METADATA.encode()


def read(path: Path, key: str = "") -> CheckpointFile:
    """Read the arrays of an archive. Their names are the member names without `.npy`.

    Members are decompressed and checksums verified when an array is loaded. An object array is a
    pickle; it is refused as unsafe and not unpickled. Raises CheckpointError.
    """
    path = Path(path)
    data = map_file(path)
    if bytes(data[:2]) != b"PK":
        raise CheckpointError(
            "unsupported", f"{path}: not a .npz file: expected a zip, which begins with PK, found {bytes(data[:2])!r}"
        )
    archive = ZipArchive(data, path, single_root=False)
    budget = Budget(len(data))
    metadata: dict[str, str] = {}
    others = []
    tensors = {}
    for name, member in archive.members.items():
        if name.endswith(_SUFFIX):
            stem = name.removesuffix(_SUFFIX)
            with ErrorPrefix(path, stem):
                budget.spend(member.size)
            tensors[stem] = _lazy_tensor(archive, stem, member)
        elif name == METADATA:
            if member.size > limits.LIMITS.header_bytes:
                raise CheckpointError(
                    "unsupported", f"{path}: {name}: {member.size} bytes, over the limit of {limits.LIMITS.header_bytes}"
                )
            metadata = decode_metadata(archive.decompress(member), str(path))
        else:
            others.append(name)
    notes = [f"ignored what is not an array: {format_names(others)}"] if others else []
    return CheckpointFile(LazyTensors(tensors), metadata, notes).under(key, path)


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write an archive atomically that `numpy.load(allow_pickle=False)` reads.

    Members are not compressed, and the bytes of each array are aligned to 64, so that they can be
    memory-mapped. Equal arguments give equal bytes. Raises CheckpointError for a dtype that NumPy
    would not read back, for a name that is not a relative path on every system, and for a name
    `a.npy` beside a name `a`, which `numpy.load` cannot tell apart.
    """
    check_writable(tensors, path, DTYPES, "NumPy's archive")
    for key in tensors:
        if not is_relative_path(key) or len(key.encode()) > _MAX_NAME_BYTES or key == METADATA:
            raise CheckpointError(
                "unsupported", f"{path}: {printable(key)}: cannot be the name of a file in an archive; rename it"
            )
        if key.endswith(_SUFFIX) and key.removesuffix(_SUFFIX) in tensors:
            raise CheckpointError(
                "unsupported", f"{path}: {printable(key)}: numpy.load cannot tell it from the name without .npy; rename it"
            )
    with atomic_write(path) as file:
        archive = ZipWriter(file, root="")
        if metadata:
            archive.add(METADATA, encode_metadata(metadata))
        for key, tensor in lazy_items(tensors).items():
            archive.add(key + _SUFFIX, _encode_header(tensor), little_endian_bytes(tensor.load()))
        archive.close()


def _encode_header(tensor: LazyTensor) -> bytes:
    """Encode the header as NumPy does, padded so that the array's bytes are aligned."""
    entries = f"{{'descr': '{DTYPES[tensor.dtype.name]}', 'fortran_order': False, 'shape': {tensor.shape}, }}"
    padded = entries + " " * (-(len(_MAGIC) + 4 + len(entries) + 1) % _ALIGNMENT) + "\n"
    return _MAGIC + b"\1\0" + struct.pack("<H", len(padded)) + padded.encode("ascii")


def _lazy_tensor(archive: ZipArchive, key: str, member: Member) -> LazyTensor:
    """Read the header of a member now, and the array when it is loaded."""
    start = bytes(archive.decompress(member, _MAX_HEADER_BYTES + 12))
    with ErrorPrefix(archive.path, key):
        header = _decode_header(start)
        check_size(header.dtype, header.shape, member.size - header.size)

    def load() -> np.ndarray:
        content = archive.decompress(member)[header.size :]
        with ErrorPrefix(archive.path, key):
            if header.fortran_order:
                return lazy_view(view(content, header.dtype, header.shape[::-1]).T).load()
            return lazy_view(view(content, header.dtype, header.shape)).load()

    return LazyTensor(header.shape, header.dtype.newbyteorder("="), load)


def _decode_header(data: bytes) -> _Header:
    """Decode the header of a `.npy` of format version 1, 2 or 3."""
    if data[:6] != _MAGIC or len(data) < 12 or data[6] not in (1, 2, 3) or data[7] != 0:
        raise CheckpointError("corrupt", "does not begin with the header of a .npy file of version 1, 2 or 3")
    layout, encoding = ("<H", "latin-1") if data[6] == 1 else ("<I", "latin-1" if data[6] == 2 else "utf-8")
    begin = 8 + struct.calcsize(layout)
    (length,) = struct.unpack_from(layout, data, 8)
    if length > _MAX_HEADER_BYTES:
        raise CheckpointError("unsupported", f"its header has {length} bytes, over NumPy's limit of {_MAX_HEADER_BYTES}")
    if begin + length > len(data):
        raise CheckpointError("corrupt", "its header is truncated")
    try:
        text = data[begin : begin + length].decode(encoding).strip()
    except UnicodeDecodeError:
        raise CheckpointError("corrupt", "its header is not text") from None
    if text[:1] != "{" or text[-1:] != "}":
        raise CheckpointError("corrupt", f"its header is not a dict: {text[:80]!r}")
    entries = _entries(text[1:-1].strip())
    return _Header(_dtype(entries), _shape(entries), entries["fortran_order"]["order"] == "True", begin + length)


def _entries(text: str) -> dict[str, dict[str, str | None]]:
    """Parse the three entries of a header without evaluating any of it."""
    entries: dict[str, dict[str, str | None]] = {}
    position = 0
    while position < len(text):
        entry = _ENTRY.match(text, position)
        if entry is None or entry["key"] in entries:
            raise CheckpointError(
                "corrupt", f"its header is not a dict of descr, fortran_order and shape: {text[position : position + 80]!r}"
            )
        if entry["record"] and entry["key"] == "descr":
            raise CheckpointError("unsupported", "a structured dtype is not supported; save plain arrays of numbers")
        entries[entry["key"]] = entry.groupdict()
        position = entry.end()
    expected = {"descr": "descr", "fortran_order": "order", "shape": "shape"}
    if set(entries) != set(expected) or any(entries[key][value] is None for key, value in expected.items()):
        raise CheckpointError("corrupt", f"its header lacks descr, fortran_order or shape: {text[:80]!r}")
    return entries


def _dtype(entries: Mapping[str, Mapping[str, str | None]]) -> np.dtype:
    code = entries["descr"]["descr"] or ""
    if code.lstrip("<>|=") == "O":
        raise CheckpointError("unsafe", "an array of Python objects is a pickle; nothing was executed; save arrays of numbers")
    if not _DTYPE.fullmatch(code):
        hint = "; NumPy does not store bfloat16 and float8: save those as safetensors" if "V" in code else ""
        raise CheckpointError("unsupported", f"dtype {code[:40]!r} is not supported{hint}")
    return np.dtype(code.replace("|", "<"))


def _shape(entries: Mapping[str, Mapping[str, str | None]]) -> tuple[int, ...]:
    sizes = [each.strip() for each in (entries["shape"]["shape"] or "").split(",")]
    # `(3,)` is a tuple, `(3)` is a number.
    if sizes[-1] == "" and (len(sizes) > 1 or sizes == [""]):
        del sizes[-1]
    elif len(sizes) == 1:
        raise CheckpointError("corrupt", f"shape ({sizes[0][:80]}) is not a tuple; expected ({sizes[0][:80]},)")
    if not all(re.fullmatch(r"[0-9]{1,19}L?", size) for size in sizes):
        raise CheckpointError("corrupt", f"shape ({', '.join(sizes)[:80]}) is not a tuple of integers")
    return tuple(int(size.rstrip("L")) for size in sizes)
