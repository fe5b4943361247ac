"""Metadata survives unchanged in deterministic bytes, and nothing else is accepted."""

from __future__ import annotations

import json

import pytest
from checkpoint_samples import limited

from acon_core.checkpoint.codecs.strict_json import decode_metadata, encode_metadata
from acon_core.errors import CheckpointError

ENTRIES = {"network": "acon/resnet50", "b": "", 'quo"te\\': "line\nbreak\0", "ключ": "鍵 \U0001f511"}


def test_round_trip() -> None:
    assert decode_metadata(encode_metadata(ENTRIES), "x") == ENTRIES
    assert encode_metadata(ENTRIES) == encode_metadata(dict(reversed(ENTRIES.items())))
    assert json.loads(encode_metadata(ENTRIES)) == ENTRIES
    assert encode_metadata(ENTRIES).isascii()


BAD = {
    "not JSON": b"hello",
    "cut": b'{"a":"b"',
    "two": b"{} {}",
    "a list": b"[]",
    "text": b'"a"',
    "a number": b'{"a":1}',
    "nothing": b'{"a":null}',
    "nested": b'{"a":{"b":"c"}}',
    "name twice": b'{"a":"b","a":"b"}',
    "NaN": b'{"a":NaN}',
    "many digits": b'{"a":' + b"9" * 5000 + b"}",
    "not UTF-8": b'{"a":"\xff"}',
    "half of a pair": b'{"a":"\\ud800"}',
    "half of a pair as name": b'{"\\udfff":"a"}',
    "deep": b'{"a":' * 100_000,
}


@pytest.mark.parametrize("case", BAD)
def test_hostile_metadata(case: str) -> None:
    with pytest.raises(CheckpointError, match=r"^some/file: its metadata ") as caught:
        decode_metadata(BAD[case], "some/file")
    assert caught.value.kind == "corrupt"
    assert "\n" not in str(caught.value)


def test_unencodable() -> None:
    with pytest.raises(CheckpointError, match="text"):
        encode_metadata({"a": "\ud800"})


def test_limit() -> None:
    with limited(header_bytes=9):
        decode_metadata(b'{"a":"b"}', "x")
    with limited(header_bytes=8), pytest.raises(CheckpointError, match="more than 8") as caught:
        decode_metadata(b'{"a":"b"}', "x")
    assert caught.value.kind == "unsupported"
