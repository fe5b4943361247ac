"""What MegEngine's users rely on: gradients that repeat, instances that do not mix, trace, and mge.save's files."""

from __future__ import annotations

import numpy as np
import pytest

from acon_core.errors import OneValuePerChannelError

pytestmark = pytest.mark.backend("megengine")


def gradients(module, x, times: int = 1):  # type: ignore[no-untyped-def]
    from megengine.autodiff import GradManager

    with GradManager().attach([x, *module.parameters()]) as gm:
        y = x
        for _ in range(times):
            y = module(y)
        gm.backward(y.sum())
    found = [tensor.grad.numpy().copy() for tensor in (x, *module.parameters())]
    for tensor in (x, *module.parameters()):
        tensor.grad = None
    return found


def test_one_module_called_twice_has_the_gradients_of_both_calls() -> None:
    """MegEngine's Function mixes its calls up when an instance is used twice."""
    import acon_megengine
    import megengine as mge
    import megengine.functional as F
    import megengine.module as M

    module = acon_megengine.AconC(5)

    class Plain(M.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p1, self.p2, self.beta = (mge.Parameter(getattr(module, n).numpy()) for n in ("p1", "p2", "beta"))

        def forward(self, x):  # type: ignore[no-untyped-def]
            slope = self.p1 - self.p2
            return slope * x * F.sigmoid(self.beta * slope * x) + self.p2 * x

    x = mge.Tensor(np.random.default_rng(0).normal(size=(3, 5, 4, 2)).astype(np.float32))
    plain = Plain()
    order = [name for name, _ in module.named_parameters()]
    assert order == [name for name, _ in plain.named_parameters()]
    for found, expected in zip(gradients(module, x, 2), gradients(plain, x, 2), strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


def test_gradients_repeat_bit_for_bit() -> None:
    """MegEngine's own reductions to a broadcast shape race in eager mode; ours sum one axis at a time."""
    import acon_megengine
    import megengine as mge

    module = acon_megengine.create("acon/shufflenet_v2_x0_5", act="acon_c", num_classes=5)
    module.eval()
    x = mge.Tensor(np.random.default_rng(0).normal(size=(2, 3, 32, 64)).astype(np.float32))
    first = gradients(module, x)
    for _ in range(5):
        assert all((one == two).all() for one, two in zip(first, gradients(module, x), strict=True))


def test_one_value_per_channel_leaves_the_statistics_alone() -> None:
    import acon_megengine
    import megengine as mge
    from megengine.jit import trace

    module = acon_megengine.MetaAconC(8, reduction=4)
    module.train()
    before = {name: array.copy() for name, array in module.state_dict().items()}
    one = mge.Tensor(np.ones((1, 8, 3, 4), np.float32))
    for run in (module, trace(module, symbolic=True)):
        with pytest.raises(OneValuePerChannelError, match=r"bn1: training needs more than one value"):
            run(one)
    for name, array in module.state_dict().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_megengine_s_own_save_and_load_both_ways(tmp_path) -> None:  # type: ignore[no-untyped-def]
    import acon_megengine
    import megengine as mge

    from acon_core.checkpoint import read_network

    model = acon_megengine.create("acon/shufflenet_v2_x0_5", act="meta_acon", seed=3)
    mge.save(model.state_dict(), str(tmp_path / "a.pkl"))
    assert read_network(tmp_path / "a.pkl").network.name == "acon/shufflenet_v2_x0_5"
    again = acon_megengine.load(tmp_path / "a.pkl")
    loaded = again.state_dict()
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(loaded[name], array, err_msg=name)


def test_grouped_weights_live_as_megengine_s_own() -> None:
    import acon_megengine

    model = acon_megengine.create("acon/shufflenet_v2_x0_5")
    depthwise = model.features[1].branch_main[3]
    assert tuple(depthwise.weight.shape) == (24, 1, 1, 3, 3)
    assert tuple(depthwise.bias.shape) == (1, 24, 1, 1)
