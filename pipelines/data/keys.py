"""Keys of examples: the hashes that decide split, shard and order, and what can be written as text."""

import hashlib

from pipelines.config import Dataset

ALL = ""  # the split of a location given as one path: divided by a hash of the key
SPLITS = ("train", "validation", "test")
NOT_TEXT = ("file_name_not_utf8", "rename the file, and its entry if it has one, to UTF-8")


def position(key: str) -> int:
    """A stable hash of a key, 63 bits: decides the split, the shard and the order inside it."""
    sha256 = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(sha256[:8], "big") >> 1


def numeric(key: str) -> int:
    """A number for `image/source_id`: the key itself where it is one, else 52 bits of its hash."""
    if key.isascii() and key.isdigit() and len(key) < 16:
        return int(key)
    return position(key) >> 11


def chosen_split(split: str, key: str, dataset: Dataset) -> str:
    """The split as given, or one chosen by a hash of the key where the source is not divided."""
    if split != ALL:
        return split
    # Other bits than those that choose the shard.
    share = position(f"split {key}")
    return "validation" if share < dataset.validation_fraction * 2**63 else "train"


def joint_digest(*parts: str) -> str:
    """SHA-256 over several texts."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return "\0" not in name
