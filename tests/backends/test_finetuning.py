"""Fine-tuning: a new head or stem when loading, items that can be assigned, and other sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from native_modules import run
from repository import DATA

from acon_core import backends, spec
from acon_core.backends import Backend
from acon_core.checkpoint import convert, read_network
from acon_core.errors import SpecError
from acon_core.networks import create
from acon_core.reference.backend import backend as reference

CHECKPOINT = DATA / "shufflenetv2_acon_0.5x.pth.tar"
HEAD, STEM = "classifier.0", "first_conv.0"


def public(backend: Backend) -> Any:
    return __import__(backends.packages()[backend.name])


def state_of(backend: Backend, native: Any, node: spec.Node) -> dict[str, np.ndarray]:
    """Return the canonical state of a native module."""
    return dict(backends.import_module(backend.name, "backend").frontend.modules.state(native, node))


def image(channels: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(2, channels, size, size + 8)).astype(np.float32)


def save(backend: Backend, native: Any, path: Path) -> None:
    """Save with the framework's own function, under its own names."""
    if backend.name == "torch":
        import torch

        torch.save(native.state_dict(), path)
    elif backend.name == "paddle":
        import paddle

        paddle.save(native.state_dict(), str(path))
    elif backend.name == "megengine":
        import megengine

        megengine.save(native.state_dict(), str(path))
    else:
        from flax import nnx, serialization

        path.write_bytes(serialization.to_bytes(nnx.to_pure_dict(nnx.state(native))))


SUFFIX = {"torch": ".pth", "paddle": ".pdparams", "megengine": ".pkl", "jax": ".msgpack"}


@pytest.mark.parametrize("changed", [{"num_classes": 7}, {"num_classes": 7, "in_channels": 5}])
def test_new_layers(backend: Backend, tmp_path: Path, changed: dict[str, int]) -> None:
    """New layers have the values of `create`, others those of the file; the file of it converts."""
    native = public(backend).load(CHECKPOINT, seed=4, **changed)
    made = create("acon/shufflenet_v2_x0_5", "acon_c", **changed)
    found, fresh, old = state_of(backend, native, made.graph), spec.initial_state(made.graph, 4), read_network(CHECKPOINT).state
    new = {HEAD} if "num_classes" in changed else set()
    new |= {STEM} if "in_channels" in changed else set()
    for path, array in found.items():
        if not path.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(array, (fresh if path.rpartition(".")[0] in new else old)[path], path)
    x = image(changed.get("in_channels", 3))
    y = run(backend, native, x)
    assert tuple(y.shape) == (2, changed.get("num_classes", 1000))

    save(backend, native, tmp_path / f"a{SUFFIX[backend.name]}")
    for suffix in (".safetensors", ".pkl" if backend.name != "megengine" else ".pth"):
        convert(tmp_path / f"a{SUFFIX[backend.name]}", tmp_path / f"b{suffix}")
        again = read_network(tmp_path / f"b{suffix}")
        assert (again.network.num_classes, again.network.in_channels) == (y.shape[1], x.shape[1])
        assert all(np.array_equal(again.state[path], found[path]) for path in found if "tracked" not in path)


def test_same_numbers_change_nothing(backend: Backend) -> None:
    network = read_network(CHECKPOINT)
    native = public(backend).load(CHECKPOINT, num_classes=1000, in_channels=3, seed=9)
    for path, array in state_of(backend, native, network.network.graph).items():
        if not path.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(array, network.state[path], path)


def test_what_cannot_change(backend: Backend) -> None:
    load = public(backend).load
    with pytest.raises(SpecError, match="stages have no classes; omit num_classes=3 or features"):
        load(CHECKPOINT, features=["stage2"], num_classes=3)
    with pytest.raises(SpecError, match="expected at least one class, found 0"):
        load(CHECKPOINT, num_classes=0)
    with pytest.raises(SpecError, match="at least one channel"):
        load(CHECKPOINT, in_channels=0)
    assert load(CHECKPOINT, features=["stage2"], in_channels=2) is not None


def test_items_can_be_assigned(backend: Backend) -> None:
    """As in `nn.Sequential`, by index from the front or the back; what is there runs."""
    package = public(backend)
    model = package.create("acon/shufflenet_v2_x0_5", "acon_c", 6, repeats=(1, 1, 1))
    new = package.create("acon/shufflenet_v2_x0_5", "acon_c", 4, repeats=(1, 1, 1)).classifier[0]
    model.classifier[0] = new
    assert model.classifier[-1] is new
    assert tuple(run(backend, model, image(3)).shape) == (2, 4)
    model.features[2] = model.features[-1]
    assert model.features[2] is model.features[2]
    with pytest.raises(IndexError):
        model.features[3] = new


OTHER_SIZES: list[tuple[str, dict[str, Any], int]] = [
    ("acon/resnet50", {"groups": 4, "width_per_group": 6, "repeats": (1, 1, 1, 1), "cifar_stem": True}, 24),
    (
        "repact/swin_tiny_patch4_window7_224",
        {"depths": (1, 2, 1, 1), "embed_dim": 12, "num_heads": (1, 2, 3, 4), "window_size": 3, "patch_size": 2},
        28,
    ),
    (
        "repact/vit_base_patch16_224",
        {"image_size": 40, "patch_size": 8, "embed_dim": 30, "num_heads": 5, "depth": 1, "in_channels": 1},
        40,
    ),
]


@pytest.mark.parametrize(("name", "options", "size"), OTHER_SIZES)
def test_other_sizes_match_the_reference(backend: Backend, name: str, options: dict[str, Any], size: int) -> None:
    graph = spec.deterministic(create(name, num_classes=3, **options).graph)
    state = spec.initial_state(graph, 2)
    x = np.random.default_rng(1).normal(size=(2, options.get("in_channels", 3), size, size)).astype(np.float32)
    model = backend.build(graph, seed=None)
    model.load(state)
    exact = reference.build(graph, dtype="float64", seed=None)
    exact.load({path: array if array.dtype == np.int64 else array.astype(np.float64) for path, array in state.items()})
    expected = exact(x.astype(np.float64)).y
    np.testing.assert_allclose(model(x).y, expected, rtol=0, atol=2e-4 * np.abs(expected).max())


@pytest.mark.backend("torch")
def test_grouped_bottleneck_is_torchs_own() -> None:
    """A ResNeXt bottleneck of PyTorch's layers, with the names of the published code."""
    import acon_torch
    import torch
    from torch import nn

    class Bottleneck(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(64, 60, 1), nn.BatchNorm2d(60)
            self.conv2, self.bn2 = nn.Conv2d(60, 60, 3, 1, 1, groups=12), nn.BatchNorm2d(60)
            self.conv3, self.bn3 = nn.Conv2d(60, 256, 1), nn.BatchNorm2d(256)
            self.downsample = nn.Sequential(nn.Conv2d(64, 256, 1), nn.BatchNorm2d(256))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.bn1(self.conv1(x)).relu()
            y = self.bn2(self.conv2(y)).relu()
            return (self.bn3(self.conv3(y)) + self.downsample(x)).relu()

    ours = acon_torch.create("acon/resnet50", "relu", groups=12, width_per_group=5, repeats=(1, 1, 1, 1)).layer1[0]
    theirs = Bottleneck()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 64, 9, 7)
    torch.testing.assert_close(ours(x), theirs(x))
