"""NumPy reads our archives, we read NumPy's, and contradictory ones are refused."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from checkpoint_samples import assert_same, bits, limited, module, state
from hostile_npz import ARRAYS, DESCR, WEIGHT, archive, deflated, npy
from hostile_pickles import named

from acon_core.checkpoint.codecs.mapped_file import map_file
from acon_core.checkpoint.codecs.zip_archive import ZipArchive, ZipWriter
from acon_core.errors import CheckpointError


def loaded(path: Path, content: bytes) -> dict[str, np.ndarray]:
    path.write_bytes(content)
    return dict(module("npz").read(path).tensors)


def refused(path: Path, content: bytes, kind: str = "corrupt") -> str:
    with pytest.raises(CheckpointError, match=str(path)) as caught:
        loaded(path, content)
    assert caught.value.kind == kind, caught.value
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_read_numpy(tmp_path: Path, save: Callable[..., None]) -> None:
    # A name with a letter above ASCII, one in a folder, and every layout that an array can come in.
    expected = {key: array for key, array in state("npz").items() if not key.startswith("layout.unaligned")}
    expected["folder/größe.weight"] = bits("float64", (3, 5), 9)
    save(tmp_path / "a.npz", **expected)
    assert module("npz").sniff(tmp_path / "a.npz")
    assert_same(module("npz").read(tmp_path / "a.npz").tensors, expected)
    assert np.load(tmp_path / "a.npz")["layout.fortran"].flags.f_contiguous


def test_read_numpy_from_pipe(tmp_path: Path) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise io.UnsupportedOperation

        def seek(self, *args: int) -> int:
            raise io.UnsupportedOperation

    for save in (np.savez, np.savez_compressed):
        target = Pipe()
        save(target, w=WEIGHT, v=WEIGHT.T)
        assert_same(loaded(tmp_path / "a", target.getvalue()), {"w": WEIGHT, "v": WEIGHT.T})


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_header_versions(tmp_path: Path, version: tuple[int, int]) -> None:
    target = io.BytesIO()
    np.lib.format.write_array(target, WEIGHT.T.astype(">f4"), version)
    assert_same(loaded(tmp_path / "a", archive({"w.npy": target.getvalue()})), {"w": WEIGHT.T})


@pytest.mark.parametrize(
    "text",
    [
        DESCR,
        DESCR + " " * 200 + "\n",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,3)}",
        '{"shape": (2, 3,), "descr": "<f4", "fortran_order": False}',
    ],
)
def test_header_spellings(tmp_path: Path, text: str) -> None:
    assert_same(loaded(tmp_path / "a", archive({"w.npy": npy(text)})), {"w": WEIGHT})


def test_numpy_reads_ours(tmp_path: Path) -> None:
    expected = state("npz")
    module("npz").write(tmp_path / "a", expected, {"network": "x", "ключ": "鍵"})
    with np.load(tmp_path / "a", allow_pickle=False) as opened:
        assert opened.files == ["acon_metadata.json", *expected]
        assert_same({key: opened[key] for key in expected}, expected)
        assert opened["acon_metadata.json"] == b'{"network":"x","\\u043a\\u043b\\u044e\\u0447":"\\u9375"}'
    assert module("npz").read(tmp_path / "a").metadata == {"network": "x", "ключ": "鍵"}
    assert_same(module("npz").read(tmp_path / "a").tensors, expected)
    with zipfile.ZipFile(tmp_path / "a") as opened:
        assert opened.testzip() is None


def test_alignment(tmp_path: Path) -> None:
    expected = {f"w{'x' * size}": bits("float64", (size, 3), size) for size in (1, 5, 50)}
    module("npz").write(tmp_path / "a", expected)
    content = (tmp_path / "a").read_bytes()
    assert [content.index(array.tobytes()) % 64 for array in expected.values()] == [0, 0, 0]
    tensors = module("npz").read(tmp_path / "a").tensors
    assert not any(array.flags.owndata for array in tensors.values())
    first, again = tensors["wx"], tensors["wx"]
    assert first.ctypes.data == again.ctypes.data


@pytest.mark.parametrize("case", named(ARRAYS))
def test_hostile_deflated_member(tmp_path: Path, case: str) -> None:
    content = archive({"v.npy": npy(), "w.npy": named(ARRAYS)[case]}, zipfile.ZIP_DEFLATED)
    message = refused(tmp_path / "a", content)
    if case != "bool of 2":  # for which the array must be looked at
        with pytest.raises(CheckpointError):
            module("npz").read(tmp_path / "a")
    assert message.startswith(f"{tmp_path / 'a'}: w: ")


@pytest.mark.parametrize("descr", ["|V2", "<V2", "<M8[s]", "<m8[ns]", "<U3", "|S4", "<f16", "<f1", "float32", "", "<i3", "f4"])
def test_unsupported_dtype(tmp_path: Path, descr: str) -> None:
    message = refused(tmp_path / "a", archive({"w.npy": npy(DESCR.replace("<f4", descr))}), "unsupported")
    assert f"w: dtype {descr!r}" in message
    assert ("bfloat16" in message) == ("V" in descr)


def test_unsupported_numpy_arrays(tmp_path: Path) -> None:
    for array, kind, word in (
        (np.array([None, {}], object), "unsafe", "pickle"),
        (np.zeros(3, "f4,i4"), "unsupported", "structured"),
        (np.zeros(3, "M8[s]"), "unsupported", "M8"),
        (np.zeros(3, ml_dtypes.bfloat16), "unsupported", "bfloat16"),
    ):
        target = io.BytesIO()
        np.savez(target, w=array)
        assert word in refused(tmp_path / "a", target.getvalue(), kind)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "name", ["../w.npy", "/w.npy", "a/../w.npy", "a\\w.npy", "w\0.npy", "a//w.npy", "./w.npy", "w\n.npy", "d/", "v.npy"]
)
def test_member_names(tmp_path: Path, name: str) -> None:
    target = io.BytesIO(archive({"v.npy": npy()}))
    with zipfile.ZipFile(target, "a") as opened:
        info = zipfile.ZipInfo("placeholder")
        info.filename = name  # the constructor would cut a NUL off
        opened.writestr(info, npy())
    message = refused(tmp_path / "a", target.getvalue())
    assert ("two members with the name" if name == "v.npy" else "whose name is not a relative path") in message


def test_other_members(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(archive({"w.npy": npy(), "README": b"hello"}))
    found = module("npz").read(tmp_path / "a")
    assert_same(found.tensors, {"w": WEIGHT})
    assert found.notes == ["ignored what is not an array: 'README'"]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions(tmp_path: Path, method: int) -> None:
    assert f"method {method}" in refused(tmp_path / "a", archive({"w.npy": npy()}, method), "unsupported")


def test_deflated_size_and_checksum(tmp_path: Path) -> None:
    whole = npy()
    assert_same(loaded(tmp_path / "a", deflated(whole, len(whole))), {"w": WEIGHT})
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    unfinished = packer.compress(whole) + packer.flush(zlib.Z_SYNC_FLUSH)
    for content in (
        deflated(whole + b"more", len(whole), zlib.crc32(whole)),
        deflated(whole[:-4], len(whole), zlib.crc32(whole)),
        deflated(whole, len(whole), zlib.crc32(whole) ^ 1),
        deflated(whole, len(whole), extra=b"hidden"),
        deflated(whole, len(whole), stream=unfinished),
        deflated(whole, len(whole), stream=b"\xff" * 40),
        deflated(whole, len(whole), stream=b""),
    ):
        refused(tmp_path / "a", content)
    assert "another size" in refused(tmp_path / "a", deflated(whole[:-4], len(whole)))


def test_deflate_bomb(tmp_path: Path) -> None:
    import tracemalloc

    zeros = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (100000000,), }", bytes(100_000_000))
    honest, lying = deflated(zeros, len(zeros)), deflated(zeros, len(npy()), zlib.crc32(npy()))
    del zeros
    tracemalloc.start()
    assert "fill the memory" in refused(tmp_path / "a", honest)
    refused(tmp_path / "a", lying)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_checksum(tmp_path: Path, save: Callable[..., None]) -> None:
    save(tmp_path / "good", w=bits("float32", (50, 3)), v=WEIGHT)
    content = bytearray((tmp_path / "good.npz").read_bytes())
    content[300] ^= 4
    (tmp_path / "a").write_bytes(content)
    found = module("npz").read(tmp_path / "a").tensors
    assert_same({"v": found["v"]}, {"v": WEIGHT})
    with pytest.raises(CheckpointError, match=str(tmp_path / "a")) as caught:
        found["w"]
    assert caught.value.kind == "corrupt"
    assert "w.npy" in str(caught.value)


def test_zip_contradictions(tmp_path: Path) -> None:
    np.savez(tmp_path / "good", w=WEIGHT)
    content = (tmp_path / "good.npz").read_bytes()
    assert_same(loaded(tmp_path / "a", content), {"w": WEIGHT})
    extra = 30 + len("w.npy") + 4  # NumPy's sizes stand in the zip64 field of the member's own header
    central, end = content.index(b"PK\1\2"), len(content) - 22
    for at in (6, 8, 14, 26, 28, 31, extra, extra + 8, *(central + at for at in (8, 10, 16, 20, 24, 42)), end + 8, end + 12):
        changed = bytearray(content)
        changed[at] ^= 1
        refused(tmp_path / "a", bytes(changed))
    for changed in (content + b"x", content[:central] + b"hidden" + content[central:], content[:-2] + b"\1\0x"):
        refused(tmp_path / "a", changed)
    refused(tmp_path / "a", b"x" + content, "unsupported")


def test_truncated(tmp_path: Path) -> None:
    module("npz").write(tmp_path / "good", {"w": WEIGHT, "v": WEIGHT}, {"a": "b"})
    content = (tmp_path / "good").read_bytes()
    for end in range(2, len(content), 5):
        refused(tmp_path / "a", content[:end])


def test_hostile_metadata(tmp_path: Path) -> None:
    assert "metadata" in refused(tmp_path / "a", archive({"acon_metadata.json": b'{"a":1}', "w.npy": npy()}))
    good = archive({"acon_metadata.json": b'{"a":"b"}', "w.npy": npy()}, zipfile.ZIP_DEFLATED)
    loaded(tmp_path / "a", good)
    with limited(header_bytes=8):
        assert "acon_metadata.json: 9 bytes" in refused(tmp_path / "a", good, "unsupported")


def test_limits(tmp_path: Path) -> None:
    loaded(tmp_path / "a", archive({"w.npy": npy(DESCR + " " * 9_000)}))
    refused(tmp_path / "a", archive({"w.npy": npy(DESCR + " " * 10_000)}), "unsupported")
    content = archive({"w.npy": npy(), "v.npy": npy()})
    for changes in ({"members": 1}, {"file_bytes": 10}, {"ndim": 1}, {"expansion": 0, "expansion_floor": 90}):
        with limited(**changes), pytest.raises(CheckpointError):
            loaded(tmp_path / "a", content)


def test_zip_without_root(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        writer = ZipWriter(file, root="")
        writer.add("x", b"ab", memoryview(b"cd"))
        writer.close()
    zipped = ZipArchive(map_file(tmp_path / "a"), tmp_path / "a", single_root=False)
    assert {name: bytes(zipped.decompress(member)) for name, member in zipped.members.items()} == {"x": b"abcd"}
    with pytest.raises(CheckpointError, match="one folder"):
        ZipArchive(map_file(tmp_path / "a"), tmp_path / "a")
