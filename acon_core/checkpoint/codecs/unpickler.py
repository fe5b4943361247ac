"""Reads a pickle as data. Nothing in it is imported, looked up or called.

A pickle is a program for a small stack machine, and a checkpoint uses a little of it. This runs that little over values
of its own: a GLOBAL becomes a `Name`, and what a pickle calls is found in the caller's table, or the file is refused.
Bytes in the pickle are slices of the buffer it was given, never copies.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from acon_core.checkpoint.codecs import limits
from acon_core.checkpoint.codecs.pickle_bytes import PickleBytes, corrupt, decoded
from acon_core.errors import CheckpointError


@dataclass(frozen=True)
class Name:
    """What GLOBAL leaves on the stack: two words. It is data, with no way from it to the thing so named."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"[:200]


class Opaque:
    """A value that the pickle needs and no reader here looks at, such as a `torch.device`."""


@dataclass(eq=False, repr=False)
class Instance:
    """What NEWOBJ of a class that is in no table leaves behind, in a whole module: the class's name and the state."""

    name: Name
    state: dict[Any, Any] | None = None


@dataclass(frozen=True)
class Constructor:
    """What a global means when a pickle calls it: `reduce` makes a value of arguments, `build` gives it its state.

    Without `reduce` the name may be mentioned, as `numpy.ndarray` is, and not called. Only a value that a constructor
    with `build` made can be the target of BUILD. Both raise CheckpointError for arguments that no checkpoint writes.
    """

    reduce: Callable[[tuple[Any, ...]], object] | None = None
    build: Callable[[Any, Any], None] | None = None


Table = Mapping[tuple[str, str], Constructor]
MENTION = Constructor()
OPAQUE = Constructor(lambda args: Opaque(), lambda value, state: None)


class Pickled(NamedTuple):
    """What one pickle holds, the index after its last byte, and the globals that it mentions, `foreign`: not in the table."""

    value: object
    end: int
    globals_seen: tuple[str, ...]
    foreign: tuple[str, ...] = ()


def load(
    data: memoryview,
    table: Table,
    where: str,
    persistent: Callable[[object], object] | None = None,
    *,
    instances: bool = False,
) -> Pickled:
    """Read the one pickle at the start of `data`, of any protocol from 0 to 5.

    `table` gives the globals that may occur; any other makes the file `unsafe`. `persistent` turns a persistent id into
    a value. Sets come back as lists. Dicts must have names or integers as keys, each of them once. Every error is a
    CheckpointError that names `where`, the byte and the opcode.

    `instances`: a global that is not in the table and not Python's own may be mentioned, and one made without arguments is an
    `Instance`. Nothing else may be done with it: calling it is as unsafe as ever. What is read so must not leave the reader.
    """
    machine = _Machine(data, table, persistent, instances)
    try:
        value = machine.run()
    except CheckpointError as error:
        at = f"byte {machine.opcode_at}, opcode {bytes(data[machine.opcode_at : machine.opcode_at + 1])!r}"
        raise CheckpointError(error.kind, f"{where}: {at}: {error}") from None
    return Pickled(value, machine.position, tuple(machine.globals_seen), tuple(machine.foreign))


def looks_like_pickle(data: memoryview) -> bool:
    """Whether the bytes begin as a pickle of a dict does. Says nothing of whether it may be read."""
    head = bytes(data[:32])
    text = (b"ccollections\nOrderedDict\n", b"(dp", b"(d.", b"}q", b"}.")
    return (head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")) or head.startswith(text)


def _unsafe(message: str) -> NoReturn:
    raise CheckpointError("unsafe", f"{message}; nothing was run; save the bare state dict with the framework itself")


class _Machine(PickleBytes):
    def __init__(
        self,
        data: memoryview,
        table: Table,
        persistent: Callable[[object], object] | None,
        instances: bool,
    ) -> None:
        super().__init__(data)
        self.table, self.persistent, self.instances = table, persistent, instances
        self.opcode_at = 0
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each open mark
        self.memo: dict[int, Any] = {}
        self.globals_seen: dict[str, None] = {}
        self.foreign: dict[str, None] = {}
        # Keeps each value beside its constructor, so that no other value can come to have its id.
        self.made: dict[int, tuple[object, Constructor]] = {}

    def run(self) -> object:
        for _ in range(limits.LIMITS.opcodes):
            self.opcode_at = self.position
            opcode = self.byte()
            if opcode == _STOP:
                value = self.pop()
                if self.stack or self.below:
                    corrupt("the pickle stops with values left over")
                return value
            action = _ACTIONS.get(opcode)
            if action is None:
                _refuse_opcode(opcode)
            action(self)
        corrupt(f"more than {limits.LIMITS.opcodes} opcodes")

    # The stack.

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            corrupt("a value is missing on the stack")
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        value = self.pop()
        if type(value) is not kind:
            _unsafe(f"items for a {kind.__name__}, found a {type(value).__name__}")
        self.push(value)
        return value

    def mark(self) -> None:
        if len(self.below) >= limits.LIMITS.depth:
            corrupt(f"nested more than {limits.LIMITS.depth} deep")
        self.below.append(self.stack)
        self.stack = []

    def to_mark(self) -> list[Any]:
        if not self.below:
            corrupt("a mark is missing on the stack")
        values, self.stack = self.stack, self.below.pop()
        return values

    def last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            corrupt(f"{count} values are wanted of the stack, which has {len(self.stack)}")
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    # Opcodes that need more than a line.

    def drop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.to_mark()  # POP takes a mark away where that is what lies on top.

    def duplicate(self) -> None:
        value = self.pop()
        self.stack += [value, value]

    def put(self, index: int) -> None:
        if not self.stack:
            self.pop()
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        if index not in self.memo:
            corrupt(f"memo {index} was never set")
        self.push(self.memo[index])

    def integer(self, data: memoryview) -> None:
        if len(data) > limits.LIMITS.integer_bytes:
            corrupt(f"an integer of {len(data)} bytes")
        self.push(int.from_bytes(data, "little", signed=True))

    def integer_line(self) -> None:
        text = self.short_line()
        if text in ("00", "01"):  # protocols 0 and 1 have no other way to write False and True
            self.push(text == "01")
            return
        self.push(self.decimal(text.removesuffix("L")))

    def frame(self) -> None:
        if self.number("<Q") > len(self.data) - self.position:
            corrupt("a frame is longer than the file")

    def protocol(self) -> None:
        version = self.byte()
        if version > 5:
            raise CheckpointError("unsupported", f"pickle protocol {version}; save with protocol 4")

    def append(self, values: list[Any]) -> None:
        self.top(list).extend(values)

    def set_items(self, values: list[Any]) -> None:
        target = self.top(dict)
        if len(values) % 2:
            corrupt("a key without a value")
        for key, value in zip(values[::2], values[1::2], strict=True):
            set_item(target, key, value)

    def make_dict(self, values: list[Any]) -> None:
        self.push({})
        self.set_items(values)

    # Names, and what is made by them.

    def name(self, module: object, name: object) -> None:
        if type(module) is not str or type(name) is not str:
            _unsafe("a global whose name is not text")
        found = Name(module, name)
        if (module, name) not in self.table:
            if not (self.instances and _is_foreign(module, name)):
                _unsafe(f"the global {str(found)!r} is none that a file of this format needs")
            self.foreign[str(found)] = None
        self.globals_seen[str(found)] = None
        self.push(found)

    def reduce(self) -> None:
        callee, args = self.last(2)
        if type(callee) is not Name or type(args) is not tuple:
            _unsafe(f"a call of a {type(callee).__name__} with a {type(args).__name__}")
        constructor = self.table.get((callee.module, callee.name), MENTION)
        if constructor.reduce is None:
            _unsafe(f"a call of {callee}, which is only ever mentioned")
        value = constructor.reduce(args)
        self.make(value, constructor)

    def make(self, value: object, constructor: Constructor) -> None:
        if constructor.build is not None:
            self.made[id(value)] = value, constructor
        self.push(value)

    def new_object(self) -> None:
        callee, args = self.last(2)
        if type(callee) is Name and (callee.module, callee.name) not in self.table and type(args) is tuple and not args:
            self.make(Instance(callee), _INSTANCE)
            return
        self.stack += [callee, args]
        self.reduce()

    def build(self) -> None:
        state = self.pop()
        target = self.pop()
        _, constructor = self.made.get(id(target), (None, MENTION))
        if constructor.build is None:
            _unsafe(f"BUILD would change a {target if type(target) is Name else type(target).__name__}")
        constructor.build(target, state)
        self.push(target)

    def persistent_id(self, value: object) -> None:
        if self.persistent is None:
            _unsafe("a persistent id, which this format does not have")
        self.push(self.persistent(value))


def set_item(target: dict[Any, Any], key: object, value: object) -> None:
    """Add one item to a dict of a checkpoint, where a name stands once and is text or a whole number."""
    # Hashing anything else may run deep into a nested tuple, and no checkpoint needs it.
    if type(key) is not str and type(key) is not int:
        corrupt(f"a dict's key is a {type(key).__name__}, expected a name or an integer")
    # Large integers can all be given one hash, and a dict of such keys takes a time that grows with their square.
    if type(key) is int and not 0 <= key < 1 << 31:
        corrupt(f"a dict's key is the number {key:.6g}, expected a name or a small integer")
    if key in target:
        corrupt(f"the key {key!r:.80} stands twice in a dict")
    target[key] = value


def _is_foreign(module: str, name: str) -> bool:
    """Whether a global is some library's or script's, and not one of Python's own, which no network is made of."""
    plain = all(part.isidentifier() for part in (*module.split("."), name))  # a dotted name would be a walk through attributes
    return plain and module.partition(".")[0] not in _PYTHONS_OWN


def _instance_state(instance: Instance, state: object) -> None:
    if type(state) is tuple and len(state) == 2 and state[1] is None:
        state = {} if state[0] is None else state[0]  # a class with `__slots__` writes their values in second place
    if type(state) is not dict:
        _unsafe(f"the state of a {instance.name} is a {type(state).__name__}, expected a dict")
    if any(type(key) is str and key[:2] == key[-2:] == "__" for key in state):
        _unsafe(f"the state of a {instance.name} would change what it does, not what it has")
    if instance.state is not None:
        corrupt(f"a {instance.name} that is given its state twice")
    instance.state = state


_INSTANCE = Constructor(build=_instance_state)
_PYTHON_2S_OWN = ("__builtin__", "copy_reg", "cPickle", "cStringIO", "StringIO", "commands", "popen2", "urllib2", "new", "sets")
_PYTHONS_OWN = {*sys.stdlib_module_names, *_PYTHON_2S_OWN}


def _refuse_opcode(opcode: int) -> NoReturn:
    unsafe = {"i": "INST", "o": "OBJ", "\x82": "EXT1", "\x83": "EXT2", "\x84": "EXT4", "\x92": "NEWOBJ_EX"}
    if chr(opcode) in unsafe:
        _unsafe(f"{unsafe[chr(opcode)]} makes objects of any class")
    if chr(opcode) == "\x97":
        raise CheckpointError("unsupported", "NEXT_BUFFER: the data lies outside of this file; save without buffer_callback")
    corrupt("no such opcode, so this is not a pickle or its bytes have changed")


_STOP = ord(".")
# One entry an opcode of the pickle protocol, by its character; `pickletools` in the standard library describes each.
_ACTIONS: dict[int, Callable[[_Machine], None]] = {
    ord(code): action
    for codes, action in {
        "(": _Machine.mark,
        "0": _Machine.drop,
        "1": lambda m: m.to_mark().clear(),
        "2": _Machine.duplicate,
        "N": lambda m: m.push(None),
        "\x88": lambda m: m.push(True),
        "\x89": lambda m: m.push(False),
        "IL": _Machine.integer_line,
        "F": lambda m: m.push(m.float_line()),
        "S": lambda m: m.push(m.quoted_line()),
        "V": lambda m: m.push(m.unicode_line()),
        "J": lambda m: m.push(m.number("<i")),
        "K": lambda m: m.push(m.byte()),
        "M": lambda m: m.push(m.number("<H")),
        "\x8a": lambda m: m.integer(m.take(m.byte())),
        "\x8b": lambda m: m.integer(m.counted("<I")),
        "G": lambda m: m.push(m.number(">d")),
        "X": lambda m: m.push(decoded(m.counted("<I"))),
        "\x8c": lambda m: m.push(decoded(m.take(m.byte()))),
        "\x8d": lambda m: m.push(decoded(m.counted("<Q"))),
        # Python 2's str is text in a key and bytes in an array; latin-1 loses neither.
        "U": lambda m: m.push(decoded(m.take(m.byte()), "latin-1")),
        "T": lambda m: m.push(decoded(m.counted("<I"), "latin-1")),
        "C": lambda m: m.push(m.take(m.byte())),
        "B": lambda m: m.push(m.counted("<I")),
        "\x8e\x96": lambda m: m.push(m.counted("<Q")),
        "\x98": lambda m: None,  # READONLY_BUFFER: every buffer here is read-only.
        "p": lambda m: m.put(m.decimal(m.short_line())),
        "q": lambda m: m.put(m.byte()),
        "r": lambda m: m.put(m.number("<I")),
        "\x94": lambda m: m.put(len(m.memo)),
        "g": lambda m: m.get(m.decimal(m.short_line())),
        "h": lambda m: m.get(m.byte()),
        "j": lambda m: m.get(m.number("<I")),
        ")": lambda m: m.push(()),
        "t\x91": lambda m: m.push(tuple(m.to_mark())),
        "\x85": lambda m: m.push(tuple(m.last(1))),
        "\x86": lambda m: m.push(tuple(m.last(2))),
        "\x87": lambda m: m.push(tuple(m.last(3))),
        "]\x8f": lambda m: m.push([]),
        "l": lambda m: m.push(m.to_mark()),
        "a": lambda m: m.append(m.last(1)),
        "e\x90": lambda m: m.append(m.to_mark()),
        "}": lambda m: m.push({}),
        "d": lambda m: m.make_dict(m.to_mark()),
        "s": lambda m: m.set_items(m.last(2)),
        "u": lambda m: m.set_items(m.to_mark()),
        "c": lambda m: m.name(m.short_line(), m.short_line()),
        "\x93": lambda m: m.name(*m.last(2)),
        "R": _Machine.reduce,
        "\x81": _Machine.new_object,
        "b": _Machine.build,
        "P": lambda m: m.persistent_id(m.short_line()),
        "Q": lambda m: m.persistent_id(m.pop()),
        "\x95": _Machine.frame,
        "\x80": _Machine.protocol,
    }.items()
    for code in codes
}
