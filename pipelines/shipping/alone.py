"""Shows pictures to an exported file alone: no run, no Model Garden; what it wants to be shown stands in the file."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.outside import reason
from pipelines.shipping import in_numpy, results, runtimes
from pipelines.shipping.answers import UPRIGHT
from pipelines.shipping.results import Result

UNKNOWN = (0.0, 0.0)  # of what the preprocessing notes, all but the scale
Ask = Callable[[bytes, np.ndarray], Result]


class Alone:
    """Pictures in, results out, as `prediction.Predictor`."""

    def __init__(self, exported: Path, about: Mapping[str, Any]) -> None:
        """Opens a file.

        Args:
            about: its metadata.
        """
        opened = _of_folder if exported.is_dir() else _of_file
        self._ask = opened(exported, about)

    def found(self, contents: Sequence[bytes]) -> Iterator[tuple[np.ndarray, Result] | str]:
        """Each picture with what was found in it, or why it cannot be decoded."""
        for content in contents:
            try:
                image = tf.io.decode_image(content, channels=3, expand_animations=False).numpy()
                yield image, self._ask(content, image)
            except tf.errors.OpError as error:
                yield reason(error.message, 200)


def _of_folder(exported: Path, about: Mapping[str, Any]) -> Ask:
    loaded = tf.saved_model.load(str(exported))
    if "model" not in loaded.signatures:

        def ask_hub(content: bytes, image: np.ndarray) -> Result:
            pixels, *_ = in_numpy.prepared(image, about["input"])
            logits = loaded(tf.constant(pixels), training=False)[0].numpy()
            return Result(probabilities=in_numpy.probabilities(logits, about))

        return ask_hub

    def ask(content: bytes, image: np.ndarray) -> Result:
        found = loaded.signatures["serving_default"](images=tf.constant([content]))
        said = {name: value[0].numpy() for name, value in found.items()}
        if "probabilities" in said:
            return Result(probabilities=said["probabilities"])
        if "logits" in said:
            size = image.shape[:2]
            pixels = results.classes_of_pixels(said["logits"], said["image_info"], size)
            return Result(pixels=pixels)
        return results.of_objects(said, UPRIGHT, image.shape[:2])

    return ask


def _of_file(exported: Path, about: Mapping[str, Any]) -> Ask:
    model = runtimes.opened(exported)
    every = {**about, "min_score": 0.0}

    def ask(content: bytes, image: np.ndarray) -> Result:
        pixels, scale, inside = in_numpy.prepared(image, about["input"])
        said = model(images=pixels)
        if about["task"] == "classification":
            sure = in_numpy.probabilities(said["logits"][0], about)
            return Result(probabilities=sure)
        if about["task"] == "segmentation":
            size = image.shape[:2]
            classes = in_numpy.pixels(said["logits"][0], size, inside, about)
            return Result(pixels=classes)
        if "detection_boxes" in said:
            first = {name: values[0] for name, values in said.items()}
            info = np.array([UNKNOWN, UNKNOWN, scale, UNKNOWN])
            return results.of_objects(first, info, image.shape[:2])
        size = image.shape[:2]
        found = in_numpy.in_the_picture(in_numpy.boxes(said, every), scale, size)
        return _of_boxes(found, about)

    return ask


def _of_boxes(found: Sequence[Any], about: Mapping[str, Any]) -> Result:
    boxes = [box for box, _, _ in found]
    return Result(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array([score for _, score, _ in found], np.float32),
        classes=np.array([label for _, _, label in found], np.int64) - about["first_label"],
    )
