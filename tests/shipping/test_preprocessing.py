"""What a model is shown outside is what its evaluation showed it, and what Model Garden's own exporter would show it instead."""

import copy
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from official.core import exp_factory, task_factory
from official.modeling import optimization
from official.vision.modeling.layers import detection_generator
from official.vision.serving import image_classification
from PIL import Image

from pipelines import assembly
from pipelines.config import compose
from pipelines.shipping import conversion, graphs, in_numpy, metadata, results
from pipelines.training import inference
from tests.training.test_experiment import KINDS, SMALL

pytestmark = pytest.mark.slow


class Run:
    """An experiment on tiny data: its parameters, its official task, the bytes of its pictures."""

    def __init__(self, tiny, name: str, *more: str) -> None:
        cfg = compose([f"experiment={name}", *tiny[KINDS[name]], *SMALL[name], *more])
        prepared = assembly.with_data(cfg)
        self.kind = prepared.data.task
        self.params = assembly.resolved(cfg, prepared.task, prepared.data)
        self.task = task_factory.get_task(self.params.task)
        self.restored = inference.Restored(self.params, self.task, None, "", 0)
        self.preprocess = inference.Preprocessing(self.restored, self.kind)
        shards = Path(prepared.data.directory).glob("validation-*.tfrecord")
        records = tf.data.TFRecordDataset(sorted(map(str, shards))).as_numpy_iterator()
        self.contents = [prepared.task.decode(record)["image"] for record in records]

    def evaluated(self) -> list[np.ndarray]:
        """What the official evaluation shows a model."""
        batches = self.task.build_inputs(self.params.task.validation_data)
        return [image for batch in batches for image in batch[0].numpy()]


def apart(image: np.ndarray, others: list[np.ndarray]) -> float:
    """By how much a picture differs from the one of these that it is most like."""
    return min(float(np.abs(image - other).max()) for other in others)


@pytest.mark.parametrize("name", [name for name in SMALL if KINDS[name] in inference.DECODED])
def test_pictures_are_shown_as_the_evaluation_shows_them(tiny, name):
    run = Run(tiny, name)
    shown = run.evaluated()
    prepare = tf.function(run.preprocess)
    for content in run.contents[:4]:
        image, shapes = prepare(tf.constant(content))
        # A graph may divide where another multiplies: the last bit of a normalized pixel.
        assert apart(image.numpy(), shown) < 1e-5
        assert ("image_info" in shapes) == (run.kind != "classification")


# What would move or recolour a picture, which training does on purpose.
UNSCALED = [
    "task.train_data.parser.aug_scale_min=1.0",
    "task.train_data.parser.aug_scale_max=1.0",
]
UNMOVED = {
    "resnet": ["task.train_data.aug_crop=false"],
    "retinanet": UNSCALED,
    "maskrcnn": UNSCALED,
    "deeplabv3plus": [],
}


@pytest.mark.parametrize("name", list(UNMOVED))
def test_fixed_pictures_are_shown_alike_in_training_evaluation_and_export(tiny, name):
    run = Run(tiny, name, *UNMOVED[name])
    data = run.params.task.train_data
    in_training = inference._parser(run.task, data)
    in_evaluation = inference._parser(run.task, run.params.task.validation_data)
    generator = np.random.default_rng(0)
    for size in ((64, 64), (50, 70), (90, 31)):
        pixels = generator.integers(0, 256, (*size, 3), np.uint8)
        content = tf.io.encode_png(pixels)
        decoded = inference.DECODED[run.kind](content, data)
        if run.kind == "detection":
            decoded |= one_object(size)
        exported, _ = run.preprocess(content)
        for parse in (in_training, in_evaluation):
            image, _ = parse(decoded)
            assert np.abs(image.numpy() - exported.numpy()).max() < 1e-4, size


def one_object(size: tuple[int, int]) -> dict[str, tf.Tensor]:
    """What the official decoder returns beside a picture; the training parser wants a box."""
    return {
        "groundtruth_classes": tf.constant([1], tf.int64),
        "groundtruth_is_crowd": tf.constant([False]),
        "groundtruth_area": tf.constant([100.0]),
        "groundtruth_boxes": tf.constant([[0.1, 0.1, 0.6, 0.9]]),
        "groundtruth_instance_masks": tf.ones([1, *size]),
    }


@pytest.mark.parametrize("name", ["resnet", "retinanet", "deeplabv3plus"])
def test_the_sample_shows_a_model_what_the_evaluation_does(tiny, name, tmp_path):
    run = Run(tiny, name)
    wants = metadata.shown(run.kind, run.params)
    generator = np.random.default_rng(0)
    for size in ((50, 70), (64, 64), (90, 31)):
        pixels = generator.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        image, _ = run.preprocess(tf.constant((tmp_path / "a.png").read_bytes()))
        sample, *_ = in_numpy.prepared(pixels, wants)
        assert np.abs(sample[0] - image.numpy()).max() < 1e-4, size


def test_the_official_exporter_crops_by_the_training_data_and_this_one_by_the_evaluation(tiny):
    crop = "task.validation_data.center_crop_fraction=0.5"
    run = Run(tiny, "resnet", "task.validation_data.aug_crop=true", crop)
    (height, width, _) = run.params.task.model.input_size
    theirs = image_classification.ClassificationModule(
        run.params,
        batch_size=1,
        input_image_size=[height, width],
        model=lambda images, training: images,
    )
    pixels = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    content = tf.io.encode_png(pixels)
    ours, _ = run.preprocess(content)
    decoded = {"image/encoded": content, "image/class/label": tf.constant(0, tf.int64)}
    evaluated, _ = inference._parser(run.task, run.params.task.validation_data)(decoded)
    assert np.abs(ours - evaluated).max() < 1e-5
    assert np.abs(theirs._build_inputs(tf.constant(pixels)) - evaluated).max() > 0.1


def test_the_official_exporter_cuts_resized_pixels_to_whole_numbers_and_this_one_does_not(tiny):
    run = Run(tiny, "resnet", "task.train_data.aug_crop=false")
    (height, width, _) = run.params.task.model.input_size
    theirs = image_classification.ClassificationModule(
        run.params,
        batch_size=1,
        input_image_size=[height, width],
        input_type="image_bytes",
        model=lambda images, training: images,
    )
    pixels = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    content = tf.io.encode_png(pixels)
    ours, _ = run.preprocess(content)
    shown = theirs._build_inputs(theirs._decode_image(content))
    assert 1e-3 < np.abs(shown - ours).max() < 0.02  # less than one of 255 levels


def test_pictures_of_any_sizes_go_into_one_batch(tiny):
    run = Run(tiny, "deeplabv3plus")
    graph = graphs.Graph(
        run.params,
        lambda images, training: {"logits": images[:, ::4, ::4]},
        run.preprocess,
        batch_size=None,
    )
    sizes = [(50, 70), (9, 8)]
    generator = np.random.default_rng(0)
    contents = []
    for size in sizes:
        pixels = generator.integers(0, 256, (*size, 3), np.uint8)
        contents.append(tf.io.encode_png(pixels))
    found = graph.inference_from_image_bytes(tf.stack(contents))
    assert found["logits"].shape == (2, 64, 64, 3)
    assert found["image_info"][:, 0].numpy().tolist() == [[50, 70], [9, 8]]
    classes = found["classes"].numpy()
    assert classes.shape == (2, 50, 70)
    assert len(np.unique(classes[0])) == 3
    for number, size in enumerate(sizes):
        logits, info = found["logits"][number].numpy(), found["image_info"][number].numpy()
        outside = np.full((50, 70), graphs.NO_CLASS, np.uint8)
        outside[: size[0], : size[1]] = results.classes_of_pixels(logits, info, size)
        assert np.array_equal(classes[number], outside)


def test_int8_is_calibrated_on_what_an_evaluation_would_show(tiny):
    run = Run(tiny, "resnet")
    calibration = conversion.Calibration(run.preprocess, run.contents[:3])
    images = [image.numpy()[0] for image, _ in calibration.build_inputs(None)]
    shown = run.evaluated()
    assert len(images) == 3
    assert max(apart(image, shown) for image in images) < 1e-5


def test_the_boxes_of_the_sample_are_those_of_the_official_generator():
    generator = np.random.default_rng(0)
    sides = {"3": 8, "4": 4}
    anchors, boxes, classes = {}, {}, {}
    for level, cells in sides.items():
        corner = generator.uniform(0, 40, (cells, cells, 2))
        anchors[level] = np.concatenate([corner, corner + 20], axis=-1).astype(np.float32)
        boxes[level] = generator.normal(0, 0.2, (cells, cells, 4)).astype(np.float32)
        classes[level] = generator.normal(0, 2, (cells, cells, 4)).astype(np.float32)
    official = detection_generator.MultilevelDetectionGenerator(
        pre_nms_top_k=1000, pre_nms_score_threshold=0.3, max_num_detections=200
    )
    batch = []
    for part in (boxes, classes, anchors):
        batch.append({level: tf.constant(values)[None] for level, values in part.items()})
    found = official(*batch, tf.constant([[64.0, 64.0]]))
    count = int(found["num_detections"][0])
    said = {f"boxes_{level}": boxes[level] for level in sides}
    said |= {f"classes_{level}": classes[level] for level in sides}
    about = {
        "labels": ["one", "two", "three"],
        "first_label": 1,
        "min_score": 0.3,
        "input": {"size": [64, 64]},
        "boxes": {
            "anchors": {level: anchors[level].reshape(-1, 4).tolist() for level in sides},
            "box_coder_weights": [1.0, 1.0, 1.0, 1.0],
            "pre_nms_top_k": 1000,
            "nms_iou_threshold": 0.5,
            "max_num_detections": 200,
        },
    }
    ours = in_numpy.boxes(said, about)
    assert len(ours) == count > 10
    theirs = found["detection_boxes"][0, :count].numpy()
    assert np.abs(np.array([box for box, _, _ in ours]) - theirs).max() < 1e-3
    labels = found["detection_classes"][0, :count].numpy()
    assert [label for _, _, label in ours] == labels.tolist()


def test_a_checkpoint_that_is_not_the_best_one_gives_the_moving_averages(tmp_path):
    params = exp_factory.get_exp_config("resnet_imagenet")
    model = {
        "num_classes": 3,
        "input_size": [32, 32, 3],
        "backbone": {"resnet": {"model_id": 10, "depth_multiplier": 0.25}},
    }
    params.override({"task": {"model": model}})
    params.task.train_data.seed = 0
    params.trainer.optimizer_config.ema = optimization.EMAConfig()
    first = inference.train_utils.create_trainer(
        params, task_factory.get_task(params.task), train=False, evaluate=False
    )
    for average in inference.upstream.averages(first.optimizer):
        average.assign(tf.fill(average.shape, 0.25))
    prefix = first.checkpoint.write(str(tmp_path / "ckpt-1"))
    best = first.checkpoint.write(str(tmp_path / "best_ckpt-1"))
    averaged = inference.restore(copy.deepcopy(params), prefix).model
    assert all(np.all(weight == 0.25) for weight in averaged.get_weights()[:1])
    as_saved = inference.restore(copy.deepcopy(params), best).model
    assert np.array_equal(as_saved.get_weights()[0], first.model.get_weights()[0])


def test_boxes_end_where_the_picture_does_and_those_of_masks_keep_their_size():
    # A picture of 50 x 100, shown at twice its size in an input of 200 x 200: it is padded below.
    infos = tf.constant([[[50.0, 100], [200, 200], [2, 2], [0, 0]]])
    found = {"detection_boxes": tf.constant([[[20.0, 40, 190, 200]]])}
    cut = graphs.in_the_picture(found, infos)["detection_boxes"]
    assert cut.numpy().tolist() == [[[10, 20, 50, 100]]]
    found["detection_masks"] = tf.zeros([1, 1, 28, 28])
    whole = graphs.in_the_picture(found, infos)["detection_boxes"]
    assert whole.numpy().tolist() == [[[10, 20, 95, 100]]]
