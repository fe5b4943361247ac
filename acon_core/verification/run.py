"""`acon run`: run a checkpoint's network on images, on any backend."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from acon_core import backends
from acon_core.backends import Model
from acon_core.checkpoint import Checkpoint, NetworkQuery
from acon_core.checkpoint.codecs.atomic_write import atomic_write, check_target
from acon_core.checkpoint.reading import read_checkpoint
from acon_core.errors import AconError
from acon_core.networks import Preprocessing

BATCH = 4


def read_images(path: Path) -> NDArray:
    """Return the only array of an .npz file, NCHW. Raises AconError for anything else."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays: dict[str, NDArray] = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, BadZipFile, AttributeError, EOFError) as error:
        raise AconError(f"{path}: expected an .npz file with one NCHW array: {error}") from error
    if len(arrays) != 1:
        raise AconError(f"{path}: expected one array, found {len(arrays)}: {', '.join(arrays)}; save only the images")
    name, images = arrays.popitem()
    if not isinstance(images, np.ndarray):
        raise AconError(f"{path}: {name} is not an array; write the file with np.savez")
    if images.ndim != 4 or not (images.dtype == np.uint8 or images.dtype.kind == "f"):
        raise AconError(f"{path}: {name}: expected uint8 or float (N, C, H, W), found {images.dtype} {images.shape}")
    return images


def allow_imports_from(folder: Path) -> None:
    """Append a folder to `sys.path`, so that a user's own function in it can be imported.

    Backends are looked up first and the folder comes last, so that nothing in it, such as a
    `numpy.py` or another backend, replaces what is installed.
    """
    backends.packages()
    sys.path.append(str(folder))


def check_images(preprocessing: Preprocessing | None, images: NDArray, path: Path) -> list[str]:
    """Return a warning if the images look scaled to another range than the network expects.

    Raises AconError for values outside that range. The channel order cannot be checked.
    """
    if preprocessing is None or not images.size:
        return []
    (lower, upper), (low, high) = preprocessing.bounds, (float(images.min()), float(images.max()))
    slack = 1e-3 * (upper - lower)
    found, expected = f"{low:.4g} to {high:.4g}", f"{lower:.4g} to {upper:.4g}"
    if not (lower - slack <= low and high <= upper + slack):
        raise AconError(f"{path}: values from {found}, expected {expected}: the input must be {preprocessing}")
    if high - low <= (upper - lower) / 100:
        return [f"{path}: values from {found} only, expected {expected}: the input must be {preprocessing}"]
    return []


def build_model(checkpoint: Checkpoint, backend: str) -> tuple[Model, str]:
    """Return the network on a backend with the checkpoint's weights, and the dtype that it runs in.

    The framework's own loader reads a file of the backend's own format, so that the run shows what
    the framework makes of the file. Other files, and dialects, go through the canonical state.
    """
    dtype = "float64" if backend == "numpy" else "float32"
    model = backends.get(backend).build(checkpoint.network.graph, dtype=dtype, seed=None)
    if checkpoint.format.name == backend and checkpoint.format.dialect is None and checkpoint.dtype == dtype:
        model.load_file(checkpoint.path)
    else:
        model.load(checkpoint.cast(dtype))
    return model, dtype


def run_checkpoint(
    file: Path, input: Path, output: Path, backend: str, query: NetworkQuery, on_progress: Callable[[int, int], None]
) -> tuple[NDArray, list[str]]:
    """Run the network in `file` on the images in `input`, and write `logits` to `output`.

    `on_progress` is called with the number of images done and in total. Returns the logits (float64
    from numpy, else float32) and warnings about the images. Raises AconError for images outside the
    range that the network expects.
    """
    check_target(output)
    for source in (file, input):
        if output.exists() and source.exists() and output.samefile(source):
            raise AconError(f"{output}: is an input file; choose another output")
    images = read_images(input)
    checkpoint = read_checkpoint(file, query)
    warnings = [*checkpoint.warnings, *check_images(checkpoint.network.input, images, input)]
    model, dtype = build_model(checkpoint, backend)
    batches: list[NDArray] = []
    for start in range(0, max(len(images), 1), BATCH):
        batches.append(model(images[start : start + BATCH].astype(dtype)).y)
        on_progress(sum(map(len, batches)), len(images))
    logits = np.concatenate(batches).astype(dtype)
    with atomic_write(output) as target:
        np.savez(target, logits=logits)
    return logits, warnings
