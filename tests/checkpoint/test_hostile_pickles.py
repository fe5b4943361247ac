"""No pickle runs anything, and every bad one is one error of one type."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from checkpoint_samples import module
from hostile_pickles import ARRAY, CORRUPT, F4, UNSAFE, UNSUPPORTED, array, payloads, state, text

from acon_core.checkpoint.file import Limits
from acon_core.checkpoint.unpickler import Constructor, load
from acon_core.errors import CheckpointError

PICKLES = ["megengine", "paddle"]
KINDS = [
    (kind, case, data)
    for kind, cases in (("unsafe", UNSAFE), ("corrupt", CORRUPT), ("unsupported", UNSUPPORTED))
    for case, data in cases.items()
]


def refused(name: str, path: Path, content: bytes) -> CheckpointError:
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=str(path)) as caught:
        module(name).read(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return caught.value


@pytest.mark.parametrize("name", [*PICKLES, "torch"])
@pytest.mark.parametrize("case", sorted(payloads("x")))
def test_nothing_is_run(tmp_path: Path, name: str, case: str) -> None:
    sentinel = tmp_path / "sentinel"
    content = payloads(f"touch {sentinel}")[case]
    if name == "torch":
        content = torch_zip(content)
    error = refused(name, tmp_path / "a", content)
    assert not sentinel.exists()
    # PyTorch's own pickles have persistent ids, so there one that is no storage is odd and not dangerous.
    assert error.kind == ("unsupported" if name == "torch" and "persistent" in case else "unsafe")


def test_the_payloads_are_real(tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    for case in ("os.system", "os.system 0", "os.system 4", "exec", "eval", "by memo", "inst", "obj"):
        pickle.loads(payloads(f"touch {sentinel}")[case])
        assert sentinel.exists(), case
        sentinel.unlink()


def torch_zip(program: bytes) -> bytes:
    from acon_core.checkpoint.zip_archive import ZipWriter

    target = io.BytesIO()
    writer = ZipWriter(target)
    writer.add("data.pkl", program)
    writer.add("version", b"3\n")
    writer.close()
    return target.getvalue()


@pytest.mark.parametrize("name", PICKLES)
@pytest.mark.parametrize(("kind", "case", "content"), KINDS, ids=[case for _, case, _ in KINDS])
def test_a_bad_pickle_is_refused_with_its_kind(tmp_path: Path, name: str, kind: str, case: str, content: bytes) -> None:
    assert refused(name, tmp_path / "a", content).kind == kind


def test_the_message_names_file_byte_opcode_global_and_way_out(tmp_path: Path) -> None:
    message = str(refused("megengine", tmp_path / "a", payloads("true")["os.system"]))
    position = payloads("true")["os.system"].index(b"c")
    assert f"{tmp_path / 'a'}: byte {position}, opcode b'c'" in message
    assert "system'" in message
    assert "nothing was run" in message
    assert "save" in message


def test_an_array_error_names_file_and_key(tmp_path: Path) -> None:
    message = str(refused("megengine", tmp_path / "a", CORRUPT["too few bytes"]))
    assert message == f"{tmp_path / 'a'}: w: shape (3,) of float32 needs 12 bytes, found 8"


def test_a_name_with_control_characters_is_shown_on_one_line(tmp_path: Path) -> None:
    content = b"\x80\x02}" + text("w\n\x1b[31m" + "x" * 1000) + array(shape=b"K\x03\x85") + b"s."
    message = str(refused("megengine", tmp_path / "a", content))
    assert message.isprintable()
    assert r"'w\n\x1b[31mxxx" in message


@pytest.mark.parametrize("name", PICKLES)
def test_a_second_pickle_or_other_bytes_after_the_first_are_refused(tmp_path: Path, name: str) -> None:
    for more in (payloads("true")["exec"], b"\n", bytes(100)):
        assert refused(name, tmp_path / "a", state(array()) + more).kind == "corrupt"


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_cut_anywhere_is_corrupt(tmp_path: Path, name: str) -> None:
    module(name).write(tmp_path / "whole", {"w": np.arange(3.0, dtype=np.float32), "v": np.zeros((), np.int32)})
    whole = (tmp_path / "whole").read_bytes()
    for end in range(1, len(whole)):
        assert refused(name, tmp_path / "a", whole[:end]).kind == "corrupt", end


BOMBS = {
    "laughs": b"\x80\x02}q\x00" + b"".join(b"(" + b"h%c" % i * 10 + b"tq%c" % (i + 1) for i in range(100)) + b".",
    "deep tuples": b"\x80\x02)" + b"\x85" * 300_000 + b".",
    "deep tuple as shape": state(
        array(shape=b")q\x00" + b"h\x000" + b"".join(b"\x85q\x00h\x00\x86" for _ in range(200)) + b"\x85")
    ),
    "deep tuple as dtype": state(b"cnumpy\ndtype\n)" + b"2\x86" * 200 + b"\x85R"),
    "cycle": b"\x80\x02}q\x00" + text("w") + b"h\x00s.",
    "list in itself": b"\x80\x02]q\x00h\x00a.",
    "one dict, many names": b"\x80\x02}q\x00("
    + b"".join(text(str(i)) + b"N" for i in range(20_000))
    + b"u0}("
    + b"".join(text(str(i)) + b"h\x00" for i in range(20_000))
    + b"u.",
    "one string, many encodings": b"\x80\x02"
    + text("x" * 1_000_000)
    + b"q\x000c_codecs\nencode\nq\x01"
    + text("latin1")
    + b"q\x020("
    + b"h\x01h\x00h\x02\x86R" * 50_000
    + b"t.",
    "one buffer, many arrays": b"\x80\x02B"
    + struct.pack("<I", 1_000_001)
    + bytes(1_000_001)
    + b"q\x000"
    + F4.replace(b"f4", b"i1")
    + b"q\x010}("
    + b"".join(text(f"{i}") + ARRAY + b"(K\x01J\x41\x42\x0f\x00\x85h\x01\x89h\x00tb" for i in range(1000))
    + b"u.",
    "many lines": b"\x80\x02" + (b"V" + b"x" * 5000 + b"\n0") * 2000 + b"}.",
}


@pytest.mark.parametrize("case", BOMBS)
def test_a_bomb_is_refused_in_little_time(tmp_path: Path, case: str) -> None:
    began = time.perf_counter()
    refused("megengine", tmp_path / "a", BOMBS[case])
    assert time.perf_counter() - began < 20


def test_every_limit_holds(tmp_path: Path) -> None:
    for limits, content in [
        (Limits(opcodes=10), state(array())),
        (Limits(depth=1), b"\x80\x02((tt."),
        (Limits(integer_bytes=4), state(b"\x8a\x05" + bytes(5))),
        (Limits(line=8), state(array())),
        (Limits(file_bytes=8), state(array())),
        (Limits(expansion=0, expansion_floor=7), state(array())),
    ]:
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(CheckpointError):
            module("megengine").read(tmp_path / "a", limits)


def test_one_pickle_is_read_and_its_end_told() -> None:
    data = memoryview(state(array()) + b"more")
    table = {
        ("numpy.core.multiarray", "_reconstruct"): Constructor(lambda args: [args], lambda made, given: made.append(given))
    }
    table |= {
        ("numpy", "ndarray"): Constructor(),
        ("numpy", "dtype"): Constructor(lambda args: {"code": args[0]}, lambda *_: None),
    }
    value, end, seen = load(data, table, "x")
    assert end == len(data) - 4
    assert seen == ("numpy.core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype")
    assert isinstance(value, dict)
    assert value["w"][1][:4] == (1, (2,), {"code": "f4"}, False)


@pytest.mark.parametrize(
    ("spelling", "value"), [(b"I00\n", False), (b"I01\n", True), (b"I1\n", 1), (b"L-7L\n", -7), (b"F1e3\n", 1e3)]
)
def test_protocol_0_spells_numbers_in_text(spelling: bytes, value: object) -> None:
    found = load(memoryview(spelling + b"."), {}, "x").value
    assert (type(found), found) == (type(value), value)


def test_bytes_are_slices_and_not_copies() -> None:
    data = bytearray(state(b"C\x03abc"))
    value = load(memoryview(data), {}, "x").value
    assert isinstance(value, dict)
    data[data.index(b"abc")] = ord("x")
    assert bytes(value["w"]) == b"xbc"


def test_paddles_eval_is_taken_in_its_one_form_alone(tmp_path: Path) -> None:
    def dense(expression: str, *keys: str) -> bytes:
        items = b"".join(text(key) + array() for key in keys)
        return state(b"c__builtin__\neval\n" + text(expression) + b"}(" + items + b"u\x86R")

    (tmp_path / "a").write_bytes(dense("data", "data"))
    assert list(module("paddle").read(tmp_path / "a").tensors) == ["w"]
    bad = [dense("data ", "data"), dense("(data)", "data"), dense("data", "data", "x"), dense("data", "x"), dense("data")]
    named = b"c__builtin__\ntuple\n"
    bad += [
        state(named + b"]\x85R"),
        state(named + text("n") + array() + b"\x86R"),
        state(named + text("n") + b"K\x01\x86\x85R"),
    ]
    for content in bad:
        assert refused("paddle", tmp_path / "a", content).kind == "unsafe"
    for content in (dense("data", "data"), *bad):
        assert refused("megengine", tmp_path / "a", content).kind == "unsafe"


def test_paddles_slices_must_all_be_there(tmp_path: Path) -> None:
    def cut(shape: bytes, *parts: str, among: bytes = b"") -> bytes:
        info = b"}" + text("w") + b"}(" + text("OriginShape") + shape + text("slices") + b"("
        info += b"".join(map(text, parts)) + b"lus"
        arrays = b"".join(text(f"w@@.{i}") + array() for i in range(2))
        return b"\x80\x02}(" + arrays + among + text("UnpackBigParamInfor@@") + info + b"u."

    path = tmp_path / "a"
    path.write_bytes(cut(b"K\x02K\x02\x86", "w@@.0", "w@@.1"))
    assert module("paddle").read(path).tensors["w"].shape == (2, 2)
    for content in (
        cut(b"K\x03K\x02\x86", "w@@.0", "w@@.1"),
        cut(b"K\x02K\x02\x86", "w@@.0", "w@@.2"),
        cut(b"K\x02K\x02\x86", "w@@.0", "w@@.0"),
        cut(b"K\x02K\x02\x86"),
        cut(b"K\x02K\x02\x86", "w@@.0", "w@@.1", among=text("w") + array()),
        cut(text("4"), "w@@.0", "w@@.1"),
        cut(b"J\xff\xff\xff\xffJ\xfc\xff\xff\xff\x86", "w@@.0", "w@@.1"),
    ):
        assert refused("paddle", path, content).kind == "corrupt"


def test_readers_leave_the_interpreter_as_it_was(tmp_path: Path) -> None:
    modules, folder = set(sys.modules), Path.cwd()
    refused("megengine", tmp_path / "a", b"\x80\x02cantigravity\nx\n.")
    assert set(sys.modules) == modules
    assert Path.cwd() == folder
