"""What PyTorch's users rely on: memory, autograd twice and forward, compile, export, vmap, the published state dict."""

from __future__ import annotations

import numpy as np
import pytest

from acon_core import spec
from acon_core.conformance.cases import DATA
from acon_core.networks import create

pytestmark = pytest.mark.backend("torch")


@pytest.fixture
def torch():  # type: ignore[no-untyped-def]
    import torch

    torch.manual_seed(0)
    torch._dynamo.reset()
    return torch


def saved_bytes(torch, module, x):  # type: ignore[no-untyped-def]
    """Bytes of every storage kept for the backward pass, but for those of x and the parameters."""
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
def test_acon_c_keeps_its_input_and_parameters_alone(torch, dtype) -> None:  # type: ignore[no-untyped-def]
    import acon_torch

    module = acon_torch.AconC(7, dtype=getattr(torch, dtype))
    x = torch.randn(3, 7, 6, 5).to(getattr(torch, dtype)).requires_grad_()
    assert saved_bytes(torch, module, x) == 0


def test_meta_acon_keeps_nothing_as_large_as_its_input(torch) -> None:  # type: ignore[no-untyped-def]
    """Beyond input and parameters: beta, and what the generator keeps of its own N x C and N x hidden values."""
    import acon_torch

    module = acon_torch.MetaAconC(32, reduction=4)
    x = torch.randn(3, 32, 40, 50, requires_grad=True)
    beta = 3 * 32 * 4
    assert beta <= saved_bytes(torch, module, x) <= 5 * beta + 4 * 3 * 8 * 4 + 1000


def arguments(torch, per_sample: bool = False):  # type: ignore[no-untyped-def]
    shapes = [(3, 5, 4, 2), (1, 5, 1, 1), (1, 5, 1, 1), (3 if per_sample else 1, 5, 1, 1)]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("per_sample", [False, True])
def test_gradcheck_twice_and_forward(torch, per_sample) -> None:  # type: ignore[no-untyped-def]
    from acon_torch import acon

    values = arguments(torch, per_sample)
    assert torch.autograd.gradcheck(acon, values, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(acon, values)


def test_gradcheck_at_beta_zero_and_equal_slopes(torch) -> None:  # type: ignore[no-untyped-def]
    from acon_torch import acon

    x, p1, _, beta = arguments(torch)
    assert torch.autograd.gradcheck(acon, (x, p1, p1.detach().clone().requires_grad_(), beta))
    assert torch.autograd.gradcheck(acon, (x, p1, arguments(torch)[2], torch.zeros_like(beta).requires_grad_()))


def test_vmap_jvp_and_hessian(torch) -> None:  # type: ignore[no-untyped-def]
    from acon_torch import acon

    x, *gates = [value.detach() for value in arguments(torch)]
    batch = torch.stack([x, 2 * x, -x])
    mapped = torch.func.vmap(lambda each: acon(each, *gates))(batch)
    torch.testing.assert_close(mapped, torch.stack([acon(each, *gates) for each in batch]), rtol=0, atol=0)
    tangent = torch.randn_like(x)
    _, dy = torch.func.jvp(lambda each: acon(each, *gates), (x,), (tangent,))
    step = 1e-6
    torch.testing.assert_close(dy, (acon(x + step * tangent, *gates) - acon(x - step * tangent, *gates)) / (2 * step))
    hessian = torch.func.hessian(lambda each: acon(each, *gates).sum())(x[:1])
    assert hessian.shape == (1, 5, 4, 2, 1, 5, 4, 2)
    per_row = torch.func.vmap(torch.func.grad(lambda row: acon(row[None], *gates).sum()))(x)
    torch.testing.assert_close(per_row, torch.autograd.grad(acon(x.requires_grad_(), *gates).sum(), x)[0])


@pytest.mark.parametrize("act", ["acon_c", "meta_acon"])
def test_compile_whole_and_export(torch, act) -> None:  # type: ignore[no-untyped-def]
    import acon_torch

    model = acon_torch.create("acon/shufflenet_v2_x0_5", act=act, num_classes=10).eval()
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(torch.compile(model, fullgraph=True)(x), expected, rtol=1e-4, atol=1e-5)
        exported = torch.export.export(model, (x,)).module()
        torch.testing.assert_close(exported(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bits_are_computed_in_float32(torch, dtype) -> None:  # type: ignore[no-untyped-def]
    from acon_torch import acon

    values = [value.detach().to(getattr(torch, dtype)) for value in arguments(torch)]
    wide = [value.float().requires_grad_() for value in values]
    values = [value.requires_grad_() for value in values]
    y, expected = acon(*values), acon(*wide)
    assert y.dtype == values[0].dtype
    torch.testing.assert_close(y, expected.to(y.dtype), rtol=0, atol=0)
    found = torch.autograd.grad(y.float().sum(), values)
    for gradient, exact in zip(found, torch.autograd.grad(expected.sum(), wide), strict=True):
        torch.testing.assert_close(gradient, exact.to(gradient.dtype), rtol=0, atol=0)


def test_channel_axis_of_tokens_and_channels_last_memory(torch) -> None:  # type: ignore[no-untyped-def]
    from acon_torch import acon

    x, *gates = [value.detach() for value in arguments(torch)]
    expected = acon(x, *gates)
    tokens = x.flatten(2).transpose(1, 2)
    torch.testing.assert_close(acon(tokens, *gates, channel_axis=-1).transpose(1, 2).reshape(x.shape), expected, rtol=0, atol=0)
    # Another memory order puts other elements into the vectorised part of PyTorch's sigmoid: an ulp.
    torch.testing.assert_close(acon(x.to(memory_format=torch.channels_last), *gates), expected, rtol=0, atol=1e-14)
    flat = [gate.reshape(-1) for gate in gates]
    torch.testing.assert_close(acon(x, *flat), expected, rtol=0, atol=0)


def test_the_published_state_dict_loads_unchanged(torch) -> None:  # type: ignore[no-untyped-def]
    import acon_torch

    model = acon_torch.create("acon/shufflenet_v2_x0_5")
    published = torch.load(DATA / "shufflenetv2_acon_0.5x.pth.tar", weights_only=True)["state_dict"]
    model.load_state_dict({name.removeprefix("module."): tensor for name, tensor in published.items()}, strict=True)
    assert list(model.state_dict()) == list(spec.named_params(create("acon/shufflenet_v2_x0_5").graph))
    assert isinstance(model.features[3].branch_main[0], torch.nn.Conv2d)


def test_batch_norm_is_pytorch_s_own(torch) -> None:  # type: ignore[no-untyped-def]
    import acon_torch

    norm = acon_torch.MetaAconC(8).bn1
    assert isinstance(norm, torch.nn.BatchNorm2d)
    assert norm.momentum == pytest.approx(0.1)
    assert np.isclose(norm.eps, 1e-5)
