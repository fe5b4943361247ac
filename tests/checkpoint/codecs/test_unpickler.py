"""A pickle executes nothing, and every invalid one is one kind of error."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from attacks import Attack
from checkpoint_samples import limited, module
from hostile_pickles import PADDLE, PROGRAMS, array, cut, dense, named, payloads, state, text

from acon_core.checkpoint.codecs.pickle_values import Constructor
from acon_core.checkpoint.codecs.unpickler import load
from acon_core.errors import CheckpointError

PICKLES = ["megengine", "paddle"]


def refused(name: str, path: Path, content: bytes) -> CheckpointError:
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=str(path)) as caught:
        module(name).read(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return caught.value


def test_payloads_are_real(tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    programs = named(payloads(f"touch {sentinel}"))
    for case in ("os.system", "os.system 0", "os.system 4", "exec", "eval", "by memo", "inst", "obj"):
        pickle.loads(programs[case])
        assert sentinel.exists(), case
        sentinel.unlink()


def test_message(tmp_path: Path) -> None:
    program = named(payloads("true"))["os.system"]
    message = str(refused("megengine", tmp_path / "a", program))
    position = program.index(b"c")
    assert f"{tmp_path / 'a'}: byte {position}, opcode b'c'" in message
    assert "system'" in message
    assert "nothing was run" in message
    assert "save" in message


def test_message_names_key(tmp_path: Path) -> None:
    message = str(refused("megengine", tmp_path / "a", named(PROGRAMS)["too few bytes"]))
    assert message == f"{tmp_path / 'a'}: w: shape (3,) of float32 needs 12 bytes, found 8"


def test_message_is_printable(tmp_path: Path) -> None:
    content = b"\x80\x02}" + text("w\n\x1b[31m" + "x" * 1000) + array(shape=b"K\x03\x85") + b"s."
    message = str(refused("megengine", tmp_path / "a", content))
    assert message.isprintable()
    assert r"'w\n\x1b[31mxxx" in message


@pytest.mark.parametrize("name", PICKLES)
def test_truncated(tmp_path: Path, name: str) -> None:
    module(name).write(tmp_path / "whole", {"w": np.arange(3.0, dtype=np.float32), "v": np.zeros((), np.int32)})
    whole = (tmp_path / "whole").read_bytes()
    for end in range(1, len(whole)):
        assert refused(name, tmp_path / "a", whole[:end]).kind == "corrupt", end


def test_limits(tmp_path: Path) -> None:
    for changes, content in [
        ({"opcodes": 10}, state(array())),
        ({"depth": 1}, b"\x80\x02((tt."),
        ({"integer_bytes": 4}, state(b"\x8a\x05" + bytes(5))),
        ({"line": 8}, state(array())),
        ({"file_bytes": 8}, state(array())),
        ({"expansion": 0, "expansion_floor": 7}, state(array())),
    ]:
        (tmp_path / "a").write_bytes(content)
        with limited(**changes), pytest.raises(CheckpointError):
            module("megengine").read(tmp_path / "a")


def test_load_result() -> None:
    data = memoryview(state(array()) + b"more")
    table = {
        ("numpy.core.multiarray", "_reconstruct"): Constructor(lambda args: [args], lambda made, given: made.append(given))
    }
    table |= {
        ("numpy", "ndarray"): Constructor(),
        ("numpy", "dtype"): Constructor(lambda args: {"code": args[0]}, lambda *_: None),
    }
    value, end, seen, foreign = load(data, table, "x", allow_more=True)
    with pytest.raises(CheckpointError, match=r"^x: 4 bytes after the pickle's end"):
        load(data, table, "x")
    assert end == len(data) - 4
    assert seen == ("numpy.core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype")
    assert foreign == ()
    assert isinstance(value, dict)
    assert value["w"][1][:4] == (1, (2,), {"code": "f4"}, False)


@pytest.mark.parametrize(
    ("spelling", "value"), [(b"I00\n", False), (b"I01\n", True), (b"I1\n", 1), (b"L-7L\n", -7), (b"F1e3\n", 1e3)]
)
def test_protocol_0_numbers(spelling: bytes, value: object) -> None:
    found = load(memoryview(spelling + b"."), {}, "x").value
    assert (type(found), found) == (type(value), value)


def test_bytes_are_slices() -> None:
    data = bytearray(state(b"C\x03abc"))
    value = load(memoryview(data), {}, "x").value
    assert isinstance(value, dict)
    data[data.index(b"abc")] = ord("x")
    assert bytes(value["w"]) == b"xbc"


def test_paddle_eval(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(dense("data", "data"))
    assert list(module("paddle").read(tmp_path / "a").tensors) == ["w"]
    for content in (dense("data", "data"), *PADDLE[Attack.PADDLE_EVAL, "unsafe"].values()):
        assert refused("megengine", tmp_path / "a", content).kind == "unsafe"


def test_paddle_slices(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(cut(b"K\x02K\x02\x86", "w@@.0", "w@@.1"))
    assert module("paddle").read(tmp_path / "a").tensors["w"].shape == (2, 2)


def test_no_side_effects(tmp_path: Path) -> None:
    modules, folder = set(sys.modules), Path.cwd()
    refused("megengine", tmp_path / "a", b"\x80\x02cantigravity\nx\n.")
    assert set(sys.modules) == modules
    assert Path.cwd() == folder


@pytest.mark.parametrize("name", PICKLES)
def test_keys_with_equal_hashes(tmp_path: Path, name: str) -> None:
    keys = {k * ((1 << 61) - 1): None for k in range(1, 3_000)}
    (tmp_path / "a").write_bytes(pickle.dumps({"state_dict": {"w": np.float32([1])}, "more": keys}, 4))
    with pytest.raises(CheckpointError, match="expected text or a small integer"):
        module(name).read(tmp_path / "a")
