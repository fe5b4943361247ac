"""Conversion without frameworks: every format, every hop, bit for bit; recognition; what may not be converted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import own_networks
import pytest
from own_networks import small as small_of_one_s_own

from acon_core import backends, spec
from acon_core.checkpoint import NetworkQuery, convert, formats, metadata, read_file, read_network
from acon_core.checkpoint.formats import format_named
from acon_core.checkpoint.reading import FLOATS
from acon_core.conformance.cases import DATA
from acon_core.errors import AconError, CheckpointError, SpecError, StateError
from acon_core.networks import create
from acon_core.networks.network import Network
from acon_core.verification.verify import verify

CHECKPOINT = DATA / "shufflenetv2_acon_0.5x.pth.tar"
FORMATS = ["torch", "megengine", "paddle", "jax", "safetensors"]
COUNTERS = "num_batches_tracked"


def same_bits(first: np.ndarray, second: np.ndarray) -> bool:
    alike = first.dtype == second.dtype and first.shape == second.shape
    return alike and np.ascontiguousarray(first).tobytes() == np.ascontiguousarray(second).tobytes()


def write(path: Path, format: str, network: Network, state: dict[str, np.ndarray]) -> Path:
    """A checkpoint as a framework would have it."""
    made = format_named(format)
    made.codec.write(path, made.layout.to_native(network.graph, state), metadata(network))
    return path


def small(
    name: str, act: str, classes: int = 3, dtype: str = "float32", seed: int = 5
) -> tuple[Network, dict[str, np.ndarray]]:
    network = create(name, act, classes)
    return network, spec.initial_state(network.graph, seed, dtype)


def test_all_formats_are_there_without_frameworks() -> None:
    further = ["npz", "orbax", "safetensors_sharded", "torch_legacy"]
    assert sorted(formats()) == sorted([*FORMATS, *further])
    assert sorted(backends.packages()) == sorted(["numpy", *FORMATS[:-1]])


def test_the_chain_of_every_format_gives_back_every_bit_in_the_published_order(tmp_path: Path) -> None:
    """torch -> MegEngine -> Paddle -> Flax -> safetensors -> torch; counters alone are lost, and that is said."""
    path, told = CHECKPOINT, []
    for hop, format in enumerate(["megengine", "paddle", "jax", "safetensors", "torch"]):
        target = tmp_path / f"{hop}"
        told.append(convert(path, target, format).notes)
        path = target
    (first, start), (last, end) = read_file(CHECKPOINT), read_file(path)
    assert (first.name, last.name) == ("torch", "torch")
    assert list(end.tensors) == list(start.tensors)
    for name, array in start.tensors.items():
        if name.endswith(COUNTERS):
            assert end.tensors[name].dtype == np.int64
            assert end.tensors[name] == 0
        else:
            assert same_bits(array, end.tensors[name]), name
    assert any("format megengine does not store counters: " in note for note in told[0])


@pytest.mark.parametrize("format", ["torch", "safetensors"])
def test_counters_survive_where_there_is_a_place(tmp_path: Path, format: str) -> None:
    convert(CHECKPOINT, tmp_path / "out", format)
    _, before = read_file(CHECKPOINT)
    _, after = read_file(tmp_path / "out")
    assert before.tensors["first_conv.1." + COUNTERS] > 0
    for name, array in before.tensors.items():
        assert same_bits(array, after.tensors[name]), name


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("source", FORMATS)
def test_every_pair_of_formats(tmp_path: Path, source: str, target: str) -> None:
    network, state = small("acon/shufflenet_v2_x0_5", "meta_acon")
    state["first_conv.0.weight"] = state["first_conv.0.weight"].copy()
    odd = np.array([0x7FC00001, 0xFF812345, 0x80000000, 0x00000001, 0x7F800000], np.uint32).view(np.float32)
    state["first_conv.0.weight"].reshape(-1)[:5] = odd
    write(tmp_path / "a", source, network, state)
    convert(tmp_path / "a", tmp_path / "b", target)
    again = read_network(tmp_path / "b")
    assert again.format.name == target
    for path, array in state.items():
        assert same_bits(again.state[path], array), path


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("format", FORMATS)
def test_every_float_dtype_that_a_format_has(tmp_path: Path, format: str, dtype: str) -> None:
    network, state = small("acon/shufflenet_v2_x0_5", "acon_c", dtype=dtype)
    write(tmp_path / "a", "safetensors", network, state)
    if format == "megengine" and dtype in ("float64", "bfloat16"):
        with pytest.raises(CheckpointError, match=rf"b: .*megengine|MegEngine cannot store {dtype}"):
            convert(tmp_path / "a", tmp_path / "b", format)
        assert not (tmp_path / "b").exists()
        return
    convert(tmp_path / "a", tmp_path / "b", format)
    again = read_network(tmp_path / "b")
    assert again.dtype == dtype
    assert all(same_bits(again.state[path], array) for path, array in state.items())


@pytest.mark.parametrize("name", ["acon/shufflenet_v2_x0_5", "acon/shufflenet_v2_x1_5"])
@pytest.mark.parametrize("act", ["acon_c", "meta_acon", "meta_acon(reduction=16, norm=none)", "meta_acon(reduction=4)"])
@pytest.mark.parametrize("format", ["torch", "megengine", "jax"])
def test_network_activation_width_and_classes_are_recognised(tmp_path: Path, name: str, act: str, format: str) -> None:
    network, state = small(name, act, classes=13)
    path = tmp_path / "a"
    made = format_named(format)
    made.codec.write(path, made.layout.to_native(network.graph, state), {})
    found = read_network(path).network
    assert (found.name, found.num_classes) == (name, 13)
    assert found.activation == network.activation


def test_where_two_fit_it_asks(tmp_path: Path) -> None:
    network, state = small("acon/shufflenet_v2_x0_5", "relu")
    path = tmp_path / "a.pth"
    format_named("torch").codec.write(path, state, {})
    with pytest.raises(
        AconError, match=r"a\.pth: the tensors are ambiguous: 14 networks have these names.*relu.*silu.*pass --act"
    ):
        read_network(path)
    assert read_network(path, act="silu").network.activation == spec.SiLU()
    assert read_network(write(tmp_path / "b", "safetensors", network, state)).network.activation == spec.ReLU()


def test_the_file_s_word_counts_for_nothing_against_its_tensors(tmp_path: Path) -> None:
    network, state = small("acon/shufflenet_v2_x0_5", "acon_c")
    lying = metadata(network) | {"network": "acon/shufflenet_v2_x1_0"}
    format_named("safetensors").codec.write(tmp_path / "a", state, lying)
    with pytest.raises(CheckpointError, match="no network has exactly these"):
        read_network(tmp_path / "a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("features.2.branch_main.7.p1"), "'features.2.branch_main.7.p1' is missing"),
        (lambda s: s.update({"features.2.more": np.ones(2, np.float32)}), "'features.2.more' is unexpected"),
        (lambda s: s.update({"first_conv.0.weight": s["first_conv.0.weight"].swapaxes(0, 1)}), "first_conv.0.weight"),
        (
            lambda s: s.update({"conv_last.2.beta": s["conv_last.2.beta"].astype(np.int32)}),
            "expected a float dtype, found int32",
        ),
    ],
)
def test_a_state_that_does_not_fit_is_refused_by_name(tmp_path: Path, change: object, message: str) -> None:
    network, state = small("acon/shufflenet_v2_x0_5", "acon_c")
    change(state)  # type: ignore[operator]
    format_named("torch").codec.write(tmp_path / "a.pth", state, {})
    target = tmp_path / "b.safetensors"
    with pytest.raises(CheckpointError, match=message.replace(".", r"\.")) as caught:
        convert(tmp_path / "a.pth", target, query=NetworkQuery(network.name, "acon_c"))
    assert str(caught.value).startswith(str(tmp_path / "a.pth"))
    assert list(tmp_path.iterdir()) == [tmp_path / "a.pth"]


def test_a_checkpoint_of_another_network(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no network has exactly .* nearest is acon/shufflenet_v2_x1_0 with acon_c"):
        convert(CHECKPOINT, tmp_path / "b.pkl", query=NetworkQuery("acon/shufflenet_v2_x1_0"))


def test_source_and_target_may_not_be_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    convert(CHECKPOINT, path)
    before = path.read_bytes()
    (tmp_path / "link.safetensors").symlink_to(path)
    for same in (path, tmp_path / "link.safetensors", tmp_path / "." / "a.safetensors"):
        with pytest.raises(AconError, match="is the source file"):
            convert(path, same)
    assert path.read_bytes() == before


def test_conversion_is_deterministic_and_keeps_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        for format in FORMATS:
            convert(CHECKPOINT, tmp_path / f"{format}1", format)
            convert(CHECKPOINT, tmp_path / f"{format}2", format)
            assert (tmp_path / f"{format}1").read_bytes() == (tmp_path / f"{format}2").read_bytes()
            assert (tmp_path / f"{format}1").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(old)


def test_a_writer_that_changes_a_value_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof of a conversion, shown to be one: a writer that loses a bit leaves no file."""
    files = format_named("megengine").codec
    honest = files.write

    def lossy(path: Path, tensors: dict[str, np.ndarray], more: dict[str, str]) -> None:
        honest(path, {name: array.astype(np.float16).astype(np.float32) for name, array in tensors.items()}, more)

    monkeypatch.setattr(files, "write", lossy)
    with pytest.raises(StateError, match=r"first_conv\.0\.weight: the values read back differ from the values written"):
        convert(CHECKPOINT, tmp_path / "a.pkl")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", [0, 300_000, -1])
def test_one_changed_value_is_caught_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    files = format_named("safetensors").codec
    honest = files.write

    def lossy(path: Path, tensors: Mapping[str, np.ndarray], more: dict[str, str]) -> None:
        changed = {name: array.copy() for name, array in tensors.items()}
        changed["classifier.0.weight"].reshape(-1)[place] *= -1
        honest(path, changed, more)

    monkeypatch.setattr(files, "write", lossy)
    with pytest.raises(StateError, match=r"classifier\.0\.weight: the values read back differ from the values written"):
        convert(CHECKPOINT, tmp_path / "a.safetensors")


def test_a_user_s_own_network_converts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(own_networks.__file__).parent)  # where another process looks for it
    state = spec.initial_state(small_of_one_s_own(), 1)
    format_named("torch").codec.write(tmp_path / "a.pth", state, {})
    own = NetworkQuery("own_networks:small")
    for target in ("b.msgpack", "b.pdparams"):
        convert(tmp_path / "a.pth", tmp_path / target, query=own)
    done = convert(tmp_path / "a.pth", tmp_path / "b.pkl", query=own, verify=verify)
    assert any(note.startswith("verified: on the reference, both files give the same bits") for note in done.notes)
    back = read_network(tmp_path / "b.msgpack", "own_networks:small")
    assert all(same_bits(back.state[path], array) for path, array in state.items())
    for name, message in (
        ("nowhere:f", "No module named"),
        ("own_networks:g", "no attribute"),
        ("own_networks:not_a_network", "found int"),
    ):
        with pytest.raises(SpecError, match=message):
            read_network(tmp_path / "a.pth", name)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_state_casts_to_every_float_dtype_and_keeps_its_counters(dtype: str) -> None:
    checkpoint = read_network(CHECKPOINT)
    state = checkpoint.cast(dtype)
    assert np.dtype(ml_dtypes.bfloat16).name == "bfloat16"
    assert {array.dtype.name for path, array in state.items() if not path.endswith(COUNTERS)} == {dtype}
    assert state["first_conv.1." + COUNTERS].dtype == np.int64
    assert state["first_conv.1." + COUNTERS] == checkpoint.state["first_conv.1." + COUNTERS]


DILATED = {"replace_stride_with_dilation": (False, False, True)}


def leaves(network: Network) -> list[tuple[str, spec.Node]]:
    """Its layers by path, as what makes two networks the same: graphs are compared by what is in them."""
    return [(path, node) for path, node in spec.walk(network.graph) if not isinstance(node, spec.Graph)]


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
def test_a_network_s_options_travel_with_it(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    """In safetensors' metadata; through a format without, they are told in a note and must be given again."""
    network = create(name, "gelu", 3, **options)
    path = write(tmp_path / "a", "safetensors", network, spec.initial_state(network.graph, 5))
    done = convert(path, tmp_path / "b", "jax")
    assert leaves(done.source.network) == leaves(network)
    assert dict(done.source.network.options) == options
    assert any("has no metadata" in note and f"--option {next(iter(options))}=" in note for note in done.notes)
    back = convert(tmp_path / "b", tmp_path / "c", "safetensors", NetworkQuery(name, "gelu", options=options))
    assert not any("--option" in note for note in back.notes)
    assert leaves(read_network(tmp_path / "c").network) == leaves(network)


def test_what_a_file_says_of_its_network_travels_through_every_other_format(tmp_path: Path) -> None:
    network = create("acon/shufflenet_v2_x0_5", "gelu", 3, repeats=(2, 1, 3))
    path = write(tmp_path / "a", "safetensors", network, spec.initial_state(network.graph, 5))
    for kind in ("torch", "megengine", "paddle", "npz", "safetensors_sharded"):
        done = convert(path, tmp_path / kind, kind)
        assert not any("--option" in note for note in done.notes)
        path = tmp_path / kind
    found = read_network(path).network
    assert leaves(found) == leaves(network)
    assert (dict(found.options), found.input) == (dict(network.options), network.input)


def test_options_are_those_of_the_network_that_is_recognised_or_named(tmp_path: Path) -> None:
    network, state = small("acon/resnet50", "acon_c")
    path = write(tmp_path / "a", "torch", network, state)
    dilated = create("acon/resnet50", "acon_c", 3, **DILATED)
    assert leaves(read_network(path).network) == leaves(network) != leaves(dilated)
    assert leaves(read_network(path, **DILATED).network) == leaves(dilated)
    assert leaves(read_network(path, "acon/resnet50", **DILATED).network) == leaves(dilated)
    for options, message in (
        ({"depth_wise": True}, r"a: network 'acon/resnet50': 'depth_wise' is not an option"),
        ({"replace_stride_with_dilation": 1}, r"cannot be made with replace_stride_with_dilation=1"),
        ({"num_classes": 3}, r"a: num_classes is not an option of a network in a file; omit it"),
    ):
        with pytest.raises(SpecError, match=message):
            read_network(path, **options)
    path = write(tmp_path / "b", "safetensors", create("acon/resnet50", "acon_c", 3, **DILATED), state)
    plain = {"replace_stride_with_dilation": (False, False, False)}
    assert leaves(read_network(path, **plain).network) == leaves(network)


@pytest.mark.parametrize("text", ["[1]", "{", '{"depth": 1e9}', '{"depth": 99999999}', '{"repeats": [[1]]}', "[" * 100_000])
def test_options_that_no_file_of_ours_has_are_refused(tmp_path: Path, text: str) -> None:
    network, state = small("acon/shufflenet_v2_x0_5", "acon_c")
    format_named("safetensors").codec.write(tmp_path / "a", state, metadata(network) | {"options": text})
    with pytest.raises(CheckpointError, match=r"a: invalid metadata: options are .*, expected an object of integers"):
        read_network(tmp_path / "a")


def test_nothing_that_a_file_s_metadata_names_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function of the user's own is called where the user names it; the name in a file is anybody's."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "evil.py").write_text("raise SystemExit('the file was believed')")
    format_named("safetensors").codec.write(tmp_path / "a", spec.initial_state(small_of_one_s_own()), {"network": "evil:f"})
    with pytest.raises(CheckpointError, match="no network has exactly these"):
        read_network(tmp_path / "a")


@pytest.mark.parametrize("given", [{"act": "relu"}, {"num_classes": 3}, {"depth": 2}])
def test_a_user_s_own_function_is_given_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: dict[str, object]
) -> None:
    monkeypatch.syspath_prepend(str(Path(own_networks.__file__).parent))
    with pytest.raises(SpecError, match=f"takes no {next(iter(given))}; set it inside the function, which takes no arguments"):
        create("own_networks:small", **given)  # type: ignore[arg-type]
    format_named("torch").codec.write(tmp_path / "a", spec.initial_state(small_of_one_s_own()), {})
    with pytest.raises(SpecError, match=r"a: .*no arguments; build|a: num_classes is not an option"):
        read_network(tmp_path / "a", "own_networks:small", **given)  # type: ignore[arg-type]
