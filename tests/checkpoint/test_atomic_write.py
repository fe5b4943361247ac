"""A file appears whole or not at all, and nothing else is left behind."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoint_samples import FORMATS, module

from acon_core.checkpoint.file import atomic_write
from acon_core.errors import AconError

ALL = sorted(FORMATS)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", [b"old", None])
def test_an_exception_halfway_leaves_the_old_file(tmp_path: Path, error: type[BaseException], old: bytes | None) -> None:
    target = tmp_path / "a"
    if old:
        target.write_bytes(old)

    def write() -> None:
        with atomic_write(target) as file:
            file.write(b"half")
            file.flush()
            raise error

    with pytest.raises(error):
        write()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == ({"a": old} if old else {})


def test_a_new_file_replaces_the_old_one_with_the_usual_mode(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a").chmod(0o600)
    before = os.umask(0o022)
    try:
        with atomic_write(tmp_path / "a") as file:
            file.write(b"new")
            assert (tmp_path / "a").read_bytes() == b"old"
    finally:
        os.umask(before)
    assert (tmp_path / "a").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_link_is_replaced_and_its_target_kept(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "a").symlink_to(tmp_path / "victim")
    with atomic_write(tmp_path / "a") as file:
        file.write(b"new")
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "a").read_bytes() == b"new"


@pytest.mark.parametrize("case", ["folder", "missing folder", "file as folder", "long name"])
@pytest.mark.parametrize("name", ALL)
def test_a_target_that_cannot_be_is_one_clear_error(tmp_path: Path, name: str, case: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    target = tmp_path / {"folder": "folder", "missing folder": "no/a", "file as folder": "file/a", "long name": "x" * 300}[case]
    with pytest.raises(AconError, match=str(target)) as caught:
        module(name).write(target, {"w": np.zeros(3, np.float32)})
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_link_to_a_folder_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "a").symlink_to(tmp_path / "folder")
    with pytest.raises(AconError, match="is a folder; give the name of a file"), atomic_write(tmp_path / "a"):
        pass
    assert (tmp_path / "a").is_symlink()


FULL_DISK = """
import resource, sys
from importlib import import_module
from pathlib import Path
import numpy as np
from acon_core.errors import AconError
write = import_module(sys.argv[1]).write
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    write(Path(sys.argv[2]), {"w": np.zeros(100_000, np.float32)})
except AconError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [0, 100, 200_000])
@pytest.mark.parametrize("name", ALL)
def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path, name: str, limit: int) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", FULL_DISK, FORMATS[name], str(target), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert str(target) in done.stdout
    assert "File too large" in done.stdout
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}


@pytest.mark.parametrize("name", ALL)
def test_a_file_can_be_written_over_the_one_its_arrays_come_from(tmp_path: Path, name: str) -> None:
    expected = np.arange(100_000, dtype=np.float32)
    module(name).write(tmp_path / "a", {"first": expected, "second": expected + 1})
    tensors = module(name).read(tmp_path / "a").tensors
    module(name).write(tmp_path / "a", {"second": tensors["second"]})
    assert np.array_equal(tensors["first"], expected)
    assert np.array_equal(module(name).read(tmp_path / "a").tensors["second"], expected + 1)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("case", ["missing", "folder", "empty", "pipe"])
def test_what_cannot_be_read_is_one_clear_error(tmp_path: Path, name: str, case: str) -> None:
    words = {"missing": "No such file", "folder": "found a folder", "empty": "is empty", "pipe": "or a pipe"}
    target = tmp_path / "a"
    if case == "folder":
        target.mkdir()
    elif case == "empty":
        target.write_bytes(b"")
    elif case == "pipe":
        os.mkfifo(target)
    for action in (module(name).read, module(name).sniff):
        with pytest.raises(AconError, match=f"{target}.*{words[case]}"):
            action(target)
