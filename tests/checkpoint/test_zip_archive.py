"""Checksums of zips are the same with zlib-ng, the extra `fast`, and with zlib."""

from __future__ import annotations

import importlib.util
import sys
import zipfile
import zlib
from pathlib import Path
from types import ModuleType

import pytest
from checkpoint_samples import bits

from acon_core.checkpoint.codecs import zip_archive
from acon_core.checkpoint.codecs.mapped_file import map_file
from acon_core.errors import CheckpointError

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
