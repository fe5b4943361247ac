"""The dtype of the input, and empty batches: one rule for each, the same in every backend."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
from native_modules import cast, make, native

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
    with pytest.raises(DtypeError, match=r"^network: expected an input of floating point, found .*uint8; convert it first"):
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


def _train(backend: Backend, model: Any, x: np.ndarray, dtype: str) -> Any:
    model.native.train()
    return model.native(cast(backend, native(backend, x), dtype))


def test_statistics_keep_their_dtype_with_16_bit_inputs(backend: Backend) -> None:
    """Variances above 65504, the largest float16; means that would stall in bfloat16."""
    model, large = backend.build(spec.BatchNorm(2)), np.zeros(2)
    for step in range(50):
        x = (np.random.default_rng(step).normal(size=(16, 2, 5, 3)) * 300).astype(np.float16)
        y = _train(backend, model, x, "float16")
        large = 0.9 * large + 0.1 * x.astype(np.float64).var((0, 2, 3), ddof=1)
    expected = large + 0.9**50  # the initial variance is 1
    np.testing.assert_allclose(model.state()["running_var"], expected, rtol=1e-5)
    assert expected.min() > 7e4
    assert "float16" in str(y.dtype)
    assert "bfloat16" not in str(y.dtype)
    model = backend.build(spec.BatchNorm(3))
    for step in range(200):
        _train(backend, model, np.random.default_rng(step).normal(1.0, 0.01, (8, 3, 5, 2)).astype(np.float32), "bfloat16")
    np.testing.assert_allclose(model.state()["running_mean"], 1.0, atol=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("node", [spec.BatchNorm(3), spec.LayerNorm(3)], ids=["batch_norm", "layer_norm"])
@pytest.mark.parametrize("train", [True, False])
def test_norms_of_16_bit_inputs_round_the_result_alone(backend: Backend, node: Any, dtype: str, train: bool) -> None:
    """Against the same module on the same values in float32; a large mean needs float32."""
    x = np.random.default_rng(0).normal(200.0, 3.0, (4, 3, 5, 2)).astype(np.float16).astype(np.float32)
    if dtype == "bfloat16":
        x = np.round(x)
    modes = []
    for given in (dtype, "float32"):
        model = backend.build(node)
        if "running_mean" in model.state():
            model.load({**model.state(), "running_mean": np.full(3, 199.0, np.float32)})
        model.native.train() if train else model.native.eval()
        y = model.native(cast(backend, native(backend, x), given))
        assert str(y.dtype).endswith(given)
        modes.append(np.asarray(cast(backend, y, "float32").detach().numpy() if backend.name != "jax" else y, np.float32))
    np.testing.assert_allclose(*modes, rtol=2**-8 if dtype == "bfloat16" else 2**-11, atol=1e-6)
