"""What a model is shown of a picture, and what its answers mean, in NumPy alone. Lies beside exported files, for their samples."""

import struct
import zlib
from pathlib import Path

import numpy as np

GREY, RGB = 0, 2  # PNG's own words
RED = (255, 0, 0)


def read(name):
    """The pixels of a picture, rows x columns x RGB. Pillow reads it; an array in a .npy needs no Pillow."""
    if name.endswith(".npy"):
        return np.load(name)
    from PIL import Image  # Pictures alone need it.

    return np.asarray(Image.open(name).convert("RGB"))


def resized(pixels, height, width):
    """Bilinear, as TensorFlow does it: between the two nearest rows and columns, without smoothing."""
    for axis, size in ((0, height), (1, width)):
        have = pixels.shape[axis]
        place = np.clip(
            (np.arange(size) + 0.5) * have / size - 0.5,
            0,
            have - 1,
        )
        low = place.astype(int)
        high = np.minimum(low + 1, have - 1)
        share = (place - low).reshape([-1, 1, 1] if axis == 0 else [1, -1, 1])
        near, far = (
            pixels.take(low, axis),
            pixels.take(high, axis),
        )
        pixels = near + (far - near) * share
    return pixels


def prepared(picture, wants):
    """What the model is shown, by how much the picture was scaled, and the size that it has in it."""
    pixels = picture.astype(float)
    height, width = wants["size"]
    if wants.get("center_crop_fraction"):
        side = int(wants["center_crop_fraction"] * min(pixels.shape[:2]))
        top, left = (np.array(pixels.shape[:2]) - side + 1) // 2
        pixels = pixels[top : top + side, left : left + side]
    rows, columns = height, width
    if wants["keep_aspect_ratio"]:
        scale = min(height / pixels.shape[0], width / pixels.shape[1])
        rows, columns = (round(float(side * scale)) for side in pixels.shape[:2])
    scale = np.array([rows / pixels.shape[0], columns / pixels.shape[1]])
    shown = np.zeros((height, width, 3), np.float32)
    normal = (pixels - wants["mean"]) / wants["stddev"]
    shown[:rows, :columns] = resized(normal, rows, columns)
    return shown[None], scale, (rows, columns)


def objects(said, about):
    """The sure boxes in prepared pixels, their scores and classes, and masks where there are any."""
    if "detection_boxes" not in said:
        return boxes(said, about)
    first = {name: values[0] for name, values in said.items()}
    return detected(first, about)


def boxes(said, about):
    """Boxes, scores and classes from the detector's own words: anchors moved, then the surest of those that overlap."""
    know = about["boxes"]
    levels = sorted(know["anchors"], key=int)
    anchors = np.concatenate([np.array(know["anchors"][level]) for level in levels])
    moves = np.concatenate([said[f"boxes_{level}"].reshape(-1, 4) for level in levels])
    moves = moves / know["box_coder_weights"]
    classes = len(about["labels"]) + about["first_label"]
    logits = [said[f"classes_{level}"].reshape(-1, classes) for level in levels]
    scores = 1 / (1 + np.exp(-np.concatenate(logits)))
    sides = anchors[:, 2:] - anchors[:, :2]
    centres = anchors[:, :2] + sides / 2 + moves[:, :2] * sides
    most = np.log(1000 / 16)
    growth = np.exp(np.minimum(moves[:, 2:], most))
    half = growth * sides / 2
    size = about["input"]["size"]
    corners = np.clip(
        np.hstack([centres - half, centres + half]),
        0,
        [*size, *size],
    )
    kept = []
    for label in range(about["first_label"], classes):
        sure = scores[:, label] >= about["min_score"]
        found = np.flatnonzero(sure)
        surest = np.argsort(-scores[found, label], kind="stable")
        order = found[surest][: know["pre_nms_top_k"]]
        while len(order):
            best, order = order[0], order[1:]
            kept.append(
                (
                    corners[best],
                    scores[best, label],
                    label,
                )
            )
            corner = np.maximum(
                corners[order, :2],
                corners[best, :2],
            )
            opposite = np.minimum(
                corners[order, 2:],
                corners[best, 2:],
            )
            inside = np.prod(np.maximum(opposite - corner, 0), axis=1)
            area = np.prod(
                corners[:, 2:] - corners[:, :2],
                axis=1,
            )
            union = area[order] + area[best] - inside
            order = order[inside / np.maximum(union, 1e-9) <= know["nms_iou_threshold"]]
    return sorted(kept, key=lambda box: -box[1])[: know["max_num_detections"]]


def detected(said, about):
    """The sure boxes, scores, classes, and masks where there are any, of what a detector has found."""
    names = [
        "detection_boxes",
        "detection_scores",
        "detection_classes",
        "detection_masks",
    ]
    parts = [said[name] for name in names if name in said]
    count = int(said["num_detections"])
    rows = list(zip(*parts, strict=True))[:count]
    return [row for row in rows if row[1] >= about["min_score"]]


def pixels(logits, size, inside, about):
    """The class of each pixel of the picture: the padded, scaled copy's, taken back to its size."""
    logits = resized(logits, *about["input"]["size"])[: inside[0], : inside[1]]
    return resized(logits, *size).argmax(-1).astype(np.uint8)


def probabilities(logits, about):
    """Of each class."""
    if about["multilabel"]:
        return 1 / (1 + np.exp(-logits))
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def show(name, picture, said, shown, about):
    """Says what a model has answered about a picture.

    Args:
        shown: what `prepared` tells beside the image.
    """
    scale, inside = shown
    if about["task"] == "classification":
        show_class(name, probabilities(said["logits"][0], about), about)
    elif about["task"] == "segmentation":
        size = picture.shape[:2]
        classes = pixels(said["logits"][0], size, inside, about)
        show_pixels(name, classes, about)
    else:
        found = in_the_picture(objects(said, about), scale, picture.shape[:2])
        show_boxes(name, picture, found, about)


def in_the_picture(found, scale, size):
    """Objects with their boxes in the picture's own pixels, cut where they reach into what it is padded with.

    A box with a mask is not cut: the mask fills it.
    """
    moved = []
    for box, score, label, *mask in found:
        box = box / np.tile(scale, 2)
        if not mask:
            box = np.clip(box, 0, np.tile(size, 2))
        moved.append((box, score, label, *mask))
    return moved


def show_class(name, sure, about):
    """Prints the surest class."""
    best = int(sure.argmax())
    print(name, about["labels"][best], float(sure[best]))


def show_pixels(name, classes, about):
    """Writes <picture>.classes.png, whose values are the classes, and prints how many pixels each has."""
    write_png(f"{Path(name).stem}.classes.png", classes)
    labels = about["labels"]
    counts = np.bincount(classes.ravel(), minlength=len(labels))
    print(name, dict(zip(labels, counts.tolist(), strict=True)))


def show_boxes(name, picture, found, about):
    """Prints boxes (top, left, bottom, right), and draws them into <picture>.found.png.

    Args:
        found: of each its box, score and class, and its mask where it has one.
    """
    picture = picture.copy()
    for box, score, number, *mask in found:
        label = about["labels"][int(number) - about["first_label"]]
        sides = np.round(box, 1).tolist()
        print(name, label, round(float(score), 3), sides)
        corners = np.round(box).astype(int)
        if mask:
            paint(picture, corners, mask[0])
        frame(picture, corners)
    write_png(f"{Path(name).stem}.found.png", picture)


def paint(picture, corners, mask):
    """Makes the pixels of a mask, which fills its box, green."""
    top, left, bottom, right = corners
    rows = max(bottom - top, 1)
    columns = max(right - left, 1)
    whole = resized(mask[..., None], rows, columns)[..., 0]
    down, along = np.nonzero(whole > 0.5)
    down += top
    along += left
    height, width = picture.shape[:2]
    inside = (down >= 0) & (down < height) & (along >= 0) & (along < width)
    down, along = down[inside], along[inside]
    picture[down, along] = picture[down, along] // 2
    picture[down, along, 1] += 127


def frame(picture, corners):
    """Draws the sides of a box."""
    height, width = picture.shape[:2]
    last = [height - 1, width - 1]
    top, left, bottom, right = np.clip(corners, 0, [*last, *last])
    for row in (top, bottom):
        picture[row, left : right + 1] = RED
    for column in (left, right):
        picture[top : bottom + 1, column] = RED


def write_png(name, values):
    """Writes grey (rows x columns) or RGB pixels."""
    height, width = values.shape[:2]
    colour = GREY if values.ndim == 2 else RGB
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    rows = values.reshape(height, -1)
    unfiltered = np.pad(rows, [[0, 0], [1, 0]])  # A row begins with the number of its filter.
    content = b"\x89PNG\r\n\x1a\n"
    content += _chunk(b"IHDR", header)
    content += _chunk(b"IDAT", zlib.compress(unfiltered.tobytes()))
    content += _chunk(b"IEND", b"")
    Path(name).write_bytes(content)


def _chunk(kind, content):
    size = struct.pack(">I", len(content))
    check = struct.pack(">I", zlib.crc32(kind + content))
    return size + kind + content + check
