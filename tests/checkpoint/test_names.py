"""Which tensors of a file are the network's: wrappers, prefixes, patterns, counters, formats."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_samples import module
from small_checkpoints import small

from acon_core.checkpoint import NetworkQuery, read_file, read_network
from acon_core.checkpoint.codecs.codec import CheckpointFile
from acon_core.checkpoint.formats import format_named
from acon_core.checkpoint.names import select, strip_wrappers
from acon_core.checkpoint.reading import Checkpoint
from acon_core.errors import AconError, CheckpointError
from acon_core.tensors import LazyTensors, eager

NAME = "acon/shufflenet_v2_x0_5"
NETWORK, INITIAL = small(NAME, "acon_c", classes=5)
# No two tensors are equal, and none is zero.
STATE = {name: (array + index + 1).astype(array.dtype) for index, (name, array) in enumerate(INITIAL.items())}


def write(path: Path, tensors: dict[str, Any], format: str = "safetensors") -> Path:
    format_named(format).codec.write(path, tensors, {})
    return path


def check(found: Checkpoint) -> None:
    assert found.network.name == NAME
    for path, array in STATE.items():
        np.testing.assert_array_equal(found.state[path], array, err_msg=path)


def named(rename: Callable[[str], str]) -> dict[str, Any]:
    return {rename(name): array for name, array in STATE.items()}


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"model.{name}",
        lambda name: f"model._orig_mod.{name}",
        lambda name: f"_fsdp_wrapped_module.{name}",
        lambda name: f"module._orig_mod.module.{name}",
        lambda name: name.replace("features.", "features.module."),
        lambda name: name.replace("features.0.", "features.0._checkpoint_wrapped_module."),
        lambda name: name.replace("features.", "_fsdp.").replace("_fsdp.", "features._fsdp_wrapped_module._orig_mod."),
    ],
)
def test_wrappers(tmp_path: Path, rename: Callable[[str], str]) -> None:
    check(read_network(write(tmp_path / "a", named(rename))))


def file_of(names: Iterable[str]) -> CheckpointFile:
    return CheckpointFile(LazyTensors({name: eager(np.float32(index)) for index, name in enumerate(names)}))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["module.a", "module.b"], ["a", "b"]),
        (["module.a", "b"], ["module.a", "b"]),  # not a wrapper: it has a sibling
        (["x.module.a", "x.b"], ["x.module.a", "x.b"]),
        (["x.module.a", "y.module.b"], ["x.a", "y.b"]),
        (["n_averaged", "module.a"], ["n_averaged", "a"]),
        (["module"], ["module"]),
        (["a.module.module.b"], ["a.b"]),
        (["xmodule.a"], ["xmodule.a"]),
    ],
)
def test_only_wrappers_are_removed(names: list[str], expected: list[str]) -> None:
    assert list(strip_wrappers(file_of(names)).tensors) == expected


def test_bookkeeping_is_left_out(tmp_path: Path) -> None:
    one = np.zeros(1, np.float64)
    more = {"total_ops": one, "total_params": one, "features.0.total_ops": one}
    found = read_network(write(tmp_path / "a", {**STATE, **more}))
    check(found)
    assert "ignored the counters of thop: 'total_ops', 'total_params', 'features.0.total_ops'" in found.notes
    averaged = {"n_averaged": np.zeros((), np.int64), **named(lambda name: f"module.{name}")}
    check(read_network(write(tmp_path / "a", averaged)))
    with pytest.raises(CheckpointError, match="'total_ops' is unexpected"):  # no counter of a tool: it has two elements
        read_network(write(tmp_path / "a", {**STATE, "total_ops": np.zeros(2)}))


def test_choice_of_tensors(tmp_path: Path) -> None:
    other = {f"teacher.{name}": array + 1 for name, array in STATE.items()}
    path = write(tmp_path / "a", named(lambda name: f"student.{name}") | other)
    with pytest.raises(CheckpointError, match=r"a network is below 'student': pass --key student or --key teacher"):
        read_network(path)
    check(read_network(path, key="student"))
    first = next(iter(STATE))
    np.testing.assert_array_equal(read_network(path, key="teacher").state[first], STATE[first] + 1)
    check(read_network(path, strip_prefix="student.", ignore=["teacher.*"]))
    path = write(tmp_path / "a", named(lambda name: f"backbone.{name}") | {"head.w": np.zeros(3)})
    check(read_network(path, strip_prefix=["backbone."], ignore="head.*"))
    check(read_network(path, key="backbone"))
    path = write(tmp_path / "a", named(lambda name: f"backbone.{name}"))
    with pytest.raises(CheckpointError, match=r"pass --strip-prefix backbone\."):
        read_network(path)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"strip_prefix": "x."}, r"a: --strip-prefix x\.: no tensor name begins with it; they begin with 'b', 'w'"),
        ({"strip_prefix": "b."}, r"a: --strip-prefix b\.: two tensors would have the name w; use --key"),
        ({"ignore": "z*"}, r"a: --ignore z\*: no tensor has such a name"),
        ({"key": "z"}, r"a: --key z: no tensor name begins with z\.; they begin with 'b', 'w'"),
        ({"format": "npz"}, "a: --format npz: it is not; its content is of format safetensors"),
        ({"format": "foo"}, "--format foo: no such format"),
    ],
)
def test_choice_that_is_not_there(tmp_path: Path, query: dict[str, str], words: str) -> None:
    path = write(tmp_path / "a", {"b.w": np.zeros(2), "w": np.ones(3)})
    with pytest.raises(AconError, match=words):
        read_file(path, NetworkQuery(**query))  # type: ignore[arg-type]


def test_patterns() -> None:
    names = ["total_a", "x.total_b", "x.y", "y.x"]
    assert list(select(file_of(names), (), ("total_*",)).tensors) == ["x.y", "y.x"]
    assert list(select(file_of(names), (), ("x.*",)).tensors) == ["total_a", "y.x"]


@pytest.mark.parametrize("format", ["torch", "torch_legacy", "safetensors", "npz"])
def test_missing_counters(tmp_path: Path, format: str) -> None:
    """PyTorch before 0.4.1 did not store num_batches_tracked."""
    old = {name: array for name, array in STATE.items() if not name.endswith("num_batches_tracked")}
    found = read_network(write(tmp_path / "a", old, format))
    assert found.network.name == NAME
    assert set(found.regenerated) == STATE.keys() - old.keys()
    assert not any(found.state[name].any() for name in found.regenerated)
    assert found.state["first_conv.1.num_batches_tracked"].dtype == np.int64
    assert not found.as_stored
    assert read_network(write(tmp_path / "a", dict(STATE), format)).as_stored


def test_numpy_arrays_of_paddle(tmp_path: Path) -> None:
    """What a script that converts weights saves: the arrays alone, without Paddle's markers."""
    native = format_named("paddle").layout.to_native(NETWORK.graph, STATE)
    (tmp_path / "a").write_bytes(pickle.dumps(dict(native), 4))
    found = read_network(tmp_path / "a")
    assert found.format.name == "paddle"
    np.testing.assert_array_equal(found.state["classifier.0.weight"], STATE["classifier.0.weight"])
    with pytest.raises(CheckpointError, match=r"no network|nearest"):
        read_network(tmp_path / "a", format="megengine")
    native = format_named("megengine").layout.to_native(NETWORK.graph, STATE)
    (tmp_path / "a").write_bytes(pickle.dumps(dict(native), 4))
    assert read_network(tmp_path / "a").format.name == "megengine"


def test_ambiguous_numpy_arrays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A square Linear is transposed in Paddle and not in MegEngine; nothing in the file tells."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "helpers"))
    weight = np.arange(9, dtype=np.float32).reshape(3, 3)
    (tmp_path / "a").write_bytes(pickle.dumps({"layer.weight": weight}, 4))
    own = "own_networks:square"
    with pytest.raises(
        AconError, match=r"a: the tensors fit formats megengine and paddle.*pass --format megengine or --format p"
    ):
        read_network(tmp_path / "a", own)
    np.testing.assert_array_equal(read_network(tmp_path / "a", own, format="megengine").state["layer.weight"], weight)
    np.testing.assert_array_equal(read_network(tmp_path / "a", own, format="paddle").state["layer.weight"], weight.T)
    (tmp_path / "a").write_bytes(pickle.dumps({"layer.weight": weight + weight.T}, 4))
    assert read_network(tmp_path / "a", own).format.name == "megengine"  # the same in both
    module("megengine").write(tmp_path / "b", {"layer.weight": weight}, {"writer": "acon-ports"})
    np.testing.assert_array_equal(read_network(tmp_path / "b", own).state["layer.weight"], weight)
