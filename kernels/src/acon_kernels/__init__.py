"""The kernel library of acon-ports as a file. `acon_core.kernels` loads it."""

from __future__ import annotations

from pathlib import Path

__version__ = "0.1.0"

INTERFACE = 1
"""The version of kernels.h. It grows when a call that was right becomes wrong."""

library = Path(__file__).with_name("libacon_kernels.so")
"""The shared library."""
