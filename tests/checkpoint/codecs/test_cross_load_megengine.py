"""MegEngine reads our files, and we read MegEngine's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkpoint_samples import assert_same, module, state

from acon_core.errors import CheckpointError

pytestmark = pytest.mark.backend("megengine")


def net():
    import megengine.module as M

    return M.Sequential(M.Conv2d(4, 6, 3, groups=2), M.BatchNorm2d(6), M.PReLU(6))


def test_megengine_reads_ours(tmp_path: Path) -> None:
    import megengine

    expected = state("megengine")
    module("megengine").write(tmp_path / "a.pkl", expected, {"network": "ключ"})
    assert module("megengine").read(tmp_path / "a.pkl").metadata == {"network": "ключ"}
    assert_same(megengine.load(str(tmp_path / "a.pkl")), expected)


def test_load_state_dict(tmp_path: Path) -> None:
    import megengine

    source, target = net(), net()
    expected = {k: v + np.float32(1) for k, v in source.state_dict().items()}
    module("megengine").write(tmp_path / "a.pkl", expected, {"network": "x", "input": '{"range": "0 to 1"}'})
    target.load_state_dict(megengine.load(str(tmp_path / "a.pkl")))
    assert_same(target.state_dict(), expected)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("nested", [False, True])
def test_state_dict(tmp_path: Path, protocol: int, nested: bool) -> None:
    import megengine

    expected = net().state_dict()
    value = {"state_dict": expected, "epoch": 3, "name": "x"} if nested else expected
    megengine.save(value, str(tmp_path / "a.pkl"), pickle_protocol=protocol)
    assert module("megengine").sniff(tmp_path / "a.pkl")
    found = module("megengine").read(tmp_path / "a.pkl")
    assert_same(found.tensors, expected)
    assert bool(found.notes) == nested


def test_tensors_and_optimizers(tmp_path: Path) -> None:
    import megengine
    from megengine.optimizer import SGD

    model = net()
    value = {
        "model": {k: megengine.Tensor(v) for k, v in model.state_dict().items()},
        "optimizer": SGD(model.parameters(), lr=0.1, momentum=0.9).state_dict(),
    }
    megengine.save(value, str(tmp_path / "a.pkl"))
    found = module("megengine").read(tmp_path / "a.pkl")
    assert_same(found.tensors, model.state_dict())
    assert "'optimizer'" in found.notes[0]


def whole():
    """Return a module with every layer that has a layout rule; all values differ."""
    import megengine
    import megengine.module as M

    class Statistics(M.BatchNorm2d):
        pass

    class Net(M.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stages = [M.Conv2d(4, 6, 3, groups=2), [M.BatchNorm2d(6)]]
            self.acts = {"relu": M.PReLU(6), "norm": M.LayerNorm((3, 4))}
            self.norm = Statistics(5)
            self.again = self.norm
            self.group = M.GroupNorm(2, 6)
            self.buffer = megengine.Tensor([[1.0, 2.0]])
            self.anchors = np.arange(3)
            self.frozen = M.BatchNorm1d(7, affine=False)
            self.recurrent = M.LSTM(3, 4)

        def forward(self, inputs):
            return inputs

    for each in (Net, Statistics):  # a pickle names them, and they must be where it says
        each.__qualname__ = each.__name__
        globals()[each.__name__] = each
    made = Net()
    state = {k: np.random.default_rng(len(k)).random(v.shape, np.float32) for k, v in made.state_dict().items()}
    made.load_state_dict(state)
    return made


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("nested", [False, True])
def test_whole_module(tmp_path: Path, protocol: int, nested: bool) -> None:
    import megengine

    made = whole()
    megengine.save({"epoch": 3, "model": made} if nested else made, str(tmp_path / "a.pkl"), pickle_protocol=protocol)
    found = module("megengine").read(tmp_path / "a.pkl")
    assert_same(found.tensors, made.state_dict())
    assert f"a whole module ({made.__module__}.Net) was read as its state dict" in found.notes[0]
    assert {f"{made.__module__}.Statistics", "megengine.module.conv.Conv2d"} <= set(found.globals_seen)


@pytest.mark.parametrize("adam", [False, True])
def test_optimizer_state(tmp_path: Path, adam: bool) -> None:
    import megengine
    from megengine.optimizer import SGD, Adam

    parameters = net().parameters()
    optimizer = Adam(parameters, lr=0.1) if adam else SGD(parameters, lr=0.1, momentum=0.9)
    megengine.save(optimizer.state_dict(), str(tmp_path / "a.pkl"))
    with pytest.raises(CheckpointError, match="an optimizer") as caught:
        module("megengine").read(tmp_path / "a.pkl")
    assert caught.value.kind == "unsupported"


def test_old_statistics(tmp_path: Path) -> None:
    import megengine
    import megengine.module as M

    source, target = (M.Sequential(M.Conv2d(4, 6, 3, groups=2), M.PReLU(6), M.BatchNorm2d(6)) for _ in range(2))
    random = np.random.default_rng(7)
    state = {key: random.normal(size=value.shape).astype("float32") for key, value in source.state_dict().items()}
    # As MegEngine 0.5 kept the statistics, and versions between it and this one the weights too.
    old = {key: state[key].reshape(1, 6, 1, 1) for key in ("2.running_mean", "2.running_var", "2.weight")}
    megengine.save({**state, **old}, str(tmp_path / "old.pkl"))
    found = module("megengine").read(tmp_path / "old.pkl")
    # MegEngine's own loader says where each value goes.
    target.load_state_dict(megengine.load(str(tmp_path / "old.pkl")))
    assert_same(found.tensors, target.state_dict(), order=False)
    assert found.tensors["0.bias"].shape == (1, 6, 1, 1)
    assert "reshaped 3 tensors of BatchNorms to one axis" in found.notes[0]
