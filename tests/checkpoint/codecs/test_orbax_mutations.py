"""A folder of Orbax with some bytes of one file changed is read or refused, and nothing outside of it is opened."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from acon_jax.checkpoint import orbax
from checkpoint_samples import bits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from orbax_trees import STORED, arrays, unpacked

from acon_core.errors import CheckpointError

CALLS = {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "pickle.find_class", "socket.connect", "exec", "compile"}
watched: list[tuple[str, tuple[object, ...]]] = []
watching = [False]


def watch(event: str, args: tuple[object, ...]) -> None:
    if watching[0] and (event == "open" or event in CALLS):
        watched.append((event, args))


sys.addaudithook(watch)
LARGEST = sum(array.nbytes for array in arrays().values())


@pytest.mark.parametrize("name", STORED)
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
