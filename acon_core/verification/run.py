"""`acon run`: run a checkpoint's network on images, on any backend."""

from __future__ import annotations

import sys
import zlib
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

WANTED = "expected an .npz or .npy file with one array of images (N, C, H, W), such as np.savez(path, images=images) writes"

# How files begin. An image is named, because people pass one; it needs decoding and preprocessing.
_IMAGE = "an image; decode it, preprocess it as `acon inspect` says of the checkpoint, and save the array"
_MAGIC = {
    b"PK\x03\x04": "an .npz file",
    b"\x93NUMPY": "an .npy file",
    **dict.fromkeys((b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\x00", b"MM\x00*", b"RIFF"), _IMAGE),
}


def read_images(path: Path) -> NDArray:
    """Return the only array of an .npz or .npy file, NCHW. Raises AconError for anything else."""
    kind = _kind(path)
    if kind not in ("an .npz file", "an .npy file"):
        raise AconError(f"{path}: {kind}; {WANTED}")
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return _checked(path, loaded, "the array")
        with loaded as archive:
            names = archive.files
            if len(names) != 1:
                listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
                raise AconError(f"{path}: expected one array, found {len(names)}: {listed}; save only the images")
            return _checked(path, archive[names[0]], names[0])
    # What NumPy says about objects advises to unpickle them.
    except (OSError, ValueError, BadZipFile, AttributeError, EOFError, TypeError, SyntaxError, zlib.error) as error:
        raise AconError(f"{path}: damaged, or not of numbers: {type(error).__name__}; {WANTED}") from error


def _kind(path: Path) -> str:
    """Return what a file is, by its first bytes, as the errors call it."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise AconError(f"{path}: cannot be read: {error.strerror or error}") from error
    return next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), "not an .npz or .npy file")


def _checked(path: Path, images: object, name: str) -> NDArray:
    """Return images if they are a batch, NCHW. Raises AconError that says what to do otherwise."""
    if not isinstance(images, np.ndarray):
        raise AconError(f"{path}: {name} is not an array; {WANTED}")
    found = f"{path}: {name}: expected uint8 or float (N, C, H, W), found {images.dtype} {images.shape}"
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise AconError(f"{found}; convert it with .astype('float32')")
    channels_last = images.ndim in (3, 4) and images.shape[-1] in (1, 3, 4) and images.shape[-3] not in (1, 3, 4)
    if images.ndim == 3:
        advice = ".transpose(2, 0, 1)[None] for (H, W, C)" if channels_last else "[None] for (C, H, W)"
        raise AconError(f"{found}: one image without a batch; add the axis: images{advice}")
    if images.ndim != 4:
        raise AconError(f"{found}; a batch of images has four axes")
    if channels_last:
        raise AconError(f"{found}: the channels are last; move them: images.transpose(0, 3, 1, 2)")
    return images


def allow_imports_from(folder: Path) -> None:
    """Append a folder to `sys.path`, so that a user's own function in it can be imported.

    Backends are looked up first and the folder comes last, so that nothing in it, such as a
    `numpy.py` or another backend, replaces what is installed.
    """
    backends.packages()
    sys.path.append(str(folder))


def check_images(preprocessing: Preprocessing | None, images: NDArray, path: Path, *, force: bool = False) -> list[str]:
    """Return a warning if the images look scaled to another range than the network expects.

    Raises AconError for values outside that range, or warns of them with `force`. The channel order
    cannot be checked.
    """
    if preprocessing is None or not images.size:
        return []
    (lower, upper), (low, high) = preprocessing.bounds, (float(images.min()), float(images.max()))
    slack = 1e-3 * (upper - lower)
    found, expected = f"{low:.4g} to {high:.4g}", f"{lower:.4g} to {upper:.4g}"
    if not (lower - slack <= low and high <= upper + slack):
        text = f"{path}: values from {found}, expected {expected}: the input must be {preprocessing}"
        if force:
            return [text]
        raise AconError(f"{text}; --force runs on them all the same")
    if high - low <= (upper - lower) / 100:
        return [f"{path}: values from {found} only, expected {expected}: the input must be {preprocessing}"]
    return []


def build_model(checkpoint: Checkpoint, backend: str) -> tuple[Model, str]:
    """Return the network on a backend with the checkpoint's weights, and the dtype that it runs in.

    The framework's own loader reads a file of the backend's own format, so that the run shows what
    the framework makes of the file. Other files, dialects, and files of which only some tensors are
    the network's, go through the canonical state.
    """
    dtype = "float64" if backend == "numpy" else "float32"
    model = backends.get(backend).build(checkpoint.network.graph, dtype=dtype, seed=None)
    own = checkpoint.format.name == backend and checkpoint.format.dialect is None and checkpoint.as_stored
    if own and checkpoint.dtype == dtype:
        model.load_file(checkpoint.path)
    else:
        model.load(checkpoint.cast(dtype))
    return model, dtype


def run_checkpoint(
    file: Path,
    input: Path,
    output: Path,
    backend: str,
    query: NetworkQuery,
    on_progress: Callable[[int, int], None],
    *,
    force: bool = False,
) -> tuple[NDArray, list[str]]:
    """Run the network in `file` on the images in `input`, and write `logits` to `output`.

    `on_progress` is called with the number of images done and in total. Returns the logits (float64
    from numpy, else float32) and warnings about the images. Raises AconError for images outside the
    range that the network expects, unless `force`.
    """
    check_target(output)
    for source in (file, input):
        if output.exists() and source.exists() and output.samefile(source):
            raise AconError(f"{output}: is an input file; choose another output")
    images = read_images(input)
    checkpoint = read_checkpoint(file, query)
    warnings = [*checkpoint.warnings, *check_images(checkpoint.network.input, images, input, force=force)]
    model, dtype = build_model(checkpoint, backend)
    batches: list[NDArray] = []
    for start in range(0, max(len(images), 1), BATCH):
        batches.append(model(images[start : start + BATCH].astype(dtype)).y)
        on_progress(sum(map(len, batches)), len(images))
    logits = np.concatenate(batches).astype(dtype)
    with atomic_write(output) as target:
        np.savez(target, logits=logits)
    return logits, warnings
