"""Pickles of MegEngine and Paddle, and the metadata in them."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import pytest
from checkpoint_samples import assert_same, bits, limited, module, special
from hostile_pickles import F4, array, state, text

from acon_core.errors import CheckpointError

PICKLES = ["megengine", "paddle"]


def old_tensor(data: bytes = array(), kind: bytes = b"megengine.core.tensor\nTensor", more: bytes = b"") -> bytes:
    """Pickle a tensor as MegEngine 0.5 does, whose `__getstate__` returns this dict."""
    device = b"cmegengine._internal.mgb\nCompNode\n)\x81" + text("xpux:0") + b"b"
    entries = text("data") + data + text("device") + device + text("dtype") + F4
    return b"c" + kind + b"\n)\x81}(" + entries + text("metadata") + b"}" + text("requires_grad") + b"\x88s" + more + b"ub"


@pytest.mark.parametrize("kind", ["tensor\nTensor", "tensor_nn\nParameter", "tensor_nn\nBuffer"])
def test_megengine_before_1_0(tmp_path: Path, kind: str) -> None:
    content = state(old_tensor(array(data=b"C\x08" + special()[:2].tobytes()), f"megengine.core.{kind}".encode()))
    (tmp_path / "a").write_bytes(content)
    assert_same(module("megengine").read(tmp_path / "a").tensors, {"w": special()[:2]})
    with_type = content.replace(text("dtype") + F4, text("dtype") + b"cnumpy\nfloat32\n")
    assert with_type != content
    (tmp_path / "a").write_bytes(with_type)
    assert_same(module("megengine").read(tmp_path / "a").tensors, {"w": special()[:2]})


BROKEN = {
    "no array": (old_tensor(b"N"), "unsupported"),
    "attributes": (old_tensor(more=text("qdict") + b"N"), "unsupported"),
    "never filled": (b"cmegengine.core.tensor\nTensor\n)\x81", "corrupt"),
    "filled twice": (old_tensor() + old_tensor()[len(b"cmegengine.core.tensor\nTensor\n)\x81") :], "unsupported"),
    "made of something": (b"cmegengine.core.tensor\nTensor\nK\x01\x85\x81", "unsupported"),
    "short": (old_tensor(array(shape=b"K\x03\x85")), "corrupt"),
    "another class": (old_tensor(kind=b"megengine.core.tensor\nTensorDict"), "unsafe"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_invalid_old_tensor(tmp_path: Path, case: str) -> None:
    content, kind = BROKEN[case]
    (tmp_path / "a").write_bytes(state(content))
    with pytest.raises(CheckpointError, match=str(tmp_path / "a")) as caught:
        module("megengine").read(tmp_path / "a")
    assert caught.value.kind == kind


def test_batch_norms_are_flattened(tmp_path: Path) -> None:
    shapes = {"conv.weight": (6, 4, 3, 2), "conv.bias": (1, 6, 1, 1), "norm.weight": (2, 3), "norm.running_mean": (1, 6, 1, 1)}
    shapes |= {"norm.running_var": (6,), "norm.inner.weight": (2, 3), "xrunning_mean": (2, 3), "running_mean": (3, 2)}
    values = {name: bits("float32", shape, seed) for seed, (name, shape) in enumerate(shapes.items())}
    (tmp_path / "a").write_bytes(pickle.dumps(values))
    found = module("megengine").read(tmp_path / "a")
    flat = {"norm.weight", "norm.running_mean", "running_mean"}
    assert_same(found.tensors, {name: value.reshape(-1) if name in flat else value for name, value in values.items()})
    assert "reshaped 3 tensors" in found.notes[0]
    module("megengine").write(tmp_path / "b", found.tensors)
    assert module("megengine").read(tmp_path / "b").notes == []


METADATA = {"network": "acon/resnet50", "input": '{"range": "0 to 1"}', "ключ": "鍵\0\n'"}


@pytest.mark.parametrize("name", PICKLES)
def test_metadata(tmp_path: Path, name: str) -> None:
    for metadata in (METADATA, {}):
        module(name).write(tmp_path / "a", {"w": special()}, metadata)
        found = module(name).read(tmp_path / "a")
        assert found.metadata == metadata
        assert_same(found.tensors, {"w": special()})
        loaded = pickle.loads((tmp_path / "a").read_bytes())
        loaded.pop("StructuredToParameterName@@", None)
        assert_same(loaded, {"w": special()})
        assert (tmp_path / "a").read_bytes().index(special().tobytes()) % 64 == 0
        assert module(name).sniff(tmp_path / "a")


@pytest.mark.parametrize("name", PICKLES)
def test_other_strings_are_not_metadata(tmp_path: Path, name: str) -> None:
    module(name).write(tmp_path / "good", {"w": special()})
    content = (tmp_path / "good").read_bytes()
    for string in ("padding", "acon", "", "x" * 1000):
        (tmp_path / "a").write_bytes(content[:2] + text(string) + b"0" + content[2:])
        found = module(name).read(tmp_path / "a")
        assert found.metadata == {}
        assert_same(found.tensors, {"w": special()})


BAD = {
    "no JSON": text("acon-ports") + b"0",
    "cut": text('acon-ports{"a":"b"') + b"0",
    "numbers": text('acon-ports{"a":1}') + b"0",
    "list": text("acon-ports[]") + b"0",
    "twice": text('acon-ports{"a":"b","a":"b"}') + b"0",
    "kept": text('acon-ports{"a":"b"}') + b"q\x070",
    "longer than the file": b"X\xff\xff\xff\xffacon-ports{}0",
}


@pytest.mark.parametrize("name", PICKLES)
@pytest.mark.parametrize("case", BAD)
def test_hostile_metadata(tmp_path: Path, name: str, case: str) -> None:
    module(name).write(tmp_path / "good", {"w": special()})
    content = (tmp_path / "good").read_bytes()
    (tmp_path / "a").write_bytes(content[:2] + BAD[case] + content[2:])
    with pytest.raises(CheckpointError, match=str(tmp_path / "a")) as caught:
        module(name).read(tmp_path / "a")
    assert caught.value.kind == "corrupt"


@pytest.mark.parametrize("name", PICKLES)
def test_metadata_limit(tmp_path: Path, name: str) -> None:
    module(name).write(tmp_path / "a", {"w": special()}, {"a": "b" * 100})
    with limited(header_bytes=108):
        module(name).read(tmp_path / "a")
    with limited(header_bytes=107), pytest.raises(CheckpointError, match="108 bytes, more than 107"):
        module(name).read(tmp_path / "a")


def stream(version: int = 0, levels: int = 0, length: int = 6, field: int = 8) -> bytes:
    description = bytes([field, 5, 16, 2, 16, 3])
    return struct.pack("<IQIi", version, levels, 0, length) + description + bytes(24)


def test_sniff_paddle_binary(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(stream())
    assert module("paddle").sniff(tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"\.pdiparams") as caught:
        module("paddle").read(tmp_path / "a")
    assert caught.value.kind == "unsupported"
    for content in (stream(version=1), stream(levels=1), stream(length=0), stream(length=-1), stream(field=9), bytes(64)):
        (tmp_path / "a").write_bytes(content)
        assert not module("paddle").sniff(tmp_path / "a")
        with pytest.raises(CheckpointError, match=str(tmp_path / "a")):
            module("paddle").read(tmp_path / "a")


def test_paddle_optimizer_state(tmp_path: Path) -> None:
    for names, refused in ((["a.w_0_moment1_0", "b_velocity_3"], True), (["a.w_0_moment1_0", "b.weight"], False)):
        (tmp_path / "a").write_bytes(pickle.dumps({name: bits("float32", (2,)) for name in names}))
        if refused:
            with pytest.raises(CheckpointError, match="optimizer"):
                module("paddle").read(tmp_path / "a")
        else:
            assert list(module("paddle").read(tmp_path / "a").tensors) == names
