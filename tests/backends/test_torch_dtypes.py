"""Autocast, and batch norms of 16 bits, beside PyTorch's own layers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.backend("torch")

import acon_torch  # noqa: E402
from acon_torch.modules import BatchNorm, Conv2d, LayerNorm, Linear  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from acon_core.spec.activations import ACTIVATIONS  # noqa: E402

HALF = [torch.float16, torch.bfloat16]


def _random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def _dtypes(module: nn.Module, x: Tensor, dtype: torch.dtype) -> list[torch.dtype]:
    """Return the dtypes of the outputs for float32 and 16-bit inputs under autocast."""
    with torch.autocast("cpu", dtype=dtype):
        return [module(x).dtype, module(x.to(dtype)).dtype]


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_under_autocast(name: str, dtype: torch.dtype) -> None:
    """In training: the dtype of PyTorch's own, and values and gradients near those of float32."""
    torch.manual_seed(1)
    module = acon_torch.activation(name, 16)
    x = _random(4, 16, 8, 6)
    own = nn.PReLU() if name == "prelu" else nn.SiLU()
    assert _dtypes(module, x, dtype) == _dtypes(own, x, dtype)
    results = []
    for given in (torch.float32, dtype):
        leaf = x.to(given).requires_grad_()
        with torch.autocast("cpu", dtype=dtype, enabled=given is dtype):
            y = module(leaf)
        (dx,) = torch.autograd.grad(y, leaf, _random(*y.shape, seed=2).to(y.dtype))
        assert dx.dtype == given
        results.append((y.float(), dx.float()))
    for wide, half in zip(*results, strict=True):
        assert (half - wide).norm() < 0.06 * wide.norm()  # a kink may lie between the two


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize(
    ("ours", "own"),
    [
        (lambda: BatchNorm(6), lambda: nn.BatchNorm2d(6)),
        (lambda: LayerNorm(6), lambda: nn.LayerNorm(4)),
        (lambda: Conv2d(6, 3, 1), lambda: nn.Conv2d(6, 3, 1)),
        (lambda: Linear(6, 3), lambda: nn.Linear(4, 3)),
    ],
    ids=["batch_norm", "layer_norm", "conv2d", "linear"],
)
def test_layers_under_autocast(ours: Callable[[], nn.Module], own: Callable[[], nn.Module], dtype: torch.dtype) -> None:
    x = _random(3, 6, 5, 4)
    assert _dtypes(ours(), x, dtype) == _dtypes(own(), x, dtype)


@pytest.mark.parametrize("dtype", HALF)
def test_a_network_trains_under_autocast(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network = acon_torch.create("acon/shufflenet_v2_x0_5", "meta_acon", num_classes=3, repeats=(1, 1, 1))
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    images, classes, losses = _random(6, 3, 64, 48), torch.tensor([0, 1, 2, 0, 1, 2]), []
    for _ in range(4):
        with torch.autocast("cpu", dtype=dtype):
            logits = network(images)
        assert logits.dtype is dtype
        loss = nn.functional.cross_entropy(logits.float(), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0], losses
    state = network.state_dict()
    assert {each.dtype for each in state.values()} == {torch.float32, torch.int64}
    assert all(each.isfinite().all() for each in state.values())


@pytest.mark.parametrize("dtype", [*HALF, torch.float32])
@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("track", [True, False])
@pytest.mark.parametrize("kept", [torch.float32, torch.bfloat16, torch.float64])
def test_batch_norm_is_that_of_pytorch(
    dtype: torch.dtype, momentum: float | None, affine: bool, track: bool, kept: torch.dtype
) -> None:
    """Where PyTorch refuses the two dtypes together, it gets its input and state in the wider."""
    ours, own = BatchNorm(5, 1e-4, momentum, affine, track).to(kept), nn.BatchNorm2d(5, 1e-4, momentum, affine, track)
    if affine:
        weight, bias = _random(2, 5, seed=1).to(kept)
        ours.load_state_dict({**ours.state_dict(), "weight": weight, "bias": bias})
    own.load_state_dict(ours.state_dict())
    has_state = affine or track
    served = not has_state or kept is dtype or (kept is torch.float32 and dtype in HALF)
    wide = dtype if served else torch.promote_types(kept, dtype)
    own.to(kept if served else wide)
    for step in range(4):
        x = _random(3, 5, 4, 2, seed=step, scale=3.0).add(2.0).to(dtype)
        for module in (ours, own):
            module.train(step < 3)
        y, expected = ours(x), own(x.to(wide)).to(dtype)
        assert y.dtype is dtype
        torch.testing.assert_close(y, expected, rtol=2e-2 if kept is torch.bfloat16 else 1e-6, atol=1e-2)
        for name, value in own.state_dict().items():
            mine = ours.state_dict()[name]
            assert mine.dtype in (kept, torch.int64)
            own.state_dict()[name].copy_(mine) if kept is torch.bfloat16 else None
            torch.testing.assert_close(mine, value.to(mine.dtype), rtol=2e-2 if kept is torch.bfloat16 else 1e-6, atol=1e-6)
    assert own.state_dict().keys() == ours.state_dict().keys()


def test_update_bn_and_frozen_norms_under_autocast() -> None:
    """`update_bn` sets the momentum to None; some fine-tuning takes the statistics away."""
    data = [_random(8, 3, 8, 6, seed=seed) for seed in range(3)]
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 1), acon_torch.FReLU(8))
    norm = network[1].bn_frelu
    inputs = []
    norm.register_forward_hook(lambda module, values, made: inputs.append(values[0].double()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.optim.swa_utils.update_bn(data, network)
    assert norm.num_batches_tracked == 3
    expected = torch.stack([each.mean((0, 2, 3)) for each in inputs]).mean(0)
    torch.testing.assert_close(norm.running_mean.double(), expected, rtol=1e-5, atol=1e-6)
    norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network.eval()(data[0]).isfinite().all()
