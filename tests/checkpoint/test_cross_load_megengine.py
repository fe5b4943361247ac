"""MegEngine itself reads what is written here, and what it writes is read here."""

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


def test_a_whole_module_is_refused_by_name(tmp_path: Path) -> None:
    import megengine

    megengine.save(net(), str(tmp_path / "a.pkl"))
    with pytest.raises(CheckpointError, match=r"megengine\.module") as caught:
        module("megengine").read(tmp_path / "a.pkl")
    assert caught.value.kind == "unsafe"
