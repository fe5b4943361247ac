"""Checkpoints of any framework, read, written and converted without the frameworks; nothing in a file is ever run."""

from acon_core.checkpoint.convert import Conversion, convert
from acon_core.checkpoint.formats import Format, formats
from acon_core.checkpoint.metadata import metadata
from acon_core.checkpoint.reading import Checkpoint, load_network, read_file, read_network

__all__ = ["Checkpoint", "Conversion", "Format", "convert", "formats", "load_network", "metadata", "read_file", "read_network"]
