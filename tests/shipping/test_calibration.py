"""int8 of models with loops: what stands outside of them is calibrated, where TensorFlow's own calibrator ends the process."""

import numpy as np
import pytest
import tensorflow as tf

from pipelines.shipping import calibration

SIDE = 8


class Looped(tf.Module):
    """A layer, and a loop with floats of its own, as the suppression of overlapping boxes is one."""

    def __init__(self) -> None:
        kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 4))
        self.kernel = tf.Variable(kernel.astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([1, SIDE, SIDE, 3], name="images")])
    def serve(self, images):
        with tf.name_scope("backbone"):
            layer = tf.nn.relu(tf.nn.conv2d(images, self.kernel, 1, "SAME"))
        surest = tf.reduce_max(layer, axis=[1, 2])
        halved = tf.while_loop(lambda values: tf.reduce_any(values > 1.0), halve, [surest])
        return {"found": halved[0]}


def halve(values):
    return [values * tf.where(values > 1.0, 0.5, 1.0)]


@pytest.mark.slow
def test_a_model_with_a_loop_is_calibrated_outside_of_it(tmp_path):
    model = Looped()
    tf.saved_model.save(model, str(tmp_path), {"serving_default": model.serve})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    generator = np.random.default_rng(1)
    images = generator.normal(size=(8, 1, SIDE, SIDE, 3)).astype(np.float32)
    converter.representative_dataset = lambda: ([image] for image in images)
    with calibration.of_loops(["backbone"]):
        content = converter.convert()
    ask = calibration.Interpreter(model_content=content).get_signature_runner()
    for image in images:
        expected = model.serve(image)["found"].numpy()
        assert np.abs(ask(images=image)["found"] - expected).max() < 0.1
    count, in_floats = calibration.operations(content)
    assert "CONV_2D" not in in_floats and "WHILE" in in_floats
    assert 0 < sum(in_floats.values()) < count
