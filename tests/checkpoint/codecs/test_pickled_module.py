"""State dicts of pickled modules, read without their classes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from checkpoint_samples import assert_same, limited, module
from hostile_legacy import whole
from hostile_pickles import Kind, array, payloads, text
from hostile_torch import WEIGHT as VALUES
from hostile_torch import archive

from acon_core.checkpoint.codecs.codec import CheckpointFile
from acon_core.errors import CheckpointError

FORMATS = ["torch", "torch_legacy", "megengine"]
STORAGE = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x06%stQ"
HOOKS = {"_forward_hooks": b"}", "_forward_pre_hooks": b"}"}
NET = b"cmodels\nNet\n"


def items(entries: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def instance(state: bytes, name: bytes = NET) -> bytes:
    return name + b")\x81" + state + b"b"


def tensor(format: str, start: int) -> bytes:
    """Pickle a tensor of the two values from `start` on, of six."""
    if format == "megengine":
        ndarray = array(data=b"C\x08" + VALUES[start : start + 2].tobytes())
        return b"cmegengine.tensor\nParameter\n(" + ndarray + b"N" + text("xpux:0") + b"t\x81}b"
    storage = STORAGE % (b"N" if format == "torch_legacy" else b"")
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K" + bytes([start]) + b"K\x02\x85K\x01\x85"
    return rebuild + b"\x89ccollections\nOrderedDict\n)RtR"


def net(
    format: str,
    tensors: Mapping[str, bytes] | None = None,
    modules: Mapping[str, bytes] | None = None,
    others: Mapping[str, bytes] | None = None,
    name: bytes = NET,
) -> bytes:
    """Pickle a module of the format's framework; its one tensor is w by default."""
    tensors = {"w": tensor(format, 1)} if tensors is None else tensors
    if format == "megengine":
        return instance(items({**HOOKS, **tensors, **(modules or {}), **(others or {})}), name)
    own = {"_parameters": items(tensors), "_buffers": b"}", "_modules": items(modules or {})}
    return instance(items(own | dict(others or {})), name)


def wrapped(format: str, program: bytes) -> bytes:
    program = b"\x80\x02" + program + b"."
    if format == "torch":
        return archive(program)
    return whole(program) if format == "torch_legacy" else program


def read(tmp_path: Path, format: str, program: bytes) -> CheckpointFile:
    (tmp_path / "a").write_bytes(wrapped(format, program))
    found = module(format).read(tmp_path / "a")
    assert isinstance(found, CheckpointFile)
    return found


def refused(tmp_path: Path, format: str, program: bytes, kind: Kind = "unsafe") -> str:
    with pytest.raises(CheckpointError, match=str(tmp_path / "a")) as caught:
        read(tmp_path, format, program)
    assert caught.value.kind == kind, caught.value
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


@pytest.mark.parametrize("format", FORMATS)
def test_state_dict_of_module(tmp_path: Path, format: str) -> None:
    inner = net(format, {"v": tensor(format, 2), "none": b"N"}, {"gone": b"N"}, name=b"ctorch.nn\nLinear\n")
    others = {"act": b"ctorch.nn.functional\nrelu\n", "config": instance(b"(}Nt", b"cmodels\nConfig\n")}
    program = net(format, None, {"a": inner, "b": net(format)}, others)
    found = read(tmp_path, format, program)
    expected = {"w": VALUES[1:3], "a.v": VALUES[2:4], "b.w": VALUES[1:3]}
    assert_same(found.tensors, expected)
    assert found.notes == ["a whole module (models.Net) was read as its state dict; none of its classes was imported or called"]
    assert {"models.Net", "torch.nn.Linear", "torch.nn.functional.relu", "models.Config"} <= set(found.globals_seen)


@pytest.mark.parametrize("format", FORMATS)
def test_module_in_training_checkpoint(tmp_path: Path, format: str) -> None:
    found = read(tmp_path, format, items({"epoch": b"K\x03", "model": net(format), "ema": net(format)}))
    assert_same(found.tensors, {"w": VALUES[1:3]})
    assert found.notes[1:] == ["read the tensors under 'model'; ignored 'epoch', 'ema'"]
    found = read(tmp_path, format, items({"model": b"N", "ema": net(format)}))
    assert_same(found.tensors, {"w": VALUES[1:3]})
    assert found.foreign_globals == ("models.Net",)


@pytest.mark.parametrize("format", ["torch", "torch_legacy"])
def test_non_persistent_buffers(tmp_path: Path, format: str) -> None:
    buffers = items({"kept": tensor(format, 3), "passing": tensor(format, 4), "none": b"N"})
    passing = b"c__builtin__\nset\n](" + text("passing") + text("gone") + b"e\x85R"
    program = net(format, None, None, {"_non_persistent_buffers_set": passing})
    program = program.replace(text("_buffers") + b"}", text("_buffers") + buffers)
    assert_same(read(tmp_path, format, program).tensors, {"w": VALUES[1:3], "kept": VALUES[3:5]})


def test_shared_module(tmp_path: Path) -> None:
    for format, names in (("torch", ["a.w", "b.w"]), ("megengine", ["a.w"])):
        shared = net(format) + b"q\x09"
        found = read(tmp_path, format, net(format, {}, {"a": shared, "b": b"h\x09"}))
        assert list(found.tensors) == names


def test_megengine_norms(tmp_path: Path) -> None:
    def norm(name: bytes, others: dict[str, bytes]) -> CheckpointFile:
        ndarray = array(shape=b"(K\x01K\x02K\x01K\x01t", data=b"C\x08" + VALUES[1:3].tobytes())
        value = b"cmegengine.tensor\nTensor\n(" + ndarray + b"N" + text("xpux:0") + b"t\x81}b"
        return read(tmp_path, "megengine", net("megengine", {"weight": value}, None, others, name))

    own = {"num_features": b"K\x02", "track_running_stats": b"\x88", "running_mean": b"N", "running_var": b"N"}
    for name, others, shape in [
        (b"cmegengine.module.batchnorm\nBatchNorm2d\n", {}, (2,)),
        (b"cmodels\nMyNorm\n", own, (2,)),
        (NET, {}, (1, 2, 1, 1)),
    ]:
        assert norm(name, others).tensors["weight"].shape == shape
    plain = {
        "plain": array(),
        "odd": b"}(K\x01" + tensor("megengine", 2) + b"u",
        "listed": b"](" + tensor("megengine", 1) + b"e",
    }
    found = read(tmp_path, "megengine", net("megengine", {}, None, plain))
    assert list(found.tensors) == ["listed.0", "odd.1"]  # sorted; an array of NumPy's own is no state


ATTRIBUTES = {
    "a class that is called": NET + b")R",
    "a class that is called with arguments": NET + b"K\x01\x85R",
    "an instance with arguments": NET + b"K\x01\x85\x81",
    "an instance with a list of arguments": NET + b"]\x81",
    "an instance of no name": text("models.Net") + b")\x81",
    "an instance by keywords": NET + b")}\x92",
    "INST": b"(imodels\nNet\n",
    "OBJ": b"(" + NET + b"o",
    "BUILD on a class": NET + items({"x": b"K\x01"}) + b"b",
    "BUILD with slots": instance(b"N" + items({"x": b"K\x01"}) + b"\x86"),
    "BUILD with attributes and slots": instance(b"}" + items({"x": b"K\x01"}) + b"\x86"),
    "BUILD with a list": instance(b"]"),
    "BUILD with a name": instance(NET),
    "BUILD twice": instance(b"}") + b"}b",
    "__setstate__": instance(items({"__setstate__": b"ctorch.hub\nload\n"})) + text("x") + b"b",
    "__class__": instance(items({"__class__": b"cmodels\nOther\n"})),
    "items of an instance": NET + b")\x81" + text("x") + b"K\x01s",
    "a value appended to an instance": NET + b")\x81K\x01a",
    "an instance called": instance(b"}") + b")R",
    "an instance as a class": instance(b"}") + b")\x81",
    "a name for __reduce__": b"ccopyreg\n__newobj__\n" + NET + b"\x85R",
    "a dotted name": text("models") + text("Net.__init__") + b"\x93",
    "a dotted name of a module": text("torch.hub") + text("os.system") + b"\x93",
    "no name": text("models") + text("") + b"\x93",
    "no module": text("") + text("system") + b"\x93",
    "a name with a space": text("models") + text("a b") + b"\x93",
    "a persistent id": text("x") + b"Q",
    "EXT": b"\x82\x01",
    "an instance as a key": b"}" + instance(b"}") + b"K\x01s",
}
# fmt: off
PYTHONS = (
    "os system", "posix system", "nt system", "sys exit", "subprocess Popen", "builtins getattr", "builtins eval",
    "builtins exec", "__builtin__ apply", "shutil rmtree", "socket socket", "importlib import_module", "runpy run_path",
    "ctypes CDLL", "pickle loads", "_pickle loads", "cPickle loads", "copyreg _reconstructor", "copy_reg _reconstructor",
    "os.path join", "functools partial", "operator attrgetter", "types CodeType", "code interact", "asyncio run",
    "webbrowser open", "antigravity x", "commands getoutput", "pty spawn", "builtins type", "builtins object",
    "marshal loads",
)
# fmt: on


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("case", ATTRIBUTES)
def test_unknown_classes_are_inert(tmp_path: Path, format: str, case: str) -> None:
    # The error is that of the first, strict reading, which refuses the first unknown name.
    message = refused(tmp_path, format, net(format, None, None, {"x": ATTRIBUTES[case]}))
    assert "models.Net" in message
    assert "nothing was run" in message


@pytest.mark.parametrize("format", FORMATS)
def test_standard_library_is_refused(tmp_path: Path, format: str) -> None:
    for name in PYTHONS:
        mention = b"c" + name.replace(" ", "\n").encode() + b"\n"
        refused(tmp_path, format, net(format, None, None, {"x": mention}))
        refused(tmp_path, format, net(format, name=mention))


@pytest.mark.parametrize("format", FORMATS)
def test_payloads_do_not_run(tmp_path: Path, format: str) -> None:
    sentinel = tmp_path / "sentinel"
    for table in payloads(f"touch {sentinel}").values():
        for name, payload in table.items():
            body = payload[2:-1] if payload[:1] == b"\x80" else payload[:-1]
            refused(tmp_path, format, net(format, None, None, {"x": body}))
            assert not sentinel.exists(), name


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "program",
    [
        instance(b"}"),
        NET,
        NET + b")\x81",
        b"](" + instance(b"}") + b"e",
        items({"model": instance(b"}")}),
        items({"args": instance(b"}"), "state_dict": b"}"}),
        items({"model": items({"model": instance(b"}")})}),
    ],
)
def test_instances_that_are_not_modules(tmp_path: Path, format: str, program: bytes) -> None:
    assert "models.Net" in refused(tmp_path, format, program)


@pytest.mark.parametrize("format", FORMATS)
def test_module_beside_state_dict(tmp_path: Path, format: str) -> None:
    found = read(tmp_path, format, items({"args": net(format), "state_dict": items({"w": tensor(format, 1)})}))
    assert_same(found.tensors, {"w": VALUES[1:3]})
    assert found.foreign_globals == ("models.Net",)
    refused(tmp_path, format, b"](" + net(format) + b"e")


def cycle(format: str) -> bytes:
    """Pickle a module that contains itself two levels down; MegEngine ignores direct recursion."""
    state = net(format, None, {"a": net(format, None, {"b": b"h\x09"})})[len(NET) + 2 :]
    return NET + b")\x81q\x09" + state


def deep(format: str, levels: int) -> bytes:
    """Pickle nested modules from the inside, so that no opcode nests."""
    head = net(format, {}, {"m": b"@"}).partition(b"@")
    begin = head[0][len(NET) + 2 :]
    made = net(format) + b"q\x090"
    step = NET + b")\x81" + begin + b"h\x09" + head[2] + b"q\x090"
    return made + step * levels + b"h\x09"


def doubled(format: str, levels: int) -> bytes:
    """Pickle modules that share their two children, so that there are 2 ** levels paths."""
    leaf = net(format) + b"q\x080" + net(format) + b"q\x090"
    twins = net(format, {}, {"m": b"h\x08", "n": b"h\x09"})
    return leaf + (twins + b"q\x07" + b"0" + twins + b"q\x090" + b"h\x07q\x080") * levels + b"h\x09"


@pytest.mark.parametrize("format", ["torch", "megengine"])
def test_endless_modules(tmp_path: Path, format: str) -> None:
    began = time.process_time()
    assert "contain themselves" in refused(tmp_path, format, cycle(format), "corrupt")
    assert "nested more than 64" in refused(tmp_path, format, deep(format, 10_000), "corrupt")
    assert "nested more than 64" in refused(tmp_path, format, deep(format, 65), "corrupt")
    assert list(read(tmp_path, format, deep(format, 64)).tensors) == ["m." * 64 + "w"]
    assert "refer to each other too often" in refused(tmp_path, format, doubled(format, 40), "corrupt")
    assert time.process_time() - began < 20


def test_nested_attributes(tmp_path: Path) -> None:
    lists = b"]q\x090" + b"](h\x09eq\x090" * 100
    refused(tmp_path, "megengine", net("megengine", None, {"a": lists + b"h\x09"}), "corrupt")
    itself = b"]q\x09h\x09a"
    assert list(read(tmp_path, "megengine", net("megengine", None, {"a": itself})).tensors) == ["w"]
    clash = {"a": items({"b": tensor("megengine", 1)}), "a.b": tensor("megengine", 2)}
    assert "'a.b'" in refused(tmp_path, "megengine", net("megengine", clash), "corrupt")


@pytest.mark.parametrize("format", ["torch", "torch_legacy"])
def test_invalid_module(tmp_path: Path, format: str) -> None:
    good = tensor(format, 1)
    beside = {"x": good}  # no state, and yet the file's one storage is in use
    for tensors, modules, others, kind in [
        ({"w": b"K\x01"}, {}, {}, "unsupported"),
        ({"w": items({"w": good})}, {}, {}, "unsupported"),
        ({}, {"a": good}, {}, "corrupt"),
        ({}, {"a": b"]"}, {}, "corrupt"),
        ({}, {"a": instance(b"}")}, {}, "unsupported"),
        ({}, {"a": NET + b")\x81"}, {}, "unsupported"),
        ({}, {}, {"_non_persistent_buffers_set": text("w")}, "corrupt"),
        ({}, {}, {"_non_persistent_buffers_set": b"](]e"}, "corrupt"),
        ({"a.w": good}, {"a": net(format)}, {}, "corrupt"),
        ({}, {}, {}, "unsupported"),
    ]:
        refused(tmp_path, format, net(format, tensors, modules, beside | others), kind)
    refused(tmp_path, format, net(format).replace(text("w"), b"K\x07"), "corrupt")


@pytest.mark.parametrize("format", FORMATS)
def test_name_limit(tmp_path: Path, format: str) -> None:
    read(tmp_path, format, net(format))
    with limited(module_names=1), pytest.raises(CheckpointError, match="refer to each other too often"):
        module(format).read(tmp_path / "a")


def test_plain_state_dict(tmp_path: Path) -> None:
    found = read(tmp_path, "megengine", items({"w": tensor("megengine", 1)}))
    assert (list(found.tensors), found.notes) == (["w"], [])
    assert np.array_equal(found.tensors["w"], VALUES[1:3])


@pytest.mark.parametrize("format", FORMATS)
def test_check_calls_modules_unsafe(tmp_path: Path, format: str) -> None:
    """The command `acon check` judges a file for other loaders too."""
    assert read(tmp_path, format, net(format)).foreign_globals == ("models.Net",)
    command = [sys.executable, "-m", "acon_core.cli", "check", str(tmp_path / "a"), str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "unsafe: " in done.stdout
    assert "other loaders would import models.Net" in done.stdout
    assert "unreadable: " in done.stdout
