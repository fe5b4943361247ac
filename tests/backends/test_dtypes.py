"""The dtype of the input, and empty batches: one rule for each, the same in every backend."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
from native_modules import make, native

from acon_core import backends, spec
from acon_core.backends import Backend
from acon_core.errors import DtypeError
from acon_core.spec.activations import ACTIVATIONS

INTEGERS = [np.uint8, np.int32, np.bool_]
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3))


def package(backend: Backend) -> Any:
    return import_module(backends.packages()[backend.name])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_refuses_integers(backend: Backend, name: str) -> None:
    module = make(backend, name, 4)
    for dtype in INTEGERS:
        with pytest.raises(DtypeError, match=rf"^{type(spec.activation(name, 4)).__name__}: .*floating point, found .*"):
            module(native(backend, IMAGES.astype(dtype)))


GATED = {
    "acon": lambda x, one, four: (x, one, one, one),
    "smooth_maximum": lambda x, one, four: (x, x),
    "maximum": lambda x, one, four: (x, x),
    "prelu": lambda x, one, four: (x, one),
    "arelu": lambda x, one, four: (x, one, one),
    "repact": lambda x, one, four: (x, one, one, one),
    "dynamic_maximum": lambda x, one, four: (x, four[None], four, four),
}


@pytest.mark.parametrize("name", GATED)
@pytest.mark.parametrize("dtype", INTEGERS)
def test_every_function_refuses_integers(backend: Backend, name: str, dtype: Any) -> None:
    function = getattr(import_module(f"{backends.packages()[backend.name]}.functional"), name)
    x = native(backend, IMAGES.astype(dtype))
    one, four = (native(backend, np.full(size, 0.5, np.float32)) for size in (1, 4))
    with pytest.raises(DtypeError, match=f"^{name}: expected an input of floating point"):
        function(*GATED[name](x, one, four))


@pytest.mark.parametrize("name", ["acon/shufflenet_v2_x0_5", "torchvision/mobilenet_v3_small"])
def test_networks_refuse_images_of_bytes(backend: Backend, name: str) -> None:
    network = package(backend).create(name, num_classes=3)
    with pytest.raises(DtypeError, match="^network: expected an input of floating point, found .*uint8; convert it first"):
        network(native(backend, np.zeros((2, 3, 32, 32), np.uint8)))


NORMS = {
    "batch_norm": spec.BatchNorm(4),
    "frelu": spec.FReLU(4),
    "acon_frelu": spec.AconFReLU(4),
    "repact_3": spec.RepAct(variant=3),
    "meta_acon": spec.MetaAconC(4, reduction=1),
}


@pytest.mark.parametrize(("name", "shape"), [*((name, (0, 4, 3, 5)) for name in NORMS), ("batch_norm", (2, 4, 0, 5))])
def test_an_empty_batch_in_training_leaves_the_statistics(backend: Backend, name: str, shape: tuple[int, ...]) -> None:
    node = NORMS[name]
    model = backend.build(node, seed=1)
    x = np.random.default_rng(1).normal(3.0, 2.0, (5, 4, 3, 5)).astype(np.float32)
    model(x, train=True)  # so that they are not the initial ones
    before = {path: array.copy() for path, array in model.state().items()}
    empty = np.zeros(shape, np.float32)
    assert model(empty, train=True).y.shape == shape
    result = model.vjp(empty, empty, train=True)
    assert result.y.shape == shape
    assert result.dx.shape == shape
    for path, gradient in result.dparams.items():
        np.testing.assert_array_equal(gradient, np.zeros_like(before[path]), err_msg=path)
    for path, array in model.state().items():
        np.testing.assert_array_equal(array, before[path], err_msg=path)
    assert np.isfinite(model(x, train=True).y).all()
