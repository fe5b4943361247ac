"""MegEngine itself reads what is written here, and what it writes is read here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkpoint_samples import assert_same, module, state

pytestmark = pytest.mark.backend("megengine")


def net():
    import megengine.module as M

    return M.Sequential(M.Conv2d(4, 6, 3, groups=2), M.BatchNorm2d(6), M.PReLU(6))


def test_megengine_loads_every_dtype_and_layout(tmp_path: Path) -> None:
    import megengine

    expected = state("megengine")
    module("megengine").write(tmp_path / "a.pkl", expected)
    assert_same(megengine.load(str(tmp_path / "a.pkl")), expected)


def test_megengine_module_takes_the_file(tmp_path: Path) -> None:
    import megengine

    source, target = net(), net()
    expected = {k: v + np.float32(1) for k, v in source.state_dict().items()}
    module("megengine").write(tmp_path / "a.pkl", expected)
    target.load_state_dict(megengine.load(str(tmp_path / "a.pkl")))
    assert_same(target.state_dict(), expected)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("nested", [False, True])
def test_state_dicts_of_megengine_are_read(tmp_path: Path, protocol: int, nested: bool) -> None:
    import megengine

    expected = net().state_dict()
    value = {"state_dict": expected, "epoch": 3, "name": "x"} if nested else expected
    megengine.save(value, str(tmp_path / "a.pkl"), pickle_protocol=protocol)
    assert module("megengine").sniff(tmp_path / "a.pkl")
    found = module("megengine").read(tmp_path / "a.pkl")
    assert_same(found.tensors, expected)
    assert bool(found.notes) == nested


def test_tensors_and_optimizers_of_megengine_are_read(tmp_path: Path) -> None:
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
    """A module with all that its state dict has a rule for; its values are all different."""
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
def test_a_whole_module_is_read_as_its_state_dict(tmp_path: Path, protocol: int, nested: bool) -> None:
    import megengine

    made = whole()
    megengine.save({"epoch": 3, "model": made} if nested else made, str(tmp_path / "a.pkl"), pickle_protocol=protocol)
    found = module("megengine").read(tmp_path / "a.pkl")
    assert_same(found.tensors, made.state_dict())
    assert f"a whole module ({made.__module__}.Net) was read as its state dict" in found.notes[0]
    assert {f"{made.__module__}.Statistics", "megengine.module.conv.Conv2d"} <= set(found.globals_seen)
