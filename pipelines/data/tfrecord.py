"""The TFRecord format, without TensorFlow: length, checksum, bytes, checksum."""

import os
import struct
from collections.abc import Iterable, Iterator
from typing import IO

import google_crc32c
import numpy as np
from etils import epath


def _masked(content: bytes) -> int:
    checksum = google_crc32c.value(content)
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(record: bytes) -> tuple[bytes, bytes, bytes]:
    """A record's header, the record, and its footer."""
    length = struct.pack("<Q", len(record))
    return length + struct.pack("<I", _masked(length)), record, struct.pack("<I", _masked(record))


def write_lengths(lengths: Iterable[int], file: epath.Path, partial: epath.Path) -> None:
    """Writes how many bytes each record of a shard has, for whoever reads in another order; the file appears whole."""
    partial.write_bytes(as_bytes(lengths))
    partial.replace(file)


def as_bytes(lengths: Iterable[int]) -> bytes:
    """Lengths as they are written: little-endian uint32."""
    return np.fromiter(lengths, "<u4").tobytes()


def lengths(file: IO[bytes]) -> Iterator[int]:
    """How many bytes each record of a file has, from the records' headers."""
    at = 0
    while header := file.read(8):
        yield int.from_bytes(header, "little")
        at += int.from_bytes(header, "little") + 16
        file.seek(at)


def read(file: IO[bytes]) -> Iterator[bytes]:
    """The records of a file.

    Raises:
        ValueError: the file is cut short or a checksum is wrong; the message says at which byte.
    """
    size, at = file.seek(0, os.SEEK_END), 0
    file.seek(0)
    while header := file.read(12):
        if len(header) < 12 or _masked(header[:8]) != struct.unpack("<I", header[8:])[0]:
            raise ValueError(f"no TFRecord header at byte {at}")
        length = struct.unpack("<Q", header[:8])[0]
        if at + 16 + length > size:  # Asked before reading, which would first make room for what is announced.
            raise ValueError(f"record at byte {at} is cut short or corrupt")
        record, footer = file.read(length), file.read(4)
        if _masked(record) != struct.unpack("<I", footer)[0]:
            raise ValueError(f"record at byte {at} is cut short or corrupt")
        yield record
        at += 16 + length
