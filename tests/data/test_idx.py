"""IDX files: what MNIST and Fashion-MNIST are published in."""

import gzip
import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.data import images
from pipelines.data.manifest import Manifest
from pipelines.data.sources import idx
from pipelines.usage import UsageError
from tests.data.test_links import rejects

Build = Callable[..., Manifest]
COUNTS = {"train": 6, "validation": 4}


def write(file: Path, values: np.ndarray, packed: bool = False) -> Path:
    """An IDX file of these values."""
    head = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    content = head + values.tobytes()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(content) if packed else content)
    return file


def digits(folder: Path, packed: bool = False) -> list[str]:
    """Overrides of ten pictures of noise, whose labels count to 3 again and again."""
    noise = np.random.RandomState(0)
    for split, count in COUNTS.items():
        pictures = noise.randint(0, 255, (count, 28, 28), np.uint8)
        write(folder / f"{split}-images", pictures, packed)
        write(folder / f"{split}-labels", np.arange(count, dtype=np.uint8) % 3, packed)
    places = "{{train: '{0}/train-{1}', validation: '{0}/validation-{1}'}}"
    return [
        "dataset=idx",
        "dataset.labels=[a,b,c]",
        f"dataset.images={places.format(folder, 'images')}",
        f"dataset.annotations={places.format(folder, 'labels')}",
    ]


def shards(built: Manifest) -> list[str]:
    return [shard.sha256 for split in built.splits.values() for shard in split.shards]


def test_pictures_come_with_their_labels_packed_or_not(build: Build, tmp_path: Path) -> None:
    plain = build(*digits(tmp_path / "plain"))
    packed = build(*digits(tmp_path / "packed", packed=True))
    assert plain.labels == ("a", "b", "c")
    assert {name: split.examples for name, split in plain.splits.items()} == COUNTS
    assert shards(plain) == shards(packed)
    assert plain.fingerprint != packed.fingerprint  # It is about the files.


def test_every_pixel_is_kept(tmp_path: Path) -> None:
    digits(tmp_path)
    values = idx._values(str(tmp_path / "train-images"), idx.IMAGE_AXES)
    png = idx.encode_classes(values[2])
    assert images.read(png, None).width == 28
    (tmp_path / "2.png").write_bytes(png)
    with Image.open(tmp_path / "2.png") as picture:
        assert picture.mode == "L"
        assert (np.asarray(picture) == values[2]).all()


def test_a_label_without_a_name_is_rejected_by_its_number(build: Build, tmp_path: Path) -> None:
    given = [text for text in digits(tmp_path) if "labels=" not in text]
    built = build(*given, "dataset.labels=[a,b]", "dataset.max_reject_fraction=1")
    assert rejects(built) == {
        "train-images": "unknown_class",
        "validation-images": "unknown_class",
    }
    assert built.splits["train"].examples == COUNTS["train"] - 2


DAMAGES = {
    "not an IDX file of pictures": lambda content: b"\x89PNG" + content[4:],
    "values where it states 6x28x28": lambda content: content[:-1],
    "damaged gzip": lambda content: gzip.compress(content)[:-9],
}


@pytest.mark.parametrize("says", DAMAGES)
def test_a_damaged_file_is_refused_by_name(build: Build, tmp_path: Path, says: str) -> None:
    given = digits(tmp_path)
    file = tmp_path / "train-images"
    file.write_bytes(DAMAGES[says](file.read_bytes()))
    with pytest.raises(UsageError, match=f"train-images: .*{says}"):
        build(*given)


def test_labels_of_other_pictures_are_refused(build: Build, tmp_path: Path) -> None:
    given = digits(tmp_path)
    write(tmp_path / "train-labels", np.zeros(5, np.uint8))
    with pytest.raises(UsageError, match="has 5 labels, .*train-images has 6 pictures"):
        build(*given)


def test_a_file_that_is_not_the_published_one_is_refused(build: Build, tmp_path: Path) -> None:
    given = digits(tmp_path)
    sha256 = hashlib.sha256((tmp_path / "train-images").read_bytes()).hexdigest()
    right = f"dataset.contents={{images: {{train: {sha256}}}}}"
    assert build(*given, right).labels == ("a", "b", "c")
    digits_elsewhere = f"dataset.contents={{images: {{validation: {sha256}}}}}"
    with pytest.raises(UsageError, match="validation-images is not the published file"):
        build(*given, digits_elsewhere)


def test_a_folder_of_one_split_is_no_idx_file(build: Build, tmp_path: Path) -> None:
    digits(tmp_path)
    with pytest.raises(UsageError, match="is a folder; give the file in it"):
        build(
            "dataset=idx", "dataset.labels=[a]", f"dataset.images={tmp_path}",
            f"dataset.annotations={tmp_path}",
        )  # fmt: skip
