"""Metadata: they round-trip through every format, are checked, and never executed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from own_networks import small as small_of_one_s_own
from small_checkpoints import leaves, run_acon, small, smallest, write, write_smallest

from acon_core import spec
from acon_core.checkpoint import NetworkQuery, convert, formats, load_network, metadata, read_network
from acon_core.checkpoint.formats import format_named
from acon_core.checkpoint.metadata import parse_input
from acon_core.errors import CheckpointError
from acon_core.networks import Preprocessing, create

RGB = Preprocessing("RGB", (0.0, 1.0), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), 192, 208)


def test_own_preprocessing_round_trip(tmp_path: Path) -> None:
    """Through the command line and every format with metadata; `load` warns that it differs."""
    write_smallest(tmp_path / "a.safetensors", "safetensors", "float32")
    text = json.dumps({"order": "RGB", "range": [0.0, 1.0], "mean": RGB.mean, "std": RGB.std, "size": 192, "resize": 208})
    done = run_acon("convert", tmp_path / "a.safetensors", tmp_path / "b.pth", "--input", text)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "b.pth"
    for to in ("megengine", "paddle", "npz", "safetensors_sharded", "safetensors"):
        convert(path, tmp_path / to, to)
        path = tmp_path / to
    checkpoint = read_network(path)
    assert checkpoint.network.input == RGB
    assert "acon/shufflenet_v2_x0_5 was published with BGR" in checkpoint.warnings[0]
    with pytest.warns(UserWarning, match="the input must be RGB, 0 to 1, mean"):
        load_network(path, NetworkQuery(), ())
    images = tmp_path / "x.npz"
    np.savez(images, x=np.full((1, 3, 32, 48), 200, np.uint8))
    refused = run_acon("run", path, "--input", images, "--output", tmp_path / "y.npz")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "values from 200 to 200, expected -2 to 3" in refused.stderr
    assert not (tmp_path / "y.npz").exists()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"order": "GBR"}, "order must be"),
        ({"range": [0.0]}, "range must be 2 numbers"),
        ({"range": [1.0, 0.0]}, "must ascend"),
        ({"mean": [0.0, "x", 1.0]}, "mean must be 3 numbers"),
        ({"std": [1.0, 0.0, 1.0]}, "must be positive"),
        ({"std": [1.0, float("nan"), 1.0]}, "finite"),
        ({"size": -4}, "pixels"),
        ({"resize": 100}, "resize at least size"),
        ({"more": 1}, "unexpected keyword"),
    ],
)
def test_invalid_preprocessing(tmp_path: Path, change: dict[str, object], what: str) -> None:
    fields = {"order": "RGB", "range": [0.0, 1.0], "mean": RGB.mean, "std": RGB.std, "size": 192, "resize": 208}
    assert parse_input(json.dumps(fields)) == RGB
    with pytest.raises(CheckpointError, match=what):
        parse_input(json.dumps(fields | change))
    network, state = smallest("float32")
    formats()["safetensors"].codec.write(tmp_path / "a", state, metadata(network) | {"input": json.dumps(fields | change)})
    with pytest.raises(CheckpointError, match=rf"{tmp_path / 'a'}: invalid input .*{what}"):
        read_network(tmp_path / "a")


def test_wrong_number_of_classes(tmp_path: Path) -> None:
    network, state = smallest("float32")
    formats()["safetensors"].codec.write(tmp_path / "a", state, metadata(network) | {"num_classes": "4"})
    with pytest.raises(CheckpointError, match="metadata say 4 classes, but the tensors have 3"):
        read_network(tmp_path / "a")


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
def test_invalid_metadata(tmp_path: Path, said: dict[str, str], message: str) -> None:
    path = write_smallest(tmp_path / "a", **said)
    began = time.process_time()
    with pytest.raises(CheckpointError, match=rf"a: .*{message}") as caught:
        read_network(path)
    assert caught.value.kind == "corrupt"
    assert len(str(caught.value)) < 1000
    assert time.process_time() - began < 60  # a file that builds a huge network takes minutes


def test_unsupported_image_size(tmp_path: Path) -> None:
    network = create("repact/vit_base_patch16_224", "relu", 3, image_size=32, depth=1)
    assert network.input is not None
    said = json.dumps({**network.input.__dict__, "size": 48, "resize": 64})
    formats()["safetensors"].codec.write(tmp_path / "a", spec.initial_state(network.graph), metadata(network) | {"input": said})
    with pytest.raises(CheckpointError, match="the network does not accept 48x48 images"):
        read_network(tmp_path / "a")


DILATED = {"replace_stride_with_dilation": (False, False, True)}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("acon/resnet50", DILATED),
        ("acon/shufflenet_v2_x0_5", {"repeats": (2, 1, 3)}),
        ("acon/tfnet_0_5", {"repeats": (1, 2, 1, 3)}),
        ("repact/swin_tiny_patch4_window7_224", {"depths": (1, 2, 1, 1)}),
        ("repact/vit_base_patch16_224", {"image_size": 48, "depth": 2}),
    ],
)
def test_options_round_trip(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    """A format without metadata needs the options again, and a note says so."""
    network = create(name, "gelu", 3, **options)
    path = write(tmp_path / "a", "safetensors", network, spec.initial_state(network.graph, 5))
    done = convert(path, tmp_path / "b", "jax")
    assert leaves(done.source.network) == leaves(network)
    assert dict(done.source.network.options) == options
    assert any("has no metadata" in note and f"--option {next(iter(options))}=" in note for note in done.notes)
    back = convert(tmp_path / "b", tmp_path / "c", "safetensors", NetworkQuery(name, "gelu", options=options))
    assert not any("--option" in note for note in back.notes)
    assert leaves(read_network(tmp_path / "c").network) == leaves(network)


def test_metadata_through_every_format(tmp_path: Path) -> None:
    network = create("acon/shufflenet_v2_x0_5", "gelu", 3, repeats=(2, 1, 3))
    path = write(tmp_path / "a", "safetensors", network, spec.initial_state(network.graph, 5))
    for kind in ("torch", "megengine", "paddle", "npz", "safetensors_sharded"):
        done = convert(path, tmp_path / kind, kind)
        assert not any("--option" in note for note in done.notes)
        path = tmp_path / kind
    found = read_network(path).network
    assert leaves(found) == leaves(network)
    assert (dict(found.options), found.input) == (dict(network.options), network.input)


@pytest.mark.parametrize("text", ["[1]", "{", '{"depth": 1e9}', '{"depth": 99999999}', '{"repeats": [[1]]}', "[" * 100_000])
def test_invalid_options(tmp_path: Path, text: str) -> None:
    network, state = small("acon/shufflenet_v2_x0_5", "acon_c")
    format_named("safetensors").codec.write(tmp_path / "a", state, metadata(network) | {"options": text})
    with pytest.raises(CheckpointError, match=r"a: invalid metadata: options are .*, expected an object of integers"):
        read_network(tmp_path / "a")


def test_function_in_metadata_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the user can name a function to call, and not a file."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "evil.py").write_text("raise SystemExit('the file was believed')")
    format_named("safetensors").codec.write(tmp_path / "a", spec.initial_state(small_of_one_s_own()), {"network": "evil:f"})
    with pytest.raises(CheckpointError, match="no network has exactly these"):
        read_network(tmp_path / "a")


def test_metadata_against_tensors(tmp_path: Path) -> None:
    network, state = small("acon/shufflenet_v2_x0_5", "acon_c")
    lying = metadata(network) | {"network": "acon/shufflenet_v2_x1_0"}
    format_named("safetensors").codec.write(tmp_path / "a", state, lying)
    with pytest.raises(CheckpointError, match="no network has exactly these"):
        read_network(tmp_path / "a")


def test_note_on_missing_metadata(tmp_path: Path) -> None:
    told = convert(write_smallest(tmp_path / "a"), tmp_path / "b", "jax").notes
    (note,) = (each for each in told if "has no metadata" in each)
    for part in ("--option repeats=[1,1,1]", r"the preprocessing (BGR, 0 to 255"):
        assert part in note
    assert not any("has no metadata" in each for each in convert(tmp_path / "a", tmp_path / "c", "megengine").notes)
