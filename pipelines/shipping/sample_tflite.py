"""Shows pictures to the TFLite model beside this file; needs ai-edge-litert, NumPy and Pillow.    python sample.py picture.jpg …

Of boxes it draws <picture>.found.png into the current folder; of pixels it writes <picture>.classes.png, whose values are the
classes.
"""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageDraw


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
    pixels = np.asarray(picture.convert("RGB"), float)
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
        order = found[surest]
        while len(order):
            best, order = order[0], order[1:]
            kept.append((corners[best], scores[best, label], label))
            corner = np.maximum(corners[order, :2], corners[best, :2])
            opposite = np.minimum(corners[order, 2:], corners[best, 2:])
            inside = np.prod(np.maximum(opposite - corner, 0), axis=1)
            area = np.prod(
                corners[:, 2:] - corners[:, :2],
                axis=1,
            )
            union = area[order] + area[best] - inside
            order = order[inside / np.maximum(union, 1e-9) <= know["nms_iou_threshold"]]
    return sorted(kept, key=lambda box: -box[1])[: know["max_num_detections"]]


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


def show(name, picture, model, about):
    image, scale, inside = prepared(picture, about["input"])
    said = model(images=image)
    stem, labels = Path(name).stem, about["labels"]
    if about["task"] == "classification":
        sure = probabilities(said["logits"][0], about)
        print(name, labels[int(sure.argmax())], float(sure.max()))
    elif about["task"] == "segmentation":
        classes = pixels(said["logits"][0], picture.size[::-1], inside, about)
        Image.fromarray(classes).save(f"{stem}.classes.png")
        counts = np.bincount(classes.ravel(), minlength=len(labels)).tolist()
        print(name, dict(zip(labels, counts, strict=True)))
    else:
        drawing = ImageDraw.Draw(picture)
        for box, score, label in boxes(said, about):
            top, left, bottom, right = np.round(
                box / np.tile(scale, 2),
                1,
            ).tolist()
            drawing.rectangle([left, top, right, bottom], outline="red")
            label = labels[label - about["first_label"]]
            print(name, label, round(float(score), 3), [top, left, bottom, right])
        picture.save(f"{stem}.found.png")


def main():
    file = next(Path(__file__).parent.glob("*.tflite"))
    about = json.loads(zipfile.ZipFile(file).read("trellis.json"))
    model = Interpreter(str(file)).get_signature_runner()
    for name in sys.argv[1:]:
        show(name, Image.open(name).convert("RGB"), model, about)


if __name__ == "__main__":
    main()
