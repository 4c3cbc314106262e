"""Data sets from what scikit-learn ships: 1,797 handwritten digits of 8x8 pixels and two photographs.

They are written in the formats that people bring, and read by the very sources a user's own data
goes through. Training and validation share neither a digit nor a region of a photograph.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as rle
from sklearn.datasets import load_digits, load_sample_images

from pipelines.system import durable

SIZE = 128  # pixels, both sides of a scene
SCENES = {"train": 4000, "validation": 200}
DIGITS = {"train": 1437, "validation": 360}
CLIPS = {"train": 480, "validation": 120}
FRAMES = 8  # of a clip
CLIP_SIZE = 32  # pixels, both sides of a clip
VOLUMES = {"train": 64, "validation": 16}
VOLUME_SIZE = 32  # voxels, all sides of a volume
# Pixels a frame, downwards and sideways. No class changes in a mirror, which half of all training clips are seen in.
MOTIONS = {
    "still": (0, 0),
    "up": (-1, 0),
    "down": (1, 0),
    "sideways": (0, 1),
    "rising": (-1, 1),
    "falling": (1, 1),
}
NAMES = tuple(str(digit) for digit in range(10))
VISIBLE = 0.35  # opacity above which a pixel belongs to a digit
COVERED = 0.25  # share of a digit that later ones may hide

Array = np.ndarray


@dataclass(frozen=True)
class Scene:
    """One picture with the class and the visible pixels of each digit on it."""

    image: Array  # SIZE x SIZE x 3, uint8
    classes: list[int]
    masks: list[Array]  # SIZE x SIZE, bool, disjoint


def generate(name: str, folder: Path, seed: int) -> None:
    """Writes one embedded data set; same seed, same bytes.

    The folder appears at once and whole: it is written beside its place and renamed.
    """
    partial = folder.with_name(folder.name + durable.PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    WRITERS[name](partial, np.random.RandomState(seed))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _digits(random: np.random.RandomState) -> dict[str, tuple[Array, Array]]:
    """Pixels in [0, 1] and classes by split, every class in the same proportion."""
    images, classes = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8) / 16.0
    order = random.permutation(len(images))
    order = order[np.argsort(classes[order], kind="stable")]
    held_out = np.zeros(len(order), bool)
    evenly = np.linspace(
        0,
        len(order) - 1,
        DIGITS["validation"],
    )
    held_out[evenly.round().astype(int)] = True
    digits: dict[str, tuple[Array, Array]] = {}
    for split, chosen in (("train", order[~held_out]), ("validation", order[held_out])):
        digits[split] = (images[chosen], classes[chosen])
    return digits


def _write_digits(folder: Path, random: np.random.RandomState) -> None:
    for split, (images, classes) in _digits(random).items():
        for number, (pixels, digit) in enumerate(zip(images, classes, strict=True)):
            # JPEG: of other formats Model Garden's classification parser ignores the range of
            # random crops.
            picture = _grown(pixels, 32, 32).convert("RGB")
            file = folder / split / str(digit) / f"{number:04d}.jpg"
            _save(file, np.asarray(picture))


def _grown(pixels: Array, width: int, height: int) -> Image.Image:
    grey = (pixels * 255).round().astype(np.uint8)
    return Image.fromarray(grey).resize((width, height), Image.Resampling.BICUBIC)


def _scenes(random: np.random.RandomState) -> Iterator[tuple[str, str, Scene]]:
    digits = _digits(random)
    photographs = load_sample_images().images
    for split, count in SCENES.items():
        images, classes = digits[split]
        regions = [_region(photograph, split) for photograph in photographs]
        for number in range(count):
            scene = _scene(random, regions, images, classes)
            yield split, f"{split}_{number:05d}", scene


def _region(photograph: Array, split: str) -> Array:
    """The columns of a photograph that are for a split.

    Five parts in eight of its width train, a quarter validates; a gap stays between them.
    """
    width = photograph.shape[1]
    if split == "train":
        return photograph[:, : width * 5 // 8]
    return photograph[:, width * 3 // 4 :]


def _scene(
    random: np.random.RandomState,
    regions: list[Array],
    images: Array,
    classes: Array,
) -> Scene:
    canvas = _background(random, regions)
    chosen: list[int] = []
    masks: list[Array] = []
    for _ in range(random.randint(2, 7)):
        number = random.randint(len(images))
        opacity = _placed(random, images[number])
        mask = opacity > VISIBLE
        if any(_covers(mask, earlier) for earlier in masks):
            continue
        canvas = _painted(random, canvas, opacity, mask)
        masks = [earlier & ~mask for earlier in masks]
        masks.append(mask)
        chosen.append(int(classes[number]))
    return Scene(
        canvas.round().astype(np.uint8),
        chosen,
        masks,
    )


def _covers(mask: Array, earlier: Array) -> bool:
    """Whether a digit would hide too much of one that is there already."""
    return (mask & earlier).sum() > COVERED * earlier.sum()


def _background(random: np.random.RandomState, regions: list[Array]) -> Array:
    region = regions[random.randint(len(regions))]
    height, width = region.shape[:2]
    smallest = SIZE * 2 // 3
    largest = min(SIZE * 3 // 2, height, width)
    side = random.randint(smallest, largest)
    top = random.randint(height - side + 1)
    left = random.randint(width - side + 1)
    bottom, right = top + side, left + side
    crop = Image.fromarray(region[top:bottom, left:right])
    resized = crop.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float64)


def _placed(random: np.random.RandomState, pixels: Array) -> Array:
    """A digit's opacity on an empty scene, at a random size and place wholly inside."""
    height = random.randint(28, 65)
    width = int(height * random.uniform(0.8, 1.1))
    columns = np.flatnonzero(pixels.max(axis=0) > 0.1)
    first, last = columns[0], columns[-1]
    pixels = np.pad(pixels[:, first : last + 1], 1)
    grown = _grown(
        pixels,
        width * pixels.shape[1] // 8,
        height * 10 // 8,
    )
    opacity = np.asarray(grown, np.float64) / 255
    height, width = opacity.shape
    top = random.randint(SIZE - height + 1)
    left = random.randint(SIZE - width + 1)
    scene = np.zeros((SIZE, SIZE))
    scene[top : top + height, left : left + width] = opacity
    return scene


def _painted(
    random: np.random.RandomState,
    canvas: Array,
    opacity: Array,
    mask: Array,
) -> Array:
    """Blends the digit in a tint that is lighter or darker than what lies under it.

    The two differ by at least 90 of 255, before noise.
    """
    under = canvas[mask].mean()
    above = 255 - under
    lighter = above > under
    if min(above, under) > 80:
        lighter = random.uniform(0, 255) < above
    contrast = random.uniform(90, max(91, above if lighter else under))
    if not lighter:
        contrast = -contrast
    noise = random.uniform(-30, 30, size=3)
    tint = np.clip(under + contrast + noise, 0, 255)
    alpha = np.clip((opacity - 0.15) / 0.4, 0, 1)[..., None]
    return canvas * (1 - alpha) + tint * alpha


def _write_scenes_as_coco(folder: Path, random: np.random.RandomState) -> None:
    """Images by split, and COCO instances with compressed run lengths."""
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES, start=1)]
    documents: dict[str, dict[str, list]] = {}
    for split in SCENES:
        documents[split] = {
            "images": [],
            "annotations": [],
            "categories": categories,
        }
    for image_id, (split, name, scene) in enumerate(_scenes(random), start=1):
        file = f"{name}.jpg"
        _save(folder / split / file, scene.image)
        image = {"id": image_id, "file_name": file, "height": SIZE, "width": SIZE}
        documents[split]["images"].append(image)
        annotations = documents[split]["annotations"]
        for digit, mask in zip(scene.classes, scene.masks, strict=True):
            identity = {"id": len(annotations) + 1, "image_id": image_id}
            annotations.append({**identity, **_annotation(digit, mask)})
    for split, document in documents.items():
        (folder / f"{split}.json").write_text(json.dumps(document))


def _annotation(digit: int, mask: Array) -> dict:
    pixels = np.asfortranarray(mask.astype(np.uint8))
    encoded = rle.encode(pixels)
    segmentation = {
        "size": [SIZE, SIZE],
        "counts": encoded["counts"].decode(),
    }
    return {
        "category_id": digit + 1,
        "bbox": [int(value) for value in rle.toBbox(encoded)],
        "area": int(mask.sum()),
        "iscrowd": 0,
        "segmentation": segmentation,
    }


def _write_scenes_as_masks(folder: Path, random: np.random.RandomState) -> None:
    """Images and masks in folders by split: 0 is the background, digit d is d + 1."""
    images = folder / "images"
    masks = folder / "masks"
    for split, name, scene in _scenes(random):
        _save(images / split / f"{name}.jpg", scene.image)
        classes = np.zeros((SIZE, SIZE), np.uint8)
        for digit, mask in zip(scene.classes, scene.masks, strict=True):
            classes[mask] = digit + 1
        _save(masks / split / f"{name}.png", classes)


def _write_clips(folder: Path, random: np.random.RandomState) -> None:
    """Folders of frames by split and motion: up/0007/1.jpg."""
    for split, (images, _) in _digits(random).items():
        for number in range(CLIPS[split]):
            motion = list(MOTIONS)[number % len(MOTIONS)]
            pixels = images[random.randint(len(images))]
            clip = _clip(random, pixels, motion)
            for place, frame in enumerate(clip, start=1):
                file = folder / split / motion / f"{number:04d}" / f"{place}.jpg"
                _save(file, frame)


def _clip(random: np.random.RandomState, pixels: Array, motion: str) -> list[Array]:
    """A digit that moves over an edge and comes in at the other.

    Its place in any one frame is as likely as every other, whatever the motion: no single frame tells the class.
    """
    size = random.randint(14, 21)
    canvas = np.zeros((CLIP_SIZE, CLIP_SIZE), np.uint8)
    canvas[:size, :size] = np.asarray(_grown(pixels, size, size))
    down, right = np.multiply(MOTIONS[motion], random.randint(2, 5))
    if random.randint(2):
        right = -right
    top, left = random.randint(0, CLIP_SIZE, 2)
    frames = []
    for place in range(FRAMES):
        shift = (
            top + place * down,
            left + place * right,
        )
        frame = np.roll(canvas, shift, axis=(0, 1))
        colours = np.repeat(frame[..., None], 3, axis=-1)
        frames.append(colours)
    return frames


def _write_volumes(folder: Path, random: np.random.RandomState) -> None:
    """Volumes and masks in folders by split; a volume's slices lie one below the other."""
    for split, (images, _) in _digits(random).items():
        for number in range(VOLUMES[split]):
            pixels = images[random.randint(len(images))]
            voxels, classes = _volume(random, pixels)
            name = f"{split}/{number:04d}.png"
            _save(folder / "volumes" / name, voxels.reshape(-1, VOLUME_SIZE))
            _save(folder / "masks" / name, classes.reshape(-1, VOLUME_SIZE))


def _volume(random: np.random.RandomState, pixels: Array) -> tuple[Array, Array]:
    """A digit that reaches through some of the slices, in noise; and where it is."""
    size = random.randint(16, 25)
    grown = np.asarray(_grown(pixels, size, size))
    top, left = random.randint(0, VOLUME_SIZE - size, 2)
    first, depth = random.randint(2, 10), random.randint(10, 21)
    shape = (VOLUME_SIZE,) * 3
    digit = np.zeros(shape, np.uint8)
    digit[first : first + depth, top : top + size, left : left + size] = grown
    noise = random.randint(0, 80, shape)
    voxels = np.maximum(digit, noise).astype(np.uint8)
    classes = digit > VISIBLE * 255
    return voxels, classes.astype(np.uint8)


def _save(file: Path, pixels: Array) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, quality=95)


WRITERS: dict[str, Callable[[Path, np.random.RandomState], None]] = {
    "digits": _write_digits,
    "digit_scenes": _write_scenes_as_coco,
    "digit_masks": _write_scenes_as_masks,
    "moving_digits": _write_clips,
    "digit_volumes": _write_volumes,
}
