"""Paddle reads our files, and we read Paddle's."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from checkpoint_samples import assert_same, bits, module, state

from acon_core.errors import CheckpointError

pytestmark = pytest.mark.backend("paddle")


def net():
    import paddle

    return paddle.nn.Sequential(paddle.nn.Conv2D(4, 6, 3), paddle.nn.BatchNorm2D(6), paddle.nn.Linear(3, 5))


def numpy_state(layer) -> dict[str, np.ndarray]:
    return {k: v.numpy() for k, v in layer.state_dict().items()}


def test_paddle_reads_ours(tmp_path: Path) -> None:
    import paddle

    expected = state("paddle")
    module("paddle").write(tmp_path / "a.pdparams", expected, {"network": "ключ"})
    assert module("paddle").read(tmp_path / "a.pdparams").metadata == {"network": "ключ"}
    loaded = paddle.load(str(tmp_path / "a.pdparams"))
    assert list(loaded) == list(expected)
    for key, array in expected.items():
        assert (key, str(loaded[key].dtype)) == (key, f"paddle.{array.dtype.name}")
        assert tuple(loaded[key].shape) == array.shape
        assert loaded[key].numpy().tobytes() == array.astype(array.dtype.newbyteorder("=")).tobytes(), key


@pytest.mark.filterwarnings("error")
def test_set_state_dict(tmp_path: Path) -> None:
    import paddle

    source, target = net(), net()
    expected = {k: v + np.float32(1) for k, v in numpy_state(source).items()}
    module("paddle").write(tmp_path / "a.pdparams", expected, {"network": "x", "input": '{"range": "0 to 1"}'})
    missing, unexpected = target.set_state_dict(paddle.load(str(tmp_path / "a.pdparams")))
    assert (missing, unexpected) == ([], [])
    assert_same(numpy_state(target), expected)


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("nested", [False, True])
def test_state_dict(tmp_path: Path, protocol: int, nested: bool) -> None:
    import paddle

    layer = net()
    value = {"model": layer.state_dict(), "epoch": 3, "best": paddle.ones([1])} if nested else layer.state_dict()
    paddle.save(value, str(tmp_path / "a.pdparams"), protocol=protocol)
    assert module("paddle").sniff(tmp_path / "a.pdparams")
    assert not module("megengine").sniff(tmp_path / "a.pdparams")
    found = module("paddle").read(tmp_path / "a.pdparams")
    assert_same(found.tensors, numpy_state(layer))
    assert bool(found.notes) == nested


def test_transposed_and_half_precision(tmp_path: Path) -> None:
    import paddle

    weight = paddle.to_tensor(bits("float32", (3, 4)))
    value = {"t": weight.transpose([1, 0]), "h": paddle.to_tensor([1.5, -0.0], dtype="bfloat16")}
    paddle.save(value, str(tmp_path / "a.pdparams"))
    found = module("paddle").read(tmp_path / "a.pdparams")
    assert found.tensors["t"].tobytes() == weight.numpy().T.tobytes()
    assert found.tensors["h"].dtype.name == "bfloat16"
    assert found.tensors["h"].view(np.uint16).tolist() == [0x3FC0, 0x8000]
    assert "bfloat16" in found.notes[0]


def test_dense_tensors(tmp_path: Path) -> None:
    import paddle

    owner = paddle.ones([2, 3])  # a DenseTensor does not keep its memory alive itself
    value = {"inner": {"w": owner.value().get_tensor()}, "n": 1}
    paddle.save(value, str(tmp_path / "a.pdparams"))
    assert b"eval" in (tmp_path / "a.pdparams").read_bytes()
    assert module("paddle").sniff(tmp_path / "a.pdparams")
    assert_same(module("paddle").read(tmp_path / "a.pdparams").tensors, {"w": np.ones((2, 3), np.float32)})


@pytest.mark.parametrize("protocol", [2, 3])
def test_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int) -> None:
    import paddle
    from paddle.framework import io_utils

    original = io_utils._unpack_saved_dict
    # Paddle cuts at a gigabyte; its own code, with its limit made small, writes the same layout.
    source = __import__("inspect").getsource(original).replace("2**30 - 1", "64")
    assert "64" in source
    scope = dict(vars(io_utils))
    exec(source, scope)
    monkeypatch.setattr(paddle.framework.io, "_unpack_saved_dict", scope["_unpack_saved_dict"])
    layer = net()
    paddle.save(layer.state_dict(), str(tmp_path / "a.pdparams"), protocol=protocol)
    assert b"UnpackBigParamInfor@@" in (tmp_path / "a.pdparams").read_bytes()
    assert_same(module("paddle").read(tmp_path / "a.pdparams").tensors, numpy_state(layer), order=False)


@pytest.mark.parametrize("kind", ["float32", "int64", "bfloat16"])
def test_tensors_pickled_directly(tmp_path: Path, kind: str) -> None:
    import paddle

    tensor = paddle.to_tensor([[1.5, -2.0, 3.0]]).astype(kind)
    with (tmp_path / "a").open("wb") as file:
        pickle.dump({"w": tensor, "n": 3}, file)
    assert module("paddle").sniff(tmp_path / "a")
    assert not module("megengine").sniff(tmp_path / "a")
    found = module("paddle").read(tmp_path / "a").tensors["w"]
    assert (found.dtype.name, found.shape) == (kind, (1, 3))
    assert found.tobytes() == tensor.numpy().tobytes()


def test_float8(tmp_path: Path) -> None:
    import paddle

    with (tmp_path / "a").open("wb") as file:
        pickle.dump({"w": paddle.to_tensor([1.5, -2.0]).astype("float8_e4m3fn")}, file)
    with pytest.raises(CheckpointError, match=r"float8_e4m3fn.* stored as ") as caught:
        module("paddle").read(tmp_path / "a")
    assert caught.value.kind == "unsupported"


OPTIMIZERS = {
    "Adam": {},
    "AdamW": {"amsgrad": True},
    "Adamax": {},
    "Momentum": {},
    "RMSProp": {"momentum": 0.5, "centered": True},
    "Adagrad": {},
    "Adadelta": {},
    "Lamb": {},
    "NAdam": {},
    "SGD": {},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_state(tmp_path: Path, name: str) -> None:
    import paddle

    layer = net()
    schedule = paddle.optimizer.lr.StepDecay(0.1, 3)
    optimizer = getattr(paddle.optimizer, name)(learning_rate=schedule, parameters=layer.parameters(), **OPTIMIZERS[name])
    layer(paddle.ones([2, 4, 5, 5])).sum().backward()
    optimizer.step()
    paddle.save(optimizer.state_dict(), str(tmp_path / "a.pdopt"))
    assert module("paddle").sniff(tmp_path / "a.pdopt")
    with pytest.raises(CheckpointError, match=r"a\.pdopt: the state of an optimizer .* give the \.pdparams") as caught:
        module("paddle").read(tmp_path / "a.pdopt")
    assert caught.value.kind == "unsupported"
    both = {"model": layer.state_dict(), "optimizer": optimizer.state_dict()}
    paddle.save(both, str(tmp_path / "a.pdparams"))
    assert_same(module("paddle").read(tmp_path / "a.pdparams").tensors, numpy_state(layer))


def test_binary_tensors(tmp_path: Path) -> None:
    import paddle

    for shape in ([2, 3], [], [4, 1, 2, 3, 1]):
        paddle.save(paddle.ones(shape), str(tmp_path / "a"), use_binary_format=True)
        assert module("paddle").sniff(tmp_path / "a")
        with pytest.raises(CheckpointError, match=r"\.pdiparams.* paddle\.save\(layer\.state_dict\(\)") as caught:
            module("paddle").read(tmp_path / "a")
        assert caught.value.kind == "unsupported"


def test_safetensors(tmp_path: Path) -> None:
    import paddle

    layer = net()
    paddle.save(layer.state_dict(), str(tmp_path / "a.safetensors"), safetensors=True)
    assert_same(module("safetensors").read(tmp_path / "a.safetensors").tensors, numpy_state(layer), order=False)
