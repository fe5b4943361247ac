"""Upper bounds on what a checkpoint file may cost to read."""

from __future__ import annotations

from dataclasses import dataclass

from acon_core.errors import CheckpointError


@dataclass(frozen=True)
class Limits:
    """Upper bounds for one file. Each is far above what a real checkpoint needs.

    Code reads them as `limits.LIMITS.depth`, through the module, so that a test can replace
    `LIMITS`.
    """

    file_bytes: int = 1 << 40
    opcodes: int = 2_000_000  # of one pickle; a tensor takes about forty
    nodes: int = 500_000  # values in a msgpack file; a tensor takes three
    depth: int = 64  # of nested marks, maps, modules or folders
    line: int = 4096  # characters of a text opcode's argument, except for strings
    integer_bytes: int = 32
    header_bytes: int = 10_000_000  # of JSON; safetensors takes about 100 per tensor
    members: int = 100_000  # files in a zip or a folder
    module_names: int = 1 << 23  # characters of all tensor names of a pickled module
    ndim: int = 32  # NumPy 1 allows no more
    expansion: int = 16  # bytes of tensors per byte of file; above 1 only if tensors share bytes
    expansion_floor: int = 1 << 26  # bytes of tensors that a file of any size may have


LIMITS = Limits()


class Budget:
    """Bound on the total size of a file's tensors, which may share the bytes of a small file."""

    def __init__(self, file_bytes: int) -> None:
        self.left = max(file_bytes * LIMITS.expansion, LIMITS.expansion_floor)

    def spend(self, count: int) -> None:
        """Count a tensor's bytes before they are copied. Raises CheckpointError above the bound."""
        self.left -= count
        if self.left < 0:
            raise CheckpointError("corrupt", "the tensors share the file's bytes so often that they would fill the memory")
