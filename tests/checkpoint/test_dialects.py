"""Dialects: files of the RepAct code under its names, in both directions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_checkpoints import (
    State,
    asymmetric_repact_state,
    run_acon,
    write_state,
)

from acon_core import spec
from acon_core.checkpoint import NetworkQuery, convert, formats, read_file, read_network
from acon_core.checkpoint.dialects import DIALECTS, Dialect, Names
from acon_core.checkpoint.formats import format_named
from acon_core.errors import AconError, CheckpointError
from acon_core.reference import forward
from acon_core.spec import fuse

SMALL = "repact/mobilenet_v3_small"


REPACT = ("repact", "repact_reconstruct")


def theirs(state: State, hardswish_first: bool) -> State:
    """Rename a state by hand to the names of the published code."""
    made = {}
    for path, array in state.items():
        owner, _, name = path.rpartition(".")
        if name == "weights":
            made[f"{owner}.ActorAtn"] = array[[0, 1, 3, 2]] if hardswish_first else array
        elif name == "alpha":
            made[f"{owner}.actor_PReLU.weight"] = array
        elif owner.endswith(".norm") and f"{owner.removesuffix('.norm')}.weights" in state:
            made[f"{owner.removesuffix('.norm')}.bn.{name}"] = array
        else:
            made[path] = array
    return made


FORMS = [
    ("repact", "repact(variant=1)", True),
    ("repact", "repact(variant=2)", False),
    ("repact", "repact(variant=3)", True),
    ("repact_reconstruct", "repact(variant=1)", False),
    ("repact_reconstruct", "repact(variant=2)", False),
]


@pytest.mark.parametrize(("dialect", "act", "hardswish_first"), FORMS)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_read(tmp_path: Path, dialect: str, act: str, hardswish_first: bool, prefix: str) -> None:
    state = asymmetric_repact_state(SMALL, act)
    named = {prefix + name: array for name, array in theirs(state, hardswish_first).items()}
    found = read_network(write_state(tmp_path / "a.pth", named), SMALL, act, dialect)
    assert list(found.state) == list(state)
    assert (found.network.name, found.network.num_classes) == (SMALL, 3)
    for path, array in state.items():
        np.testing.assert_array_equal(found.state[path], array, err_msg=path)


@pytest.mark.parametrize(("dialect", "act", "hardswish_first"), FORMS)
def test_published_function(dialect: str, act: str, hardswish_first: bool) -> None:
    """Compare one activation with its published formula, written by hand."""
    node = spec.activation(act)
    atn, slope = np.array([0.15, 0.35, 0.7, 0.4]), np.array([0.3])
    weights = np.exp(atn) / np.exp(atn).sum() if "2" in act else atn
    x = np.random.default_rng(3).uniform(-5, 5, (3, 4, 5, 6))
    relu, prelu = np.maximum(x, 0), np.where(x > 0, x, slope * x)
    hardswish = x * np.clip(x + 3, 0, 6) / 6
    branches = (x, relu, hardswish, prelu) if hardswish_first else (x, relu, prelu, hardswish)
    expected = sum(weight * branch for weight, branch in zip(weights, branches, strict=True))
    native = {"ActorAtn": atn, "actor_PReLU.weight": slope}
    if "3" in act:
        values = {"weight": 1.3, "bias": 0.2, "running_mean": -0.4, "running_var": 1.7}
        native |= {f"bn.{name}": np.array([value]) for name, value in values.items()}
        native["bn.num_batches_tracked"] = np.array(4)
        expected = (expected + 0.4) / np.sqrt(1.7 + 1e-5) * 1.3 + 0.2
    state, _ = DIALECTS[dialect].rename(format_named("torch").layout).to_canonical(node, native)
    np.testing.assert_allclose(forward(node, state, [x]).values[0], expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("format", formats())
@pytest.mark.parametrize("name", REPACT)
def test_both_directions_in_every_format(name: str, format: str) -> None:
    """Convert every node of the dialect, with arrays whose elements all differ."""
    layout = DIALECTS[name].rename(format_named(format).layout)
    for node in DIALECTS[name].nodes:
        place = spec.sequential(first=spec.sequential(act=node))
        state = {
            path: np.arange(1, 1 + int(np.prod(param.shape))).reshape(param.shape) * 1.0
            for path, param in spec.named_params(place).items()
        }
        native = layout.to_native(place, state)
        assert {path: array.shape for path, array in native.items()} == layout.native_shapes(place)
        assert {"first.act.ActorAtn", "first.act.actor_PReLU.weight"} <= set(native)
        again, made = layout.to_canonical(place, native)
        for path in state:
            assert path in made or (again[path] == state[path]).all(), path


def test_permutation_and_inverse() -> None:
    """Use a permutation that is not its own inverse; those of RepAct are."""
    node = spec.RepAct()
    turned = Dialect("turned", "nobody's", {node: Names(orders={"weights": (1, 2, 3, 0)})})
    layout = turned.rename(format_named("torch").layout)
    state = {"weights": np.array([5.0, 6.0, 7.0, 8.0]), "alpha": np.array([1.0])}
    native = layout.to_native(node, state)
    np.testing.assert_array_equal(native["weights"], [6.0, 7.0, 8.0, 5.0])
    np.testing.assert_array_equal(layout.to_canonical(node, native)[0]["weights"], state["weights"])


def test_ambiguous_names(tmp_path: Path) -> None:
    path = write_state(tmp_path / "a.pth", theirs(asymmetric_repact_state(SMALL, "repact_1"), True))
    with pytest.raises(AconError, match=r"a\.pth: the tensors are ambiguous: 2 networks .*variant=1.*variant=2.*pass --act"):
        read_network(path, dialect="repact")
    with pytest.raises(
        CheckpointError,
        match=r"a\.pth: 'features\.0\.2\.ActorAtn' is not a name of the spec; the tensor names are ambiguous; pass "
        r"--dialect repact \(.*RepAct_Origin, .*\) or --dialect repact_reconstruct \(.*_Reconstruct\)",
    ):
        read_network(path, SMALL, "repact_1")
    with pytest.raises(AconError, match=r"--dialect french: no such dialect; expected one of repact \(the RepAct code's"):
        read_network(path, dialect="french")
    third = write_state(tmp_path / "b.pth", theirs(asymmetric_repact_state(SMALL, "repact_3"), True))
    assert read_network(third, dialect="repact").network.activation == spec.RepAct(variant=3)
    with pytest.raises(CheckpointError, match=r"no network has exactly .* nearest is repact/mobilenet_v3_small"):
        read_network(third, dialect="repact_reconstruct")


def test_wrong_dialect_changes_the_outputs(tmp_path: Path) -> None:
    """Both dialects read the file without an error, and the outputs differ."""
    path = write_state(tmp_path / "a.pth", theirs(asymmetric_repact_state(SMALL, "repact_1"), True))
    x = np.random.default_rng(3).uniform(-1, 1, (1, 3, 32, 48))
    right, wrong = (read_network(path, SMALL, "repact_1", dialect) for dialect in REPACT)
    outputs = [forward(each.network.graph, each.state, [x]).values[0] for each in (right, wrong)]
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3 * np.abs(outputs[0]).max()


@pytest.mark.parametrize("act", ["prelu", "swish", "arelu", "acon_c(shared=true)", "frelu", "dyrelu"])
@pytest.mark.parametrize("dialect", [None, "repact"])
def test_names_shared_with_the_spec(tmp_path: Path, act: str, dialect: str | None) -> None:
    path = write_state(tmp_path / "a.pth", asymmetric_repact_state("repact/shufflenet_v2_x0_5", act))
    named = act if act in ("prelu", "swish") else None  # each has a scalar `weight`
    found = read_network(path, act=named, dialect=dialect).network
    assert (found.name, found.activation) == ("repact/shufflenet_v2_x0_5", spec.activation(act))


def test_round_trip_through_jax(tmp_path: Path) -> None:
    original = theirs(asymmetric_repact_state("repact/swin_tiny_patch4_window7_224", "repact_3", 100), True)
    path = write_state(tmp_path / "a.pth", original)
    convert(path, tmp_path / "b.msgpack", "jax", NetworkQuery(dialect="repact"))
    convert(tmp_path / "b.msgpack", tmp_path / "c.pth", to_dialect="repact")
    _, again = read_file(tmp_path / "c.pth")
    assert list(again.tensors) == list(original)
    for name, array in original.items():
        assert name.endswith("num_batches_tracked") or again.tensors[name].tobytes() == array.tobytes(), name
        assert again.tensors[name].dtype == array.dtype, name


def test_fuse(tmp_path: Path) -> None:
    path = write_state(tmp_path / "a.pth", theirs(asymmetric_repact_state(SMALL, "repact_3"), True))
    convert(path, tmp_path / "b.pth", query=NetworkQuery(dialect="repact"), transform=fuse)
    x = np.random.default_rng(3).uniform(-1, 1, (1, 3, 32, 48))
    whole, fused = read_network(path, dialect="repact"), read_network(tmp_path / "b.pth")
    assert fused.network.activation == spec.FusedRepAct(shift=True)
    before, after = (forward(each.network.graph, each.state, [x]).values[0] for each in (whole, fused))
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * np.abs(before).max())


@pytest.mark.slow
def test_command_line(tmp_path: Path) -> None:
    path = write_state(tmp_path / "a.pth", theirs(asymmetric_repact_state(SMALL, "repact_2"), False))

    told = run_acon("inspect", path)
    assert "--dialect repact (the RepAct" in told.stdout
    told = run_acon("inspect", path, "--dialect", "repact", "--act", "repact_2")
    assert "network: repact/mobilenet_v3_small with repact(variant=2), 3 classes" in told.stdout
    done = run_acon(
        "convert", path, tmp_path / "b", "--to", "jax", "--network", SMALL, "--act", "repact_2", "--dialect", "repact"
    )
    assert done.returncode == 0, done.stderr
    done = run_acon("convert", tmp_path / "b", tmp_path / "c.pth", "--act", "repact_2", "--to-dialect", "repact", "--verify")
    assert done.returncode == 0, done.stderr
    assert "features.0.2.ActorAtn" in read_file(tmp_path / "c.pth")[1].tensors


def test_dialect_in_metadata(tmp_path: Path) -> None:
    """Every command records the dialect. The tensors alone would be ambiguous."""
    state = asymmetric_repact_state(SMALL, "repact_1")
    write_state(tmp_path / "a.pth", state)
    convert(tmp_path / "a.pth", tmp_path / "b.safetensors", query=NetworkQuery(act="repact_1"), to_dialect="repact")
    assert "features.0.2.ActorAtn" in read_file(tmp_path / "b.safetensors")[1].tensors
    found = read_network(tmp_path / "b.safetensors")
    assert (found.network.name, found.network.activation) == (SMALL, spec.RepAct(variant=1))
    assert found.format.dialect == DIALECTS["repact"]
    for path, array in state.items():
        np.testing.assert_array_equal(found.state[path], array, err_msg=path)
    other = read_network(tmp_path / "b.safetensors", dialect="repact_reconstruct")
    assert not np.array_equal(other.state["features.0.2.weights"], state["features.0.2.weights"])
    write_state(tmp_path / "m.pth", asymmetric_repact_state(SMALL, "meta_acon(reduction=8)"))
    for command in ("fuse", "fold"):
        source, act = ("b.safetensors", "repact_1") if command == "fuse" else ("m.pth", "meta_acon(reduction=8)")
        target = tmp_path / f"{command}.safetensors"
        done = run_acon(command, tmp_path / source, target, "--act", act, "--dialect", "repact", "--to-dialect", "repact")
        assert done.returncode == 0, done.stderr
        assert read_file(target)[1].metadata["dialect"] == "repact"
