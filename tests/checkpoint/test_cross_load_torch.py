"""PyTorch itself reads what is written here, and what it writes is read here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkpoint_samples import assert_same, module, state

pytestmark = pytest.mark.backend("torch")

VIEWED = {1: "uint8", 2: "int16", 4: "int32", 8: "int64", 16: "complex128"}


def as_numpy(tensor):
    """A tensor's bits; PyTorch gives no NumPy array of bfloat16 and float8."""
    import torch

    tensor = tensor.contiguous()
    if tensor.is_complex() or tensor.dtype == torch.bool:
        return tensor.numpy()
    size = tensor.element_size()
    kind = getattr(torch, VIEWED[size])
    return tensor.view(kind).numpy()


@pytest.mark.parametrize("mmap", [False, True])
def test_torch_loads_every_dtype_and_layout(tmp_path: Path, mmap: bool) -> None:
    import torch

    expected = state("torch")
    module("torch").write(tmp_path / "a.pth", expected)
    loaded = torch.load(tmp_path / "a.pth", weights_only=True, mmap=mmap)
    assert list(loaded) == list(expected)
    for key, array in expected.items():
        assert (key, str(loaded[key].dtype)) == (key, f"torch.{array.dtype.name}")
        assert tuple(loaded[key].shape) == array.shape
        assert as_numpy(loaded[key]).tobytes() == array.astype(array.dtype.newbyteorder("=")).tobytes(), key


def test_torch_model_takes_the_file(tmp_path: Path) -> None:
    import torch

    make = lambda: torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3))  # noqa: E731
    source, target = make(), make()
    source.train()(torch.randn(2, 2, 4, 4))
    module("torch").write(tmp_path / "a.pth", {k: v.numpy() for k, v in source.state_dict().items()})
    target.load_state_dict(torch.load(tmp_path / "a.pth", weights_only=True, mmap=True))
    assert target[1].num_batches_tracked.item() == 1
    assert torch.equal(target[1].running_var, source[1].running_var)


def views():
    import torch

    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    return {
        "base": base,
        "transposed": base.transpose(0, 2),
        "step": base[:, ::2, 1:],
        "expanded": torch.ones(1).expand(3, 4),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "scalar": torch.tensor(3, dtype=torch.int64),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base[0]),
        "bfloat16": torch.tensor([1.0, float("nan"), -0.0]).bfloat16(),
        "float8": torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn),
        "uint16": torch.tensor([1, 65535], dtype=torch.uint16),
        "bool": torch.tensor([True, False]),
        "complex": torch.tensor([1 + 2j]),
    }


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("nested", [False, True])
def test_views_storages_and_protocols_of_torch_are_read(tmp_path: Path, protocol: int, nested: bool) -> None:
    import torch

    tensors = views()
    value = {"epoch": 3, "best_acc1": torch.tensor(70.5), "arch": "x", "state_dict": tensors} if nested else tensors
    torch.save(value, tmp_path / "a.pth", pickle_protocol=protocol)
    assert module("torch").sniff(tmp_path / "a.pth")
    found = module("torch").read(tmp_path / "a.pth")
    assert list(found.tensors) == list(tensors)
    for key, tensor in tensors.items():
        array = found.tensors[key]
        assert (key, f"torch.{array.dtype.name}", array.shape) == (key, str(tensor.dtype), tuple(tensor.shape))
        assert array.tobytes() == as_numpy(tensor.detach()).tobytes(), key
    assert not nested or "ignored 'epoch', 'best_acc1', 'arch'" in found.notes[0]


def test_a_training_checkpoint_with_its_optimizer_is_read(tmp_path: Path) -> None:
    import torch

    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3))
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(2, 2, 4, 4)).sum().backward()
    optimizer.step()
    extra = {"loss": np.float64(0.5), "device": torch.device("cpu"), "seen": {1, 2}, "size": torch.Size([2, 3])}
    value = {"optimizer": optimizer.state_dict(), "model": net.state_dict(), "dtype": torch.float32} | extra
    torch.save(value, tmp_path / "a.pth")
    found = module("torch").read(tmp_path / "a.pth")
    assert_same(found.tensors, {k: v.numpy() for k, v in net.state_dict().items()})
    assert "'optimizer'" in found.notes[0]


def test_a_big_endian_file_is_read_as_torch_reads_it(tmp_path: Path) -> None:
    import torch
    from torch.serialization import LoadEndianness  # noqa: F401

    names = ("float32", "bfloat16", "int64", "float16", "bool", "uint8", "complex64", "uint16")
    tensors = {name: torch.tensor([1, 0, 3]).to(getattr(torch, name)) for name in names}
    torch.save(tensors, tmp_path / "little.pth")
    blob = (tmp_path / "little.pth").read_bytes()
    _rewrite_byteorder(tmp_path / "little.pth", tmp_path / "big.pth")
    assert blob != (tmp_path / "big.pth").read_bytes()
    expected = torch.load(tmp_path / "big.pth", weights_only=True)
    found = module("torch").read(tmp_path / "big.pth").tensors
    for name in names:
        if name != "uint16":  # PyTorch forgets to turn the bytes of untyped storages
            assert found[name].tobytes() == as_numpy(expected[name]).tobytes(), name


def _rewrite_byteorder(source: Path, target: Path) -> None:
    from acon_core.checkpoint.file import map_file
    from acon_core.checkpoint.zip_archive import Zip, ZipWriter

    archive = Zip(map_file(source), source)
    with target.open("wb") as file:
        writer = ZipWriter(file)
        for name in ("data.pkl", "version", *(n.partition("/")[2] for n in archive.members if "/data/" in n)):
            writer.add(name, archive.read(name))
        writer.add("byteorder", b"big")
        writer.close()


@pytest.mark.parametrize("kind", ["script", "export", "legacy", "module", "conj", "neg", "sparse", "quantised"])
def test_what_is_not_read_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    import torch

    from acon_core.errors import CheckpointError

    path, net = tmp_path / "a.pth", torch.nn.Linear(2, 3)
    conj = torch.tensor([1 + 2j]).conj()
    if kind == "script":
        torch.jit.save(torch.jit.script(net), path)
    elif kind == "export":
        path = tmp_path / "a.pt2"
        torch.export.save(torch.export.export(net, (torch.zeros(1, 2),)), path)
    elif kind == "legacy":
        torch.save(net.state_dict(), path, _use_new_zipfile_serialization=False)
    else:
        values = {"module": net, "conj": {"a": conj}, "neg": {"a": conj.imag}, "sparse": {"a": torch.eye(2).to_sparse()}}
        values["quantised"] = {"a": torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8)}
        torch.save(values[kind], path)
    assert module("torch").sniff(path)
    words = {"script": "TorchScript", "export": "torch.export", "legacy": "before 1.6", "conj": "conj", "neg": "negative"}
    with pytest.raises(CheckpointError, match=words.get(kind, "global")):
        module("torch").read(path)


def test_safetensors_files_are_loaded_by_the_library(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    expected = {k: v for k, v in state("safetensors").items() if "e8m0" not in k}
    module("safetensors").write(tmp_path / "a.safetensors", expected, {"network": "x"})
    loaded = load_file(tmp_path / "a.safetensors")
    assert set(loaded) == set(expected)
    for key, array in expected.items():
        assert as_numpy(loaded[key]).tobytes() == array.astype(array.dtype.newbyteorder("=")).tobytes(), key
