"""The arguments of pickle opcodes, read one after another from the bytes of a pickle."""

from __future__ import annotations

import codecs
import struct
from typing import Any, NoReturn

from acon_core.checkpoint.codecs import limits
from acon_core.checkpoint.codecs.strict_json import is_encodable
from acon_core.errors import CheckpointError


class PickleReader:
    """A pickle and a position in it. All methods raise CheckpointError for malformed bytes."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.position = 0

    def take(self, count: int) -> memoryview:
        """Return the next `count` bytes as a slice, without a copy."""
        at = self._advance(count)
        return self.data[at : at + count]

    def _advance(self, count: int) -> int:
        """Skip `count` bytes; return where they begin."""
        at = self.position
        if at + count > len(self.data):
            corrupt(f"the file ends early: expected {count} more bytes, found {len(self.data) - at}")
        self.position = at + count
        return at

    def byte(self) -> int:
        """Return the next byte."""
        at = self.position
        if at >= len(self.data):
            self._advance(1)
        self.position = at + 1
        return self.data[at]

    def number(self, layout: str) -> Any:
        """Return a number in a layout of `struct`."""
        at = self._advance(struct.calcsize(layout))
        return struct.unpack_from(layout, self.data, at)[0]

    def length_prefixed(self, layout: str) -> memoryview:
        """Return bytes whose length is stored before them."""
        return self.take(self.number(layout))

    def line(self, limit: int | None = None) -> bytes:
        """Return the bytes up to the next newline, at most `limit` of them."""
        longest = len(self.data) - self.position
        longest = longest if limit is None else min(limit, longest)
        size = 0
        while size < longest:
            size = min(max(2 * size, 256), longest)
            text, newline, _ = bytes(self.data[self.position : self.position + size]).partition(b"\n")
            if newline:
                self.position += len(text) + 1
                return text
        corrupt("a line of text without an end")

    def short_line(self) -> str:
        """Return a line of at most `LIMITS.line` bytes."""
        return decode_text(self.line(limits.LIMITS.line))

    def decimal(self, text: str) -> int:
        """Parse a decimal integer."""
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()) or len(digits) > 2 * limits.LIMITS.integer_bytes:
            corrupt(f"not an integer: {text[:40]!r}")
        return int(text)

    def float_line(self) -> float:
        """Return a floating-point number written as text."""
        text = self.short_line()
        try:
            return float(text)
        except ValueError:
            corrupt(f"not a number: {text[:40]!r}")

    def quoted_line(self) -> str:
        """Return a Python 2 string literal, decoded as latin-1 because it may be bytes."""
        text = self.line()
        if len(text) < 2 or text[:1] not in (b"'", b'"') or text[-1:] != text[:1]:
            corrupt("a string without quotes")
        try:
            return codecs.escape_decode(text[1:-1])[0].decode("latin-1")
        except ValueError:
            corrupt("a string with an invalid escape")

    def unicode_line(self) -> str:
        """Return text in raw-unicode-escape."""
        text = decode_text(self.line(), "raw-unicode-escape")
        if not is_encodable(text):
            corrupt("text with an unpaired surrogate")
        return text


def corrupt(message: str) -> NoReturn:
    """Raise CheckpointError."""
    raise CheckpointError("corrupt", message)


def decode_text(data: bytes | memoryview, encoding: str = "utf-8") -> str:
    """Decode text. Raises CheckpointError."""
    try:
        return str(data, encoding)
    except UnicodeDecodeError:
        corrupt(f"text that is not {encoding}")
