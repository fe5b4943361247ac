"""Measure the memory that a small hostile Orbax folder makes TensorStore use.

Run `python benchmarks/hostile_orbax.py`. The folder is an OCDBT database of one node, which holds
one array and many values of 1 MiB of zeros, compressed. Each is read in a separate process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HELPERS = Path(__file__).parent.parent / "tests" / "helpers"
sys.path.insert(0, str(HELPERS))

from orbax_folders import GOOD, good, ocdbt  # noqa: E402  (found after the line before)

READ = """
import json, sys, time
from pathlib import Path
from acon_jax.checkpoint import orbax
from audit import forget_peak, peak
import tensorstore
forget_peak()
memory, began = peak(), time.perf_counter()
dict(orbax.read(Path(sys.argv[1])).tensors)
print(json.dumps([time.perf_counter() - began, peak() - memory]))
"""


def main() -> None:
    """Print the table."""
    print("| folder (kB) | node (MB) | memory (MB) | seconds |")
    print("|--:|--:|--:|--:|")
    for count in (0, 64, 256, 1024):
        with tempfile.TemporaryDirectory() as folder:
            values = {b"x%06d" % index: bytes(1 << 20) for index in range(count)}
            ocdbt(good({**GOOD, **values}, packed=True))(Path(folder))
            size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
            command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(HELPERS)!r}){READ}", folder]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        seconds, megabytes = json.loads(done.stdout)
        print(f"| {size / 1e3:.0f} | {count * (1 << 20) / 1e6:.0f} | {megabytes:.0f} | {seconds:.2f} |")


if __name__ == "__main__":
    main()
