"""Operations that a format has no form for: the refusal names them."""

import numpy as np
import pytest
import tensorflow as tf
from official.core import exp_factory

from pipelines.shipping import conversion

pytestmark = pytest.mark.slow

SIDE = 8


class Probits(tf.Module):
    """A model with an operation that TensorFlow alone has."""

    @tf.function(input_signature=[tf.TensorSpec([1, SIDE, SIDE, 3], name="images")])
    def serve(self, images):
        return {"logits": tf.math.ndtri(tf.reduce_mean(images, axis=[1, 2]))}


def preprocess(content):
    return tf.cast(tf.io.decode_png(content, 3), tf.float32) / 255, {}


def test_an_operation_without_a_form_in_int8_is_named(tmp_path):
    model = Probits()
    tf.saved_model.save(model, str(tmp_path), {"serving_default": model.serve})
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    source = conversion.Source(
        kind="classification",
        params=exp_factory.get_exp_config("resnet_imagenet"),
        model=model,
        preprocess=preprocess,
        document={},
        calibration=[tf.io.encode_png(pixels).numpy()],
    )
    with pytest.raises(conversion.Refused, match="Ndtri"):
        conversion.converted(source, "tflite_int8", str(tmp_path))
