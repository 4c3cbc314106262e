"""What a training will take is stated; what cannot fit is refused before it starts."""

import pytest
import tf_keras

from pipelines.training import memory
from pipelines.usage import UsageError


@pytest.fixture(scope="module")
def model():
    image = tf_keras.Input([8, 8, 3])
    inner = tf_keras.Model(image, tf_keras.layers.Conv2D(4, 3, padding="same")(image))
    return tf_keras.Sequential([inner, tf_keras.layers.Flatten()])


def test_every_layer_counts_once_for_each_example(model):
    weights = (3 * 3 * 3 * 4 + 4) * 4
    image, maps = 8 * 8 * 3 * 4, 8 * 8 * 4 * 4
    found = memory.estimate(model, 10)
    assert found[0] == memory.COPIES * weights
    assert memory.COPIES * 10 * 2 * maps <= found[1] <= memory.COPIES * 10 * (3 * maps + 2 * image)


def test_what_fits_is_stated_and_what_does_not_is_refused_with_what_would(model):
    assert "memory: about " in memory.check(model, 10) and "batch of 10" in memory.check(model, 10)
    with pytest.raises(UsageError, match=r"global_batch_size: 1000000000 does not fit; \d+ would"):
        memory.check(model, 1_000_000_000)
