"""MegEngine's activation classes: signatures, accepted and refused inputs."""

from __future__ import annotations

import numpy as np
import pytest

from acon_core.errors import SpecError

pytestmark = pytest.mark.backend("megengine")


@pytest.mark.parametrize(
    "name", ["acon_a", "acon_c", "meta_acon", "meta_acon(level=layer)", "meta_acon(level=pixel)", "prelu(shared=false)",
             "dyrelu(variant=A)", "dyrelu(variant=B)", "frelu", "acon_frelu"]
)  # fmt: skip
def test_wrong_input_shape_is_refused(name: str) -> None:
    """MegEngine itself fails with a C++ stack trace, or broadcasts."""
    import acon_megengine
    import megengine as mge
    from megengine.jit import trace

    module = acon_megengine.activation(name, 4)
    right = mge.Tensor(np.ones((2, 4, 5, 4), np.float32))
    traced = trace(module, symbolic=True)
    traced(right)
    wrong = [(2, 5, 4, 4), (2, 1, 4, 4), (2, 8, 4, 4), (4, 3), (4,), (2, 5, 4)]
    for shape in [*wrong, *([(2, 4), (2, 4, 5), (2, 4, 5, 4, 3)] if "frelu" in name else [])]:
        x = mge.Tensor(np.ones(shape, np.float32))
        for run in (module, trace(module, symbolic=True)):
            with pytest.raises(SpecError, match=f"{type(module).__name__}: expected an input .*with 4 channels at axis 1"):
                run(x)
    with pytest.raises(SpecError, match="expected an input"):
        traced(mge.Tensor(np.ones((2, 5, 4, 4), np.float32)))
    last = acon_megengine.activation(name, 4, channel_axis=-1)
    with pytest.raises(SpecError, match="with 4 channels at axis -1"):
        last(mge.Tensor(np.ones((2, 4, 5, 3), np.float32)))
    assert last(mge.Tensor(np.ones((2, 3, 5, 4), np.float32))).shape[-1] == 4


@pytest.mark.parametrize(
    "name", ["meta_acon", "meta_acon(norm=layer)", "repact(variant=3)", "dyrelu(variant=B)", "frelu", "acon_frelu", "mish"]
)
@pytest.mark.parametrize("training", [False, True])
def test_empty_batch(name: str, training: bool) -> None:
    """MegEngine aborts in `flatten`, `squeeze` and a convolution's gradient of an empty tensor."""
    import acon_megengine
    import megengine as mge
    from megengine.autodiff import GradManager

    module = acon_megengine.activation(name, 5)
    module.train(training)
    before = {path: array.copy() for path, array in module.state_dict().items()}
    x = mge.Tensor(np.zeros((0, 5, 4, 3), np.float32))
    with GradManager().attach([x, *module.parameters()]) as gm:
        y = module(x)
        gm.backward(y, y)
    assert y.numpy().shape == x.grad.numpy().shape == (0, 5, 4, 3)
    for parameter in module.parameters():
        np.testing.assert_array_equal(parameter.grad.numpy(), np.zeros(parameter.shape))
    for path, array in module.state_dict().items():
        np.testing.assert_array_equal(array, before[path], err_msg=path)


def test_class_signatures() -> None:
    import inspect

    import acon_megengine

    signature = inspect.signature(acon_megengine.MetaAconC)
    assert list(signature.parameters)[:6] == ["channels", "reduction", "norm", "init", "level", "reduce"]
    assert {p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY} == {"channel_axis", "path"}
    assert list(inspect.signature(acon_megengine.RepAct).parameters) == ["variant", "path"]
    assert acon_megengine.PReLU().weight.numpy().tolist() == [0.25]
    for wrong in ({"channels": 3, "widht": 2}, {}):
        with pytest.raises(TypeError):
            acon_megengine.AconC(**wrong)
    made = acon_megengine.activation("DyReLUB", 6, reduction=2)
    assert type(made) is acon_megengine.DyReLU
    assert {"lambdas", "init_v"} <= set(made.state_dict())
    assert {name for name, _ in made.named_parameters()} == {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}
    assert type(acon_megengine.create("acon/shufflenet_v2_x0_5").features[0]) is not acon_megengine.DyReLU
    assert "(N, C, ...)" in acon_megengine.AconA.__doc__
