"""Checkpoints of any framework, read, written and converted without the frameworks; nothing in a file is ever run."""

from acon_core.checkpoint.convert import Checkpoint, Conversion, convert, read_file, read_network
from acon_core.checkpoint.formats import Format, formats

__all__ = ["Checkpoint", "Conversion", "Format", "convert", "formats", "read_file", "read_network"]
