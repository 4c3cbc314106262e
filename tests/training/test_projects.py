"""Model Garden's projects: found by an experiment's name, and held to a CPU's rules; what each repair is for."""

import importlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from official.core import task_factory

from pipelines.training import inference, parameters, projects, upstream
from pipelines.usage import UsageError
from tasks import detection

PADDING = -1


def test_an_experiment_of_a_project_is_found_by_its_name_alone() -> None:
    assert parameters.registered("centernet_hourglass_coco").task.model.num_classes == 90


def test_a_project_that_is_not_whole_says_which_module_is_missing() -> None:
    assert "official.projects.panoptic.dataloaders" in str(projects.trouble("panoptic"))
    assert projects.trouble("centernet") is None


@pytest.mark.parametrize("update", [False, True])
def test_yolo_leaves_out_padding_on_a_cpu(update: bool) -> None:
    assert projects.trouble("yolo") is None
    loss = importlib.import_module("official.projects.yolo.ops.loss_utils")
    places = tf.constant([[[0, 1, 0], [0, 0, 0]]])
    values, there = tf.constant([[[3.0], [5.0]]]), tf.constant([[[1], [0]]])
    grid = tf.zeros([1, 2, 2, 1, 1])
    built = tf.function(loss.build_grid)(places, values, grid, there, update=update).numpy()
    expected = np.zeros([1, 2, 2, 1, 1])
    expected[0, 0, 1, 0] = 3.0
    np.testing.assert_array_equal(built, expected)


@pytest.fixture
def fusing() -> Iterator[None]:
    """Has this process fuse operations again."""
    yield
    tf.config.optimizer.set_experimental_options({"remapping": True})


def test_mish_after_a_batch_norm_is_computed_on_a_cpu(fusing: None) -> None:
    # Fused, as TensorFlow would, oneDNN has no kernel for it; the layers of an evaluation are in this order.
    assert projects.trouble("yolo") is None
    blocks = importlib.import_module("official.projects.yolo.modeling.layers.nn_blocks")
    layer = blocks.ConvBN(filters=4, kernel_size=[3, 3], activation="mish", use_sync_bn=False)
    pixels = tf.random.stateless_normal([2, 8, 8, 3], [0, 1])
    expected = layer(pixels, training=False)
    assert expected.numpy().any()
    np.testing.assert_allclose(tf.function(layer)(pixels, training=False), expected, atol=1e-5)


def test_centernet_asks_for_no_place_below_zero_on_a_cpu() -> None:
    assert projects.trouble("centernet") is None
    loss = importlib.import_module("official.projects.centernet.ops.loss_ops")
    predictions = tf.reshape(tf.range(8.0), [1, 2, 2, 2])
    places = tf.constant([[[0, 1, 0], [0, PADDING, PADDING]]])
    read = tf.function(loss.get_batch_predictions_from_indices)(predictions, places).numpy()
    np.testing.assert_array_equal(read, [[[4.0, 5.0], [0.0, 1.0]]])


@pytest.mark.parametrize(("frequency", "mixes"), [(0.0, False), (0.5, True)])
def test_a_mosaic_that_is_switched_off_mixes_nothing(frequency: float, mixes: bool) -> None:
    assert projects.trouble("yolo") is None
    mosaic = importlib.import_module("official.projects.yolo.ops.mosaic").Mosaic
    made = mosaic(output_size=[64, 64, 3], mosaic_frequency=frequency).mosaic_fn(is_training=True)
    assert isinstance(made, upstream.Unmixed) is not mixes


def test_a_quantizer_reads_inputs_in_dictionaries_inside_of_tuples() -> None:
    if projects.trouble("qat"):
        pytest.fail(str(projects.trouble("qat")))
    inputs = [[{"3": ["backbone", 0, 3, {}]}, ["decoder", 0, 0, {}]]]
    named = [connection[0] for connection in projects._connections(inputs)]
    assert named == ["backbone", "decoder"]


def test_a_parser_that_asks_if_of_a_tensor_is_rewritten_inside_a_map() -> None:
    def doubled(value: tf.Tensor) -> tf.Tensor:
        if value > 1:
            value = value * 2
        return value

    plain = upstream.plain(lambda value: upstream.converted(doubled)(value))
    assert list(tf.data.Dataset.range(4).map(plain).as_numpy_iterator()) == [0, 1, 4, 6]


@pytest.mark.parametrize("name", ["yolo", "yolov7", "centernet_hourglass_coco", "detr_coco"])
def test_a_detector_with_words_of_its_own_is_refused_where_pictures_are_shown(name: str) -> None:
    params = parameters.registered(name)
    with pytest.raises(UsageError, match=f"{type(params.task).__name__}.*make evaluate"):
        inference.refuse_unread(params)


@pytest.mark.parametrize("name", ["darknet_classification", "retinanet_mobile_coco_qat"])
def test_a_project_of_official_models_is_read_as_they_are(name: str) -> None:
    inference.refuse_unread(parameters.registered(name))


def test_detr_reads_records_as_it_reads_tfds(tmp_path: Path) -> None:
    assert projects.trouble("detr") is None
    coco = importlib.import_module("official.projects.detr.dataloaders.coco")
    picture = cv2.imencode(".png", np.full([32, 64, 3], 90, np.uint8))[1].tobytes()
    thing = {"box": (0.0, 0.0, 1.0, 0.5), "label": 3, "text": "three", "area": 1.0, "is_crowd": 0}
    record = {
        "key": "139", "file": "139.png", "id": 139, "image": picture, "sha256": "", "format": "png",
        "height": 32, "width": 64, "objects": [thing],
    }  # fmt: skip
    params = coco.COCODataConfig(
        input_path=str(tmp_path / "one"),
        global_batch_size=1,
        is_training=False,
        output_size=[64, 64],
        resize_scales=[64],
        max_num_boxes=2,
    )
    with tf.io.TFRecordWriter(str(tmp_path / "one")) as file:
        file.write(detection.encode(record))
    image, labels = next(iter(coco.COCODataLoader(params).load()))
    assert image.shape == (1, 64, 64, 3)
    assert labels["id"].numpy() == [139]
    np.testing.assert_array_equal(labels["classes"], [[3, 0]])
    np.testing.assert_allclose(labels["boxes"][0, 0], [0.5, 0.25, 1.0, 0.5])


def test_detr_that_finds_all_there_is_has_an_ap_of_one() -> None:
    assert projects.trouble("detr") is None
    detr = importlib.import_module("official.projects.detr.modeling.detr")
    task = task_factory.get_task(parameters.registered("detr_coco").task)
    boxes = tf.constant([[[0.25, 0.5, 0.5, 0.25], [0.75, 0.25, 0.25, 0.5]]])
    classes = tf.constant([[3, 7]])
    # A picture of 200 by 400 pixels, made half as large.
    size = tf.constant([[[200.0, 400.0], [100.0, 200.0], [0.5, 0.5], [0.0, 0.0]]])
    labels = {
        "id": tf.constant([139]),
        "image_info": size,
        "is_crowd": tf.constant([[False, False]]),
        "classes": classes,
        "boxes": boxes,
        "gt_boxes": tf.constant([[[0.0, 150.0, 100.0, 250.0], [125.0, 0.0, 175.0, 200.0]]]),
    }

    class Oracle(tf.Module):
        losses = ()

        def __call__(self, images: tf.Tensor, training: bool) -> list[dict[str, tf.Tensor]]:
            outputs = {"cls_outputs": 9.0 * tf.one_hot(classes, 81), "box_outputs": boxes}
            return [outputs | detr.postprocess(outputs)]

    task.build_metrics(training=False)
    logs = task.validation_step((tf.zeros([1, 100, 200, 3]), labels), Oracle())
    found = {}
    for name in ("ground_truths", "predictions"):
        found[name] = {key: (value,) for key, value in logs[name].items()}
    state = task.aggregate_logs(None, found)
    assert task.reduce_aggregated_logs(state)["AP"] == pytest.approx(1.0)
