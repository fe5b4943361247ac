"""An Orbax folder with changed bytes is read or refused, in bounded time.

Python opens nothing outside of it. Python cannot see the files that TensorStore opens; folders that
would lead it out are in `hostile_orbax`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from acon_jax.checkpoint import orbax
from checkpoint_samples import bits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from orbax_folders import GOOD, NODE, ZERO, files, framed, interior, leaf, ocdbt
from orbax_trees import HOSTS, STORED, arrays, unpacked

from acon_core.errors import CheckpointError

CALLS = {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "pickle.find_class", "socket.connect", "exec", "compile"}
watched: list[tuple[str, tuple[object, ...]]] = []
watching = [False]


def watch(event: str, args: tuple[object, ...]) -> None:
    if watching[0] and (event == "open" or event in CALLS):
        watched.append((event, args))


sys.addaudithook(watch)
LARGEST = sum(array.nbytes for array in arrays().values())


@pytest.mark.parametrize("name", [*STORED, *HOSTS])
def test_changed_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = unpacked(name, tmp_path_factory.mktemp("mutations"))
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    dict(orbax.read(folder).tensors)  # imports what it needs

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
    @given(
        which=st.integers(0, len(files) - 1),
        edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=0, max_size=4)), min_size=1, max_size=4),
        insert=st.booleans(),
    )
    def changed(which: int, edits: list[tuple[float, bytes]], insert: bool) -> None:
        content = files[which].read_bytes()
        spoiled = bytearray(content)
        for where, what in edits:
            at = int(where * len(spoiled))
            spoiled[at : at if insert else at + max(len(what), 1)] = what
        files[which].write_bytes(spoiled)
        began = time.process_time()
        watched.clear()
        watching[0] = True
        try:
            found = dict(orbax.read(folder).tensors)
        except CheckpointError as error:
            assert str(error).startswith(str(folder))  # noqa: PT017  (being read is as good an outcome)
        else:
            assert sum(array.nbytes for array in found.values()) <= LARGEST + 1000
        finally:
            watching[0] = False
            files[which].write_bytes(content)
        assert time.process_time() - began < 1
        for event, args in watched:
            assert event == "open"
            assert Path(str(args[0])).is_relative_to(folder)

    changed()


def test_a_file_of_any_bytes_is_refused_or_read(tmp_path: Path) -> None:
    folder = unpacked("ocdbt_zarr2", tmp_path)
    for seed, file in enumerate(sorted(file for file in folder.rglob("*") if file.is_file())):
        content = file.read_bytes()
        for size in (0, 1, 17, 400):
            file.write_bytes(bits("uint8", (size,), seed).tobytes())
            try:
                dict(orbax.read(folder).tensors)
            except CheckpointError as error:
                assert str(error).startswith(str(folder))  # noqa: PT017
        file.write_bytes(content)


@pytest.mark.parametrize("high", [False, True])
def test_a_changed_node_with_a_valid_checksum_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, high: bool) -> None:
    values = {**GOOD, b"w/0.1": (0, 0, len(ZERO)), b"x": b"", b"xyz": bytes(50)}

    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
    @given(
        edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=4)), min_size=1, max_size=3),
        packed=st.booleans(),
    )
    def changed(edits: list[tuple[float, bytes]], packed: bool) -> None:
        folder = tmp_path_factory.mktemp("node")
        body = leaf(values, files(b"d"))
        root = interior(1, files(b"d"), [(b"", 0, len(framed(NODE, body)))]) if high else body
        spoiled = bytearray(root)
        for where, what in edits:
            at = int(where * len(spoiled))
            spoiled[at : at + max(len(what), 1)] = what
        nodes = [framed(NODE, body)] if high else []
        ocdbt(*nodes, framed(NODE, bytes(spoiled), packed=packed), height=int(high))(folder)
        began = time.process_time()
        try:
            dict(orbax.read(folder).tensors)
        except CheckpointError as error:
            assert str(error).startswith(str(folder))  # noqa: PT017
        assert time.process_time() - began < 1

    changed()
