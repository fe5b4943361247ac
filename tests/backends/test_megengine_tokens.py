"""Token and window layers in MegEngine: dropout, memory, empty batches, shapes, indices."""

from __future__ import annotations

import numpy as np
import pytest

from acon_core import spec
from acon_core.backends import Backend
from acon_core.errors import SpecError, StateError

pytestmark = pytest.mark.backend("megengine")


def window_attention_graph(window: int = 3, heads: int = 2, channels: int = 6) -> spec.Graph:
    """Build shifted windows whose index is one of the graph's parameters, as published."""
    index = spec.relative_position_index(window)
    return spec.graph(
        "x",
        ["windows = partition(x)", "qkv = to_qkv(windows)", "mixed = attend(qkv, table, x)", "y = merge(mixed, x)"],
        "y",
        {
            "partition": spec.WindowPartition(window, 1),
            "to_qkv": spec.Linear(channels, 3 * channels),
            "attend": spec.WindowAttention(window, 1, heads),
            "merge": spec.WindowReverse(window, 1),
        },
        {
            "table": spec.Param(((2 * window - 1) ** 2, heads), spec.Normal(0.5)),
            "index": spec.Param(index.shape, spec.Values(tuple(index.ravel().tolist())), kind="derived", dtype="int64"),
        },
    )


@pytest.mark.parametrize("node", [spec.Dropout(0.25), spec.DropPath(0.25)], ids=lambda node: type(node).__name__)
def test_dropout_and_drop_path_in_training(backend: Backend, node: spec.Node) -> None:
    import megengine as mge

    whole = (1, 2, 3) if isinstance(node, spec.DropPath) else ()
    x = np.random.default_rng(0).uniform(1.0, 2.0, (2000, 3, 2, 5)).astype(np.float32)
    model = backend.build(node)
    for seed in (1, 2):
        mge.random.seed(seed)
        back = model.vjp(x, np.ones_like(x), train=True)
        kept = back.y != 0
        np.testing.assert_allclose(back.y[kept], x[kept] / np.float32(0.75), rtol=2e-7)
        np.testing.assert_allclose(back.dx, kept / np.float32(0.75), rtol=2e-7)
        if whole:
            assert (kept.all(whole) | ~kept.any(whole)).all()
        draws = kept.any(whole) if whole else kept
        # Five standard deviations of the mean of this many draws.
        assert abs(draws.mean() - 0.75) < 5 * np.sqrt(0.25 * 0.75 / draws.size)
        mge.random.seed(seed)
        np.testing.assert_array_equal(model(x, train=True).y, back.y)
    np.testing.assert_array_equal(model(x).y, x)
    assert (model(x, train=True).y != model(x, train=True).y).any()


def test_int64_index_is_regenerated_from_the_spec(backend: Backend) -> None:
    node = window_attention_graph()
    model = backend.build(node, seed=3)
    assert sorted(model.native.state_dict()) == ["table", "to_qkv.bias", "to_qkv.weight"]
    state = model.state()
    assert list(state) == list(spec.named_params(node))
    assert state["index"].dtype == np.int64
    np.testing.assert_array_equal(state["index"], spec.relative_position_index(3))
    other = backend.build(node, seed=4)
    other.load(state)
    for path, array in other.state().items():
        np.testing.assert_array_equal(array, state[path], err_msg=path)
    with pytest.raises(StateError, match="'index' is missing"):
        other.load({path: array for path, array in state.items() if path != "index"})


def test_attention_saves_only_its_inputs(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """It saves neither the logits nor the weights, which have heads x tokens numbers per token."""
    from acon_megengine import gradient
    from megengine import Tensor

    kept = []
    own = gradient._Function.backward

    def backward(self, g):  # type: ignore[no-untyped-def]
        held = [each for value in vars(self).values() for each in (value if isinstance(value, tuple | list) else [value])]
        kept.append(sum(int(np.prod(each.shape)) for each in held if isinstance(each, Tensor)))
        return own(self, g)

    monkeypatch.setattr(gradient._Function, "backward", backward)
    backend.build(spec.Attention(2)).vjp(np.ones((3, 12, 70), np.float32), np.ones((3, 4, 70), np.float32))
    assert kept == [3 * 12 * 70]


EMPTY = [
    (spec.PadToMultiple(4), (0, 3, 5, 6)), (spec.FlattenSpace(), (0, 3, 5, 6)), (spec.SelectToken(1), (0, 3, 5)),
    (spec.ImageSize(5, 6), (0, 3, 5, 6)),
    (spec.SpaceToDepth(), (0, 3, 5, 6)), (spec.Attention(2), (0, 12, 5)), (spec.Dropout(0.3), (0, 3, 5)),
    (spec.DropPath(0.3), (0, 3, 5)), (spec.Linear(3, 4), (0, 3, 5)), (spec.LayerNorm(3), (0, 3, 5)),
    (window_attention_graph(), (0, 6, 5, 7)),
]  # fmt: skip


@pytest.mark.parametrize(("node", "shape"), EMPTY, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("train", [False, True])
def test_empty_batch(backend: Backend, node: spec.Node, shape: tuple[int, ...], train: bool) -> None:
    (expected,) = node.out_shapes(shape)
    back = backend.build(node).vjp(np.zeros(shape, np.float32), np.zeros(expected, np.float32), train=train)
    assert back.y.shape == expected
    assert back.dx.shape == shape
    assert all((gradient == 0).all() for gradient in back.dparams.values())


# Shapes that would broadcast, or give other output shapes.
UNFIT = [
    (spec.Add(), [(2, 3, 4, 5), (1, 3, 1, 1)]), (spec.ChannelScale(), [(2, 3, 4, 5), (1, 3, 1, 1)]),
    (spec.ImageSize(4, 6), [(2, 3, 6, 4)]),
    (spec.PrependToken(), [(2, 3, 4), (2, 1, 3)]), (spec.AddPosition(), [(2, 3, 4), (1, 1, 3)]),
    (spec.Maximum(), [(2, 3, 4), (2, 3, 1)]), (spec.Linear(3, 2), [(3, 4, 3)]),
]  # fmt: skip


@pytest.mark.parametrize(("node", "shapes"), UNFIT, ids=lambda value: type(value).__name__)
def test_wrong_shapes_are_refused(node: spec.Node, shapes: list[tuple[int, ...]]) -> None:
    import megengine as mge
    from acon_megengine.build import BuildContext, make

    with pytest.raises(SpecError, match=f"{type(node).__name__}: expected"):
        make(node, BuildContext("float32"))(*(mge.Tensor(np.ones(shape, np.float32)) for shape in shapes))


def test_trace_with_other_batch_sizes() -> None:
    import megengine as mge
    from acon_megengine.build import BuildContext, make
    from megengine.jit import trace

    module = make(window_attention_graph(), BuildContext("float32"))
    random = np.random.default_rng(0)
    for parameter in module.parameters():
        parameter._reset(mge.Tensor(random.normal(size=parameter.shape).astype(np.float32)))
    run = trace(module, symbolic=True)
    for size in (3, 2, 4):
        x = mge.Tensor(random.normal(size=(size, 6, 5, 7)).astype(np.float32))
        np.testing.assert_allclose(run(x).numpy(), module(x).numpy(), rtol=1e-5, atol=1e-6)
