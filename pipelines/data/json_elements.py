"""Reads a JSON file whose top level is an object of long arrays, one element at a time, in constant memory."""

import json
from collections.abc import Collection, Iterator
from typing import IO, Any, NamedTuple, NoReturn

from pipelines.usage import UsageError

CHUNK = 4 * 2**20
LARGEST = 256 * 2**20  # bytes of one element; more is taken for a broken file
_DECODER = json.JSONDecoder()
_SPACE = " \t\n\r"


class Element(NamedTuple):
    """An element of one of the arrays."""

    section: str
    start: int  # its first byte
    text: str  # as Latin-1, one character for one byte: read the bytes again where words matter
    value: Any


class _Text:
    """A window on the file as Latin-1: one character is one byte, and JSON's structure is ASCII."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file = file
        self._name = name
        self.text = ""
        self.at = 0  # in the text
        self.start = 0  # the text's first byte in the file
        if self.peek() == "\xef":  # a byte order mark
            self.at += 3

    def more(self, size: int = CHUNK) -> bool:
        """Reads on; whether there was more."""
        chunk = self._file.read(size)
        self.text = self.text[self.at :] + chunk.decode("latin-1")
        self.start += self.at
        self.at = 0
        return bool(chunk)

    def peek(self) -> str:
        """The next character that is not space; empty at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in _SPACE:
                self.at += 1
            if self.at < len(self.text) or not self.more():
                return self.text[self.at : self.at + 1]

    def expect(self, character: str) -> None:
        if self.peek() != character:
            self.fail(f"expected {character!r}")
        self.at += 1

    def value(self) -> Any:
        """The next value, whatever it is."""
        self.peek()
        size = CHUNK
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
                # A number may continue in the next chunk.
                if end < len(self.text) or not self.more(size):
                    self.at = end
                    return value
            except json.JSONDecodeError:
                if len(self.text) - self.at > LARGEST or not self.more(size):
                    self.fail("not a JSON value, or cut short")
            except (RecursionError, ValueError):
                # Python converts no whole number of more than 4300 digits.
                self.fail("nested too deep, or a number too long")
            size *= 2

    def fail(self, reason: str) -> NoReturn:
        byte = self.start + self.at
        raise UsageError(f"{self._name}: not JSON at byte {byte}: {reason}; is the file whole?")


def read(
    file: IO[bytes],
    name: str,
    sections: Collection[str],
    met: set[str] | None = None,
) -> Iterator[Element]:
    """Yields every element of the arrays named, in the order of the file.

    Args:
        met: takes up the names of those `sections` that the file has, also of empty ones.

    Raises:
        UsageError: the file is not one JSON object, or a section occurs twice or is no array; the
            message names the byte.
    """
    text = _Text(file, name)
    met = set() if met is None else met
    text.expect("{")
    while text.peek() != "}":
        section = text.value()
        if isinstance(section, str) and section in met:
            text.fail(f"{section} is there a second time, and one of the two would be lost")
        text.expect(":")
        if isinstance(section, str) and section in sections:
            met.add(section)
            text.expect("[")
            yield from _array(text, section)
        else:
            text.value()
        if text.peek() != "}":
            text.expect(",")
    text.at += 1
    if text.peek():
        text.fail("there is text after the end of the object")


def _array(text: _Text, section: str) -> Iterator[Element]:
    if text.peek() == "]":
        text.at += 1
        return
    while True:
        text.peek()
        first = text.start + text.at
        value = text.value()
        characters = text.text[first - text.start : text.at]
        yield Element(section, first, characters, value)
        if text.peek() == "]":
            text.at += 1
            return
        text.expect(",")
