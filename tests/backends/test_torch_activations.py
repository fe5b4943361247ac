"""The activations in PyTorch: memory, kinks, precision, transforms, memory formats."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from acon_core import spec

pytestmark = pytest.mark.backend("torch")


@pytest.fixture
def torch():  # type: ignore[no-untyped-def]
    import torch

    torch.manual_seed(0)
    torch._dynamo.reset()
    return torch


def saved_bytes(torch, module, x):  # type: ignore[no-untyped-def]
    """Count the bytes of all storages saved for the backward pass, without x and the parameters."""
    own = {tensor.untyped_storage().data_ptr() for tensor in [x, *module.parameters(), *module.buffers()]}
    kept = {}

    def pack(tensor):  # type: ignore[no-untyped-def]
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = module(x)
    assert y.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_acon_c_saves_only_input_and_parameters(torch, dtype) -> None:  # type: ignore[no-untyped-def]
    import acon_torch

    module = acon_torch.AconC(7, dtype=getattr(torch, dtype))
    x = torch.randn(3, 7, 6, 5).to(getattr(torch, dtype)).requires_grad_()
    assert saved_bytes(torch, module, x) == 0


def test_meta_acon_saves_nothing_else_of_input_size(torch) -> None:  # type: ignore[no-untyped-def]
    """Beyond input and parameters: beta, and the generator's own N x C and N x hidden values."""
    import acon_torch

    module = acon_torch.MetaAconC(32, reduction=4)
    x = torch.randn(3, 32, 40, 50, requires_grad=True)
    beta = 3 * 32 * 4
    assert beta <= saved_bytes(torch, module, x) <= 5 * beta + 4 * 3 * 8 * 4 + 1000


GATED = {  # by name: the function's own options, and the shapes of its gates beside x (3, 5, 2, 1)
    "acon_a": ("acon", (1.0, 0.0), [(5,)]),
    "acon_b": ("acon", (1.0,), [(1, 5, 1, 1), (1,)]),
    "acon_pixel": ("acon", (), [(5,), (1, 5, 1, 1), (3, 5, 2, 1)]),
    "prelu": ("prelu", (), [(5,)]),
    "arelu": ("arelu", (), [(1,), (1, 5, 1, 1)]),
    "repact": ("repact", (), [(1,), (1,), (1,)]),
    "repact_shift": ("repact", (), [(5,), (1,), (3, 1, 1, 1), (1,)]),
    "dynamic_a": ("dynamic_maximum", (), [(3, 4), (4,), (4,)]),
    "dynamic_b": ("dynamic_maximum", (), [(3, 20), (4,), (4,)]),
    "smooth_2": ("smooth_maximum", (), [(3, 5, 2, 1)]),
    "smooth_3": ("smooth_maximum", (), [(3, 5, 2, 1), (3, 5, 2, 1)]),
    "hardswish": ("hardswish", (), []),
    "hardsigmoid": ("hardsigmoid", (), []),
    "gelu": ("gelu", (), []),
    "gelu_tanh": ("gelu", ("tanh",), []),
}


def gated(torch, name):  # type: ignore[no-untyped-def]
    """Return a function of (x, *gates), and float64 arguments of it away from all kinks."""
    from acon_torch import functional, pointwise

    function, fixed, shapes = GATED[name]
    call = getattr(functional, function, None) or getattr(pointwise, function)
    values = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in [(3, 5, 2, 1), *shapes]]
    return lambda x, *gates: call(x, *fixed, *gates), values


@pytest.mark.parametrize("name", GATED)
def test_gradcheck_second_order_and_forward_mode(torch, name) -> None:  # type: ignore[no-untyped-def]
    call, values = gated(torch, name)
    assert torch.autograd.gradcheck(call, values, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(call, values, atol=1e-4)


@pytest.mark.parametrize("name", GATED)
def test_vmap_over_each_argument(torch, name) -> None:  # type: ignore[no-untyped-def]
    call, values = gated(torch, name)

    def gradients(*arguments):  # type: ignore[no-untyped-def]
        wanted = tuple(range(len(arguments)))
        return torch.func.grad(lambda *each: (call(*each) ** 2).sum(), argnums=wanted)(*arguments)

    plain = [value.detach() for value in values]
    for index, value in enumerate(plain):
        stacked = [torch.stack([value, 2 * value]) if at == index else each for at, each in enumerate(plain)]
        dims = tuple(0 if at == index else None for at in range(len(plain)))
        rows = [[2 * each if at == index else each for at, each in enumerate(plain)], plain][::-1]
        for function in (call, gradients):
            mapped = torch.func.vmap(function, dims)(*stacked)
            for row, arguments in enumerate(rows):
                expected = function(*arguments)
                pairs = zip(mapped, expected, strict=True) if isinstance(expected, tuple) else [(mapped, expected)]
                for found, exact in pairs:
                    torch.testing.assert_close(found[row], exact)
        # Without a second-order gradient, temporaries are overwritten.
        with torch.no_grad():
            for found, exact in zip(torch.func.vmap(gradients, dims)(*stacked), mapped, strict=True):
                torch.testing.assert_close(found, exact)


@pytest.mark.parametrize("name", GATED)
def test_compile_fullgraph(torch, name) -> None:  # type: ignore[no-untyped-def]
    call, values = gated(torch, name)
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    expected = call(*values)
    torch.testing.assert_close(compiled(*values), expected)
    with torch.no_grad():
        torch.testing.assert_close(compiled(*values), expected.detach())
    cotangent = torch.randn_like(expected)
    for found, exact in zip(
        torch.autograd.grad(compiled(*values), values, cotangent), torch.autograd.grad(expected, values, cotangent), strict=True
    ):
        torch.testing.assert_close(found, exact)


def test_inductor_and_export(torch) -> None:  # type: ignore[no-untyped-def]
    import acon_torch

    model = torch.nn.Sequential(
        acon_torch.MetaAconC(6, level="layer"),
        acon_torch.RepAct(),
        acon_torch.AReLU(),
        acon_torch.DyReLU(6),
        acon_torch.FReLU(6),
    ).eval()
    x = torch.randn(2, 6, 5, 4, requires_grad=True)
    expected = model(x)
    found = torch.compile(model, fullgraph=True)(x)
    torch.testing.assert_close(found, expected)
    for compiled, eager in zip(
        *(torch.autograd.grad(y.sum(), [x, *model.parameters()]) for y in (found, expected)), strict=True
    ):
        torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), expected)


@pytest.mark.parametrize("name", [name for name in GATED if not name.startswith("smooth")])
def test_functions_save_only_their_inputs(torch, name) -> None:  # type: ignore[no-untyped-def]
    call, values = gated(torch, name)
    own = {value.untyped_storage().data_ptr() for value in values}
    beyond = []

    def pack(tensor):  # type: ignore[no-untyped-def]
        if tensor.untyped_storage().data_ptr() not in own:
            beyond.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call(*values)
    # DyReLU's coefficients have theta's size and are computed and saved apart from x.
    assert sum(beyond) <= (5 * values[1].numel() if name.startswith("dynamic") else 0)


@pytest.mark.parametrize(
    ("name", "bytes_beyond"),
    [
        ("AconA", 0), ("AconB", 0), ("AconC", 0), ("Swish", 0), ("PReLU", 0), ("AReLU", 0), ("FusedRepAct", 0),
        ("RepAct", 8),  # two of the three factors; the third is a weight
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_memory_of_activations(torch, name, bytes_beyond, dtype) -> None:  # type: ignore[no-untyped-def]
    import acon_torch

    kind = getattr(acon_torch, name)
    widths = (7,) if name.startswith("Acon") else ()
    module = kind(*widths, dtype=getattr(torch, dtype))
    x = torch.randn(3, 7, 6, 5).to(getattr(torch, dtype)).requires_grad_()
    # In 16 bits, RepAct's factors and its five parameters are converted to float32.
    allowed = bytes_beyond if dtype == "float32" else 4 * bytes_beyond + (16 if bytes_beyond else 0)
    assert saved_bytes(torch, module, x) <= allowed


@pytest.mark.parametrize(("variant", "beyond"), [(2, 4 * 10), (3, 4 * (3 * 7 * 6 * 5 + 10) + 8)])
def test_memory_of_repact_2_and_3(torch, variant, beyond) -> None:  # type: ignore[no-untyped-def]
    """II saves the softmax of four numbers and the three factors; III what any norm saves."""
    import acon_torch

    x = torch.randn(3, 7, 6, 5, requires_grad=True)
    assert saved_bytes(torch, acon_torch.RepAct(variant), x) <= beyond


# Value and gradient at each kink of each function, from the formulas of the spec.
KINKS = {
    "relu": ((), {0.0: (0.0, 0.0), 1e-8: (1e-8, 1.0), -1e-8: (0.0, 0.0), 1e30: (1e30, 1.0)}),
    "relu6": ((), {0.0: (0.0, 0.0), 6.0: (6.0, 0.0), 5.75: (5.75, 1.0), 1e30: (6.0, 0.0)}),
    "leaky_relu": ((0.25,), {0.0: (0.0, 0.25), 1e-8: (1e-8, 1.0), -1e30: (-2.5e29, 0.25)}),
    "elu": ((1.5,), {0.0: (0.0, 1.5), 2.0: (2.0, 1.0), -1e30: (-1.5, 0.0)}),
    "selu": ((), {0.0: (0.0, 1.0507009873554805 * 1.6732632423543772), 1.0: (1.0507009873554805, 1.0507009873554805)}),
    "celu": ((2.0,), {0.0: (0.0, 1.0), 2.0: (2.0, 1.0), -1e30: (-2.0, 0.0)}),
    "gelu": ((), {0.0: (0.0, 0.5), 3e38: (3e38, 1.0), -3e38: (0.0, 0.0)}),
    "silu": ((), {0.0: (0.0, 0.5), 3e38: (3e38, 1.0), -3e38: (0.0, 0.0), -90.0: (0.0, 0.0)}),
    "mish": ((), {0.0: (0.0, 0.6), 3e38: (3e38, 1.0), -3e38: (0.0, 0.0)}),
    "softplus": ((2.0,), {0.0: (0.5 * 0.6931471805599453, 0.5), 3e37: (3e37, 1.0), -3e37: (0.0, 0.0)}),
    "hardswish": ((), {-3.0: (0.0, 0.0), 3.0: (3.0, 1.0), 0.0: (0.0, 0.5), 1.5: (1.125, 1.0), -1e30: (0.0, 0.0)}),
    "hardsigmoid": ((), {-3.0: (0.0, 0.0), 3.0: (1.0, 0.0), 0.0: (0.5, 1 / 6), 1e30: (1.0, 0.0)}),
    "sigmoid": ((), {0.0: (0.5, 0.25), 1e30: (1.0, 0.0), -1e30: (0.0, 0.0)}),
    "identity": ((), {0.0: (0.0, 1.0), -1e30: (-1e30, 1.0)}),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [*KINKS, "gelu_tanh"])
def test_kinks_and_extremes(torch, name, dtype) -> None:  # type: ignore[no-untyped-def]
    from acon_torch import pointwise

    options, points = (("tanh",), KINKS["gelu"][1]) if name == "gelu_tanh" else KINKS[name]
    # Among other values, so that both the vectorised part of a kernel and its tail see them.
    x = torch.tensor(list(points) * 7, dtype=getattr(torch, dtype), requires_grad=True)
    y = getattr(pointwise, name.removesuffix("_tanh"))(x, *options)
    (dx,) = torch.autograd.grad(y.sum(), x)
    value, slope = (torch.tensor(column * 7, dtype=x.dtype) for column in zip(*map(list, points.values()), strict=True))
    bound = 1e-15 if dtype == "float64" else 2e-7
    torch.testing.assert_close(y, value, rtol=bound, atol=1e-30)
    torch.testing.assert_close(dx, slope, rtol=bound, atol=1e-30)


@pytest.mark.parametrize("name", KINKS)
def test_negative_zero(torch, name) -> None:  # type: ignore[no-untyped-def]
    from acon_torch import pointwise

    x = torch.tensor([0.0, -0.0] * 9, requires_grad=True)
    y = getattr(pointwise, name)(x, *KINKS[name][0])
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert (y[::2] == y[1::2]).all()
    assert (dx[::2] == dx[1::2]).all()


@pytest.mark.parametrize("name", ["softplus", "hardsigmoid", "gelu", "gelu_tanh", "mish", "selu"])
def test_float64_against_mpmath(torch, name) -> None:  # type: ignore[no-untyped-def]
    """Where PyTorch's own functions lose digits in float64: thresholds, float32 constants."""
    import mpmath as mp
    from acon_torch import pointwise

    mp.mp.dps = 40
    exact = {
        "softplus": lambda x: mp.log1p(mp.exp(x)),
        "hardsigmoid": lambda x: min(max(x + 3, mp.mpf(0)), mp.mpf(6)) / 6,
        "gelu": lambda x: x * mp.ncdf(x),
        "gelu_tanh": lambda x: x * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x**3))) / 2,
        "mish": lambda x: x * mp.tanh(mp.log1p(mp.exp(x))),
        "selu": lambda x: mp.mpf("1.0507009873554804934193349852946") * (
            x if x > 0 else mp.mpf("1.6732632423543772848170429916717") * mp.expm1(x)
        ),
    }[name]  # fmt: skip
    points = [-30.1, -7.3, -2.9, -0.7, -1e-8, 1e-8, 0.3, 2.7, 5.9, 19.9, 20.3, 27.7, 39.9, 41.3]
    x = torch.tensor(points, dtype=torch.float64, requires_grad=True)
    y = getattr(pointwise, name.removesuffix("_tanh"))(x, *(["tanh"] if name == "gelu_tanh" else []))
    (dx,) = torch.autograd.grad(y.sum(), x)
    for at, value, slope in zip(points, y.tolist(), dx.tolist(), strict=True):
        assert abs(value - exact(mp.mpf(at))) < 4e-16 * max(1, abs(at)), at
        assert abs(slope - mp.diff(exact, mp.mpf(at))) < 1e-15, at


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gated_kinks(torch, dtype) -> None:  # type: ignore[no-untyped-def]
    from acon_torch import functional as F

    kind = getattr(torch, dtype)

    def slopes_of(call, *values):  # type: ignore[no-untyped-def]
        leaves = [torch.tensor(value, dtype=kind, requires_grad=True) for value in values]
        return [gradient.tolist() for gradient in torch.autograd.grad(call(*leaves).sum(), leaves)]

    assert slopes_of(F.maximum, [1.0, 2.0, 0.0], [1.0, -2.0, 3.0]) == [[0.5, 1.0, 0.0], [0.5, 0.0, 1.0]]
    assert slopes_of(F.prelu, [[0.0], [-2.0], [3.0]], [0.25]) == [[[0.25], [0.25], [1.0]], [-2.0]]
    dx, dalpha, _ = slopes_of(F.arelu, [[0.0], [-2.0]], [1.5], [0.0])
    assert (dx, dalpha) == ([[np.asarray(0.99, dtype).item()]] * 2, [0.0])
    for bound in (0.01, 0.99):
        assert slopes_of(F.arelu, [[-2.0]], [bound], [0.0])[1] == [-2.0]
    dx, *gates = slopes_of(F.repact, [[0.0], [-3.0], [3.0]], [2.0], [4.0], [8.0])
    assert dx == [[2.0 + 8.0 * 0.5], [2.0], [2.0 + 4.0 + 8.0]]
    assert gates == [[0.0], [3.0], [3.0]]
    # DyReLU where both lines are 0: half of each slope.
    assert slopes_of(F.dynamic_maximum, [[0.0]], [[0.0] * 4], [1.0, 1.0, 0.5, 0.5], [1.0, 0.0, 0.0, 0.0])[0] == [[0.5]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_smooth_maximum_of_extreme_values_is_finite(torch, dtype) -> None:  # type: ignore[no-untyped-def]
    from acon_torch import smooth_maximum

    top = float(np.finfo(dtype).max) * 0.99
    a = torch.tensor([top, -top, top, 1.0, 0.0, 1e-8], dtype=getattr(torch, dtype), requires_grad=True)
    b = torch.tensor([-top, top, top, 1.0, -0.0, -1e-8], dtype=getattr(torch, dtype), requires_grad=True)
    for values in ([a, b], [a, b, b]):
        for beta, exact in ((1.0, max), (-1.0, min), (1e4, max), (0.0, lambda *each: sum(np.divide(each, len(each))))):
            y = smooth_maximum(*values, beta=beta)
            expected = [exact(*(value[i].item() for value in values)) for i in range(3)]
            assert y[:3].tolist() == pytest.approx(expected, rel=1e-6)
            if len(values) == 2 or beta:  # with three values, the gradient of a mean forms arbitrarily large differences
                gradients = torch.autograd.grad(y.sum(), [a, b])
                assert all(gradient.isfinite().all() for gradient in gradients)
                torch.testing.assert_close(sum(gradients), torch.ones_like(a))
    beta = torch.tensor(0.5, dtype=a.dtype, requires_grad=True)
    for values in ([a[3:], b[3:] + 1], [a[3:], b[3:] + 1, b[3:]]):
        (dbeta,) = torch.autograd.grad(smooth_maximum(*values, beta=beta).sum(), beta)
        ends = [smooth_maximum(*values, beta=0.5 + step).sum().item() for step in (1e-3, -1e-3)]
        assert dbeta.item() == pytest.approx((ends[0] - ends[1]) / 2e-3, rel=1e-2 if dtype == "float32" else 1e-5)


@pytest.mark.parametrize("name", sorted(spec.ACTIVATIONS))
def test_memory_layouts_and_empty_batch(torch, name) -> None:  # type: ignore[no-untyped-def]
    import acon_torch

    module = acon_torch.activation(name, 6, dtype=torch.float64).eval()
    assert isinstance(module, getattr(acon_torch, type(module).__name__, torch.nn.Module))
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    expected = module(x)
    strided = torch.randn(2, 12, 5, 8, dtype=torch.float64)
    strided[:, ::2, :, ::2] = x
    for same in (
        x.to(memory_format=torch.channels_last),
        strided[:, ::2, :, ::2],
        x.transpose(2, 3).contiguous().transpose(2, 3),
    ):
        leaf = same.detach().requires_grad_()
        torch.testing.assert_close(module(leaf), expected, rtol=1e-13, atol=1e-13)
        module(leaf).sum().backward()
        assert leaf.grad.isfinite().all()
    empty = torch.zeros(0, 6, 5, 4, dtype=torch.float64, requires_grad=True)
    assert module(empty).shape == empty.shape
    module(empty).sum().backward()


def test_constructors(torch) -> None:  # type: ignore[no-untyped-def]
    import acon_torch

    for wrong in (lambda: acon_torch.AconC(), lambda: acon_torch.AconC(8, reduction=2), lambda: acon_torch.Swish(8)):
        with pytest.raises(TypeError):
            wrong()
    tokens = acon_torch.AconC(8, channel_axis=-1)
    assert tokens(torch.randn(2, 3, 8)).shape == (2, 3, 8)
    dynamic = acon_torch.DyReLU(8)
    assert "lambdas" in dynamic.state_dict()
    assert "lambdas" not in dict(dynamic.named_parameters())
    native = torch.nn.PReLU(8)
    ours = acon_torch.PReLU(8, shared=False)
    ours.load_state_dict(native.state_dict())
    x = torch.randn(3, 8, 2)
    torch.testing.assert_close(ours(x), native(x), rtol=0, atol=0)
    for each in (ours, tokens, dynamic):
        again = pickle.loads(pickle.dumps(copy.deepcopy(each)))
        assert type(again) is type(each)
