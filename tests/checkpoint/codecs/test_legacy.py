"""PyTorch's format before 1.6."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from checkpoint_samples import assert_same, bits, limited, module
from hostile_legacy import GOOD, MAGIC, STORAGE, whole
from hostile_pickles import Kind, payloads, text
from hostile_torch import WEIGHT, big, tensor, two
from legacy_samples import PYTHON_2, PYTHON_2_STATE

from acon_core.errors import CheckpointError

KEYS = b"\x80\x02](" + text("0") + b"e."


def read(path: Path, content: bytes) -> dict[str, np.ndarray]:
    path.write_bytes(content)
    assert module("torch_legacy").sniff(path)
    return dict(module("torch_legacy").read(path).tensors)


def refused(path: Path, content: bytes, kind: Kind = "corrupt") -> str:
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=str(path)) as caught:
        module("torch_legacy").read(path)
    assert caught.value.kind == kind, caught.value
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_valid_file(tmp_path: Path) -> None:
    assert_same(read(tmp_path / "a", whole(GOOD)), {"w": WEIGHT})
    assert_same(read(tmp_path / "a", whole(tensor())), {"w": WEIGHT})  # persistent ids of five parts


def test_python_2_file(tmp_path: Path) -> None:
    assert_same(read(tmp_path / "a", PYTHON_2), PYTHON_2_STATE)


@pytest.mark.parametrize("protocol", [b"L119547037146038801333356L\n.", b"\x80\x04\x95" + struct.pack("<Q", 13) + MAGIC[2:]])
def test_magic_number_protocols(tmp_path: Path, protocol: bytes) -> None:
    assert_same(read(tmp_path / "a", whole(GOOD, magic=protocol)), {"w": WEIGHT})


def test_shared_storage(tmp_path: Path) -> None:
    other = tensor(kind="torch.storage\nUntypedStorage", numel=b"K\x18", call="_rebuild_tensor_v3", extra=b"ctorch\nuint32\n")
    found = read(tmp_path / "a", whole(two(GOOD, other)))
    assert_same(found, {"w": WEIGHT, "v": WEIGHT.view(np.uint32)})
    assert "two sizes" in refused(tmp_path / "a", whole(two(GOOD, tensor(numel=b"K\x05", size=b"K\x05\x85"))))


def part(offset: bytes, length: bytes, key: bytes = text("1")) -> bytes:
    return tensor(metadata=b"(" + key + offset + length + b"t", size=b"K\x02\x85")


def test_partial_storage(tmp_path: Path) -> None:
    assert_same(read(tmp_path / "a", whole(part(b"K\x04", b"K\x02"))), {"w": WEIGHT[4:]})
    for offset, length in [(b"K\x04", b"K\x03"), (b"K\x04", b"K\x01"), (b"J\xff\xff\xff\xff", b"K\x02"), (b"K\x00", b"\x88")]:
        refused(tmp_path / "a", whole(part(offset, length)))
    refused(tmp_path / "a", whole(part(big(1 << 62), big(1 << 62))))
    refused(tmp_path / "a", whole(part(b"J\xfe\xff\xff\xff", b"K\x02")))  # the last two, if it were believed
    refused(tmp_path / "a", whole(part(text("4"), b"K\x02")))
    refused(tmp_path / "a", whole(tensor(metadata=b"K\x00")))


@pytest.mark.parametrize("where", ["magic", "version", "system", "keys"])
def test_payloads_do_not_run(tmp_path: Path, where: str) -> None:
    sentinel = tmp_path / "sentinel"
    for table in payloads(f"touch {sentinel}").values():
        for name, payload in table.items():
            after = MAGIC[:-1] + b"0" + (payload[2:] if payload[:1] == b"\x80" else payload)
            content = whole(GOOD, **{where: after if where == "magic" else payload})
            assert "opcode" in refused(tmp_path / "a", content, "unsafe"), name
            assert not sentinel.exists(), name


@pytest.mark.parametrize(
    "spoilt",
    [
        {"magic": MAGIC[:-1] + b"0K\x01."},
        {"version": b"\x80\x02]."},
        {"keys": b"\x80\x02" + text("0") + b"\x85."},
        {"keys": KEYS.replace(text("0"), text("1"))},
        {"keys": KEYS[:-2] + b"K\x00e."},
        {"storages": STORAGE[:8].replace(b"\6", b"\7") + STORAGE[8:]},
        {"storages": STORAGE * 2},
    ],
)
def test_contradictions(tmp_path: Path, spoilt: dict[str, bytes]) -> None:
    refused(tmp_path / "a", whole(GOOD, **spoilt))


def test_huge_length(tmp_path: Path) -> None:
    refused(tmp_path / "a", whole(tensor(metadata=b"N", numel=b"\x8a\x19" + bytes(24) + b"\x01")))


def test_truncated(tmp_path: Path) -> None:
    content = whole(GOOD)
    for end in range(1, len(content)):
        refused(tmp_path / "a", content[:end], "corrupt" if end >= len(MAGIC) - 1 else "unsupported")


def test_ordered_dict_pairs_once(tmp_path: Path) -> None:
    """A second use is refused, so that a small file cannot use them very often."""
    again = PYTHON_2[: PYTHON_2.index(b"etR.")] + b"eq\x07tR0ccollections\nOrderedDict\n(h\x07tR."
    again += PYTHON_2[PYTHON_2.index(b"etR.") + 4 :]
    refused(tmp_path / "a", again, "unsafe")


def test_written_bytes(tmp_path: Path) -> None:
    module("torch_legacy").write(tmp_path / "a", {"w": WEIGHT}, {"network": "x"})
    content = (tmp_path / "a").read_bytes()
    assert content.startswith(MAGIC + b"\x80\x02M\xe9\x03.")
    assert content.endswith(KEYS + STORAGE)
    assert module("torch_legacy").read(tmp_path / "a").metadata == {}


def test_unsupported_dtypes(tmp_path: Path) -> None:
    for dtype in ("uint16", "uint32", "uint64", "float8_e4m3fn"):
        with pytest.raises(CheckpointError, match=f"cannot store {dtype}"):
            module("torch_legacy").write(tmp_path / "a", {"w": bits(dtype, (2,))})


def test_limits(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(whole(GOOD))
    for changes in ({"opcodes": 3}, {"ndim": 0}, {"file_bytes": 9}, {"expansion": 0, "expansion_floor": 23}):
        with limited(**changes), pytest.raises(CheckpointError):
            module("torch_legacy").read(tmp_path / "a")
