"""PyTorch reads our files, and we read PyTorch's."""

from __future__ import annotations

import argparse
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from checkpoint_samples import assert_same, module, state
from legacy_samples import PYTHON_2, PYTHON_2_STATE

from acon_core.errors import CheckpointError

pytestmark = pytest.mark.backend("torch")

KINDS = ["torch", "torch_legacy"]


def torch_module() -> type:
    """Return `nn.Module`; PyTorch is not installed where this file is only collected."""
    return import_module("torch.nn").Module if find_spec("torch") else object


VIEWED = {1: "uint8", 2: "int16", 4: "int32", 8: "int64", 16: "complex128"}


def as_numpy(tensor):
    """Return a tensor's bits; PyTorch makes no NumPy array of bfloat16 and float8."""
    import torch

    tensor = tensor.contiguous()
    if tensor.is_complex() or tensor.dtype == torch.bool:
        return tensor.numpy()
    size = tensor.element_size()
    kind = getattr(torch, VIEWED[size])
    return tensor.view(kind).numpy()


@pytest.mark.parametrize(("name", "mmap"), [("torch", False), ("torch", True), ("torch_legacy", False)])
def test_torch_reads_ours(tmp_path: Path, name: str, mmap: bool) -> None:
    import torch

    expected = state(name)
    module(name).write(tmp_path / "a.pth", expected, {"network": "acon/resnet50"})
    loaded = torch.load(tmp_path / "a.pth", weights_only=True, mmap=mmap)
    assert list(loaded) == list(expected)
    for key, array in expected.items():
        assert (key, str(loaded[key].dtype)) == (key, f"torch.{array.dtype.name}")
        assert tuple(loaded[key].shape) == array.shape
        assert as_numpy(loaded[key]).tobytes() == array.astype(array.dtype.newbyteorder("=")).tobytes(), key


@pytest.mark.parametrize("name", KINDS)
def test_load_state_dict(tmp_path: Path, name: str) -> None:
    import torch

    make = lambda: torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3))  # noqa: E731
    source, target = make(), make()
    source.train()(torch.randn(2, 2, 4, 4))
    module(name).write(tmp_path / "a.pth", {k: v.numpy() for k, v in source.state_dict().items()})
    target.load_state_dict(torch.load(tmp_path / "a.pth", weights_only=True, mmap=name == "torch"))
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
        "buffer": torch.nn.Buffer(torch.arange(5.0)),
        "attribute": with_attribute(torch.nn.Parameter(torch.arange(7.0))),
    }


def with_attribute(tensor):
    tensor.note = "x"
    return tensor


def save(value: object, path: Path, name: str, protocol: int = 2) -> None:
    import torch

    torch.save(value, path, _use_new_zipfile_serialization=name == "torch", pickle_protocol=protocol)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("nested", [False, True])
def test_views_storages_protocols(tmp_path: Path, name: str, protocol: int, nested: bool) -> None:
    import torch

    tensors = views()
    value = {"epoch": 3, "best_acc1": torch.tensor(70.5), "arch": "x", "state_dict": tensors} if nested else tensors
    save(value, tmp_path / "a.pth", name, protocol)
    assert [kind for kind in KINDS if module(kind).sniff(tmp_path / "a.pth")] == [name]
    found = module(name).read(tmp_path / "a.pth")
    assert list(found.tensors) == list(tensors)
    for key, tensor in tensors.items():
        array = found.tensors[key]
        assert (key, f"torch.{array.dtype.name}", array.shape) == (key, str(tensor.dtype), tuple(tensor.shape))
        assert array.tobytes() == as_numpy(tensor.detach()).tobytes(), key
    assert not nested or "ignored 'epoch', 'best_acc1', 'arch'" in found.notes[0]


@pytest.mark.parametrize("name", KINDS)
def test_training_checkpoint(tmp_path: Path, name: str) -> None:
    import torch

    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3))
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(2, 2, 4, 4)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 3])
    extra = {"loss": np.float64(0.5), "device": torch.device("cpu"), "seen": {1, 2}, "size": torch.Size([2, 3])}
    extra |= {"args": argparse.Namespace(lr=0.1), "scheduler": scheduler.state_dict(), "rng": torch.get_rng_state()}
    value = {"optimizer": optimizer.state_dict(), "model": net.state_dict(), "dtype": torch.float32} | extra
    save(value, tmp_path / "a.pth", name)
    found = module(name).read(tmp_path / "a.pth")
    assert_same(found.tensors, {k: v.numpy() for k, v in net.state_dict().items()})
    assert "'optimizer'" in found.notes[0]


def test_big_endian(tmp_path: Path) -> None:
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
    from acon_core.checkpoint.codecs.mapped_file import map_file
    from acon_core.checkpoint.codecs.zip_archive import ZipArchive, ZipWriter

    archive = ZipArchive(map_file(source), source)
    with target.open("wb") as file:
        writer = ZipWriter(file)
        for name in ("data.pkl", "version", *(n.partition("/")[2] for n in archive.members if "/data/" in n)):
            writer.add(name, archive.read(name))
        writer.add("byteorder", b"big")
        writer.close()


@pytest.mark.parametrize("name", KINDS)
def test_conjugate_and_negative_bits(tmp_path: Path, name: str) -> None:
    import torch

    def words(kind):  # each in a storage of its own, since one storage has one dtype in a file
        return torch.tensor([0x7FC00001, -0x3EDCBB, 0x7F800001, 0x3F800000, -1, 0, 1, 1 << 30], dtype=torch.int32).view(kind)

    def conj():
        return words(torch.complex64)[1:].conj()

    tensors = {"conj": conj(), "neg": conj().imag, "both": torch._neg_view(conj()), "step": conj()[::2], "plain": conj().real}
    tensors |= {f"neg {kind}": torch._neg_view(words(kind)) for kind in (torch.float16, torch.float64)}
    # Without NaNs, of which PyTorch makes others in this dtype.
    tensors["neg bfloat16"] = torch._neg_view(torch.tensor([1.5, -0.0, float("inf")], dtype=torch.bfloat16))
    save(tensors, tmp_path / "a.pth", name)
    found = module(name).read(tmp_path / "a.pth").tensors
    for key, tensor in tensors.items():
        expected = tensor.resolve_conj().resolve_neg().contiguous()
        assert found[key].tobytes() == as_numpy(expected).tobytes(), key
        assert (tuple(found[key].shape), found[key].flags.writeable) == (tuple(tensor.shape), False)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("script", r"a TorchScript archive; in PyTorch: torch\.save\(torch\.jit\.load"),
        ("export", r"a torch\.export archive; in PyTorch: torch\.save\(torch\.export\.load"),
        ("sparse", r"a sparse tensor; in PyTorch: save state\[name\]\.to_dense"),
        ("csr", r"a sparse tensor"),
        ("quantised", r"QInt8Storage: a quantized tensor; in PyTorch: save state\[name\]\.dequantize"),
        ("per channel", r"QUInt8Storage: a quantized tensor"),
        ("nested", r"a nested tensor; in PyTorch"),
        ("meta", r"meta device, which has no values"),
        ("complex32", r"dtype torch\.complex32"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_unsupported_tensors(tmp_path: Path, kind: str, words: str) -> None:
    import torch

    path, net, ones = tmp_path / "a.pth", torch.nn.Linear(2, 3), torch.ones(2, 2)
    values = {
        "sparse": lambda: ones.to_sparse(),
        "csr": lambda: ones.to_sparse_csr(),
        "quantised": lambda: torch.quantize_per_tensor(ones, 1.0, 0, torch.qint8),
        "per channel": lambda: torch.quantize_per_channel(ones, ones[0], torch.zeros(2), 0, torch.quint8),
        "nested": lambda: torch.nested.nested_tensor([ones, ones[:1]]),
        "meta": lambda: torch.empty(2, device="meta"),
        "complex32": lambda: torch.ones(2, dtype=torch.complex32),
    }
    if kind == "script":
        torch.jit.save(torch.jit.script(net), path)
        check_refused("torch", path, words)
    elif kind == "export":
        torch.export.save(torch.export.export(net, (torch.zeros(1, 2),)), tmp_path / "a.pt2")
        check_refused("torch", tmp_path / "a.pt2", words)
    else:
        for name in KINDS:
            save({"a": values[kind]()}, path, name)
            check_refused(name, path, words)


def check_refused(name: str, path: Path, words: str) -> None:
    assert module(name).sniff(path)
    with pytest.raises(CheckpointError, match=words) as caught:
        module(name).read(path)
    assert caught.value.kind == "unsupported"


class Net(torch_module()):
    """Return a module with every layer that has a layout rule; all values differ."""

    def __init__(self) -> None:
        import torch
        from torch import nn

        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.tied = self.stem[0]
        self.head = nn.Linear(4, 3, bias=False)
        self.head.weight = nn.Parameter(self.stem[0].weight.detach()[:, :, 0, 0].T)
        self.shared = nn.ParameterList([self.head.weight, nn.Parameter(torch.arange(5.0))])
        self.register_buffer("kept", torch.arange(7.0)[1::2])
        self.register_buffer("passing", torch.arange(9.0), persistent=False)
        self.register_buffer("nothing", None)
        self.buffer = nn.Buffer(torch.arange(2.0))
        self.act, self.dtype, self.heads = nn.functional.relu, torch.float32, nn.ModuleDict({"a": nn.PReLU(6)})
        self.attention = nn.MultiheadAttention(4, 2)
        for statistic in self.buffers():
            statistic.data = torch.rand(statistic.shape).to(statistic.dtype) + statistic


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("how", ["bare", "nested", "parallel"])
def test_whole_module(tmp_path: Path, name: str, protocol: int, how: str) -> None:
    import torch

    made = Net()
    value = {"bare": made, "nested": {"epoch": 3, "model": made}, "parallel": torch.nn.DataParallel(made)}[how]
    save(value, tmp_path / "a.pth", name, protocol)
    found = module(name).read(tmp_path / "a.pth")
    state = torch.nn.DataParallel(made).state_dict() if how == "parallel" else made.state_dict()
    assert len(state) > 10
    assert_same(found.tensors, {key: tensor.numpy() for key, tensor in state.items()})
    assert "was read as its state dict; none of its classes was imported or called" in found.notes[0]
    assert {f"{Net.__module__}.Net", "torch.nn.modules.conv.Conv2d", "torch.nn.functional.relu"} <= set(found.globals_seen)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("how", ["compiled", "averaged", "ema", "optimizer", "sparse"])
def test_modules_and_what_is_beside_them(tmp_path: Path, name: str, how: str) -> None:
    import torch

    made = Net()
    values = {
        "compiled": lambda: torch.compile(made, dynamic=True),
        "averaged": lambda: torch.optim.swa_utils.AveragedModel(made),
        "ema": lambda: {"model": None, "ema": made.half(), "date": argparse.Namespace(a=1)},
        "optimizer": lambda: {"model": made.state_dict(), "optimizer": torch.optim.Adam(made.parameters())},
        "sparse": lambda: {"model": made.state_dict(), "mask": torch.eye(3).to_sparse()},
    }
    save(values[how](), tmp_path / "a.pth", name)
    found = module(name).read(tmp_path / "a.pth")
    prefix = {"compiled": "_orig_mod.", "averaged": "module."}.get(how, "")
    expected = {prefix + key: tensor.numpy() for key, tensor in made.state_dict().items()}
    more = {"n_averaged": np.zeros((), np.int64)} if how == "averaged" else {}
    assert_same(found.tensors, more | expected)
    assert bool(found.foreign_globals) == (how != "sparse")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("whole", [True, False])
def test_dynamic_quantization(tmp_path: Path, name: str, whole: bool) -> None:
    import torch

    made = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(torch.nn.Linear(2, 3)), dtype=torch.qint8)
    save(made if whole else made.state_dict(), tmp_path / "a.pth", name)
    check_refused(name, tmp_path / "a.pth", r"a model after dynamic quantization \(quantize_dynamic\).*packed integers")


def test_python_2_file(tmp_path: Path) -> None:
    import torch

    (tmp_path / "a.pth").write_bytes(PYTHON_2)
    loaded = torch.load(tmp_path / "a.pth", weights_only=False)
    assert_same({key: tensor.numpy() for key, tensor in loaded.items()}, PYTHON_2_STATE)
    assert_same(module("torch_legacy").read(tmp_path / "a.pth").tensors, PYTHON_2_STATE)


def test_legacy_dtypes(tmp_path: Path) -> None:
    import torch

    tensor = torch.tensor([1, 65535], dtype=torch.uint16)
    save({"a": tensor}, tmp_path / "a.pth", "torch_legacy")
    with pytest.raises(Exception, match="dtype"):
        torch.load(tmp_path / "a.pth", weights_only=True)
    found = module("torch_legacy").read(tmp_path / "a.pth").tensors
    assert_same(found, {"a": tensor.numpy()})
    with pytest.raises(CheckpointError, match="cannot store uint16"):
        module("torch_legacy").write(tmp_path / "b.pth", found)


def test_legacy_big_endian(tmp_path: Path) -> None:
    import torch

    save({name: views()[name] for name in ("base", "step", "bfloat16")}, tmp_path / "a.pth", "torch_legacy")
    content = (tmp_path / "a.pth").read_bytes()
    assert content.count(b"little_endianq\x02\x88") == 1
    (tmp_path / "a.pth").write_bytes(content.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89"))
    found = module("torch_legacy").read(tmp_path / "a.pth").tensors
    for name, tensor in torch.load(tmp_path / "a.pth", weights_only=True).items():
        assert found[name].tobytes() == as_numpy(tensor).tobytes(), name


def test_safetensors_library(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    expected = {k: v for k, v in state("safetensors").items() if "e8m0" not in k}
    module("safetensors").write(tmp_path / "a.safetensors", expected, {"network": "x"})
    loaded = load_file(tmp_path / "a.safetensors")
    assert set(loaded) == set(expected)
    for key, array in expected.items():
        assert as_numpy(loaded[key]).tobytes() == array.astype(array.dtype.newbyteorder("=")).tobytes(), key
