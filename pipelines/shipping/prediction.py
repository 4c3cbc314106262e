"""Shows pictures to a model: a run's own, or an exported file in its place."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.outside import reason
from pipelines.shipping import results
from pipelines.shipping.results import Result


class Predictor:
    """Pictures in, results out, through the preprocessing of the run's own evaluations."""

    def __init__(self, preprocess: Any, forward: Any, read: results.Reading) -> None:
        """Puts the parts in a row.

        Args:
            preprocess: from the bytes of a picture to what the model is shown, and what is noted beside it.
            forward: what the model says of a batch of these.
            read: what its words mean.
        """
        self._preprocess = tf.function(
            preprocess,
            input_signature=[tf.TensorSpec([], tf.string)],
        )
        self._forward = forward
        self._read = read
        self._size = 0  # of the batches so far

    def found(self, contents: Sequence[bytes]) -> Iterator[tuple[np.ndarray, Result] | str]:
        """Each picture with what was found in it, or why it cannot be decoded."""
        prepared = [self._prepared(content) for content in contents]
        decodable = [pair for pair in prepared if not isinstance(pair, str)]
        outputs: dict[str, Any] = {}
        if decodable:
            # A graph is traced for each size of a batch, which takes a detector seconds.
            self._size = max(self._size, len(decodable))
            decodable += decodable[-1:] * (self._size - len(decodable))
            images, shapes = tf.nest.map_structure(lambda *parts: tf.stack(parts), *decodable)
            outputs = {
                **self._forward(images, keywords(shapes)),
                "image_info": shapes.get("image_info"),
            }
        number = 0
        for content, pair in zip(contents, prepared, strict=True):
            if isinstance(pair, str):
                yield pair
                continue
            yield self._result(content, outputs, number)
            number += 1

    def _prepared(self, content: bytes) -> Any:
        try:
            return self._preprocess(tf.constant(content))
        except tf.errors.OpError as error:
            return reason(error.message, 200)

    def _result(
        self, content: bytes, outputs: dict[str, Any], number: int
    ) -> tuple[np.ndarray, Result]:
        image = tf.io.decode_image(content, channels=3, expand_animations=False).numpy()
        of_this = {}
        for name, values in outputs.items():
            if tf.is_tensor(values):
                of_this[name] = values[number].numpy()
        info = of_this.pop("image_info", None)
        height, width = image.shape[:2]
        return image, self._read(of_this, info, (height, width))


def keywords(shapes: Mapping[str, Any]) -> dict[str, Any]:
    """What a detector is called with beside its images."""
    if "anchor_boxes" not in shapes:
        return {}
    return {
        "anchor_boxes": shapes["anchor_boxes"],
        "image_shape": shapes["image_info"][:, 1, :],
    }
