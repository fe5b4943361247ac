"""Read untrusted files under an audit hook, with limits on memory and time.

`python audit.py LIST`: LIST is a JSON file with rows of a format's name, a path, and the folder or
file that its reader may open. For each row, one line of JSON gives the outcome, the CPU seconds,
the megabytes, and the audit events that a reader should not cause. A reader that hangs ends the
process.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from hostile_orbax import good, ocdbt, zarr2, zarr3

from acon_core.checkpoint.formats import Format, formats, sniff
from acon_core.errors import CheckpointError

MEMORY = 1 << 30  # beyond what the interpreter has when the first file is read
HANG = 120  # seconds; far above what a loaded machine needs
# Events of mapping a file and reading its name. All others are reported, except for opening the
# reader's own file.
HARMLESS = {"mmap.__new__", "builtins.id", "object.__getattr__", "object.__setattr__", "sys._getframe", "array.__new__"}
# Writers of valid files for the formats that are only read.
READ_ONLY = {"orbax": [zarr2(), zarr3(), ocdbt(good()), ocdbt(good(packed=True), framing={"packed": True})]}
OPENING = {"open", "os.listdir", "os.scandir"}


class Watch:
    """Collects audit events between `begin` and `end`. Create one per process: hooks stay."""

    def __init__(self) -> None:
        self.allowed: str | None = None
        self.events: list[str] = []
        sys.addaudithook(self._hook)

    def begin(self, allowed: Path) -> None:
        self.events = []
        self.allowed = os.path.realpath(allowed)

    def end(self) -> list[str]:
        self.allowed = None
        return self.events

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self.allowed is None or event in HARMLESS:
            return
        if event in OPENING and isinstance(args[0], str):
            found = os.path.realpath(args[0])
            if found == self.allowed or found.startswith(self.allowed + os.sep):
                return
        self.events.append(f"{event} {args!r}"[:200])


def warm(known: dict[str, Format]) -> None:
    """Read a valid file of every format, so that what Python imports lazily is imported."""
    tensors = {"w": np.ones((2, 3), np.float32), "n": np.ones(2, np.int32)}
    "".encode("raw-unicode-escape")
    for name, format in known.items():
        for write in READ_ONLY.get(name, [lambda path, format=format: format.codec.write(path, tensors, {})]):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "a"
                if format.codec.IS_DIRECTORY:
                    path.mkdir()
                write(path)
                sniff(path)
                assert refusal(format, path) is None, name


def refusal(format: Format, path: Path) -> CheckpointError | None:
    """Read the file and all its tensors; return the error that refuses it, or None."""
    try:
        found = format.codec.read(path)
        for name in found.tensors:
            found.tensors[name]
    except CheckpointError as error:
        return error
    return None


def peak() -> float:
    """Return the peak memory of the process since `forget_peak`, in MB."""
    status = Path("/proc/self/status")
    if status.exists():
        return float(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def forget_peak() -> None:
    """Reset the peak memory, if the system can (Linux)."""
    path = Path("/proc/self/clear_refs")
    if path.exists():
        path.write_text("5")


def limit_memory() -> None:
    """Limit the memory of the process to MEMORY beyond its present size."""
    statm = Path("/proc/self/statm")
    taken = int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else 0
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.RLIM_INFINITY))


def main() -> None:
    """Read every file of the list, after every codec has sniffed it."""
    known = formats()
    rows = json.loads(Path(sys.argv[1]).read_text())
    warm(known)
    watch = Watch()
    limit_memory()
    for name, path, allowed in rows:
        faulthandler.dump_traceback_later(HANG, exit=True)
        forget_peak()
        memory, began = peak(), time.process_time()
        told = {"path": path, "allowed": allowed, "kind": None, "message": None}
        watch.begin(Path(allowed))
        try:
            with suppress(CheckpointError):  # `refusal` reports it
                sniff(Path(path))
            error = refusal(known[name], Path(path))
            told |= {"kind": error and error.kind, "message": error and str(error)}
        except BaseException as error:
            told |= {"kind": type(error).__name__, "message": repr(error)}
        told["events"] = watch.end()  # type: ignore[assignment]
        told |= {"seconds": time.process_time() - began, "megabytes": peak() - memory}  # type: ignore[dict-item]
        print(json.dumps(told), flush=True)
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
