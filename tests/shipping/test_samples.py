"""The samples beside exported detectors and segmenters, in environments that have not this tool: they find what the model finds."""

import ast

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipelines.commands import export
from pipelines.shipping import conversion, metadata, prediction, results
from pipelines.training import inference
from tests.shipping import environments
from tests.shipping.test_preprocessing import Run

pytestmark = pytest.mark.slow
LABELS = ["zero", "one", "two", "three", "four"]
SURE = 0.08  # of what such a model says


def drawn(run: Run) -> inference.Restored:
    """A model with weights drawn at random, and far enough from nothing that it finds something."""
    model = run.task.build_model()
    generator = np.random.default_rng(0)
    for weight in getattr(model, "head", model).trainable_weights:
        if weight.shape.rank == 4:
            weight.assign(generator.normal(0, 0.06, weight.shape))
    return inference.Restored(run.params, run.task, model, "", 0)


def written(run: Run, restored: inference.Restored, folder):
    """The model as TFLite and as a SavedModel, each beside its sample."""
    first = int(run.kind == "detection")
    about = {
        "task": run.kind,
        "labels": LABELS[: run.params.task.model.num_classes - first],
        "first_label": first,
        "min_score": SURE,
        "input": metadata.shown(run.kind, run.params),
    }
    source = conversion.Source(run.kind, run.params, restored.model, run.preprocess, about)
    for form in ("tflite", "saved_model"):
        export._put_sample(conversion.write(source, form, folder / form))


@pytest.mark.parametrize("name", ["retinanet", "deeplabv3plus"])
def test_a_sample_finds_what_the_model_finds(tiny, name, tmp_path):
    run = Run(tiny, name)
    restored = drawn(run)
    written(run, restored, tmp_path)
    arrays, pictures = [], []
    for number, content in enumerate(run.contents[:3]):
        # Not square, so that it is padded, and without JPEG's roundings.
        pixels = tf.io.decode_image(content, 3).numpy()[:, :48]
        pictures.append(tmp_path / f"{number}.png")
        arrays.append(tmp_path / f"{number}.npy")
        Image.fromarray(pixels).save(pictures[-1])
        np.save(arrays[-1], pixels)
    predictor = prediction.Predictor(
        run.preprocess, restored.forward, results.reading(run.kind, run.params)
    )
    contents = [file.read_bytes() for file in pictures]
    found = [result for _, result in predictor.found(contents)]
    lite = environments.environment(tmp_path / "litert", "ai-edge-litert", "numpy")
    alone = environments.environment(tmp_path / "tensorflow", "tensorflow")
    for python, form, files in ((lite, "tflite", arrays), (alone, "saved_model", pictures)):
        lines = environments.asked(python, tmp_path / form, files, tmp_path)
        if run.kind == "segmentation":
            same_pixels(tmp_path, found)
        else:
            same_boxes(lines, [str(file) for file in files], found)


def same_pixels(folder, found):
    for number, result in enumerate(found):
        pixels = np.asarray(Image.open(folder / f"{number}.classes.png"))
        assert len(np.unique(pixels)) > 1
        assert np.mean(pixels == result.pixels) > 0.999
        (folder / f"{number}.classes.png").unlink()


def same_boxes(lines, names, found):
    total = 0
    for name, result in zip(names, found, strict=True):
        sure = result.above(SURE)
        labels, boxes = told(lines, name)
        assert labels == [LABELS[number] for number in sure.classes]
        assert np.abs(np.reshape(boxes, [-1, 4]) - sure.boxes).max(initial=0) < 0.1
        total += len(labels)
    assert total > 5


def told(lines, name):
    """Labels and boxes of a picture in what its sample printed."""
    labels, boxes = [], []
    for line in lines:
        if line.startswith(f"{name} "):
            label, _, box = line.removeprefix(f"{name} ").split(" ", 2)
            labels.append(label)
            boxes.append(ast.literal_eval(box))
    return labels, boxes
