"""Zips that contradict themselves, and tensors outside their storages."""

from __future__ import annotations

import importlib.util
import io
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from checkpoint_samples import assert_same, bits, limited, module
from hostile_pickles import text
from hostile_torch import WEIGHT, archive, tensor
from hostile_zips import END, END64, LOCATOR, edited, rezipped

from acon_core.checkpoint.codecs import zip_archive
from acon_core.checkpoint.codecs.mapped_file import map_file
from acon_core.checkpoint.codecs.zip_archive import ZipWriter
from acon_core.errors import CheckpointError


def good(tmp_path: Path) -> bytearray:
    module("torch").write(tmp_path / "good", {"w": WEIGHT, "v": WEIGHT + 1})
    return bytearray((tmp_path / "good").read_bytes())


def refused(path: Path, content: bytes, kind: str = "corrupt") -> str:
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=str(path)) as caught:
        module("torch").read(path)
    assert caught.value.kind == kind, caught.value
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_valid_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(archive(tensor()))
    assert_same(module("torch").read(tmp_path / "a").tensors, {"w": WEIGHT})
    (tmp_path / "a").write_bytes(archive(tensor(size=b"K\x02K\x02\x86", stride=b"K\x01K\x02\x86", offset=b"K\x01")))
    assert module("torch").read(tmp_path / "a").tensors["w"].tolist() == [[1, 3], [2, 4]]


def test_message_names_storage(tmp_path: Path) -> None:
    conjugate = tensor(extra=b"}" + text("conj") + b"\x88s")
    assert "resolve_conj" in refused(tmp_path / "a", archive(conjugate), "unsupported")
    assert "QInt8Storage" in refused(tmp_path / "a", archive(tensor(kind="torch\nQInt8Storage")), "unsupported")


@pytest.mark.parametrize("name", ["data.pkl", "data/0", "byteorder"])
def test_checksum(tmp_path: Path, name: str) -> None:
    content = good(tmp_path)
    with zipfile.ZipFile(tmp_path / "good") as opened:
        info = opened.getinfo(f"archive/{name}")
        data = opened.read(info)
    content[content.index(data) + 2] ^= 4
    assert "checksum" in refused(tmp_path / "a", content)
    assert name in refused(tmp_path / "a", content)


def test_python_zip(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(rezipped(good(tmp_path)))
    assert_same(module("torch").read(tmp_path / "a").tensors, {"w": WEIGHT, "v": WEIGHT + 1})


def test_header_contradictions(tmp_path: Path) -> None:
    content = good(tmp_path)
    end = len(content) - END
    locator, end64 = end - LOCATOR, end - LOCATOR - END64
    central = content.index(b"PK\1\2")
    local = content.index(b"PK\3\4", 4)
    second = content.index(b"PK\1\2", central + 4)
    numbers = {
        **{(end + at, "<H"): None for at in (4, 6, 8, 10, 20)},
        **{(end + at, "<L"): None for at in (0, 12, 16)},
        **{(locator + at, "<L"): None for at in (16,)},
        (locator + 8, "<Q"): None,
        **{(end64 + at, "<Q"): None for at in (4, 24, 32, 40, 48)},
        **{(end64 + at, "<L"): None for at in (16, 20)},
        **{(central + at, "<L"): None for at in (0, 16, 20, 24, 42)},
        **{(central + at, "<H"): None for at in (8, 10, 28, 30, 32, 34)},
        **{(second + at, "<L"): None for at in (16, 20, 24, 42)},
        **{(local + at, "<L"): None for at in (0, 14, 18, 22)},
        **{(local + at, "<H"): None for at in (6, 8, 26, 28)},
    }
    for at, layout in numbers:
        for change in (lambda v: v + 1, lambda v: v - 1, lambda v: ~v):
            refused(tmp_path / "a", edited(content, at, layout, change))


def test_python_zip_contradictions(tmp_path: Path) -> None:
    content = bytearray(rezipped(good(tmp_path)))
    end = len(content) - END
    for at, layout in ((end + 8, "<H"), (end + 10, "<H"), (end + 12, "<L"), (end + 16, "<L")):
        for change in (lambda v: v + 1, lambda v: v - 1):
            refused(tmp_path / "a", edited(content, at, layout, change))
    refused(tmp_path / "a", bytes(content[:end]) + b"hidden" + bytes(content[end:]))


def test_alignment(tmp_path: Path) -> None:
    from acon_core.checkpoint.codecs.mapped_file import map_file
    from acon_core.checkpoint.codecs.zip_archive import ZipArchive

    good(tmp_path)
    data = map_file(tmp_path / "good")
    start = np.frombuffer(data, np.uint8).ctypes.data
    for member in ZipArchive(data, tmp_path / "good").members.values():
        assert (np.frombuffer(member.data, np.uint8).ctypes.data - start) % 64 == 0, member.name


def spoiled(spoil: Callable[[ZipWriter], None], *, when: int) -> bytes:
    """Write a file with our writer; call `spoil` after `when` members."""
    target = io.BytesIO()
    writer = ZipWriter(target)
    for count, (name, data) in enumerate([("data.pkl", tensor()), ("data/0", WEIGHT.tobytes()), ("version", b"3\n")]):
        if count == when:
            spoil(writer)
        writer.add(name, data)
    if when == 3:
        spoil(writer)
    writer.close()
    return target.getvalue()


@pytest.mark.parametrize(
    ("when", "words"), [(0, "begins with PK"), (1, "between them"), (2, "between them"), (3, "belong to no member")]
)
def test_hidden_bytes(tmp_path: Path, when: int, words: str) -> None:
    content = spoiled(lambda writer: writer._write(b"hidden"), when=when)
    assert words in refused(tmp_path / "a", content, "corrupt" if when else "unsupported")


def test_duplicate_entries(tmp_path: Path) -> None:
    again = spoiled(lambda writer: writer.directory.append(writer.directory[-1]), when=2)
    assert "the zip has two members with the name" in refused(tmp_path / "a", again)
    other = spoiled(lambda writer: writer.directory.append(writer.directory[-1].replace(b"data/0", b"data/1")), when=2)
    assert "disagree" in refused(tmp_path / "a", other)


def test_truncated(tmp_path: Path) -> None:
    content = bytes(good(tmp_path))
    for end in [*range(1, len(content), 7), len(content) - 1]:
        (tmp_path / "a").write_bytes(content[:end])
        with pytest.raises(CheckpointError):
            module("torch").read(tmp_path / "a")


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ({"constants.pkl": b"x"}, "TorchScript"),
        ({"models/model.json": b"{}"}, "torch.export"),
    ],
)
def test_other_torch_archives(tmp_path: Path, members: dict[str, bytes], word: str) -> None:
    message = refused(tmp_path / "a", archive(tensor(), members), "unsupported")
    assert word in message
    assert "in PyTorch: torch.save(torch." in message


def test_other_files(tmp_path: Path) -> None:
    refused(tmp_path / "a", b"\x80\x02}.", "unsupported")
    assert not module("torch").sniff(tmp_path / "a")
    assert "tar" in refused(tmp_path / "a", bytes(257) + b"ustar" + bytes(250), "unsupported")
    assert module("torch").sniff(tmp_path / "a")
    np.savez(tmp_path / "a.npz", w=WEIGHT)
    refused(tmp_path / "a", (tmp_path / "a.npz").read_bytes())
    assert not module("torch").sniff(tmp_path / "a.npz")


def test_metadata(tmp_path: Path) -> None:
    metadata = {"network": "acon/resnet50", "input": '{"size": 224}', "naïve": "鍵\n"}
    module("torch").write(tmp_path / "a", {"w": WEIGHT}, metadata)
    module("torch").write(tmp_path / "b", {"w": WEIGHT}, dict(reversed(metadata.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert module("torch").read(tmp_path / "a").metadata == metadata
    (tmp_path / "a").write_bytes(archive(tensor()))
    assert module("torch").read(tmp_path / "a").metadata == {}
    for content in (
        b"",
        b"[]",
        b"{",
        b'{"a": 1}',
        b'{"a": {"b": "c"}}',
        b'{"a": "x", "a": "y"}',
        b'{"a": "\\ud800"}',
        b"\xff",
        b"[" * 9999,
    ):
        assert "acon_metadata.json" in refused(tmp_path / "a", archive(tensor(), {"acon_metadata.json": content}))
    (tmp_path / "a").write_bytes(archive(tensor(), {"acon_metadata.json": b'{"a": "' + b"x" * 2000 + b'"}'}))
    with limited(header_bytes=2000), pytest.raises(CheckpointError, match="more than 2000"):
        module("torch").read(tmp_path / "a")


def test_unused_storages(tmp_path: Path) -> None:
    program = b"\x80\x02}(" + text("state_dict") + tensor()[2:-1] + text("epoch") + b"K\x03u."
    content = bytearray(archive(program, {"data/1": b"optimizer"}))
    content[content.index(b"optimizer")] ^= 1
    (tmp_path / "a").write_bytes(content)
    found = module("torch").read(tmp_path / "a")
    assert_same(found.tensors, {"w": WEIGHT})
    assert found.notes == ["read the tensors under 'state_dict'; ignored 'epoch'"]


def test_limits(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(archive(tensor()))
    for changes in ({"members": 2}, {"opcodes": 3}, {"ndim": 0}, {"expansion": 0, "expansion_floor": 23}):
        with limited(**changes), pytest.raises(CheckpointError):
            module("torch").read(tmp_path / "a")


def test_zip64(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from acon_core.checkpoint.codecs import zip_archive as zips

    monkeypatch.setattr(zips, "_SATURATED", 20)  # so that every member is too large for the short fields
    target = io.BytesIO()
    writer = ZipWriter(target)
    writer.add("data.pkl", tensor())
    writer.add("data/0", WEIGHT.tobytes())
    writer.close()
    (tmp_path / "a").write_bytes(target.getvalue())
    assert_same(module("torch").read(tmp_path / "a").tensors, {"w": WEIGHT})


def test_python_reads_ours(tmp_path: Path) -> None:
    good(tmp_path)
    with zipfile.ZipFile(tmp_path / "good") as opened:
        assert opened.testzip() is None
        for info in opened.infolist():
            assert zlib.crc32(opened.read(info)) == info.CRC


def test_checksum_of_every_storage(tmp_path: Path) -> None:
    tensors = {f"t{index}": bits("float32", (index + 3,), index) for index in range(9)}
    module("torch").write(tmp_path / "good", tensors)
    content = (tmp_path / "good").read_bytes()
    for index, array in enumerate(tensors.values()):
        spoiled = bytearray(content)
        spoiled[content.index(array.tobytes()) + 5] ^= 16
        assert f"data/{index}: its checksum" in refused(tmp_path / "a", bytes(spoiled))


CONTENT = bits("uint8", (100_003,), 1).tobytes()


@pytest.fixture(params=["zlib_ng.zlib_ng", "zlib"])
def codec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import a second copy of the module, with zlib-ng or without it."""
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "zlib_ng.zlib_ng", None)
    spec = importlib.util.find_spec(zip_archive.__name__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.crc32 is importlib.import_module(request.param).crc32
    return module


def test_zlib_ng_is_optional(codec: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with path.open("wb") as file:
        writer = codec.ZipWriter(file)
        writer.add("data", CONTENT[:1000], memoryview(CONTENT)[1000:])
        writer.close()
    with zipfile.ZipFile(path) as archive:
        assert zlib.crc32(CONTENT) == archive.getinfo("archive/data").CRC
        assert archive.testzip() is None
    assert codec.ZipArchive(map_file(path), path).read("data") == CONTENT
    spoiled = path.read_bytes().replace(CONTENT[:8], bytes(8))
    path.write_bytes(spoiled)
    with pytest.raises(CheckpointError, match="its checksum does not match"):
        codec.ZipArchive(map_file(path), path).read("data")
