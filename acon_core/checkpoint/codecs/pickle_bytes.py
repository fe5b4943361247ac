"""The bytes of a pickle, taken one after another: what the opcodes' arguments are made of."""

from __future__ import annotations

import codecs
import struct
from typing import Any, NoReturn

from acon_core.checkpoint.codecs import limits
from acon_core.errors import CheckpointError


class PickleBytes:
    """A pickle and how far it was read. Every method raises CheckpointError where the bytes are not what it takes."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.position = 0

    def take(self, count: int) -> memoryview:
        """The next `count` bytes, which are a slice and no copy."""
        at = self._past(count)
        return self.data[at : at + count]

    def _past(self, count: int) -> int:
        """Go past the next `count` bytes; returns where they begin."""
        at = self.position
        if at + count > len(self.data):
            corrupt(f"the file ends early: {count} bytes wanted, {len(self.data) - at} left")
        self.position = at + count
        return at

    def byte(self) -> int:
        """The next byte."""
        at = self.position
        if at >= len(self.data):
            self._past(1)
        self.position = at + 1
        return self.data[at]

    def number(self, layout: str) -> Any:
        """A number in a layout of `struct`."""
        at = self._past(struct.calcsize(layout))
        return struct.unpack_from(layout, self.data, at)[0]

    def counted(self, layout: str) -> memoryview:
        """As many bytes as the number before them says."""
        return self.take(self.number(layout))

    def line(self, limit: int | None = None) -> bytes:
        """The bytes before the next newline, which must come within `limit`."""
        longest = len(self.data) - self.position
        longest = longest if limit is None else min(limit, longest)
        size = 0
        while size < longest:
            size = min(max(2 * size, 256), longest)
            text, newline, _ = bytes(self.data[self.position : self.position + size]).partition(b"\n")
            if newline:
                self.position += len(text) + 1
                return text
        corrupt("a line of text that does not end")

    def short_line(self) -> str:
        """A line that is not as long as the data."""
        return decoded(self.line(limits.LIMITS.line))

    def decimal(self, text: str) -> int:
        """The whole number that a text spells."""
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()) or len(digits) > 2 * limits.LIMITS.integer_bytes:
            corrupt(f"not an integer: {text[:40]!r}")
        return int(text)

    def float_line(self) -> float:
        """A number with a fraction, as text."""
        text = self.short_line()
        try:
            return float(text)
        except ValueError:
            corrupt(f"not a number: {text[:40]!r}")

    def quoted_line(self) -> str:
        """Python 2's bytes as its source code has them; latin-1 loses none."""
        text = self.line()
        if len(text) < 2 or text[:1] not in (b"'", b'"') or text[-1:] != text[:1]:
            corrupt("a string without its quotes")
        try:
            return codecs.escape_decode(text[1:-1])[0].decode("latin-1")
        except ValueError:
            corrupt("a string with a broken escape")

    def unicode_line(self) -> str:
        """Text with every unusual letter escaped."""
        text = decoded(self.line(), "raw-unicode-escape")
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            corrupt("half of a surrogate pair, which is no text")
        return text


def corrupt(message: str) -> NoReturn:
    """Raise CheckpointError."""
    raise CheckpointError("corrupt", message)


def decoded(data: bytes | memoryview, encoding: str = "utf-8") -> str:
    """The text that bytes are. Raises CheckpointError."""
    try:
        return str(data, encoding)
    except UnicodeDecodeError:
        corrupt(f"text that is not {encoding}")
