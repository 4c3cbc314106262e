"""TFRecord files: what is framed is read back, what is damaged is named by its place."""

import io
import struct

import pytest

from pipelines.system import tfrecord

RECORDS = [b"", b"one", bytes(range(256)) * 3]
CONTENT = b"".join(part for record in RECORDS for part in tfrecord.frame(record))
WRITTEN_BY_TENSORFLOW = bytes.fromhex("0300000000000000b099490e6f6e6501405508")  # the record `one`


def test_what_is_framed_is_read_back() -> None:
    assert list(tfrecord.read(io.BytesIO(CONTENT))) == RECORDS


def test_records_are_framed_as_tensorflow_does() -> None:
    assert b"".join(tfrecord.frame(b"one")) == WRITTEN_BY_TENSORFLOW


def test_lengths_are_read_from_headers_and_kept_as_little_endian_words() -> None:
    lengths = list(tfrecord.lengths(io.BytesIO(CONTENT)))
    assert lengths == [len(record) for record in RECORDS]
    assert tfrecord.as_bytes(lengths) == struct.pack("<III", 0, 3, 768)


@pytest.mark.parametrize("at", range(len(CONTENT) - 900, len(CONTENT), 37))
def test_a_bit_that_has_turned_is_found(at: int) -> None:
    damaged = bytearray(CONTENT)
    damaged[at] ^= 4
    with pytest.raises(ValueError, match="at byte"):
        list(tfrecord.read(io.BytesIO(damaged)))
