"""Hostile files in PyTorch's format before 1.6: five pickles and the storages."""

from __future__ import annotations

import pickle
import struct

from attacks import Attack
from hostile_pickles import Table, named, payloads
from hostile_torch import LIES, WEIGHT, tensor

MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
STORAGE = struct.pack("<q", 6) + WEIGHT.tobytes()
EVIL = named(payloads("exit 1"))["os.system"]


def legacy(
    program: bytes,
    keys: bytes = pickle.dumps([], 2),
    storages: bytes = b"",
    magic: bytes = MAGIC,
    version: bytes = pickle.dumps(1001, 2),
    system: bytes = pickle.dumps(SYSTEM, 2),
) -> bytes:
    """Join the parts of a file."""
    return magic + version + system + program + keys + storages


def whole(program: bytes, keys: bytes = pickle.dumps(["0"], 2), storages: bytes = STORAGE, **parts: bytes) -> bytes:
    """Join the parts of a file with the one storage that `hostile_torch` uses."""
    return legacy(program, keys, storages, **parts)


GOOD = tensor(metadata=b"N")
STREAMS: Table = {
    place: {name: whole(tensor(**{"metadata": b"N", **lie})) for name, lie in lies.items()} for place, lies in LIES.items()
}
STREAMS |= {
    (Attack.INCOMPLETE, "corrupt"): {
        "the magic number alone": MAGIC,
        "no state": legacy(b""),
        "no storages": legacy(GOOD, b""),
        "another version": whole(GOOD, version=pickle.dumps(1002, 2)),
        "a number as system": whole(GOOD, system=pickle.dumps(3, 2)),
        "bytes after the storages": whole(GOOD) + b"x",
    },
    (Attack.SECOND_PICKLE, "unsafe"): {
        "evil second pickle": whole(GOOD, version=EVIL),
        "evil third pickle": whole(GOOD, system=EVIL),
        "evil fourth pickle": whole(EVIL),
        "evil fifth pickle": whole(GOOD, keys=EVIL),
    },
    (Attack.SECOND_PICKLE, "corrupt"): {"evil pickle after all": whole(GOOD) + EVIL},
    (Attack.CONTENT, "corrupt"): {
        "a path as key": whole(GOOD, pickle.dumps(["../../etc/passwd"], 2)),
        "a storage missing": whole(GOOD, pickle.dumps([], 2), b""),
        "a storage too many": whole(GOOD, pickle.dumps(["0", "1"], 2), STORAGE * 2),
        "a storage twice": whole(GOOD, pickle.dumps(["0", "0"], 2), STORAGE * 2),
        "a storage cut short": whole(GOOD, storages=STORAGE[:-1]),
        "another length": whole(GOOD, storages=struct.pack("<q", 5) + WEIGHT.tobytes()),
        "a negative length": whole(GOOD, storages=struct.pack("<q", -6) + WEIGHT.tobytes()),
        "a huge length": whole(GOOD, storages=struct.pack("<q", 1 << 62) + WEIGHT.tobytes()),
        "a number as key": whole(GOOD, pickle.dumps([0], 2)),
        "keys in a dict": whole(GOOD, pickle.dumps({"0": 1}, 2)),
    },
}
