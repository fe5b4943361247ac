"""Our layers in megengine.quantization, beside MegEngine's own."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.backend("megengine")

ACTIVATIONS = [
    "acon_a", "acon_b", "acon_c", "meta_acon", "frelu", "acon_frelu", "dyrelu", "prelu", "arelu", "swish", "repact",
    "repact(variant=3)",
]  # fmt: skip


def quantised(convolution, linear):  # type: ignore[no-untyped-def]
    """Train a model with fake quantisation; return its output, gradients, and that in integers."""
    import megengine
    import megengine.functional as F
    import megengine.module as M
    from megengine import quantization

    class Model(M.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stub, self.unstub = M.QuantStub(), M.DequantStub()
            self.convolution, self.linear = convolution(3, 8, 3, padding=1), linear(8, 5)

        def forward(self, x):  # type: ignore[no-untyped-def]
            y = self.convolution(self.stub(x))
            return self.unstub(self.linear(F.reshape(y[:, :, 1, 2], (2, 8))))

    model, rng = Model(), np.random.default_rng(0)
    for _, parameter in sorted(model.named_parameters()):
        parameter[...] = rng.normal(size=parameter.shape).astype("float32")
    x = megengine.tensor(rng.normal(size=(2, 3, 4, 5)).astype("float32"))
    quantization.quantize_qat(model)
    with megengine.autodiff.GradManager().attach(model.parameters()) as manager:
        manager.backward((model(x) ** 2).mean())
    gradients = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    model.eval()
    y = model(x).numpy()
    quantization.quantize(model).eval()
    return y, gradients, model(x).numpy()


def test_layers_are_quantised_as_those_of_megengine() -> None:
    import megengine.module as M
    from acon_megengine.build import modules

    y, gradients, integers = quantised(modules.Conv2d, modules.Linear)
    own_y, own_gradients, own_integers = quantised(M.Conv2d, M.Linear)
    np.testing.assert_array_equal(y, own_y)
    np.testing.assert_array_equal(integers, own_integers)
    assert gradients.keys() == own_gradients.keys()
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, own_gradients[name], rtol=1e-5, atol=1e-6)
        assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_train_with_fake_quantisation(name: str) -> None:
    import acon_megengine
    import megengine
    import megengine.module as M
    from megengine import quantization

    act = acon_megengine.activation(name, 8)
    model = M.Sequential(M.Conv2d(3, 8, 1), act)
    x = megengine.tensor(np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype("float32"))
    model.eval()
    before = model(x).numpy()
    quantization.quantize_qat(model)
    model.train()
    with megengine.autodiff.GradManager().attach(model.parameters()) as manager:
        manager.backward((model(x) ** 2).mean())
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.eval()
    difference = np.abs(model(x).numpy() - before).max()
    assert 0 < difference < 0.2 * np.abs(before).max()  # rounded to 8 bits, and no more
    assert all(isinstance(each, M.qat.QATModule) for each in model.modules() if isinstance(each, M.Conv2d | M.Linear))


@pytest.mark.parametrize("name", ["acon/shufflenet_v2_x0_5", "repact/swin_tiny_patch4_window7_224"])
def test_networks_are_quantised(name: str) -> None:
    import acon_megengine
    import megengine
    import megengine.module as M
    from megengine import quantization

    options = {"repeats": (1, 1, 1)} if name.startswith("acon") else {"depths": (1, 1, 1, 1)}
    model = acon_megengine.create(name, num_classes=5, **options)
    quantization.quantize_qat(model)
    x = megengine.tensor(np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype("float32"))
    assert model(x).shape == (2, 5)
    assert all(isinstance(each, M.qat.QATModule) for each in model.modules() if isinstance(each, M.Conv2d | M.Linear))
