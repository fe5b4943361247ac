"""How much a checkpoint file may ask for before it is refused."""

from __future__ import annotations

from dataclasses import dataclass

from acon_core.errors import CheckpointError


@dataclass(frozen=True)
class Limits:
    """How much a file may ask for before it is refused; every number is far above what a real checkpoint needs."""

    file_bytes: int = 1 << 40
    opcodes: int = 2_000_000  # of one pickle; a tensor takes about forty
    nodes: int = 500_000  # values in one msgpack file; a tensor takes three
    depth: int = 64  # of nested marks or maps
    line: int = 4096  # characters in a text opcode's line, except those that hold strings
    integer_bytes: int = 32
    header_bytes: int = 10_000_000  # of JSON or of names; safetensors' is about 100 a tensor
    members: int = 100_000  # of a zip or a folder
    module_names: int = 1 << 23  # characters in the names of a pickled module's tensors, with all that is looked at for them
    ndim: int = 32  # NumPy 1's own limit
    expansion: int = 16  # bytes of tensors for each byte of file, which only overlapping views can bring above 1
    expansion_floor: int = 1 << 26


LIMITS = Limits()


class Budget:
    """How many bytes of tensors a file may still give; a small file may name the same bytes very often."""

    def __init__(self, file_bytes: int) -> None:
        self.left = max(file_bytes * LIMITS.expansion, LIMITS.expansion_floor)

    def spend(self, count: int) -> None:
        """Count a tensor's bytes before they are copied. Raises CheckpointError when there are too many."""
        self.left -= count
        if self.left < 0:
            raise CheckpointError("corrupt", "the tensors name the file's bytes again and again, and would fill the memory")
