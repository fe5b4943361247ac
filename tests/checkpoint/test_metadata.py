"""What a file says of itself, and what lies in the folder around it, is not believed."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hidden import without

from acon_core import spec
from acon_core.checkpoint import NetworkQuery, convert, formats, metadata, read_file, read_network
from acon_core.checkpoint.codecs.mapped_file import ends_contain, map_file
from acon_core.checkpoint.convert import staging
from acon_core.conformance.cases import DATA
from acon_core.errors import AconError, CheckpointError
from acon_core.networks import create
from acon_core.verification.run import run_checkpoint

ACON = Path(sys.executable).with_name("acon")
OPTIONS = {"repeats": (1, 1, 1)}


def written(path: Path, format: str = "safetensors", **said: str) -> Path:
    network = create("acon/shufflenet_v2_x0_5", "acon_c", 3, **OPTIONS)
    known = formats()[format]
    native = known.layout.to_native(network.graph, spec.initial_state(network.graph, 5))
    known.codec.write(path, native, metadata(network) | said)
    return path


def trap(folder: Path) -> Path:
    """A folder as somebody else's repository may be, in which whatever is imported or found by name leaves a mark."""
    mark = folder / "mark"
    code = f"open({str(mark)!r}, 'a').write(__name__)\n"
    for name in ("numpy", "torch", "acon_torch", "acon_core", "evil"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(code)
    (folder / "evil-1.0.dist-info").mkdir()
    (folder / "evil-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (folder / "evil-1.0.dist-info" / "entry_points.txt").write_text("[acon.backends]\nevil = evil\n")
    return mark


@pytest.mark.parametrize("command", [["check", "a"], ["inspect", "a"], ["convert", "a", "b.pth"], ["diff", "a", "a"], ["list"]])
def test_nothing_in_the_current_folder_is_run(tmp_path: Path, command: list[str]) -> None:
    mark = trap(tmp_path)
    written(tmp_path / "a")
    done = subprocess.run([ACON, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not mark.exists()


def test_missing_framework_is_not_found_in_the_current_folder(tmp_path: Path) -> None:
    mark = trap(tmp_path)
    env = without(tmp_path / "hook", "torch")
    written(tmp_path / "a")
    np.savez(tmp_path / "x.npz", x=np.zeros((1, 3, 32, 32), np.uint8))
    command = [ACON, "run", "a", "--input", "x.npz", "--output", "y.npz", "--backend", "torch"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, mark.exists()) == (2, False)
    assert "'torch' cannot be used here" in done.stderr


def test_a_target_whose_place_is_a_folder_by_now_is_one_error(tmp_path: Path) -> None:
    def write() -> None:
        with staging(tmp_path / "b") as draft:
            draft.write_bytes(b"new")
            (tmp_path / "b").mkdir()

    with pytest.raises(AconError, match=r"b: cannot be replaced: .*; move it away"):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_only_the_ends_of_a_large_file_are_searched_for_what_tells_its_format(tmp_path: Path) -> None:
    mib = 1 << 20
    for name, at, seen in (("first", 5, True), ("last", 3 * mib - 9, True), ("middle", mib + mib // 2, False)):
        content = bytearray(3 * mib)
        content[at : at + 4] = b"mark"
        (tmp_path / name).write_bytes(content)
        assert ends_contain(map_file(tmp_path / name), b"mark") is seen, name


def test_a_function_that_the_user_names_is_found_there_after_everything_else(tmp_path: Path) -> None:
    mark = trap(tmp_path)
    (tmp_path / "mine.py").write_text("from acon_core import spec\ndef net():\n    return spec.sequential(a=spec.AconC(3))\n")
    done = subprocess.run(
        [ACON, "summary", "mine:net", "--size", "9"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "parameters: 9" in done.stdout
    assert not mark.exists()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"options": '{"repeats": [4096, 4096, 4096]}'}, "none above 64"),
        ({"network": "repact/vit_base_patch16_224", "options": '{"depth": 4096}'}, "none above 64"),
        ({"network": "repact/vit_base_patch16_224", "options": '{"image_size": 99999}'}, "none above 64"),
        ({"options": '{"width": 7}'}, "invalid metadata: "),
        ({"activation": "no such thing"}, "invalid metadata: "),
        ({"activation": "acon_c(" + "x" * 1_000_000}, "invalid metadata: "),
        ({"dialect": "klingon"}, "invalid metadata: --dialect klingon"),
        ({"input": json.dumps({"order": "RGB"})}, "invalid input"),
        ({"num_classes": "4"}, "4 classes"),
    ],
)
def test_what_cannot_be_is_one_error_in_little_time(tmp_path: Path, said: dict[str, str], message: str) -> None:
    path = written(tmp_path / "a", **said)
    began = time.process_time()
    with pytest.raises(CheckpointError, match=rf"a: .*{message}") as caught:
        read_network(path)
    assert caught.value.kind == "corrupt"
    assert len(str(caught.value)) < 1000
    assert time.process_time() - began < 60  # a file that hangs takes minutes


def test_an_input_of_a_size_that_the_network_does_not_take_is_refused(tmp_path: Path) -> None:
    network = create("repact/vit_base_patch16_224", "relu", 3, image_size=32, depth=1)
    assert network.input is not None
    said = json.dumps({**network.input.__dict__, "size": 48, "resize": 64})
    formats()["safetensors"].codec.write(tmp_path / "a", spec.initial_state(network.graph), metadata(network) | {"input": said})
    with pytest.raises(CheckpointError, match="the network does not accept 48x48 images"):
        read_network(tmp_path / "a")


@pytest.mark.parametrize("name", ["megengine", "paddle"])
def test_keys_that_would_all_have_one_hash_are_refused(tmp_path: Path, name: str) -> None:
    keys = {k * ((1 << 61) - 1): None for k in range(1, 3_000)}
    (tmp_path / "a").write_bytes(pickle.dumps({"state_dict": {"w": np.float32([1])}, "more": keys}, 4))
    with pytest.raises(CheckpointError, match="expected text or a small integer"):
        formats()[name].codec.read(tmp_path / "a")


def test_what_a_format_has_no_place_for_is_told(tmp_path: Path) -> None:
    told = convert(written(tmp_path / "a"), tmp_path / "b", "jax").notes
    (note,) = (each for each in told if "has no metadata" in each)
    for part in ("--option repeats=[1,1,1]", r"the preprocessing (BGR, 0 to 255"):
        assert part in note
    assert not any("has no metadata" in each for each in convert(tmp_path / "a", tmp_path / "c", "megengine").notes)


def test_a_cast_is_told_of_what_is_written_alone(tmp_path: Path) -> None:
    """Counters are int64, and MegEngine keeps none."""
    assert not any("cast" in note for note in convert(written(tmp_path / "a"), tmp_path / "b", "megengine", cast=True).notes)


def test_run_does_not_write_over_what_it_reads(tmp_path: Path) -> None:
    path, images = written(tmp_path / "a"), tmp_path / "x.npz"
    np.savez(images, x=np.zeros((1, 3, 32, 32), np.uint8))
    (tmp_path / "link").hardlink_to(path)
    for output in (path, images, tmp_path / "link"):
        with pytest.raises(AconError, match="is an input file"):
            run_checkpoint(path, images, output, "numpy", NetworkQuery(), lambda done, total: None)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", f"no/{os.sep}such", DATA / "no such file"])
def test_a_name_that_is_no_file_is_one_error(name: str | Path) -> None:
    with pytest.raises(AconError, match="no such file"):
        read_file(name)
