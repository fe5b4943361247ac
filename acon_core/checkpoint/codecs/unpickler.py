"""An unpickler that reads a pickle as data: it imports and calls nothing that the file names.

A pickle is a program for a stack machine. This interpreter runs the opcodes that checkpoints use. A
GLOBAL pushes an inert `GlobalName`; a call of one runs the constructor that the caller's table has
for it, and a name that is not in the table is refused. Bytes are slices of the buffer, not copies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from acon_core.checkpoint.codecs import limits
from acon_core.checkpoint.codecs.pickle_reader import PickleReader, corrupt, decode_text
from acon_core.checkpoint.codecs.pickle_values import (
    INSTANCE,
    NAME_ONLY,
    Constructor,
    GlobalName,
    GlobalTable,
    Instance,
    OtherKey,
    PersistentLoad,
    Placeholder,
    is_foreign,
    key_text,
    set_item,
)
from acon_core.errors import CheckpointError


class Unpickled(NamedTuple):
    """The value of one pickle, the index after its last byte, and the dotted names of its globals.

    `foreign_globals` are those that are not in the table.
    """

    value: object
    end: int
    globals_seen: tuple[str, ...]
    foreign_globals: tuple[str, ...] = ()


def load(
    data: memoryview,
    table: GlobalTable,
    where: str,
    persistent_load: PersistentLoad | None = None,
    *,
    allow_foreign: bool = False,
    allow_more: bool = False,
) -> Unpickled:
    """Read a pickle of protocol 0 to 5. With `allow_more`, other bytes may follow it in `data`.

    `table` holds the globals that may occur; any other is refused as `unsafe`. `persistent_load`
    makes a value from a persistent id. Sets are returned as lists. The keys of a dict must be text
    or small integers, without duplicates. Raises CheckpointError naming `where`, the byte and the
    opcode.

    With `allow_foreign`, names outside the table and the standard library may occur and be called,
    which gives an `Instance`, and dict keys may be of any kind that Python can hash. The result
    must not leave the reader, because it contains whatever a hostile file asked for.
    """
    machine = _Machine(data, table, persistent_load, allow_foreign)
    try:
        value = machine.run()
    except CheckpointError as error:
        at = f"byte {machine.opcode_at}, opcode {bytes(data[machine.opcode_at : machine.opcode_at + 1])!r}"
        raise CheckpointError(error.kind, f"{where}: {at}: {error}") from None
    if machine.position != len(data) and not allow_more:
        more = len(data) - machine.position
        raise CheckpointError("corrupt", f"{where}: {more} bytes after the pickle's end; copy or download it again")
    return Unpickled(value, machine.position, tuple(machine.globals_seen), tuple(machine.foreign_globals))


def looks_like_pickle(data: memoryview) -> bool:
    """Whether the bytes begin as the pickle of a dict does; it may still be refused."""
    head = bytes(data[:32])
    text = (b"ccollections\nOrderedDict\n", b"(dp", b"(d.", b"}q", b"}.")
    return (head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")) or head.startswith(text)


def _unsafe(message: str) -> NoReturn:
    raise CheckpointError("unsafe", f"{message}; nothing was run; save the bare state dict with the framework itself")


class _Machine(PickleReader):
    def __init__(
        self, data: memoryview, table: GlobalTable, persistent_load: PersistentLoad | None, allow_foreign: bool
    ) -> None:
        super().__init__(data)
        self.table, self.persistent_load, self.allow_foreign = table, persistent_load, allow_foreign
        self.opcode_at = 0
        self.stack: list[Any] = []
        self.outer_stacks: list[list[Any]] = []  # one for each open mark
        self.memo: dict[int, Any] = {}
        self.key_budget = [limits.LIMITS.module_names]  # characters of the keys that are kept as text
        self.globals_seen: dict[str, None] = {}
        self.foreign_globals: dict[str, None] = {}
        # By id. The value itself is kept too, so that no other value can get the same id.
        self.constructors: dict[int, tuple[object, Constructor]] = {}

    def run(self) -> object:
        for _ in range(limits.LIMITS.opcodes):
            self.opcode_at = self.position
            opcode = self.byte()
            if opcode == _STOP:
                value = self.pop()
                if self.stack or self.outer_stacks:
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
            corrupt("the stack is empty")
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        value = self.pop()
        if type(value) is not kind:
            _unsafe(f"expected a {kind.__name__} to add items to, found a {type(value).__name__}")
        self.push(value)
        return value

    def mark(self) -> None:
        if len(self.outer_stacks) >= limits.LIMITS.depth:
            corrupt(f"nested more than {limits.LIMITS.depth} deep")
        self.outer_stacks.append(self.stack)
        self.stack = []

    def to_mark(self) -> list[Any]:
        if not self.outer_stacks:
            corrupt("the stack has no mark")
        values, self.stack = self.stack, self.outer_stacks.pop()
        return values

    def last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            corrupt(f"expected {count} values on the stack, found {len(self.stack)}")
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    # Opcodes of more than one line.

    def drop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.to_mark()  # POP also removes a mark

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
        if text in ("00", "01"):  # False and True in protocols 0 and 1
            self.push(text == "01")
            return
        self.push(self.decimal(text.removesuffix("L")))

    def frame(self) -> None:
        if self.number("<Q") > len(self.data) - self.position:
            corrupt("a frame that is longer than the file")

    def protocol(self) -> None:
        version = self.byte()
        if version > 5:
            raise CheckpointError("unsupported", f"expected pickle protocol 0 to 5, found {version}; save with protocol 4")

    def append(self, values: list[Any]) -> None:
        if not self.takes_items():
            self.top(list).extend(values)

    def set_items(self, values: list[Any]) -> None:
        if self.takes_items():
            return
        target = self.top(dict)
        if len(values) % 2:
            corrupt("a key without a value")
        for key, value in zip(values[::2], values[1::2], strict=True):
            set_item(target, self.any_key(key) if self.allow_foreign else key, value)

    def any_key(self, key: object) -> object:
        """Return text and small integers as they are, and any other key as an `OtherKey`."""
        if type(key) is str or (type(key) is int and 0 <= key < 1 << 31):
            return key
        return OtherKey(key_text(key, self.key_budget), is_object=type(key) is Instance)

    def takes_items(self) -> bool:
        """Whether the value at the top is an object, such as of a subclass of dict, not a dict."""
        value = self.stack[-1] if self.stack else None
        if type(value) is Instance:
            value.plain = False
        return type(value) in (Instance, Placeholder)

    def make_dict(self, values: list[Any]) -> None:
        self.push({})
        self.set_items(values)

    # Globals and the values that their constructors make.

    def global_name(self, module: object, name: object) -> None:
        if type(module) is not str or type(name) is not str:
            _unsafe("a global whose name is not text")
        pushed = GlobalName(module, name)
        if (module, name) not in self.table:
            if not (self.allow_foreign and is_foreign(module, name)):
                _unsafe(f"global {str(pushed)!r} is not allowed in this format")
            self.foreign_globals[str(pushed)] = None
        self.globals_seen[str(pushed)] = None
        self.push(pushed)

    def reduce(self) -> None:
        callee, args = self.last(2)
        if type(callee) is not GlobalName or type(args) is not tuple:
            _unsafe(f"a call of a {type(callee).__name__} with a {type(args).__name__}")
        if (callee.module, callee.name) not in self.table:
            self.push_made(Instance(callee, plain=False), INSTANCE)
            return
        constructor = self.table[callee.module, callee.name]
        if constructor.reduce is None:
            _unsafe(f"a call of {callee}, which checkpoints never call")
        self.push_made(constructor.reduce(args), constructor)

    def push_made(self, value: object, constructor: Constructor) -> None:
        if constructor.build is not None:
            self.constructors[id(value)] = value, constructor
        self.push(value)

    def new_object(self) -> None:
        callee, args = self.last(2)
        if type(callee) is GlobalName and (callee.module, callee.name) not in self.table and type(args) is tuple and not args:
            self.push_made(Instance(callee), INSTANCE)
            return
        self.stack += [callee, args]
        self.reduce()

    def build(self) -> None:
        state = self.pop()
        target = self.pop()
        _, constructor = self.constructors.get(id(target), (None, NAME_ONLY))
        if constructor.build is None:
            _unsafe(f"BUILD would set the state of a {target if type(target) is GlobalName else type(target).__name__}")
        constructor.build(target, state)
        self.push(target)

    def persistent_id(self, value: object) -> None:
        if self.persistent_load is None:
            _unsafe("a persistent id, which this format does not have")
        self.push(self.persistent_load(value))


def _refuse_opcode(opcode: int) -> NoReturn:
    unsafe = {"i": "INST", "o": "OBJ", "\x82": "EXT1", "\x83": "EXT2", "\x84": "EXT4", "\x92": "NEWOBJ_EX"}
    if chr(opcode) in unsafe:
        _unsafe(f"opcode {unsafe[chr(opcode)]} instantiates any class")
    if chr(opcode) == "\x97":
        raise CheckpointError("unsupported", "NEXT_BUFFER: the data is not in this file; save without buffer_callback")
    corrupt("unknown opcode: not a pickle, or its bytes have changed")


_STOP = ord(".")
# By the opcode's character, as in the standard library's `pickletools`; some share an action.
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
        "\x8b": lambda m: m.integer(m.length_prefixed("<I")),
        "G": lambda m: m.push(m.number(">d")),
        "X": lambda m: m.push(decode_text(m.length_prefixed("<I"))),
        "\x8c": lambda m: m.push(decode_text(m.take(m.byte()))),
        "\x8d": lambda m: m.push(decode_text(m.length_prefixed("<Q"))),
        # A str of Python 2 is text or bytes; latin-1 keeps both.
        "U": lambda m: m.push(decode_text(m.take(m.byte()), "latin-1")),
        "T": lambda m: m.push(decode_text(m.length_prefixed("<I"), "latin-1")),
        "C": lambda m: m.push(m.take(m.byte())),
        "B": lambda m: m.push(m.length_prefixed("<I")),
        "\x8e\x96": lambda m: m.push(m.length_prefixed("<Q")),
        "\x98": lambda m: None,  # READONLY_BUFFER: all buffers are read-only
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
        "c": lambda m: m.global_name(m.short_line(), m.short_line()),
        "\x93": lambda m: m.global_name(*m.last(2)),
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
