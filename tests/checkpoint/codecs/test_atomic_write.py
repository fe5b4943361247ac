"""A file is written completely or not at all, and no other file is left behind."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from acon_core.checkpoint.codecs.atomic_write import atomic_write
from acon_core.checkpoint.convert import convert
from acon_core.checkpoint.formats import format_named, formats
from acon_core.errors import AconError

ALL = sorted(name for name, format in formats().items() if not format.codec.IS_DIRECTORY)
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", [b"old", None])
def test_exception_keeps_old_file(tmp_path: Path, error: type[BaseException], old: bytes | None) -> None:
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


def test_file_mode(tmp_path: Path) -> None:
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


def test_link_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "a").symlink_to(tmp_path / "victim")
    with atomic_write(tmp_path / "a") as file:
        file.write(b"new")
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "a").read_bytes() == b"new"


@pytest.mark.parametrize("case", ["folder", "missing folder", "file as folder", "long name"])
@pytest.mark.parametrize("name", ALL)
def test_impossible_target(tmp_path: Path, name: str, case: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    target = tmp_path / {"folder": "folder", "missing folder": "no/a", "file as folder": "file/a", "long name": "x" * 300}[case]
    with pytest.raises(AconError, match=str(target)) as caught:
        format_named(name).codec.write(target, {"w": np.zeros(3, np.float32)})
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert list((tmp_path / "folder").iterdir()) == []


def test_link_to_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "a").symlink_to(tmp_path / "folder")
    with pytest.raises(AconError, match="is a folder; give the name of a file"), atomic_write(tmp_path / "a"):
        pass
    assert (tmp_path / "a").is_symlink()


@pytest.mark.parametrize("name", ALL)
def test_link_and_mode_in_every_format(tmp_path: Path, name: str) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").symlink_to(tmp_path / "victim")
    before = os.umask(0o027)
    try:
        format_named(name).codec.write(folder / "a", {"w": np.ones(3, np.float32)})
    finally:
        os.umask(before)
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert {stat.S_IMODE(path.lstat().st_mode) for path in folder.iterdir()} == {0o640}
    assert not any(path.is_symlink() for path in folder.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize("name", ALL)
def test_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    """Redirect every new file of this process to a device without space."""
    usual = os.open

    def full(path: str, flags: int, mode: int = 0o777) -> int:
        descriptor = usual(path, flags, mode)
        if flags & os.O_CREAT:
            device = usual("/dev/full", os.O_WRONLY)
            os.dup2(device, descriptor)
            os.close(device)
        return descriptor

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, "open", full)
    words = "No space left on device; the disk is full: free some space; nothing was changed"
    with pytest.raises(AconError, match=words) as caught:
        format_named(name).codec.write(tmp_path / "a", {"w": np.zeros(100_000, np.float32)})
    monkeypatch.undo()
    assert str(tmp_path / "a") in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name == "a"} == {"a": b"old"}


CONVERTER = """
import os, random, signal, sys, time
from pathlib import Path
from acon_core.checkpoint.convert import convert
from acon_core.networks import create
from acon_core.checkpoint.formats import format_named
from acon_core.spec import initial_state

folder, name, rounds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
target, sources = folder / "target", [folder / "source0", folder / "source1"]
graph = create("acon/shufflenet_v2_x0_5", num_classes=2).graph
for seed, source in enumerate(sources):
    format_named("safetensors").codec.write(source, initial_state(graph, seed), {"network": "acon/shufflenet_v2_x0_5"})

def work(source):
    convert(source, target, name, shard_bytes=300_000 if name == "safetensors_sharded" else None)

def told():
    found = format_named(name).codec.read(target)
    return hash(tuple((key, found.tensors[key].tobytes()) for key in found.tensors))

hashes = []
for source in sources:
    began = time.perf_counter()
    work(source)
    took = time.perf_counter() - began
    hashes.append(told())
assert len(set(hashes)) == 2
chosen = random.Random(0)
killed, ends = 0, [0, 0]
for index in range(rounds):
    child = os.fork()
    if child == 0:
        work(sources[index % 2])
        os._exit(0)
    time.sleep(chosen.uniform(0, took))
    os.kill(child, signal.SIGKILL)
    killed += os.waitpid(child, 0)[1] == signal.SIGKILL
    ends[hashes.index(told())] += 1
others = [path.name for path in folder.iterdir() if not path.name.startswith((".acon-", "source", "target"))]
print(killed, others)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a copy of a process")
@pytest.mark.parametrize("name", ["torch", "safetensors_sharded"])
def test_kill(tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-c", CONVERTER, str(tmp_path), name, "10"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr
    killed, _, others = done.stdout.partition(" ")
    assert int(killed) > 2  # or nothing was interrupted
    assert others == "[]\n"


@pytest.mark.parametrize("way", ["itself", "a hard link", "a link", "a link at the source"])
def test_target_is_source(tmp_path: Path, way: str) -> None:
    source, target = tmp_path / "a.safetensors", tmp_path / "b.pth"
    source.write_bytes(b"precious")
    if way == "itself":
        target = source
    elif way == "a hard link":
        target.hardlink_to(source)
    elif way == "a link":
        target.symlink_to(source)
    else:
        source.rename(target)
        source.symlink_to(target)
    with pytest.raises(AconError, match=f"{target}: is the source file, or part of it; choose another target"):
        convert(source, target, "torch")
    assert source.read_bytes() == target.read_bytes() == b"precious"


@pytest.mark.parametrize("way", ["a shard", "a link to a shard", "in a folder"])
def test_target_is_part_of_source(tmp_path: Path, way: str) -> None:
    source = tmp_path / "model.safetensors.index.json"
    format_named("safetensors_sharded").codec.write(source, {"w": np.ones(3, np.float32)})
    target = next(tmp_path.glob("*.safetensors"))
    if way == "a link to a shard":
        (tmp_path / "link").symlink_to(target)
        target = tmp_path / "link"
    elif way == "in a folder":
        source = tmp_path
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(AconError, match=f"{target}: is the source file, or part of it; choose another target"):
        convert(source, target, "safetensors")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


CUT = """
import os, sys
from pathlib import Path
import numpy as np
from acon_core.checkpoint.formats import formats
from acon_core.errors import CheckpointError
for name, format in formats().items():
    if format.codec.IS_DIRECTORY:
        continue
    folder = Path(sys.argv[1]) / name
    folder.mkdir()
    format.codec.write(folder / "a", {key: np.full(50_000, index, np.float32) for index, key in enumerate("xyz")})
    tensors = format.codec.read(folder / "a").tensors
    held = max(folder.iterdir(), key=lambda path: path.stat().st_size)
    os.truncate(held, 8192)
    try:
        tensors["z"].sum()
    except CheckpointError as error:
        print(name, error.kind, f"{held}: " in str(error), "to 8192 bytes while it was read" in str(error))
"""


def test_truncated_while_read(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CUT, str(tmp_path)], capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert done.returncode == 0, done.stderr  # else it was killed for touching what is not there
    assert sorted(done.stdout.splitlines()) == [f"{name} corrupt True True" for name in ALL]


FULL_DISK = """
import json, resource, sys
from pathlib import Path
import numpy as np
from acon_core.checkpoint.formats import format_named
from acon_core.errors import AconError
for name in sys.argv[2:]:
    for limit in (0, 100, 200_000):
        folder = Path(sys.argv[1]) / f"{name}-{limit}"
        folder.mkdir()
        (folder / "a").write_bytes(b"old")
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            format_named(name).codec.write(folder / "a", {"w": np.zeros(100_000, np.float32)})
        except AconError as error:
            told = str(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        files = {path.name: path.read_text() for path in folder.iterdir()}
        print(json.dumps([name, limit, f"{folder / 'a'}: " in told and "File too large" in told, files]))
"""


def test_file_too_large(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path), *ALL]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=True)
    expected = [[name, limit, True, {"a": "old"}] for name in ALL for limit in (0, 100, 200_000)]
    assert [json.loads(line) for line in done.stdout.splitlines()] == expected


@pytest.mark.parametrize("name", ALL)
def test_overwrite_mapped_source(tmp_path: Path, name: str) -> None:
    expected = np.arange(100_000, dtype=np.float32)
    format_named(name).codec.write(tmp_path / "a", {"first": expected, "second": expected + 1})
    tensors = format_named(name).codec.read(tmp_path / "a").tensors
    format_named(name).codec.write(tmp_path / "a", {"second": tensors["second"]})
    assert np.array_equal(tensors["first"], expected)
    assert np.array_equal(format_named(name).codec.read(tmp_path / "a").tensors["second"], expected + 1)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("case", ["missing", "folder", "empty", "pipe"])
def test_unreadable_file(tmp_path: Path, name: str, case: str) -> None:
    words = {"missing": "No such file", "folder": "found a folder", "empty": "is empty", "pipe": "or a pipe"}
    target = tmp_path / "a"
    if case == "folder":
        target.mkdir()
    elif case == "empty":
        target.write_bytes(b"")
    elif case == "pipe":
        os.mkfifo(target)
    for action in (format_named(name).codec.read, format_named(name).codec.sniff):
        with pytest.raises(AconError, match=f"{target}.*{words[case]}"):
            action(target)
