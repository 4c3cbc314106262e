"""The TFRecord format, without TensorFlow: length, checksum, bytes, checksum. One subject writes it, another reads it."""

import os
import struct
from collections.abc import Iterable, Iterator
from typing import IO

import google_crc32c

HEADER = 12  # bytes before a record: its length, and the checksum of that
FOOTER = 4  # bytes behind it: its own checksum
MASK = 0xA282EAD8


def checksum(content: bytes) -> int:
    """CRC-32C as the format keeps it: rotated and added to, so that a checksum over checksums is none of a record."""
    crc = google_crc32c.value(content)
    return ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF


def frame(record: bytes) -> tuple[bytes, bytes, bytes]:
    """A record's header, the record, and its footer."""
    length = struct.pack("<Q", len(record))
    return length + struct.pack("<I", checksum(length)), record, struct.pack("<I", checksum(record))


def as_bytes(lengths: Iterable[int]) -> bytes:
    """Lengths as they are written: little-endian uint32."""
    listed = list(lengths)
    return struct.pack(f"<{len(listed)}I", *listed)


def lengths(file: IO[bytes]) -> Iterator[int]:
    """How many bytes each record of a file has, from the records' headers."""
    at = 0
    while header := file.read(8):
        yield int.from_bytes(header, "little")
        at += int.from_bytes(header, "little") + HEADER + FOOTER
        file.seek(at)


def read(file: IO[bytes]) -> Iterator[bytes]:
    """The records of a file.

    Raises:
        ValueError: the file is cut short or a checksum is wrong; the message says at which byte.
    """
    at = 0
    for _, record, footer in framed(file):
        if checksum(record) != struct.unpack("<I", footer)[0]:
            raise ValueError(f"record at byte {at} is cut short or corrupt")
        yield record
        at += HEADER + len(record) + FOOTER


def framed(file: IO[bytes]) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Header, record and footer of each record of a file; whether they fit each other is for the caller to see.

    Raises:
        ValueError: the file is cut short or the checksum of a header is wrong; the message says at which byte.
    """
    size, at = file.seek(0, os.SEEK_END), 0
    file.seek(0)
    while header := file.read(HEADER):
        is_whole = len(header) == HEADER
        if not is_whole or checksum(header[:8]) != struct.unpack("<I", header[8:])[0]:
            raise ValueError(f"no TFRecord header at byte {at}")
        length = struct.unpack("<Q", header[:8])[0]
        # Asked before reading, which would first make room for what is announced.
        if at + HEADER + length + FOOTER > size:
            raise ValueError(f"record at byte {at} is cut short or corrupt")
        yield header, file.read(length), file.read(FOOTER)
        at += HEADER + length + FOOTER
