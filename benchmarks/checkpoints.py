"""Measure reading and converting of checkpoints against another program on the same files.

`python benchmarks/checkpoints.py read --backend torch` (or megengine, paddle, jax, numpy; in an
environment with it) reads files of 100 MB, written by the framework, with our reader and with the
framework's loader in turns, until every tensor owns its memory.

`python benchmarks/checkpoints.py convert` converts a PyTorch file of 1 GB to other formats, and
compares with `cp` of that file.

Both print Markdown tables of medians, with minima in brackets: other load on the machine only adds
time. Files are in the page cache.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acon_core.checkpoint.convert import convert
from acon_core.checkpoint.formats import format_named
from acon_core.networks import create
from acon_core.spec import Graph, Linear, initial_state, sequential
from acon_core.tensors import LazyTensor, LazyTensors

NETWORK = "acon/resnet50"  # 103 MB in 421 tensors
ROUNDS = 9
WIDE, HIGH, LAYERS = 3200, 2560, 30  # 33 MB per layer
TARGETS = ("safetensors", "megengine", "jax", "paddle", "npz", "torch")
CONVERSIONS = 5

State = dict[str, NDArray]
Save = Callable[[State, Path], object]
Load = Callable[[Path], object]


def owned(array: NDArray) -> NDArray:
    """Copy an array if its bytes belong to a mapped file."""
    owner: object = array
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    return array if owner is None or isinstance(owner, bytes) else array.copy()


def ours(format: str) -> Load:
    """Return our reader of a format."""
    files = format_named(format).codec
    return lambda path: {name: owned(array) for name, array in files.read(path).tensors.items()}


def of_torch() -> dict[str, tuple[Save, Load]]:
    """Return PyTorch's writer and loader by format.

    Its loader gives every tensor its own memory.
    """
    import torch

    def save(state: State, path: Path, zipped: bool) -> None:
        tensors = {name: torch.from_numpy(array) for name, array in state.items()}
        torch.save(tensors, path, _use_new_zipfile_serialization=zipped)

    def load(path: Path) -> object:
        return torch.load(path, weights_only=True)

    return {
        "torch": (lambda state, path: save(state, path, True), load),
        "torch_legacy": (lambda state, path: save(state, path, False), load),
    }


def of_megengine() -> dict[str, tuple[Save, Load]]:
    """Return MegEngine's writer and loader. Unpickling gives every array its own bytes."""
    import megengine

    return {"megengine": (lambda state, path: megengine.save(state, str(path)), lambda path: megengine.load(str(path)))}


def of_paddle() -> dict[str, tuple[Save, Load]]:
    """Return Paddle's writer and loader, of tensors."""
    import paddle

    def save(state: State, path: Path) -> None:
        paddle.save({name: paddle.to_tensor(array) for name, array in state.items()}, str(path))

    return {"paddle": (save, lambda path: paddle.load(str(path)))}


def of_jax() -> dict[str, tuple[Save, Load]]:
    """Return the writers and loaders of Flax and Orbax, of NumPy arrays."""
    import orbax.checkpoint as ocp
    from flax import serialization, traverse_util

    def tree(state: State) -> Any:
        return traverse_util.unflatten_dict(state, sep=".")

    return {
        "jax": (
            lambda state, path: path.write_bytes(serialization.msgpack_serialize(tree(state))),
            lambda path: serialization.msgpack_restore(path.read_bytes()),
        ),
        "orbax": (
            lambda state, path: ocp.PyTreeCheckpointer().save(path, tree(state)),
            lambda path: ocp.PyTreeCheckpointer().restore(path),
        ),
    }


def of_numpy() -> dict[str, tuple[Save, Load]]:
    """Return NumPy's writer and loader. Converting the archive to a dict reads every array."""

    def load(path: Path) -> object:
        with np.load(path) as archive:
            return dict(archive)

    return {"npz": (lambda state, path: np.savez(path, **state), load)}


LOADERS = {"torch": of_torch, "megengine": of_megengine, "paddle": of_paddle, "jax": of_jax, "numpy": of_numpy}


def seconds(action: Callable[[], object]) -> float:
    """Time an action in seconds, without the time to free its result."""
    gc.collect()
    start = time.perf_counter()
    made = action()
    took = time.perf_counter() - start
    del made
    return took


def format_times(times: list[float]) -> str:
    """Format the median and the minimum in milliseconds."""
    return f"{statistics.median(times) * 1e3:.0f} ({min(times) * 1e3:.0f})"


def ratio(first: list[float], second: list[float]) -> str:
    """Format the ratios of the medians and of the minima."""
    return f"{statistics.median(first) / statistics.median(second):.2f} ({min(first) / min(second):.2f})"


def read(backend: str, folder: Path) -> None:
    """Print the table of one framework's formats."""
    graph = create(NETWORK).graph
    state = initial_state(graph)
    print("| format | framework's own, ms | ours, ms | ours / theirs |\n|---|--:|--:|--:|", flush=True)
    for format, (save, load) in LOADERS[backend]().items():
        path = folder / f"{format}.npz"  # NumPy appends .npz to any other suffix
        save(dict(format_named(format).layout.to_native(graph, state)), path)
        readers = (load, ours(format))
        times = [[seconds(partial(reader, path)) for reader in readers] for _ in range(ROUNDS + 1)][1:]
        theirs, mine = ([each[side] for each in times] for side in (0, 1))
        print(f"| `{format}` | {format_times(theirs)} | {format_times(mine)} | {ratio(mine, theirs)} |", flush=True)


def large() -> Graph:
    """Build a network of 1 GB, in tensors of 33 MB."""
    return sequential(**{f"layer{i}": Linear(*((WIDE, HIGH) if i % 2 else (HIGH, WIDE))) for i in range(LAYERS)})


@contextmanager
def most_memory() -> Iterator[list[int]]:
    """Sample the process's anonymous memory; the last item is the maximum in kB."""
    found, done = [0], threading.Event()

    def sample() -> None:
        while not done.wait(0.002):
            status = Path("/proc/self/status").read_text()
            found.append(max(found[-1], int(status.partition("RssAnon:")[2].split()[0])))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def make_room(target: Path) -> None:
    """Remove the target of the last round just before it is written again.

    The freed memory is then at hand for a file of the same size. On a virtual machine it would
    otherwise return to the host, and the next allocation would wait for it.
    """
    target.unlink(missing_ok=True)


def converted(source: str, target: str, to: str) -> None:
    """Convert once in this process, and print seconds and memory as JSON."""
    make_room(Path(target))
    with most_memory() as memory:
        start = time.perf_counter()
        convert(source, target, to, "checkpoints:large")
        took = time.perf_counter() - start
    print(json.dumps([took, memory[-1]]))


def time_copy(source: Path, target: Path) -> tuple[float, float]:
    """Return the seconds of `cp`, and of `cp` with fsync."""
    make_room(target)
    start = time.perf_counter()
    subprocess.run(["cp", str(source), str(target)], check=True)
    took = time.perf_counter() - start
    with target.open("rb") as file:
        os.fsync(file.fileno())
    return took, time.perf_counter() - start


def convert_all(folder: Path) -> None:
    """Print the table of conversions."""
    draw = np.random.default_rng(0)

    def lazy(shape: tuple[int, ...]) -> LazyTensor:
        return LazyTensor(shape, np.dtype(np.float32), lambda: draw.standard_normal(shape, np.float32))

    source, target = folder / "source.pth", folder / "target"
    shapes = format_named("torch").layout.native_shapes(large())
    format_named("torch").codec.write(source, LazyTensors({name: lazy(shape) for name, shape in shapes.items()}))
    print(f"{source.stat().st_size / 1e6:.0f} MB of PyTorch's\n")
    print("| to | `cp`, ms | `cp` and fsync, ms | `acon convert`, ms | speed of `cp` | of `cp` and fsync | memory, MB |")
    print("|---|--:|--:|--:|--:|--:|--:|", flush=True)
    for to in TARGETS:
        rows: list[list[float]] = []
        for _ in range(CONVERSIONS + 1):
            copying = time_copy(source, folder / "copy")
            command = [sys.executable, __file__, "converted", str(source), str(target), to]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rows.append([*copying, *json.loads(done.stdout)])
        cp, cp_sync, mine, memory = ([row[column] for row in rows[1:]] for column in range(4))
        times = " | ".join(format_times(each) for each in (cp, cp_sync, mine))
        speeds = f"{ratio(cp, mine)} | {ratio(cp_sync, mine)}"
        print(f"| `{to}` | {times} | {speeds} | {max(memory) / 1e3:.0f} |", flush=True)


def main() -> None:
    """Run the command of the arguments."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    reading = commands.add_parser("read")
    reading.add_argument("--backend", choices=LOADERS, required=True)
    commands.add_parser("convert")
    once = commands.add_parser("converted")
    for name in ("source", "target", "to"):
        once.add_argument(name)
    args = parser.parse_args()
    if args.command == "converted":
        converted(args.source, args.target, args.to)
        return
    with tempfile.TemporaryDirectory(dir=".") as folder:
        if args.command == "read":
            read(args.backend, Path(folder).resolve())
        else:
            convert_all(Path(folder).resolve())


if __name__ == "__main__":
    main()
