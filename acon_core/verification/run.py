"""`acon run`: a checkpoint's network on images, through any backend."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from acon_core import backends
from acon_core.backends import Model
from acon_core.checkpoint import Checkpoint, read_network
from acon_core.checkpoint.codecs.atomic_write import atomic_write
from acon_core.errors import AconError
from acon_core.networks import Preprocessing

BATCH = 4


def read_images(path: Path) -> NDArray:
    """The one NCHW array of an .npz, as it is. Raises AconError for anything else."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays: dict[str, NDArray] = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, BadZipFile, AttributeError, EOFError) as error:
        raise AconError(f"{path}: expected an .npz with one NCHW array: {error}") from error
    if len(arrays) != 1:
        raise AconError(f"{path}: expected one array, found {len(arrays)}: {', '.join(arrays)}; save the images alone")
    name, images = arrays.popitem()
    if not isinstance(images, np.ndarray):
        raise AconError(f"{path}: {name} is no array; expected an .npz as np.savez writes it")
    if images.ndim != 4 or not (images.dtype == np.uint8 or images.dtype.kind == "f"):
        raise AconError(f"{path}: {name}: expected uint8 or float (N, C, H, W), found {images.dtype} {images.shape}")
    return images


def find_functions_in(folder: Path) -> None:
    """Look for a function of the user's own there too: after everything else, and after backends were looked up.

    A folder may hold anything, such as somebody's `numpy.py` or another backend; nothing there takes an installed one's place.
    """
    backends.packages()
    sys.path.append(str(folder))


def check_images(contract: Preprocessing | None, images: NDArray, path: Path) -> list[str]:
    """A warning where the images look scaled to another range than the network's; nothing can see their channels' order.

    Raises AconError for values outside of that range: the network would run and give a wrong answer.
    """
    if contract is None or not images.size:
        return []
    (least, most), (low, high) = contract.bounds, (float(images.min()), float(images.max()))
    slack = 1e-3 * (most - least)
    if not (least - slack <= low and high <= most + slack):
        raise AconError(
            f"{path}: values from {low:.4g} to {high:.4g}, expected {least:.4g} to {most:.4g}: the input must be {contract}"
        )
    if high - low <= (most - least) / 100:
        return [f"{path}: values from {low:.4g} to {high:.4g} only, of {least:.4g} to {most:.4g}: the input must be {contract}"]
    return []


def model_of(checkpoint: Checkpoint, backend: str) -> tuple[Model, str]:
    """The checkpoint's network on a backend with its weights, and the dtype that it runs in.

    A file of the backend's own format is read by the framework's own loader, so that what runs is what the file says to
    the framework; any other, or one in a dialect, goes through the canonical state.
    """
    dtype = "float64" if backend == "numpy" else "float32"
    model = backends.get(backend).build(checkpoint.network.graph, dtype=dtype, seed=None)
    if checkpoint.format.name == backend and checkpoint.format.dialect is None and checkpoint.dtype == dtype:
        model.load_file(checkpoint.path)
    else:
        model.load(checkpoint.cast(dtype))
    return model, dtype


def run_in_batches(model: Model, images: NDArray, dtype: str) -> Iterator[NDArray]:
    """The outputs, a few images at a time: evaluation does not mix rows."""
    for start in range(0, max(len(images), 1), BATCH):
        yield model(images[start : start + BATCH].astype(dtype)).y


def run_checkpoint(
    file: Path,
    input: Path,
    output: Path,
    backend: str,
    network: str | None,
    act: str | None,
    dialect: str | None,
    options: Mapping[str, Any],
    tell: Callable[[int, int], None],
) -> tuple[NDArray, list[str]]:
    """Run `file` on the images of `input` and write `logits` to `output`: float64 from numpy, else float32.

    Returns the logits, and what is worth telling about the images. Raises AconError for images that the network was not
    trained for.
    """
    for read in (file, input):
        if output.exists() and read.exists() and output.samefile(read):
            raise AconError(f"{output}: is a file that is read; give another output")
    images = read_images(input)
    checkpoint = read_network(file, network, act, dialect, **options)
    told = [*checkpoint.warnings, *check_images(checkpoint.network.input, images, input)]
    model, dtype = model_of(checkpoint, backend)
    parts = []
    for part in run_in_batches(model, images, dtype):
        parts.append(part)
        tell(sum(map(len, parts)), len(images))
    logits = np.concatenate(parts).astype(dtype)
    with atomic_write(output) as target:
        np.savez(target, logits=logits)
    return logits, told
