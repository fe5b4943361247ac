"""Pickles that no checkpoint is, in the opcodes of pickle itself, each with the kind of error it must meet."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from typing import Any

ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
F4 = b"cnumpy\ndtype\n(X\x02\x00\x00\x00f4\x89\x88tR(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.args


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def array(shape: bytes = b"K\x02\x85", dtype: bytes = F4, data: bytes = b"C\x08" + bytes(8), fortran: bytes = b"\x89") -> bytes:
    return ARRAY + b"(K\x01" + shape + dtype + fortran + data + b"tb"


def state(value: bytes) -> bytes:
    """A pickled dict with `value` under the name w."""
    return b"\x80\x02}" + text("w") + value + b"s."


def payloads(command: str) -> dict[str, bytes]:
    """Pickles that run `command`, each of which Python's own unpickler obeys."""
    import importlib
    import os
    import subprocess

    code = f"import os; os.system({command!r})"
    shell = text(command)
    return {
        "os.system": pickle.dumps({"w": Call(os.system, command)}, 2),
        "os.system 0": pickle.dumps({"w": Call(os.system, command)}, 0),
        "os.system 4": pickle.dumps({"w": Call(os.system, command)}, 4),
        "exec": pickle.dumps({"w": Call(exec, code)}, 2),
        "eval": pickle.dumps({"w": Call(eval, f"__import__('os').system({command!r})")}, 4),
        "eval data": pickle.dumps({"w": Call(eval, "data", {"data": 1, "__builtins__": {}})}, 4),
        "popen": pickle.dumps({"w": Call(subprocess.check_output, command)}, 2),
        "getattr": pickle.dumps({"w": Call(getattr, Call(importlib.import_module, "os"), "system")}, 2),
        "dotted": state(text("numpy") + text("ndarray.__init__") + b"\x93" + shell + b"\x85R"),
        "by memo": state(text("os") + b"q\x00" + text("system") + b"q\x01" + b"00h\x00h\x01\x93" + shell + b"\x85R"),
        "inst": state(b"(" + shell + b"ios\nsystem\n"),
        "obj": state(b"(cos\nsystem\n" + shell + b"o"),
        "newobj_ex": state(b"cos\nsystem\n" + shell + b"\x85}\x92"),
        "extension": state(b"\x82\x01" + shell + b"\x85R"),
        "numpy gadget": state(b"cnumpy.testing._private.utils\nrunstring\n" + text(code) + b"}\x86R"),
        "copyreg": state(b"ccopyreg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR"),
        "persistent": state(b"Pos.system\n"),
        "binary persistent": state(shell + b"Q"),
    }


UNSAFE = {
    "build on a global": state(b"ccollections\nOrderedDict\n}" + text("x") + b"K\x01sb"),
    "build on a dict": state(b"}}b"),
    "build with slots": state(b"ccollections\nOrderedDict\n)RN}\x86b"),
    "reduce on a string": state(text("os") + b")R"),
    "reduce with a list": state(b"ccollections\nOrderedDict\n]R"),
    "call of a mention": state(b"cnumpy\nndarray\n)R"),
    "append to a string": state(text("os") + b"K\x01a"),
    "setitem on a list": state(b"]K\x00K\x01s"),
    "name of numbers": state(b"K\x01K\x02\x93"),
    "another codec": state(b"c_codecs\nencode\n" + text("x") + text("rot13") + b"\x86R"),
    "memmap subclass": state(b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nmemmap\nK\x00\x85C\x01btR"),
    "reconstruct of a dtype": state(b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\nK\x00\x85C\x01btR"),
}

CORRUPT = {
    "empty stack": b"\x80\x02.",
    "underflow": b"\x80\x02R.",
    "no mark": b"\x80\x02K\x01t.",
    "leftovers": b"\x80\x02}}.",
    "open mark": b"\x80\x02(}.",
    "no stop": b"\x80\x02}",
    "no such opcode": b"\x80\x02\xff.",
    "unset memo": state(b"h\x07"),
    "unset long memo": state(b"j\xff\xff\xff\xff"),
    "put on nothing": b"\x80\x02r\xff\xff\xff\xff.",
    "duplicate key": b"\x80\x02}" + (text("w") + b"K\x01s") * 2 + b".",
    "duplicate key in one go": b"\x80\x02}(" + (text("w") + b"K\x01") * 2 + b"u.",
    "float key": b"\x80\x02}G\x7f\xf8\x00\x00\x00\x00\x00\x00K\x01s.",
    "tuple key": b"\x80\x02})K\x01s.",
    "list key": b"\x80\x02}]K\x01s.",
    "global key": b"\x80\x02}cnumpy\nndarray\nK\x01s.",
    "odd items": b"\x80\x02}(" + text("w") + b"u.",
    "huge bytes": state(b"\x8e" + struct.pack("<Q", 1 << 63)),
    "huge text": state(b"\x8d" + struct.pack("<Q", 1 << 63)),
    "huge bytearray": state(b"\x96" + struct.pack("<Q", (1 << 64) - 1)),
    "short frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"}.",
    "long integer": state(b"\x8b" + struct.pack("<I", 1 << 20) + bytes(1 << 20)),
    "negative long": state(b"\x8b" + struct.pack("<i", -1)),
    "many digits": state(b"I" + b"9" * 1000 + b"\n"),
    "endless digits": state(b"I" + b"9" * 100_000 + b"\n"),
    "not a digit": state(b"I1_000\n"),
    "not a number": state(b"Fone\n"),
    "not an index": state(b"gone\n"),
    "endless line": b"\x80\x02c" + b"a" * 100_000,
    "endless string": b"\x80\x02S'" + b"a" * 100_000,
    "unquoted": state(b"Sabc\n"),
    "broken escape": state(b"S'\\x'\n"),
    "not UTF-8": state(b"X\x01\x00\x00\x00\xff"),
    "surrogate": state(b"X\x03\x00\x00\x00\xed\xa0\x80"),
    "surrogate in text": state(b"V\\ud800\n"),
    "deep marks": b"\x80\x02" + b"(" * 65 + b"t" * 65 + b".",
    "unfinished array": state(ARRAY),
    "array given twice": state(array() + b"(K\x01K\x02\x85" + F4 + b"\x89C\x08" + bytes(8) + b"tb"),
    "too few bytes": state(array(shape=b"K\x03\x85")),
    "too many bytes": state(array(shape=b"K\x01\x85")),
    "negative shape": state(array(shape=b"J\xff\xff\xff\xffJ\xfe\xff\xff\xff\x86")),
    "float shape": state(array(shape=b"G@\x00\x00\x00\x00\x00\x00\x00\x85")),
    "bool shape": state(array(shape=b"\x88K\x02\x86")),
    "huge shape": state(array(shape=b"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x40\x85")),
    "wrapping shape": state(array(shape=b"\x8a\x08" + struct.pack("<q", 1 << 61) + b"K\x08\x86", data=b"C\x00")),
    "empty and huge shape": state(array(shape=b"K\x00\x8a\x08" + struct.pack("<q", 1 << 61) + b"\x86", data=b"C\x00")),
    "many dimensions": state(array(shape=b"(" + b"K\x01" * 33 + b"t", data=b"C\x04" + bytes(4))),
    "wide text as bytes": state(array(data=text("鍵" * 8))),
    "bool of 2": state(array(dtype=F4.replace(b"f4", b"b1"), data=b"C\x02\x01\x02")),
}

UNSUPPORTED = {
    "protocol 99": b"\x80\x63" + state(array())[2:],
    "out of band": b"\x80\x05\x97.",
    "object array": state(array(dtype=F4.replace(b"f4", b"O8"), data=b"]")),
    "list as bytes": state(array(data=b"]")),
    "datetime": state(array(dtype=F4.replace(b"f4", b"M8"))),
    "void": state(array(dtype=F4.replace(b"f4", b"V8"))),
    "structured": state(array(dtype=F4.replace(b"NNN", b"N)}"))),
    "long double": state(array(dtype=F4.replace(b"f4", b"g4"))),
    "a list": b"\x80\x02].",
    "no tensors": b"\x80\x02}" + text("epoch") + b"K\x01s.",
    "names of numbers": b"\x80\x02}K\x01" + array() + b"s.",
    "two states": b"\x80\x02}" + b"".join(text(k) + b"}" + text("w") + array() + b"ss" for k in ("generator", "critic")) + b".",
}
