"""SavedModels in TF Hub's form as backbones: what they compute, which levels they have, what is refused."""

import hashlib

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from official.vision.configs import common, image_classification, retinanet
from official.vision.modeling import factory
from official.vision.ops import preprocess_ops

from pipelines import assembly
from pipelines.config import compose
from pipelines.training import saved_models
from pipelines.training.backbones import Backbone
from pipelines.training.exact import leftovers
from pipelines.training.starting import Starting, load
from pipelines.usage import UsageError
from pipelines.weights import hub

SHAPE = [64, 64, 3]


class Published(tf.Module):
    """A network as Hub wants it: called, with `training` and `return_endpoints`, its variables beside it."""

    def __init__(self, drawing: bool = False) -> None:
        super().__init__()
        self.layers = [tf_keras.layers.Conv2D(4, 3, 2, "same") for _ in range(5)]
        self.norm = tf_keras.layers.BatchNormalization(momentum=0.5)
        self.drawing = drawing
        self.forward(tf.zeros([1, *SHAPE]), False)
        self.variables_of = [*self.layers, self.norm]

    def forward(self, pixels, training):
        features, maps = pixels, {}
        for number, layer in enumerate(self.layers, start=1):
            features = layer(features)
            maps[f"block_{number}"] = features
        features = self.norm(features, training=training)
        if self.drawing and training:
            features = features + tf.random.uniform(tf.shape(features))
        return tf.reduce_mean(features, [1, 2]), maps


def published(folder, endpoints: bool, drawing: bool = False) -> str:
    network = Published(drawing)
    saved = tf.train.Checkpoint()
    saved.network = network
    spec = tf.TensorSpec([None, *SHAPE])

    if endpoints:

        @tf.function(input_signature=None)
        def call(pixels, training=False, return_endpoints=False):
            vector, maps = network.forward(pixels, training)
            return {"default": vector, **maps} if return_endpoints else vector

        for training in (False, True):
            call.get_concrete_function(spec, training, True)
            call.get_concrete_function(spec, training, False)
    else:

        @tf.function
        def call(pixels, training=False):
            return network.forward(pixels, training)[0]

        for training in (False, True):
            call.get_concrete_function(spec, training)
    saved.__call__ = call
    parts = network.variables_of
    saved.variables = [variable for part in parts for variable in part.variables]
    saved.trainable_variables = [weight for part in parts for weight in part.trainable_variables]
    tf.saved_model.save(saved, str(folder))
    return str(folder)


def chosen(folder: str) -> Backbone:
    backbone = Backbone(type="saved_model")
    backbone.saved_model.saved_model_path = folder
    return backbone


def parsed(image: np.ndarray) -> tf.Tensor:
    return preprocess_ops.normalize_image(tf.cast(image, tf.uint8))


def classifier(folder: str):
    config = image_classification.ImageClassificationModel(
        num_classes=4,
        input_size=SHAPE,
        backbone=chosen(folder),
        norm_activation=common.NormActivation(),
    )
    inputs = tf_keras.layers.InputSpec(shape=[None, *SHAPE])
    return factory.build_classification_model(inputs, config)


@pytest.fixture(scope="module")
def vector(tmp_path_factory) -> str:
    return published(tmp_path_factory.mktemp("vector"), endpoints=False)


@pytest.fixture(scope="module")
def maps(tmp_path_factory) -> str:
    return published(tmp_path_factory.mktemp("maps"), endpoints=True)


def test_a_feature_vector_gives_what_the_saved_model_computes_and_is_told_as_loaded(vector):
    model, said = classifier(vector), []
    outcome = load(model, Starting("hub", checkpoint=vector), said.append)
    assert len(outcome.loaded) == 14 and len(outcome.left) == 2 and "14 loaded" in said[0]
    image = np.random.default_rng(1).integers(0, 256, [1, *SHAPE])
    alone = tf.saved_model.load(vector)(tf.constant(image / 255.0, tf.float32))
    features = model.backbone(parsed(image), training=False)["5"]
    np.testing.assert_allclose(features[:, 0, 0], alone, atol=1e-5)


def test_it_learns_and_frozen_it_keeps_every_bit(vector):
    model = classifier(vector)
    image = parsed(np.random.default_rng(2).integers(0, 256, [2, *SHAPE]))

    def step() -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(image, training=True) ** 2)
        weights = model.trainable_variables
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            weight.assign_sub(gradient)

    before = [value.numpy() for value in model.backbone.variables]
    model.backbone.trainable = False
    assert len(model.trainable_variables) == 2
    step()
    for one, other in zip(before, model.backbone.variables, strict=True):
        np.testing.assert_array_equal(one, other)
    model.backbone.trainable = True
    step()
    moved = [not np.array_equal(one, other) for one, other in zip(before, model.backbone.variables, strict=True)]  # fmt: skip
    assert sum(moved) == 14  # Statistics of batch norm too.


def test_a_detector_takes_feature_maps_by_stride(maps):
    config = retinanet.RetinaNet(num_classes=3, input_size=SHAPE, min_level=3, max_level=5)
    config.backbone = chosen(maps)
    model = factory.build_retinanet(tf_keras.layers.InputSpec(shape=[None, *SHAPE]), config)
    names = {str(level): f"block_{level}" for level in range(1, 6)}
    assert model.backbone.layer_names == names
    assert model(tf.zeros([1, *SHAPE]), training=True)["cls_outputs"]["3"].shape[1] == 8


def test_a_vector_alone_is_refused_where_maps_are_wanted(vector):
    config = retinanet.RetinaNet(num_classes=3, input_size=SHAPE, min_level=3, max_level=5)
    config.backbone = chosen(vector)
    with pytest.raises(UsageError, match="feature vector and no feature maps"):
        factory.build_retinanet(tf_keras.layers.InputSpec(shape=[None, *SHAPE]), config)


def test_another_size_of_pictures_is_named(vector):
    options = saved_models.SavedModel(saved_model_path=vector)
    with pytest.raises(UsageError, match=r"takes no pictures of \[32, 32, 3\]"):
        saved_models.Network(options, [32, 32, 3])


def test_what_cannot_be_trained_is_refused(tmp_path):
    module = tf.Module()
    module.f = tf.function(lambda x: x, input_signature=[tf.TensorSpec([None])])
    tf.saved_model.save(module, str(tmp_path), signatures=module.f)
    with pytest.raises(UsageError, match="cannot be trained"):
        saved_models.Network(saved_models.SavedModel(saved_model_path=str(tmp_path)), SHAPE)


def test_what_a_saved_model_draws_by_itself_is_found(tmp_path):
    network = classifier(published(tmp_path, endpoints=False, drawing=True))
    step = tf.function(lambda pixels: network(pixels, training=True))
    graph = step.get_concrete_function(tf.TensorSpec([2, *SHAPE])).graph
    refusal = leftovers.refusal(leftovers.in_graph(graph), "the training step")
    assert refusal and "RandomUniform" in refusal and "determinism=off" in refusal


def test_a_handle_is_looked_up_where_hub_keeps_it(vector, tmp_path, monkeypatch):
    handle = "https://tfhub.dev/nobody/vector/1"
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    copy = tmp_path / hashlib.sha1(handle.encode()).hexdigest()
    copy.symlink_to(vector)
    words = ["experiment=resnet", "task.model.input_size=[64,64,3]"]
    by_handle = compose([*words, f"init={handle}"])
    by_folder = compose([*words, f"init={vector}", "task.model.backbone.type=saved_model"])
    digests = [assembly.with_starting_weights(cfg).init_sha256 for cfg in (by_handle, by_folder)]
    assert digests == [hub.digest(copy)] * 2
    backbone = assembly.resolved(by_handle).task.model.backbone
    assert (backbone.type, backbone.get().saved_model_path) == ("saved_model", str(copy))


def test_a_handle_that_does_not_answer_says_what_to_bring(tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    handle = "http://127.0.0.1:9/vector/1"
    with pytest.raises(UsageError, match="saved_model.pb is there, or name the folder"):
        assembly.with_starting_weights(compose(["experiment=resnet", f"init={handle}"]))


@pytest.mark.slow
def test_a_training_starts_from_a_saved_model_and_is_evaluated(vector, trellis, tiny, tmp_path):
    words = [
        "experiment=resnet", *tiny["classification"], f"init={vector}", "frozen=0.5",
        "task.model.backbone.type=saved_model",
        "task.model.input_size=[64,64,3]", "task.train_data.global_batch_size=4",
        "task.validation_data.global_batch_size=5", "trainer.train_steps=4", "trainer.steps_per_loop=1",
        "trainer.validation_interval=4", "trainer.summary_interval=1",
        "trainer.optimizer_config.warmup.linear.warmup_steps=1", f"runs_dir={tmp_path}", f"run_dir={tmp_path / 'run'}",
    ]  # fmt: skip
    printed = trellis("train", *words)
    assert "14 loaded" in printed and "step 2/4  the backbone is released" in printed
    assert "accuracy" in trellis("evaluate", f"run={tmp_path / 'run'}", f"runs_dir={tmp_path}")
