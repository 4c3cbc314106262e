"""Keras Applications as backbones: their own networks behind their own preprocessing, by real layer names."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from official.vision.configs import (
    common,
    decoders,
    image_classification,
    retinanet,
    semantic_segmentation,
)
from official.vision.modeling import factory
from official.vision.ops import preprocess_ops

from pipelines.config import compose
from pipelines.training import keras_applications, parameters
from pipelines.training.backbones import Backbone
from pipelines.training.starting import Starting, load
from pipelines.usage import UsageError

SHAPE = [64, 64, 3]
KINDS = ["ResNet50", "MobileNetV2", "DenseNet121", "EfficientNetB0"]  # one of each preprocessing


def parsed(image: np.ndarray) -> tf.Tensor:
    return preprocess_ops.normalize_image(tf.cast(image, tf.uint8))


@pytest.mark.parametrize("name", KINDS)
def test_each_family_gets_its_own_preprocessing_whatever_the_parser_did(name):
    _, module = keras_applications.families()[name]
    image = np.random.default_rng(0).integers(0, 256, [1, 8, 8, 3])
    ours = module.preprocess_input(keras_applications.pixels(parsed(image)))
    theirs = module.preprocess_input(tf.cast(image, tf.float32))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_every_family_is_offered():
    names = keras_applications.families()
    assert len(names) >= 69 and {"VGG16", "NASNetMobile", "ConvNeXtTiny", "RegNetY002", "ResNetRS50"} <= set(names)  # fmt: skip


def test_a_file_of_keras_gives_what_keras_computes(tmp_path):
    theirs = tf_keras.applications.MobileNetV3Small(
        include_top=False, weights=None, input_shape=SHAPE
    )
    file = str(tmp_path / "weights_notop.h5")
    theirs.save_weights(file)
    chosen = Backbone(type="keras")
    config = image_classification.ImageClassificationModel(
        num_classes=4, input_size=SHAPE, backbone=chosen, norm_activation=common.NormActivation()
    )
    model = factory.build_classification_model(
        tf_keras.layers.InputSpec(shape=[None, *SHAPE]), config
    )
    outcome = load(model, Starting(file, checkpoint=file), print)
    assert len(outcome.loaded) == len(theirs.weights) and len(outcome.left) == 2
    image = np.random.default_rng(1).integers(0, 256, [1, *SHAPE])
    ours = model.backbone(parsed(image), training=False)
    np.testing.assert_allclose(ours["5"], theirs(tf.cast(image, tf.float32)), atol=1e-4)
    names = [model.backbone.layer_names["5"], theirs.layers[-1].name]
    assert [name.rstrip("_0123456789") for name in names] == ["multiply"] * 2


def test_a_detector_takes_its_levels(tmp_path):
    config = retinanet.RetinaNet(num_classes=3, input_size=SHAPE, min_level=3, max_level=5)
    config.backbone = Backbone(type="keras")
    model = factory.build_retinanet(tf_keras.layers.InputSpec(shape=[None, *SHAPE]), config)
    assert set(model.backbone.output_specs) >= {"3", "4", "5"}
    outputs = model(tf.zeros([1, *SHAPE]), training=True)
    assert outputs["cls_outputs"]["3"].shape[1] == 8


def test_a_segmenter_takes_its_levels():
    config = semantic_segmentation.SemanticSegmentationModel(
        num_classes=3, input_size=SHAPE, min_level=3, max_level=5
    )
    config.backbone = Backbone(type="keras")
    config.decoder = decoders.Decoder(type="fpn", fpn=decoders.FPN(num_filters=8))
    config.head = semantic_segmentation.SegmentationHead(level=3, num_convs=1, num_filters=8)
    inputs = tf_keras.layers.InputSpec(shape=[None, *SHAPE])
    model = factory.build_segmentation_model(inputs, config)
    logits = model(tf.zeros([1, *SHAPE]), training=True)["logits"]
    assert logits.shape == (1, 8, 8, 3)


def test_the_command_line_chooses_one_and_a_misspelt_one_is_named():
    keras = "task.model.backbone={type: keras, keras: {model_name: ResNet50}}"
    params = parameters.build(compose(["experiment=resnet", keras]))
    assert params.task.model.backbone.get().model_name == "ResNet50"
    with pytest.raises(UsageError, match="did you mean ResNet50"):
        keras_applications.Network("ResNet5", SHAPE)
