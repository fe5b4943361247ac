"""NumPy's archive: a zip of one `.npy` file an array, each of which is a line that describes it and its bytes.

What `numpy.savez` and `numpy.savez_compressed` write is read, and what is written here `numpy.load` takes. Metadata is one
more member, `acon_metadata.json`, which `numpy.load` lists beside the arrays and gives as bytes.
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
from acon_core.checkpoint.codecs.strict_json import decode, encode
from acon_core.checkpoint.codecs.text import format_names, printable
from acon_core.checkpoint.codecs.zip_archive import Member, Zip, ZipWriter, is_plain
from acon_core.errors import CheckpointError
from acon_core.tensors import LazyTensor, LazyTensors, lazy_items

FRAMEWORK = ""
SUFFIXES = (".npz",)
IS_DIRECTORY = False

METADATA = "acon_metadata.json"
_ENDING = ".npy"
_MAGIC = b"\x93NUMPY"
_HEADER_BYTES = 10_000  # NumPy's own limit
_ALIGNMENT = 64

# NumPy has these itself; a bfloat16 or float8 comes back from its files as bytes without a meaning.
DTYPES = {
    name: np.dtype(name).newbyteorder("<").str
    for name in (
        *("float16", "float32", "float64", "int8", "int16", "int32", "int64", "bool"),
        *("uint8", "uint16", "uint32", "uint64", "complex64", "complex128"),
    )
}
_DTYPE = re.compile(r"[<>|](b1|[iu][1248]|f[248]|c8|c16)")
# One entry of the dict that a header is, as Python 2 and 3 and other writers spell it.
_ENTRY = re.compile(
    r"\s*(['\"])(?P<key>descr|fortran_order|shape)\1\s*:\s*"
    r"(?:(['\"])(?P<descr>[^'\"\\]*)\3|(?P<record>\[.*)|(?P<order>True|False)|\((?P<shape>[0-9L,\s]*)\))\s*(?P<end>,|\Z)",
    re.DOTALL,
)


class _Header(NamedTuple):
    dtype: np.dtype
    shape: tuple[int, ...]
    fortran: bool
    begin: int


def sniff(path: Path) -> bool:
    """Whether the content is a zip whose first member is an array of NumPy's, or the metadata written here."""
    head = bytes(map_file(path)[: 30 + 4096])
    if head[:4] != b"PK\3\4" or len(head) < 30:
        return False
    name = head[30 : 30 + struct.unpack_from("<H", head, 26)[0]]
    return name.endswith(_ENDING.encode()) or name == METADATA.encode()


def read(path: Path) -> CheckpointFile:
    """Read the arrays of an archive; a name is the member's without `.npy`. Members are stored or deflated.

    Checksums are verified, and deflated members inflated, when an array is asked for. Big-endian and Fortran-ordered arrays
    are read as what they mean; an array of Python objects is a pickle, which is not looked at, and refused as unsafe.
    Raises CheckpointError.
    """
    path = Path(path)
    data = map_file(path)
    if bytes(data[:2]) != b"PK":
        raise CheckpointError("unsupported", f"{path}: not an archive of numpy.savez, which begins with PK")
    archive = Zip(data, path, rooted=False)
    budget = Budget(len(data))
    metadata: dict[str, str] = {}
    others = []
    tensors = {}
    for name, member in archive.members.items():
        if name.endswith(_ENDING):
            key = name.removesuffix(_ENDING)
            try:
                budget.spend(member.size)
                tensors[key] = _tensor(archive, member)
            except CheckpointError as error:
                raise _naming(path, key, error) from None
        elif name == METADATA:
            if member.size > limits.LIMITS.header_bytes:
                raise CheckpointError(
                    "unsupported", f"{path}: {name}: {member.size} bytes, more than {limits.LIMITS.header_bytes}"
                )
            metadata = decode(archive.unpacked(member), str(path))
        else:
            others.append(name)
    notes = [f"ignored what is not an array: {format_names(others)}"] if others else []
    return CheckpointFile(LazyTensors(tensors), metadata, notes)


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write an archive that `numpy.load(allow_pickle=False)` takes; whole or not at all.

    Nothing is compressed and each array's bytes begin at a multiple of 64, so that they can be mapped. Equal arguments give
    equal bytes. Raises CheckpointError for a dtype that would not come back, and for a name that is not the same as the path
    of a file everywhere, or that NumPy would take for another.
    """
    check_writable(tensors, path, DTYPES, "NumPy's archive")
    for key in tensors:
        if not is_plain(key) or len(key.encode()) > 60_000 or key == METADATA:
            raise CheckpointError(
                "unsupported", f"{path}: {printable(key)}: cannot be the name of a file in an archive; rename it"
            )
        if key.endswith(_ENDING) and key.removesuffix(_ENDING) in tensors:
            raise CheckpointError("unsupported", f"{path}: {printable(key)}: numpy.load would take it for another; rename it")
    with atomic_write(path) as file:
        archive = ZipWriter(file, root="")
        if metadata:
            archive.add(METADATA, encode(metadata))
        for key, tensor in lazy_items(tensors).items():
            archive.add(key + _ENDING, _described(tensor), little_endian_bytes(tensor.load()))
        archive.close()


def _described(tensor: LazyTensor) -> bytes:
    """The header of an array, as NumPy writes it, filled up so that the bytes behind it are aligned."""
    entries = f"{{'descr': '{DTYPES[tensor.dtype.name]}', 'fortran_order': False, 'shape': {tensor.shape}, }}"
    filled = entries + " " * (-(len(_MAGIC) + 4 + len(entries) + 1) % _ALIGNMENT) + "\n"
    return _MAGIC + b"\1\0" + struct.pack("<H", len(filled)) + filled.encode("ascii")


def _tensor(archive: Zip, member: Member) -> LazyTensor:
    header = _header(bytes(archive.unpacked(member, _HEADER_BYTES + 12)))
    check_size(header.dtype, header.shape, member.size - header.begin)

    def load() -> np.ndarray:
        content = archive.unpacked(member)[header.begin :]
        try:
            if header.fortran:
                return lazy_view(view(content, header.dtype, header.shape[::-1]).T).load()
            return lazy_view(view(content, header.dtype, header.shape)).load()
        except CheckpointError as error:
            raise _naming(archive.path, member.name.removesuffix(_ENDING), error) from None

    return LazyTensor(header.shape, header.dtype.newbyteorder("="), load)


def _naming(path: Path, key: str, error: CheckpointError) -> CheckpointError:
    """The error with the file and the key before it, where it does not begin with the file yet."""
    text = str(error)
    return error if text.startswith(f"{path}: ") else CheckpointError(error.kind, f"{path}: {printable(key)}: {text}")


def _header(data: bytes) -> _Header:
    """What the first bytes of a `.npy` say, of any of its three versions."""
    if data[:6] != _MAGIC or len(data) < 12 or data[6] not in (1, 2, 3) or data[7] != 0:
        raise CheckpointError("corrupt", "does not begin as a .npy of version 1, 2 or 3 does")
    layout, encoding = ("<H", "latin-1") if data[6] == 1 else ("<I", "latin-1" if data[6] == 2 else "utf-8")
    begin = 8 + struct.calcsize(layout)
    (length,) = struct.unpack_from(layout, data, 8)
    if length > _HEADER_BYTES:
        raise CheckpointError("unsupported", f"a header of {length} bytes, more than {_HEADER_BYTES}")
    if begin + length > len(data):
        raise CheckpointError("corrupt", "its header is cut short")
    try:
        text = data[begin : begin + length].decode(encoding).strip()
    except UnicodeDecodeError:
        raise CheckpointError("corrupt", "its header is not text") from None
    if text[:1] != "{" or text[-1:] != "}":
        raise CheckpointError("corrupt", f"its header is no dict: {text[:80]!r}")
    entries = _entries(text[1:-1].strip())
    return _Header(_dtype(entries), _shape(entries), entries["fortran_order"]["order"] == "True", begin + length)


def _entries(text: str) -> dict[str, dict[str, str | None]]:
    """The three entries of a header by name. Nothing of it is evaluated."""
    found: dict[str, dict[str, str | None]] = {}
    position = 0
    while position < len(text):
        entry = _ENTRY.match(text, position)
        if entry is None or entry["key"] in found:
            raise CheckpointError("corrupt", f"its header is not one of NumPy's: {text[position : position + 80]!r}")
        if entry["record"] and entry["key"] == "descr":
            raise CheckpointError("unsupported", "a structured dtype; save plain arrays of numbers")
        found[entry["key"]] = entry.groupdict()
        position = entry.end()
    expected = {"descr": "descr", "fortran_order": "order", "shape": "shape"}
    if set(found) != set(expected) or any(found[key][value] is None for key, value in expected.items()):
        raise CheckpointError("corrupt", f"its header lacks descr, fortran_order or shape: {text[:80]!r}")
    return found


def _dtype(entries: Mapping[str, Mapping[str, str | None]]) -> np.dtype:
    code = entries["descr"]["descr"] or ""
    if code.lstrip("<>|=") == "O":
        raise CheckpointError("unsafe", "an array of Python objects, a pickle; nothing was run; save arrays of numbers")
    if not _DTYPE.fullmatch(code):
        hint = "; NumPy forgets bfloat16 and float8: save those as safetensors" if "V" in code else ""
        raise CheckpointError("unsupported", f"dtype {code[:40]!r} is not a kind of number that is read here{hint}")
    return np.dtype(code.replace("|", "<"))


def _shape(entries: Mapping[str, Mapping[str, str | None]]) -> tuple[int, ...]:
    sizes = [each.strip() for each in (entries["shape"]["shape"] or "").split(",")]
    # Python writes one size with a comma behind it, and none without.
    if sizes[-1] == "" and (len(sizes) > 1 or sizes == [""]):
        del sizes[-1]
    elif len(sizes) == 1:
        raise CheckpointError("corrupt", f"shape ({sizes[0][:80]}) is a number, expected a tuple of them")
    if not all(re.fullmatch(r"[0-9]{1,19}L?", size) for size in sizes):
        raise CheckpointError("corrupt", f"shape ({', '.join(sizes)[:80]}) is not a tuple of whole numbers")
    return tuple(int(size.rstrip("L")) for size in sizes)
