"""Hostile `.npz` archives."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

import numpy as np
from attacks import Attack
from hostile_pickles import Table, named, payloads
from hostile_zips import added, zips

from acon_core.checkpoint.codecs.zip_archive import ZipWriter

WEIGHT = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
DESCR = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"


def npy(text: str | bytes = DESCR, data: bytes = WEIGHT.tobytes(), version: int = 1, length: int | None = None) -> bytes:
    encoded = text.encode() if isinstance(text, str) else text
    size = struct.pack("<H" if version == 1 else "<I", len(encoded) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + encoded + data


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return target.getvalue()


def deflated(content: bytes, size: int, crc: int | None = None, stream: bytes | None = None, extra: bytes = b"") -> bytes:
    """Write an archive of one deflated member whose directory states `size`."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = (packer.compress(content) + packer.flush() if stream is None else stream) + extra
    name = b"w.npy"
    common = struct.pack("<3H2H3L", 20, 0, 8, 0, 0x21, zlib.crc32(content) if crc is None else crc, len(packed), size)
    local = b"PK\3\4" + common + struct.pack("<2H", len(name), 0) + name + packed
    central = b"PK\1\2" + struct.pack("<H", 20) + common + struct.pack("<5H2L", len(name), 0, 0, 0, 0, 0, 0) + name
    return local + central + b"PK\5\6" + struct.pack("<4H2LH", 0, 0, 1, 1, len(central), len(local), 0)


# Contents of one member.
ARRAYS: Table = {
    (Attack.EVAL, "corrupt"): {
        "a call": npy("{'descr': str('<f4'), 'fortran_order': False, 'shape': (2, 3)}"),
        "an expression": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1+2)}"),
        "a power": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (9**99,)}"),
    },
    (Attack.NESTING, "corrupt"): {
        "deep": npy("{" * 4000 + "}" * 4000),
    },
    (Attack.LENGTH, "corrupt"): {
        "many digits": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",)}"),
    },
    (Attack.INCOMPLETE, "corrupt"): {
        "no magic": b"NUMPY" + npy()[5:],
        "empty": b"",
        "cut in the magic": npy()[:9],
        "cut in the header": npy()[:40],
        "version 0": b"\x93NUMPY\0" + npy()[7:],
        "version 4": npy(version=4),
        "minor version": b"\x93NUMPY\1\1" + npy()[8:],
        "header longer than the file": npy(length=9_000),
        "no dict": npy("[1]"),
        "two dicts": npy(DESCR + DESCR),
    },
    (Attack.DICT_KEY, "corrupt"): {
        "key missing": npy("{'descr': '<f4', 'shape': (2, 3)}"),
        "key twice": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), 'shape': (2, 3)}"),
        "key more": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), 'more': (1,)}"),
        "value of another": npy("{'descr': True, 'fortran_order': '<f4', 'shape': (2, 3)}"),
        "number as order": npy("{'descr': '<f4', 'fortran_order': 0, 'shape': (2, 3)}"),
    },
    (Attack.ENCODING, "corrupt"): {
        "not text": npy(b"{'descr': '\xff'}", version=3),
        "digits of other scripts": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (٢, 3)}", version=3),
    },
    (Attack.SHAPE, "corrupt"): {
        "number as shape": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (6)}"),
        "list as shape": npy("{'descr': '<f4', 'fortran_order': False, 'shape': [2, 3]}"),
        "hole in the shape": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,, 3)}"),
        "comma as shape": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (,)}", WEIGHT.tobytes()[:4]),
        "negative shape": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -3)}"),
        "float shape": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2., 3)}"),
        "bool shape": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (True, 6)}"),
        "huge shape": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904,)}"),
        "wrapping shape": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}", b""),
        "empty and huge": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 2305843009213693952)}", b""),
        "many dimensions": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3" + ", 1" * 31 + ")}"),
        "bytes missing": npy(data=WEIGHT.tobytes()[:-1]),
        "bytes behind": npy(data=WEIGHT.tobytes() + b"\0"),
        "second array behind": npy() + npy(),
        "bool of 2": npy("{'descr': '|b1', 'fortran_order': False, 'shape': (3,)}", b"\0\1\2"),
    },
}


def aligned(members: dict[str, bytes]) -> bytes:
    """Write the archive with our own writer."""
    target = io.BytesIO()
    writer = ZipWriter(target, root="")
    for name, content in members.items():
        writer.add(name, content)
    writer.close()
    return target.getvalue()


def saved(array: np.ndarray) -> bytes:
    """Write the archive with NumPy."""
    target = io.BytesIO()
    np.savez(target, w=array)
    return target.getvalue()


OBJECT = npy("{'descr': '|O', 'fortran_order': False, 'shape': (), }", named(payloads("exit 1"))["os.system"])
ZEROS = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (70000000,), }", bytes(70_000_000))
GOOD = aligned({"v.npy": npy(), "u.npy": npy(), "w.npy": npy()})
ZIPS = zips(GOOD)
ARCHIVES: Table = {
    **ZIPS,
    (Attack.SYSTEM_CALL, "unsafe"): {"a pickle that runs": archive({"w.npy": OBJECT})},
    (Attack.DTYPE, "unsafe"): {"an array of objects": saved(np.array([None, {}], object))},
    (Attack.DTYPE, "unsupported"): {
        "a structured array": saved(np.zeros(3, "f4,i4")),
        **{
            f"dtype {descr}": archive({"w.npy": npy(DESCR.replace("<f4", descr))})
            for descr in ("|V2", "<M8[s]", "<U3", "|S4", "<f16", "<f1", "float32", "")
        },
    },
    (Attack.COMPRESSION, "corrupt"): {
        "70 MB of zeros": deflated(ZEROS, len(ZEROS)),
        "70 MB that are said to be few": deflated(ZEROS, len(npy()), zlib.crc32(npy())),
        "more than is said": deflated(npy() + b"more", len(npy()), zlib.crc32(npy())),
        "less than is said": deflated(npy()[:-4], len(npy()), zlib.crc32(npy())),
        "another checksum": deflated(npy(), len(npy()), zlib.crc32(npy()) ^ 1),
        "bytes behind the stream": deflated(npy(), len(npy()), extra=b"hidden"),
        "no stream": deflated(npy(), len(npy()), stream=b"\xff" * 40),
        "an empty stream": deflated(npy(), len(npy()), stream=b""),
    },
    (Attack.COMPRESSION, "unsupported"): {
        "bzip2": archive({"w.npy": npy()}, zipfile.ZIP_BZIP2),
        "lzma": archive({"w.npy": npy()}, zipfile.ZIP_LZMA),
    },
    (Attack.FILE_NAME, "corrupt"): {
        **ZIPS[Attack.FILE_NAME, "corrupt"],
        **{f"member {bad!r}": added(GOOD, bad, npy()) for bad in ("../w.npy", "/w.npy", "a/../w.npy", "./w.npy", "d/")},
    },
    (Attack.CONTENT, "corrupt"): {
        **ZIPS[Attack.CONTENT, "corrupt"],
        "a bit of the weights": GOOD.replace(WEIGHT.tobytes(), WEIGHT.tobytes()[:-1] + b"\x41", 1),
    },
    **{
        place: {name: archive({"v.npy": npy(), "w.npy": content}) for name, content in found.items()}
        for place, found in ARRAYS.items()
    },
}
del ZEROS
