"""PyTorch: gradcheck, compile, export, vmap, the published state dict, and surgery."""

from __future__ import annotations

import numpy as np
import pytest
from repository import DATA

from acon_core import spec
from acon_core.networks import create

pytestmark = pytest.mark.backend("torch")


@pytest.fixture
def torch():  # type: ignore[no-untyped-def]
    import torch

    torch.manual_seed(0)
    torch._dynamo.reset()
    return torch


def arguments(torch, per_sample: bool = False):  # type: ignore[no-untyped-def]
    shapes = [(3, 5, 4, 2), (1, 5, 1, 1), (1, 5, 1, 1), (3 if per_sample else 1, 5, 1, 1)]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("per_sample", [False, True])
def test_gradcheck_second_order_and_forward_mode(torch, per_sample) -> None:  # type: ignore[no-untyped-def]
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
    # vmap takes the formula, a plain call the kernel library: the bound is that of docs/figures.md.
    torch.testing.assert_close(mapped, torch.stack([acon(each, *gates) for each in batch]), rtol=0, atol=8 * 2.0**-53)
    tangent = torch.randn_like(x)
    _, dy = torch.func.jvp(lambda each: acon(each, *gates), (x,), (tangent,))
    step = 1e-6
    torch.testing.assert_close(dy, (acon(x + step * tangent, *gates) - acon(x - step * tangent, *gates)) / (2 * step))
    hessian = torch.func.hessian(lambda each: acon(each, *gates).sum())(x[:1])
    assert hessian.shape == (1, 5, 4, 2, 1, 5, 4, 2)
    per_row = torch.func.vmap(torch.func.grad(lambda row: acon(row[None], *gates).sum()))(x)
    torch.testing.assert_close(per_row, torch.autograd.grad(acon(x.requires_grad_(), *gates).sum(), x)[0])


def test_compile_fullgraph_and_export(torch) -> None:  # type: ignore[no-untyped-def]
    import acon_torch

    whole = acon_torch.create("acon/shufflenet_v2_x0_5", act="meta_acon", num_classes=10)
    model = torch.nn.Sequential(whole.first_conv, whole.maxpool, *(whole.features[index] for index in range(2))).eval()
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = model(x)
        # Without the C++ compiler, which takes a minute per network; the layers' cases use it.
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-5)
        exported = torch.export.export(model, (x,)).module()
        torch.testing.assert_close(exported(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_computed_in_float32(torch, dtype) -> None:  # type: ignore[no-untyped-def]
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
    tangents = [torch.randn_like(value).detach() for value in values]
    pushed = torch.func.jvp(acon, tuple(value.detach() for value in values), tuple(tangents))[1]
    _, exact = torch.func.jvp(acon, tuple(value.detach() for value in wide), tuple(each.float() for each in tangents))
    # Each argument's gradient is rounded once before the sum.
    torch.testing.assert_close(pushed, exact.to(dtype=pushed.dtype), rtol=0.05, atol=0.05)


def test_channel_axis_and_channels_last_memory(torch) -> None:  # type: ignore[no-untyped-def]
    from acon_torch import acon

    x, *gates = [value.detach() for value in arguments(torch)]
    expected = acon(x, *gates)
    tokens = x.flatten(2).transpose(1, 2)
    torch.testing.assert_close(acon(tokens, *gates, channel_axis=-1).transpose(1, 2).reshape(x.shape), expected, rtol=0, atol=0)
    # Another memory order changes which elements take the vectorised sigmoid: one ulp.
    torch.testing.assert_close(acon(x.to(memory_format=torch.channels_last), *gates), expected, rtol=0, atol=1e-14)
    flat = [gate.reshape(-1) for gate in gates]
    torch.testing.assert_close(acon(x, *flat), expected, rtol=0, atol=0)


def test_published_state_dict_loads(torch) -> None:  # type: ignore[no-untyped-def]
    import acon_torch

    model = acon_torch.create("acon/shufflenet_v2_x0_5")
    published = torch.load(DATA / "shufflenetv2_acon_0.5x.pth.tar", weights_only=True)["state_dict"]
    model.load_state_dict({name.removeprefix("module."): tensor for name, tensor in published.items()}, strict=True)
    assert list(model.state_dict()) == list(spec.named_params(create("acon/shufflenet_v2_x0_5").graph))
    assert isinstance(model.features[3].branch_main[0], torch.nn.Conv2d)


def test_batch_norm_is_native(torch) -> None:  # type: ignore[no-untyped-def]
    import acon_torch

    norm = acon_torch.MetaAconC(8).bn1
    assert isinstance(norm, torch.nn.BatchNorm2d)
    assert norm.momentum == pytest.approx(0.1)
    assert np.isclose(norm.eps, 1e-5)


@pytest.fixture
def network(torch):  # type: ignore[no-untyped-def]
    """Build a user's model: a shared activation, one in containers, one called as a function."""
    from torch import nn
    from torch.nn import functional as F

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)
            self.norm = nn.BatchNorm2d(4)
            self.act = nn.SiLU()

        def forward(self, x):  # type: ignore[no-untyped-def]
            return self.act(F.relu(self.norm(self.conv(self.act(x)))))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
            self.blocks = nn.ModuleList([Block(), Block()])
            self.more = nn.ModuleDict({"a": nn.Sequential(nn.Hardswish())})
            self.unreached = nn.ReLU()

        def forward(self, x):  # type: ignore[no-untyped-def]
            x = self.stem(x)
            for block in self.blocks:
                x = block(x)
            return self.more["a"](x).relu().mean((2, 3)).sigmoid()

    return Network().double()


def test_replace_activations(torch, network) -> None:  # type: ignore[no-untyped-def]
    import acon_torch

    x = torch.randn(2, 3, 6, 5, dtype=torch.float64)
    network.train()
    network.blocks[1].eval()
    statistics = {name: value.clone() for name, value in network.state_dict().items()}
    network.eval()
    expected = network(x).detach()
    network.train()
    network.blocks[1].eval()
    done = acon_torch.replace_activations(network, {"silu": "acon_c", "hardswish": "repact", "relu": "acon_b"}, x, beta=1e6)
    for name, value in statistics.items():
        assert torch.equal(network.state_dict()[name], value), name
    assert network.training
    assert not network.blocks[1].training
    assert not network.blocks[1].norm.training
    assert isinstance(network.blocks[0].act, acon_torch.AconC)
    assert network.blocks[0].act.p1.dtype == torch.float64
    assert isinstance(network.more["a"][0], acon_torch.RepAct)
    assert isinstance(network.stem[1], acon_torch.AconB)
    assert isinstance(network.unreached, torch.nn.ReLU)
    torch.testing.assert_close(network.eval()(x), expected, rtol=1e-5, atol=1e-6)
    assert [(site.path, site.calls) for site in done.replaced] == [
        ("stem.1", 1), ("blocks.0.act", 1), ("blocks.0.act_2", 1), ("blocks.1.act", 1), ("blocks.1.act_2", 1), ("more.a.0", 1),
        ("blocks.0.relu", 1), ("blocks.1.relu", 1), ("relu", 1),
    ]  # fmt: skip
    assert not done.functional
    assert [site.path for site in done.kept] == ["unreached"]


def test_fuse_fold_and_groups(torch) -> None:  # type: ignore[no-untyped-def]
    import acon_torch

    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3), torch.nn.BatchNorm2d(6), acon_torch.RepAct(3), acon_torch.MetaAconC(6, 2),
        torch.nn.LayerNorm((4, 3)), torch.nn.Flatten(), torch.nn.Linear(6 * 4 * 3, 2),
    ).double()  # fmt: skip
    x = torch.randn(4, 3, 6, 5, dtype=torch.float64)
    model.train()(x)
    groups = acon_torch.param_groups(model, 4e-5)
    torch.optim.SGD(groups, lr=0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert [group["weight_decay"] for group in groups] == [4e-5, 0.0]
    assert [names[id(each)] for each in groups[0]["params"]] == ["0.weight", "3.fc1.weight", "3.fc2.weight", "6.weight"]
    assert sum(len(group["params"]) for group in groups) == len(names)
    expected = model.eval()(x)
    model = acon_torch.fold(acon_torch.fuse(model))
    assert isinstance(model[2], acon_torch.FusedRepAct)
    assert model[3].spec.norm == "none"
    assert not model[2].training
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)
    assert list(acon_torch.gradient_bounds(model)) == ["3"]


def test_doctor_and_native_activations(torch) -> None:  # type: ignore[no-untyped-def]
    import acon_torch
    from acon_torch.surgery import modules
    from torch import nn

    class Swapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in ("p1", "p2", "beta"):
                self.register_parameter(name, nn.Parameter(torch.ones(1, 4, 1, 1)))

        def forward(self, x):  # type: ignore[no-untyped-def]
            return (self.p1 - self.p2) * x * torch.sigmoid(self.beta * x) + self.p2 * x

    assert acon_torch.doctor(acon_torch.AconC(4)).healthy
    broken = Swapped()
    assert not acon_torch.doctor(broken).healthy
    assert torch.equal(broken.p1, torch.ones(1, 4, 1, 1))
    x = torch.linspace(-9, 9, 91, dtype=torch.float64).reshape(1, 1, 91)
    natives = [
        nn.Identity(), nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(0.2), nn.PReLU(1, 0.3), nn.ELU(1.5), nn.SELU(), nn.CELU(1.5),
        nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Mish(), nn.Softplus(0.5, 20), nn.Hardswish(), nn.Hardsigmoid(), nn.Sigmoid(),
    ]  # fmt: skip
    for native in natives:
        native.double()
        node = modules.node(native)
        made = modules.make(node, modules.state(native, node), native, native)
        torch.testing.assert_close(made(x), native(x), rtol=1e-8, atol=1e-8, msg=str(native))
    for other in (nn.Tanh(), nn.Softplus(1, 5), nn.RReLU(), nn.Conv2d(1, 1, 1)):
        assert modules.node(other) is None


def test_surgery_keeps_frozen_state_and_mode(torch) -> None:  # type: ignore[no-untyped-def]
    import acon_torch

    model = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 1), acon_torch.RepAct(3), torch.nn.PReLU(6), torch.nn.SiLU())
    model[1].requires_grad_(False).eval()
    model[2].requires_grad_(False)
    x = torch.randn(4, 3, 5, 2)
    acon_torch.fuse(model)
    assert not any(parameter.requires_grad for parameter in model[1].parameters())
    assert not model[1].training
    assert model.training
    acon_torch.replace_activations(model, {"prelu": "acon_c", "silu": "acon_c"}, x)
    assert [parameter.requires_grad for parameter in model[2].parameters()] == [False] * 3
    assert [parameter.requires_grad for parameter in model[3].parameters()] == [True] * 3
    trained = sum(len(group["params"]) for group in acon_torch.param_groups(model, 0.1))
    assert trained == 2 + 3


def test_user_subclass_is_not_recognised(torch) -> None:  # type: ignore[no-untyped-def]
    import acon_torch

    from acon_core.errors import AconError

    class Doubled(acon_torch.RepAct):
        def forward(self, x):  # type: ignore[no-untyped-def]
            return 2 * super().forward(x)

    with pytest.raises(AconError, match="nothing to do"):
        acon_torch.fuse(torch.nn.Sequential(Doubled()))


def test_keyword_inputs_options_and_shared_modules(torch) -> None:  # type: ignore[no-untyped-def]
    import acon_torch

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.GELU(approximate="tanh"), torch.nn.GELU()
            self.third = self.fourth = torch.nn.SiLU()

        def forward(self, x):  # type: ignore[no-untyped-def]
            return self.fourth(self.third(self.second(self.first(input=x))))

    model, x = Network(), torch.randn(2, 6, 5)
    found = acon_torch.replace_activations(
        model, {"gelu(approximate=tanh)": "acon_c", "gelu": "mish", "silu": "acon_a"}, x, channel_axis=1
    )
    assert [(site.path, site.new.split("(")[0], site.calls) for site in found.replaced] == [
        ("first", "acon_c", 1), ("second", "mish", 1), ("third", "acon_a", 1), ("fourth", "acon_a", 1),
    ]  # fmt: skip
    assert model.third is not model.fourth


def test_replacement_is_all_or_nothing(torch, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    import acon_torch
    from acon_torch.surgery import TorchModules

    model, x = torch.nn.Sequential(torch.nn.SiLU(), torch.nn.ReLU()), torch.randn(2, 6)
    make = TorchModules.make

    def fails_at_the_second(self, node, *rest):  # type: ignore[no-untyped-def]
        if rest[1] is model[1]:
            raise RuntimeError("no memory")
        return make(self, node, *rest)

    monkeypatch.setattr(TorchModules, "make", fails_at_the_second)
    with pytest.raises(RuntimeError, match="no memory"):
        acon_torch.replace_activations(model, {"silu": "acon_c", "relu": "acon_c"}, x)
    assert [type(module) for module in model] == [torch.nn.SiLU, torch.nn.ReLU]


@pytest.mark.parametrize("shape", [(2, 1, 4, 5), (2, 5, 4, 6), (6,)])
def test_wrong_channel_count_is_refused(torch, shape: tuple[int, ...]) -> None:  # type: ignore[no-untyped-def]
    import acon_torch

    from acon_core.errors import SpecError

    for module in (acon_torch.AconC(6), acon_torch.MetaAconC(6), acon_torch.FReLU(6), acon_torch.DyReLU(6)):
        with pytest.raises(SpecError, match=rf"{type(module).__name__}: expected an input"):
            module(torch.randn(shape))
    gate = torch.randn(6, 1, 1)
    with pytest.raises(SpecError, match="expected a gate"):
        acon_torch.acon(torch.randn(6, 6, 2, 3), gate, gate, gate)
    with pytest.raises(SpecError, match="one shape"):
        acon_torch.smooth_maximum(torch.randn(2, 3), torch.randn(1, 3))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_meta_acon_gradient_does_not_overflow(torch, dtype: str) -> None:  # type: ignore[no-untyped-def]
    import acon_torch

    for level in ("layer", "channel"):
        module = acon_torch.MetaAconC(8, norm="none", level=level, reduce="mean", init="paper", dtype=getattr(torch, dtype))
        x = torch.randn(1, 8, 300, 300, dtype=getattr(torch, dtype)).add(2).requires_grad_()
        y = module(x)
        y.sum().backward()
        assert y.dtype == x.dtype
        assert x.grad is not None
        assert x.grad.isfinite().all()
