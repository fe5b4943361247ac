"""Token and window layers in PyTorch: memory formats, masks, dropout, stages as outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from acon_core import spec
from acon_core.backends import Backend
from acon_core.errors import SpecError
from acon_core.networks import create

pytestmark = pytest.mark.backend("torch")


def build(node: spec.Node):  # type: ignore[no-untyped-def]
    import torch
    from acon_torch.build import BuildContext, make

    return make(node, BuildContext(torch.float32))


def with_values(leaf: spec.Node, *shape: int) -> spec.Node:
    """Return a leaf of tokens and of an own array, as a graph that owns the array."""
    return spec.graph("x", ["y = leaf(x, own)"], "y", {"leaf": leaf}, {"own": spec.Param(shape, spec.Constant(0.5))})


TOKENS = {
    "LayerNorm": spec.LayerNorm(12),
    "Linear": spec.Linear(12, 7),
    "Attention": spec.Attention(2),
    "SiLU": spec.SiLU(),
    "AconC": spec.AconC(12),
    "DropPath": spec.DropPath(0.5),
    "PrependToken": with_values(spec.PrependToken(), 1, 1, 12),
    "AddPosition": with_values(spec.AddPosition(), 1, 5, 12),
}


@pytest.mark.parametrize("name", TOKENS)
def test_tokens_stay_channels_last(name: str) -> None:
    """Input in (N, L, C) memory gives output in (N, L, C) memory, and so do the gradients."""
    import torch

    tokens = torch.randn(3, 5, 12).mT.requires_grad_()
    y = build(TOKENS[name]).train()(tokens)
    assert y.mT.is_contiguous()
    (gradient,) = torch.autograd.grad(y, tokens, torch.randn(y.mT.shape).mT)
    # Behind a class token, the gradient is a view of a contiguous array.
    assert gradient.stride(1) == 1


@pytest.mark.parametrize("name", ["PrependToken", "AddPosition"])
def test_tokens_keep_their_dtype(name: str) -> None:
    import torch

    assert build(TOKENS[name])(torch.ones(3, 12, 5, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "node",
    [spec.PadToMultiple(4), spec.SpaceToDepth(), spec.WindowPartition(3, 1), spec.FlattenSpace(), spec.Linear(6, 7)],
    ids=lambda node: type(node).__name__,
)
def test_images_stay_channels_last(node: spec.Node) -> None:
    import torch

    images = torch.randn(2, 5, 7, 6).movedim(-1, 1)
    assert build(node)(images).movedim(1, -1).is_contiguous()


def test_shifted_window_mask_matches_the_spec() -> None:
    """With zero table, q and k and identity values, the output is the softmax of the mask."""
    import torch

    for window, shift, height, width in ((3, 1, 7, 9), (3, 2, 3, 6), (4, 2, 12, 3), (2, 1, 2, 2)):
        node = spec.WindowAttention(window, shift, heads=1)
        image = torch.empty(2, 1, height, width)
        count, tokens = node.windows((2, 1, height, width), 1)[::2]
        qkv = torch.zeros(count, 3 * tokens, tokens)
        qkv[:, 2 * tokens :] = torch.eye(tokens)
        found = build(node)(qkv, torch.zeros((2 * window - 1) ** 2, 1), image).mT
        apart = torch.from_numpy(spec.shifted_window_mask(node, (1, 1, height, width)))
        torch.testing.assert_close(found, apart.softmax(-1).repeat(2, 1, 1))


def test_windows_compile_with_dynamic_shapes() -> None:
    import torch

    torch._dynamo.reset()
    node = spec.WindowAttention(3, 1, heads=2)
    attend = build(node)
    compiled = torch.compile(attend, fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in ((2, 8, 6, 9), (3, 8, 10, 4), (4, 8, 3, 15)):
        qkv, table = torch.randn(node.windows(shape, 24)), torch.randn(25, 2)
        torch.testing.assert_close(compiled(qkv, table, torch.empty(shape)), attend(qkv, table, torch.empty(shape)))


@pytest.mark.parametrize(("node", "whole"), [(spec.DropPath(0.25), (1, 2)), (spec.Dropout(0.25), ())])
def test_dropout_and_drop_path_in_training(node: spec.Node, whole: tuple[int, ...]) -> None:
    """Drop path drops whole samples, dropout elements: each is 0 with probability `rate`.

    What is kept is x / (1 - rate).
    """
    import torch

    torch.manual_seed(1)
    drop, x = build(node), torch.rand(400, 5, 3) + 1
    assert torch.equal(drop.eval()(x), x)
    y = drop.train()(x)
    kept = (y != 0).all(whole) if whole else y != 0
    assert torch.equal(kept, (y != 0).any(whole) if whole else kept)
    assert abs(1 - kept.float().mean() - 0.25) < 5 * (0.25 * 0.75 / kept.numel()) ** 0.5
    torch.testing.assert_close(y[kept], x[kept] / 0.75)
    assert not torch.equal(drop(x), y)
    assert torch.equal(build(type(node)(0.0)).train()(x), x)  # type: ignore[call-arg]


def test_derived_indices_are_int64_in_every_dtype(backend: Backend) -> None:
    index = spec.Param((2, 3), spec.Values((3, 1, 4, 1, 5, 9)), kind="derived", dtype="int64")
    table = spec.Param((1, 4, 5), spec.Constant(0.0))
    graph = spec.graph("x", ["y = add(x, place)"], "y", {"add": spec.AddPosition()}, {"place": table, "index": index})
    for dtype in ("float32", "bfloat16"):
        model = backend.build(graph, dtype=dtype)
        state = model.state()
        assert state["index"].dtype == np.int64
        assert state["index"].tolist() == [[3, 1, 4], [1, 5, 9]]
        model.load(state)
        assert list(dict(model.native.named_parameters())) == ["place"]


@pytest.mark.parametrize(
    ("node", "shapes"),
    [
        (spec.Add(), ((2, 5, 4), (2, 5, 1))),
        (spec.ChannelScale(), ((2, 5, 4, 3), (2, 1, 1, 1))),
        (spec.AddPosition(), ((2, 5, 4), (1, 1, 5))),
        (spec.FlattenSpace(), ((2, 5, 4),)),
        (spec.ImageSize(4, 6), ((2, 5, 6, 4),)),
        (spec.WindowAttention(2, heads=1), ((4, 3, 4), (10, 1), (1, 5, 4, 4))),
    ],
    ids=lambda each: type(each).__name__,
)
def test_broadcasting_inputs_are_refused(node: spec.Node, shapes: tuple[tuple[int, ...], ...]) -> None:
    import torch

    with pytest.raises(SpecError, match=f"{type(node).__name__}: expected"):
        build(node)(*(torch.ones(shape) for shape in shapes))


@pytest.mark.parametrize("count", [1, 2])
def test_features_match_the_whole_network(backend: Backend, tmp_path: Path, count: int) -> None:
    import acon_torch
    import torch

    name, act = "acon/shufflenet_v2_x0_5", "repact(variant=2)"
    network = create(name, act, 7)
    features = list(network.stages)[1 : 1 + count]
    whole = backend.build(network.graph, seed=5)
    torch.save(whole.native.state_dict(), tmp_path / "whole.pth")
    loaded = acon_torch.load(tmp_path / "whole.pth", act=act, features=features)
    created = acon_torch.create(name, act, 7, features=features, seed=5).eval()
    assert len(created.state_dict()) < len(whole.native.state_dict())
    x = torch.randn(2, 3, 64, 96)
    taps = [network.stages[feature] for feature in features]
    recorded = whole(x.numpy(), taps=taps).taps
    expected = tuple(torch.from_numpy(recorded[tap]) for tap in taps)
    with torch.no_grad():
        for backbone in (created, loaded, acon_torch.fuse(loaded)):
            torch.testing.assert_close(backbone(x), expected, rtol=1e-4, atol=1e-5)
