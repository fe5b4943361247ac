"""Read, write and convert checkpoints of any framework, without the frameworks.

No code in a file is executed.
"""

from acon_core.checkpoint.convert import Conversion, convert
from acon_core.checkpoint.files import read_file
from acon_core.checkpoint.formats import Format, formats
from acon_core.checkpoint.metadata import metadata
from acon_core.checkpoint.query import NetworkQuery
from acon_core.checkpoint.reading import Checkpoint, load_network, read_network

__all__ = [
    "Checkpoint",
    "Conversion",
    "Format",
    "NetworkQuery",
    "convert",
    "formats",
    "load_network",
    "metadata",
    "read_file",
    "read_network",
]
