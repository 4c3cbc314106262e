"""Exported files at work: each answers as the model that it was made from would."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from pipelines.shipping import graphs, runtimes


class Forward(Protocol):
    """From a batch of images and a detector's keywords to what the model would return."""

    def __call__(self, images: tf.Tensor, shapes: Mapping[str, Any]) -> Mapping[str, Any]: ...


def forward(exported: Path, model: Any, threads: int | None = None) -> Forward:
    """What an exported file answers.

    Args:
        model: the one it was made from, for how it sorts out boxes.
        threads: for TFLite and ONNX; None: as many as they choose.
    """
    if exported.name == "tfhub":
        return _of_hub(exported)
    if exported.is_dir():
        return _of_saved_model(exported, model)
    return _of_file(exported, model, threads)


def _of_saved_model(exported: Path, model: Any) -> Forward:
    loaded = tf.saved_model.load(str(exported))
    signature = loaded.signatures["model"]

    def answer(images: tf.Tensor, shapes: Mapping[str, Any]) -> Mapping[str, Any]:
        # The signature is the loaded object's, which must live as long.
        assert loaded is not None
        raw = signature(images=tf.cast(images, tf.float32))
        return graphs.as_the_model(raw, model, shapes)

    return answer


def _of_hub(exported: Path) -> Forward:
    loaded = tf.saved_model.load(str(exported))

    def answer(images: tf.Tensor, shapes: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"logits": loaded(tf.cast(images, tf.float32), training=False)}

    return answer


def _of_file(exported: Path, model: Any, threads: int | None) -> Forward:
    runner = runtimes.opened(exported, threads)

    def answer(images: tf.Tensor, shapes: Mapping[str, Any]) -> Mapping[str, Any]:
        answers: dict[str, list[np.ndarray]] = {}
        for image in np.asarray(images, np.float32):
            for name, value in runner(images=image[None]).items():
                answers.setdefault(name, []).append(value.copy())
        raw = {name: tf.concat(values, axis=0) for name, values in answers.items()}
        return graphs.as_the_model(raw, model, shapes)

    return answer
