"""Hostile pickles, written in pickle's opcodes, by attack.

In this and the other `hostile_*.py`, a table maps an attack and the kind of error that must refuse
it to names and contents of files. `corpus.py` joins the tables.
"""

from __future__ import annotations

import importlib
import os
import pickle
import struct
import subprocess
from collections.abc import Callable
from typing import Any, Literal

from attacks import Attack

Kind = Literal["unsafe", "corrupt", "unsupported"]
Table = dict[tuple[Attack, Kind], dict[str, bytes]]

ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
F4 = b"cnumpy\ndtype\n(X\x02\x00\x00\x00f4\x89\x88tR(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


def named(table: Table) -> dict[str, bytes]:
    """Return the contents of a table by name."""
    return {name: content for contents in table.values() for name, content in contents.items()}


class Call:
    """An object that is pickled as a call of `function`."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.args


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def array(shape: bytes = b"K\x02\x85", dtype: bytes = F4, data: bytes = b"C\x08" + bytes(8), fortran: bytes = b"\x89") -> bytes:
    return ARRAY + b"(K\x01" + shape + dtype + fortran + data + b"tb"


def state(value: bytes) -> bytes:
    """Pickle a dict with `value` under the name w."""
    return b"\x80\x02}" + text("w") + value + b"s."


def payloads(command: str) -> Table:
    """Return pickles that run `command`; most do so in Python's own unpickler."""
    code = f"import os; os.system({command!r})"
    shell = text(command)
    return {
        (Attack.SYSTEM_CALL, "unsafe"): {
            "os.system": pickle.dumps({"w": Call(os.system, command)}, 2),
            "os.system 0": pickle.dumps({"w": Call(os.system, command)}, 0),
            "os.system 4": pickle.dumps({"w": Call(os.system, command)}, 4),
            "popen": pickle.dumps({"w": Call(subprocess.check_output, command)}, 2),
        },
        (Attack.EVAL, "unsafe"): {
            "exec": pickle.dumps({"w": Call(exec, code)}, 2),
            "eval": pickle.dumps({"w": Call(eval, f"__import__('os').system({command!r})")}, 4),
        },
        (Attack.PADDLE_EVAL, "unsafe"): {
            "eval data": pickle.dumps({"w": Call(eval, "data", {"data": 1, "__builtins__": {}})}, 4)
        },
        (Attack.ATTRIBUTE_CHAIN, "unsafe"): {
            "getattr": pickle.dumps({"w": Call(getattr, Call(importlib.import_module, "os"), "system")}, 2),
            "copyreg": state(b"ccopyreg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR"),
        },
        (Attack.NUMPY_GADGET, "unsafe"): {
            "runstring": state(b"cnumpy.testing._private.utils\nrunstring\n" + text(code) + b"}\x86R"),
            "f2py": state(b"cnumpy.f2py.capi_maps\ngetinit\n" + text("__import__('os')") + text("x") + b"\x86R"),
        },
        (Attack.DOTTED_GLOBAL, "unsafe"): {
            "dotted": state(text("numpy") + text("ndarray.__init__") + b"\x93" + shell + b"\x85R")
        },
        (Attack.MEMOIZED_GLOBAL, "unsafe"): {
            "by memo": state(text("os") + b"q\x00" + text("system") + b"q\x01" + b"00h\x00h\x01\x93" + shell + b"\x85R"),
        },
        (Attack.INSTANTIATION, "unsafe"): {
            "inst": state(b"(" + shell + b"ios\nsystem\n"),
            "obj": state(b"(cos\nsystem\n" + shell + b"o"),
            "newobj_ex": state(b"cos\nsystem\n" + shell + b"\x85}\x92"),
            "obj of known names": state(b"(ccollections\nOrderedDict\n" + shell + b"o"),
            "newobj_ex of known names": state(b"ccollections\nOrderedDict\n)}\x92"),
            "extension": state(b"\x82\x01" + shell + b"\x85R"),
            "persistent": state(b"Pos.system\n"),
            "binary persistent": state(shell + b"Q"),
        },
    }


def dense(expression: str, *keys: str) -> bytes:
    """Pickle a call of eval, which Paddle writes for a tensor with one expression and key."""
    items = b"".join(text(key) + array() for key in keys)
    return state(b"c__builtin__\neval\n" + text(expression) + b"}(" + items + b"u\x86R")


def cut(shape: bytes, *parts: str, among: bytes = b"") -> bytes:
    """Pickle two arrays as slices of one, as Paddle splits arrays of over a gigabyte."""
    info = b"}" + text("w") + b"}(" + text("OriginShape") + shape + text("slices") + b"("
    info += b"".join(map(text, parts)) + b"lus"
    arrays = b"".join(text(f"w@@.{i}") + array() for i in range(2))
    return b"\x80\x02}(" + arrays + among + text("UnpackBigParamInfor@@") + info + b"u."


NAMED = b"c__builtin__\ntuple\n"
# What only Paddle's reader could accept, and must not.
PADDLE: Table = {
    (Attack.PADDLE_EVAL, "unsafe"): {
        "a space after data": dense("data ", "data"),
        "data in brackets": dense("(data)", "data"),
        "a second key": dense("data", "data", "x"),
        "another key": dense("data", "x"),
        "no key": dense("data"),
        "tuple of a list": state(NAMED + b"]\x85R"),
        "tuple of two": state(NAMED + text("n") + array() + b"\x86R"),
        "tuple of a number": state(NAMED + text("n") + b"K\x01\x86\x85R"),
    },
    (Attack.PADDLE_SLICES, "corrupt"): {
        "slices of another shape": cut(b"K\x03K\x02\x86", "w@@.0", "w@@.1"),
        "a slice missing": cut(b"K\x02K\x02\x86", "w@@.0", "w@@.2"),
        "a slice twice": cut(b"K\x02K\x02\x86", "w@@.0", "w@@.0"),
        "no slices": cut(b"K\x02K\x02\x86"),
        "slices of a name that is there": cut(b"K\x02K\x02\x86", "w@@.0", "w@@.1", among=text("w") + array()),
        "slices of a text": cut(text("4"), "w@@.0", "w@@.1"),
        "slices of negative shape": cut(b"J\xff\xff\xff\xffJ\xfc\xff\xff\xff\x86", "w@@.0", "w@@.1"),
    },
}

# Few bytes that would take much time or memory.
BOMBS: Table = {
    (Attack.BILLION_LAUGHS, "unsupported"): {
        "laughs": b"\x80\x02)q\x000" + b"".join(b"(" + b"h%c" % i * 10 + b"tq%c0" % (i + 1) for i in range(100)) + b"hd.",
        "one dict, many names": b"\x80\x02}q\x00("
        + b"".join(text(str(i)) + b"N" for i in range(20_000))
        + b"u0}("
        + b"".join(text(str(i)) + b"h\x00" for i in range(20_000))
        + b"u.",
        "one string, many encodings": b"\x80\x02"
        + text("x" * 1_000_000)
        + b"q\x000c_codecs\nencode\nq\x010"
        + text("latin1")
        + b"q\x020("
        + b"h\x01h\x00h\x02\x86R" * 50_000
        + b"t.",
        "laughs as a dtype": state(b"cnumpy\ndtype\n)" + b"2\x86" * 200 + b"\x85R"),
        "many lines": b"\x80\x02" + (b"V" + b"x" * 5000 + b"\n0") * 2000 + b"}.",
    },
    (Attack.CYCLE, "unsupported"): {
        "cycle": b"\x80\x02}q\x00" + text("w") + b"h\x00s.",
        "list in itself": b"\x80\x02]q\x00h\x00a.",
    },
    (Attack.NESTING, "unsupported"): {"deep tuples": b"\x80\x02)" + b"\x85" * 300_000 + b"."},
}
# The same with NumPy arrays, which PyTorch's files do not contain.
ARRAY_BOMBS: Table = {
    (Attack.BILLION_LAUGHS, "corrupt"): {
        "laughs as a shape": state(
            array(shape=b")q\x00" + b"h\x000" + b"".join(b"\x85q\x00h\x00\x86" for _ in range(200)) + b"\x85")
        ),
    },
    (Attack.AMPLIFICATION, "corrupt"): {
        "one buffer, many arrays": b"\x80\x02B"
        + struct.pack("<I", 1_000_001)
        + bytes(1_000_001)
        + b"q\x000"
        + F4.replace(b"f4", b"i1")
        + b"q\x010}("
        + b"".join(text(f"{i}") + ARRAY + b"(K\x01J\x41\x42\x0f\x00\x85h\x01\x89h\x00tb" for i in range(1000))
        + b"u.",
    },
}

PROGRAMS: Table = {
    (Attack.BUILD, "unsafe"): {
        "build on a global": state(b"ccollections\nOrderedDict\n}" + text("x") + b"K\x01sb"),
        "build on a dict": state(b"}}b"),
        "build with slots": state(b"ccollections\nOrderedDict\n)RN}\x86b"),
    },
    (Attack.OPERAND_TYPE, "unsafe"): {
        "reduce on a string": state(text("os") + b")R"),
        "reduce with a list": state(b"ccollections\nOrderedDict\n]R"),
        "call of a mention": state(b"cnumpy\nndarray\n)R"),
        "append to a string": state(text("os") + b"K\x01a"),
        "setitem on a list": state(b"]K\x00K\x01s"),
        "name of numbers": state(b"K\x01K\x02\x93"),
    },
    (Attack.MEMO_INDEX, "corrupt"): {
        "unset memo": state(b"h\x07"),
        "unset long memo": state(b"j\xff\xff\xff\xff"),
        "put on nothing": b"\x80\x02r\xff\xff\xff\xff.",
        "not an index": state(b"gone\n"),
    },
    (Attack.NESTING, "corrupt"): {
        "deep marks": b"\x80\x02" + b"(" * 65 + b"t" * 65 + b".",
    },
    (Attack.LENGTH, "corrupt"): {
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
    },
    (Attack.INCOMPLETE, "corrupt"): {
        "empty stack": b"\x80\x02.",
        "underflow": b"\x80\x02R.",
        "no mark": b"\x80\x02K\x01t.",
        "leftovers": b"\x80\x02}}.",
        "open mark": b"\x80\x02(}.",
        "no stop": b"\x80\x02}",
        "no such opcode": b"\x80\x02\xff.",
        "odd items": b"\x80\x02}(" + text("w") + b"u.",
    },
    (Attack.SECOND_PICKLE, "corrupt"): {
        "a second pickle": state(array()) + pickle.dumps({"w": Call(exec, "1")}),
        "a line after it": state(array()) + b"\n",
        "zeros after it": state(array()) + bytes(100),
    },
    (Attack.DICT_KEY, "corrupt"): {
        "duplicate key": b"\x80\x02}" + (text("w") + b"K\x01s") * 2 + b".",
        "duplicate key in one go": b"\x80\x02}(" + (text("w") + b"K\x01") * 2 + b"u.",
        "float key": b"\x80\x02}G\x7f\xf8\x00\x00\x00\x00\x00\x00K\x01s.",
        "tuple key": b"\x80\x02})K\x01s.",
        "list key": b"\x80\x02}]K\x01s.",
        "global key": b"\x80\x02}cnumpy\nndarray\nK\x01s.",
    },
    (Attack.TEXT_CODEC, "unsafe"): {
        "another codec": state(b"c_codecs\nencode\n" + text("x") + text("rot13") + b"\x86R"),
    },
    (Attack.ENCODING, "corrupt"): {
        "endless line": b"\x80\x02c" + b"a" * 100_000,
        "endless string": b"\x80\x02S'" + b"a" * 100_000,
        "unquoted": state(b"Sabc\n"),
        "broken escape": state(b"S'\\x'\n"),
        "not UTF-8": state(b"X\x01\x00\x00\x00\xff"),
        "surrogate": state(b"X\x03\x00\x00\x00\xed\xa0\x80"),
        "surrogate in text": state(b"V\\ud800\n"),
    },
    (Attack.ENCODING, "unsupported"): {
        "protocol 99": b"\x80\x63" + state(array())[2:],
        "out of band": b"\x80\x05\x97.",
    },
    (Attack.DTYPE, "unsafe"): {
        "reconstruct of a dtype": state(b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\nK\x00\x85C\x01btR"),
    },
    (Attack.DTYPE, "unsupported"): {
        "object array": state(array(dtype=F4.replace(b"f4", b"O8"), data=b"]")),
        "list as bytes": state(array(data=b"]")),
        "datetime": state(array(dtype=F4.replace(b"f4", b"M8"))),
        "void": state(array(dtype=F4.replace(b"f4", b"V8"))),
        "structured": state(array(dtype=F4.replace(b"NNN", b"N)}"))),
        "long double": state(array(dtype=F4.replace(b"f4", b"g4"))),
    },
    (Attack.ARRAY_CLASS, "unsafe"): {
        "memmap subclass": state(b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nmemmap\nK\x00\x85C\x01btR"),
    },
    (Attack.ARRAY_CLASS, "corrupt"): {
        "unfinished array": state(ARRAY),
        "array given twice": state(array() + b"(K\x01K\x02\x85" + F4 + b"\x89C\x08" + bytes(8) + b"tb"),
    },
    (Attack.SHAPE, "corrupt"): {
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
    },
    (Attack.OTHER_FILE, "unsupported"): {
        "a list": b"\x80\x02].",
        "no tensors": b"\x80\x02}" + text("epoch") + b"K\x01s.",
        "names of numbers": b"\x80\x02}K\x01" + array() + b"s.",
        "two states": b"\x80\x02}"
        + b"".join(text(k) + b"}" + text("w") + array() + b"ss" for k in ("generator", "critic"))
        + b".",
    },
}
