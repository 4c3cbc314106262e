"""Records of clips, through the official decoder and parser of video classification."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from official.vision.configs import video_classification as configuration
from official.vision.dataloaders import video_input

from pipelines.data.manifest import Manifest
from pipelines.data.preview import Picture
from pipelines.data.reading import SIZE

SHOWN = 9  # frames of a clip on a contact sheet
LINE = 1  # pixel between two


def decode(record: tf.Tensor, built: Manifest) -> dict[str, Any]:
    """The encoded frames and the labels of a record."""
    return video_input.Decoder().decode(record)


def parser(built: Manifest) -> Callable[[tf.Tensor], Any]:
    """Model Garden's decoder and parser, one after the other."""
    data = configuration.DataConfig(
        feature_shape=(SHOWN, SIZE, SIZE, 3),
        min_image_size=SIZE,
        num_classes=len(built.labels),
        is_training=False,
    )
    decoder = video_input.Decoder()
    parse = video_input.Parser(data).parse_fn(is_training=False)
    return lambda record: parse(decoder.decode(record))


def problems(record: tf.Tensor, built: Manifest) -> list[str]:
    """What is wrong with a record, one line each."""
    labels = decode(record, built)[video_input.LABEL_KEY].numpy().tolist()
    lines = []
    if len(labels) != 1:
        lines.append(f"{len(labels)} labels; a clip has one")
    for label in labels:
        if not 0 <= label < len(built.labels):
            lines.append(f"label {label} of {len(built.labels)} classes")
    return lines


def as_decoded(record: tf.Tensor, built: Manifest, caption: str) -> Picture:
    """Frames of a record side by side, its class in front of the caption."""
    decoded = decode(record, built)
    label = built.labels[int(decoded[video_input.LABEL_KEY][0])]
    encoded = _chosen(decoded[video_input.IMAGE_KEY].numpy())
    frames = []
    for content in encoded:
        frame = tf.io.decode_image(
            content,
            channels=3,
            expand_animations=False,
        )
        frames.append(frame.numpy())
    image = side_by_side(np.stack(frames))
    return Picture(image, f"{label}   {caption}")


def as_trained(image: np.ndarray, labels: Any, number: int, built: Manifest) -> Picture:
    """One clip of a training batch under the class that it counts most for."""
    target = labels[number].numpy()
    label = target.argmax() if target.ndim else target  # one number, or one for each class
    shown = side_by_side(_chosen(image))
    return Picture(shown, built.labels[int(label)])


def colours(batch: Any, data: Any) -> np.ndarray:
    """The colours, 0 to 255, of a training batch's clips."""
    pixels = batch["image"].numpy().astype(np.float32)
    if data.zero_centering_image:
        pixels = (pixels + 1) / 2
    colours = (pixels * 255).round()
    return np.clip(colours, 0, 255).astype(np.uint8)


def _chosen(frames: Any) -> Any:
    """At most so many frames as are shown, evenly from first to last."""
    if len(frames) <= SHOWN:
        return frames
    last = len(frames) - 1
    evenly = np.linspace(0, last, SHOWN)
    return frames[evenly.round().astype(int)]


def side_by_side(frames: np.ndarray) -> np.ndarray:
    """Frames in rows, a line between two, as one picture that is about square."""
    edges = [(0, 0), (0, LINE), (0, LINE), (0, 0)]
    frames = np.pad(frames, edges, constant_values=255)
    count, height, width, channels = frames.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = np.full(
        (rows * columns, height, width, channels),
        255,
        np.uint8,
    )
    sheet[:count] = frames
    by_row = sheet.reshape(
        rows,
        columns,
        height,
        width,
        channels,
    )
    lines = by_row.swapaxes(1, 2)
    return lines.reshape(
        rows * height,
        columns * width,
        channels,
    )
