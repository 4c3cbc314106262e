"""Weights to start from: what is loaded, what is not, and that neither is silent."""

import json
import os
import signal
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from official.modeling import optimization
from official.vision.configs import backbones, common, image_classification
from official.vision.dataloaders import classification_input
from official.vision.modeling import factory
from sklearn.datasets import load_sample_images

from pipelines.training import starting
from pipelines.training.starting import Starting, load, load_whole
from pipelines.usage import UsageError
from pipelines.weights import cards, layouts, named

PICTURES = Path(matplotlib.get_data_path(), "sample_data")


class Detector(tf_keras.Model):
    """The least that has a backbone, a decoder and a head, and names them as Model Garden does."""

    def __init__(self, classes: int, width: int = 4) -> None:
        super().__init__()
        inputs = tf_keras.Input([8, 8, 3])
        features = tf_keras.layers.BatchNormalization()(tf_keras.layers.Conv2D(width, 3)(inputs))
        self.backbone = tf_keras.Model(inputs, features)
        self.decoder = tf_keras.layers.Dense(5)
        self.head = tf_keras.Sequential([tf_keras.layers.Dense(6), tf_keras.layers.Dense(classes)])
        self(tf.zeros([1, 8, 8, 3]))

    def call(self, inputs):
        return self.head(self.decoder(self.backbone(inputs)))

    @property
    def checkpoint_items(self):
        return {"backbone": self.backbone, "decoder": self.decoder, "head": self.head}


def saved(model: Detector, folder: Path, **others: object) -> str:
    for number, variable in enumerate(model.variables):
        variable.assign(tf.fill(variable.shape, number + 1.0))
    items = {**model.checkpoint_items, **others}
    return tf.train.Checkpoint(model=model, **items).write(str(folder / "ckpt-9"))


def values(model: Detector) -> list[np.ndarray]:
    return [variable.numpy() for variable in model.variables]


def test_everything_is_loaded_and_counted(tmp_path):
    prefix = saved(Detector(7), tmp_path)
    model, said = Detector(7), []
    outcome = load(model, Starting("run", sha256="ab" * 32, checkpoint=prefix), said.append)
    assert [float(value.flat[0]) for value in values(model)] == list(range(1, 13))
    assert (len(outcome.loaded), outcome.skipped, outcome.other_shape, outcome.left) == (12, [], [], [])  # fmt: skip
    assert "run (abababababab): 12 loaded, 0 skipped, 0 of another shape, 0 left at random" in said[0]  # fmt: skip


def test_one_module_is_loaded_as_model_gardens_own_checkpoint_reading_does(tmp_path):
    prefix = saved(Detector(7), tmp_path)
    ours, theirs = Detector(7), Detector(7)
    theirs.set_weights(ours.get_weights())
    outcome = load(ours, Starting("run", checkpoint=prefix, modules=("backbone",)), print)
    reading = tf.train.Checkpoint(backbone=theirs.backbone).read(prefix)
    reading.expect_partial().assert_existing_objects_matched()
    for one, other in zip(values(ours), values(theirs), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(outcome.loaded) == 6 and len(outcome.skipped) == 6 and not outcome.left


def test_towers_are_kept_under_a_last_layer_of_another_size(tmp_path):
    prefix = saved(Detector(7), tmp_path)
    model = Detector(9)
    outcome = load(model, Starting("run", checkpoint=prefix), print)
    assert len(outcome.loaded) == 10
    shapes = [name.split(" ", 1)[1] for name in outcome.other_shape]
    assert sorted(shapes) == ["(6, 7) for (6, 9)", "(7,) for (9,)"]
    # Of another shape, so at random too; the layer before it is not.
    assert len(outcome.left) == 0 and np.all(model.head.layers[0].kernel == 9.0)


@pytest.mark.parametrize("background", [False, True])
def test_rows_of_classes_go_by_their_names(background, tmp_path):
    first = 1 if background else 0
    old = Detector(3 + first)
    prefix = saved(old, tmp_path)
    kernel = np.arange(6.0 * (3 + first)).reshape(6, 3 + first)
    old.head.layers[1].kernel.assign(kernel)
    prefix = tf.train.Checkpoint(model=old, **old.checkpoint_items).write(str(tmp_path / "b"))
    model = Detector(2 + first)
    random = model.head.layers[1].kernel.numpy()
    outcome = load(
        model,
        Starting(
            "run", checkpoint=prefix, source_classes=("cat", "dog", "cow"), classes=("cow", "owl"),
            has_background=background,
        ),
        print,
    )  # fmt: skip
    new = model.head.layers[1].kernel.numpy()
    np.testing.assert_array_equal(new[:, first], kernel[:, 2 + first])
    np.testing.assert_array_equal(new[:, first + 1], random[:, first + 1])
    if background:
        np.testing.assert_array_equal(new[:, 0], kernel[:, 0])
    assert len(outcome.by_class) == 2


def test_equal_numbers_of_other_classes_are_not_taken_for_the_same(tmp_path):
    prefix = saved(Detector(2), tmp_path)
    model = Detector(2)
    before = model.head.layers[1].kernel.numpy()
    classes = {"source_classes": ("cat", "dog"), "classes": ("dog", "owl")}
    load(model, Starting("run", checkpoint=prefix, **classes), print)
    after = model.head.layers[1].kernel.numpy()
    np.testing.assert_array_equal(after[:, 1], before[:, 1])
    assert np.all(after[:, 0] == 11.0)


def test_imagenets_background_is_left_out_or_put_before():
    kernel = np.arange(2 * 1001, dtype=np.float32).reshape(2, 1001)
    variable = tf.Variable(tf.zeros([2, 1000]))
    rows = starting._rows(variable, kernel, Starting("x"))
    np.testing.assert_array_equal(rows, kernel[:, 1:])
    variable = tf.Variable(tf.fill([2, 1001], -1.0))
    rows = starting._rows(variable, kernel[:, 1:], Starting("x"))
    np.testing.assert_array_equal(rows[:, 1:], kernel[:, 1:])
    assert np.all(rows[:, 0] == -1)


def test_moving_averages_are_what_is_loaded(tmp_path):
    model = Detector(7)
    optimizer = optimization.ExponentialMovingAverage(tf_keras.optimizers.legacy.SGD(0.1))
    optimizer.shadow_copy(model)
    for variable in model.trainable_variables:
        optimizer.get_slot(variable, "average").assign(tf.fill(variable.shape, -5.0))
    prefix = saved(model, tmp_path, optimizer=optimizer)
    averaged, best = Detector(7), Detector(7)
    outcome = load(averaged, Starting("run", checkpoint=prefix), print)
    assert outcome.averaged
    assert {float(variable.numpy().flat[0]) for variable in averaged.trainable_variables} == {-5.0}
    # A best checkpoint is saved while the averages are in the model.
    chosen = tf.train.Checkpoint(model=model, optimizer=optimizer, **model.checkpoint_items)
    outcome = load(best, Starting("run", checkpoint=chosen.write(str(tmp_path / "best_ckpt-9"))), print)  # fmt: skip
    assert not outcome.averaged and float(values(best)[0].flat[0]) == 1.0


# What Model Garden's own loading takes without a word, or answers with a traceback.
@pytest.mark.parametrize(
    ("modules", "width", "file", "words"),
    [
        (("al",), 4, "ckpt-9", "no 'al'; did you mean all"),
        (("backbon",), 4, "ckpt-9", "did you mean backbone"),
        (("backbone",), 5, "ckpt-9", "nothing of run fits this model"),
        ((), 5, "ckpt-9", "of the backbone 0 tensors fit and 6 are of another shape"),
        (("decoder",), 4, "alone", "saved are backbone"),
        (("backbone",), 4, "ckpt-8", "cannot be read"),
        (("backbone",), 4, "damaged", "cannot be read"),
    ],
)
def test_a_broken_load_is_named(modules, width, file, words, tmp_path):
    model = Detector(7)
    saved(model, tmp_path)
    tf.train.Checkpoint(backbone=model.backbone).write(str(tmp_path / "alone"))
    (tmp_path / "damaged.index").write_bytes((tmp_path / "ckpt-9.index").read_bytes()[:50])
    with pytest.raises(UsageError, match=words):
        load(
            Detector(7, width),
            Starting("run", checkpoint=str(tmp_path / file), modules=modules),
            print,
        )


def photographs() -> dict[str, np.ndarray]:
    samples = load_sample_images()
    images = {Path(name).stem: image for name, image in zip(samples.filenames, samples.images, strict=True)}  # fmt: skip
    images["grace_hopper"] = np.asarray(
        tf.io.decode_jpeg((PICTURES / "grace_hopper.jpg").read_bytes())
    )
    return images


def prepared(image: np.ndarray) -> tf.Tensor:
    """A centre crop as Model Garden's parser gives it."""
    edge = min(image.shape[:2])
    square = tf.image.resize_with_crop_or_pad(image, edge, edge)
    pixels = tf.image.resize(tf.cast(square, tf.float32), [224, 224])
    return ((pixels - layouts.PARSER_MEAN) / layouts.PARSER_DEVIATION)[None]


def test_the_installed_weights_know_a_palace_a_daisy_and_a_uniform(tmp_path):
    card = cards.load("efficientnet_lite0")
    backbone = backbones.Backbone()
    backbone.override(card.backbone)
    model = factory.build_classification_model(
        tf_keras.layers.InputSpec(shape=[None, 224, 224, 3]),
        image_classification.ImageClassificationModel(
            num_classes=1000,
            input_size=[224, 224, 3],
            backbone=backbone,
            norm_activation=common.NormActivation(**card.norm_activation, use_sync_bn=False),
        ),
    )
    weights = named.of_card(card.name, str(tmp_path))
    outcome = load(model, Starting(card.name, tensors=weights.tensors()), print)
    assert (len(outcome.loaded), outcome.skipped, outcome.left) == (247, [], [])
    first = {}
    for name, image in photographs().items():
        first[name] = int(np.argmax(model(prepared(image), training=False)[0]))
    assert first == {"china": 698, "flower": 985, "grace_hopper": 652}


def test_training_and_evaluation_give_the_numbers_that_the_folding_counts_on():
    colour = np.array([200, 30, 90], np.uint8)
    image = np.tile(colour, (64, 64, 1))
    parser = classification_input.Parser(
        [32, 32], num_classes=2, aug_rand_hflip=False, decode_jpeg_only=False, dtype="float32"
    )
    decoded = {"image/encoded": tf.io.encode_png(image), "image/class/label": tf.constant(1)}
    expected = (colour - np.array(layouts.PARSER_MEAN)) / layouts.PARSER_DEVIATION
    for is_training in (True, False):
        parsed, _ = parser.parse_fn(is_training)(decoded)
        np.testing.assert_allclose(parsed[16, 16], expected, atol=0.01)


def test_the_log_has_the_names(tmp_path, capsys):
    prefix = saved(Detector(7), tmp_path)
    load(Detector(9), Starting("run", checkpoint=prefix, modules=("backbone", "head")), print)
    printed = capsys.readouterr().out
    for word in ("loaded: backbone/", "another shape: head/", "skipped: decoder/"):
        assert f"starting weights: {word}" in printed


# Whole trainings


def steps(number: int) -> list[str]:
    return [
        f"trainer.train_steps={number}", f"trainer.validation_interval={number}",
        "trainer.steps_per_loop=2", "trainer.summary_interval=2", "trainer.checkpoint_interval=2",
        "trainer.max_to_keep=20", "trainer.optimizer_config.warmup.linear.warmup_steps=1", "frozen=0.5",
        "task.train_data.global_batch_size=4", "task.validation_data.global_batch_size=5",
    ]  # fmt: skip


SMALL = {
    "efficientnet_lite0": ("classification", ["task.model.input_size=[32,32,3]"]),
    "maskrcnn": ("detection", ["task.model.input_size=[64,64,3]", "task.train_data.parser.mask_crop_size=28"]),
    "deeplabv3plus_lite0": (
        "segmentation",
        ["task.model.input_size=[64,64,3]", "task.train_data.output_size=[64,64]", "task.validation_data.output_size=[64,64]"],
    ),
    "retinanet_lite0": ("detection", ["task.model.input_size=[64,64,3]"]),
}  # fmt: skip


# RetinaNet's is looked at where it is interrupted.
FROZEN = list(SMALL) if "FROZEN_STEPS" in os.environ else list(SMALL)[:3]
NO_WEIGHTS = ("optimizer", "global_step", "save_counter", "_CHECKPOINTABLE")


def parts(run_dir: Path, step: int) -> tuple[dict, dict]:
    """Weights of a checkpoint, those of the backbone and the others."""
    reader = tf.train.load_checkpoint(str(run_dir / "checkpoints" / f"ckpt-{step}"))
    backbone, others = {}, {}
    for name in reader.get_variable_to_shape_map():
        if ".OPTIMIZER_SLOT" in name or name.startswith(NO_WEIGHTS):
            continue
        chosen = backbone if name.startswith("backbone/") else others
        chosen[name] = reader.get_tensor(name).tobytes()
    return backbone, others


@pytest.mark.slow
@pytest.mark.parametrize("name", FROZEN)
def test_a_frozen_backbone_keeps_every_bit_and_a_released_one_moves(
    name, trellis, tiny, tmp_path
) -> None:
    task, small = SMALL[name]
    run_dir = tmp_path / "run"
    # FROZEN_STEPS=100, all four tasks: minutes.
    frozen = int(os.environ.get("FROZEN_STEPS", 4))
    last = frozen + 4
    share = [f"frozen={frozen / last}", f"trainer.checkpoint_interval={frozen}"]
    trellis(
        "train", f"experiment={name}", *tiny[task], *small, *steps(last), *share, f"runs_dir={tmp_path}", f"run_dir={run_dir}"
    )  # fmt: skip
    assert_frozen_then_released(run_dir, frozen, last)


def assert_frozen_then_released(run_dir: Path, frozen_steps: int, steps: int) -> None:
    first, frozen, last = (parts(run_dir, step) for step in (0, frozen_steps, steps))
    assert first[0] and first[0] == frozen[0] and first[1] != frozen[1]
    moved = [name for name in last[0] if last[0][name] != frozen[0][name]]
    assert any("kernel" in name for name in moved) and any("moving_mean" in name for name in moved)


@pytest.mark.slow
def test_a_finetuning_interrupted_before_and_after_its_release_goes_on_to_the_same_weights(
    trellis, tiny, tmp_path
) -> None:
    task, small = SMALL["retinanet_lite0"]
    recipe = ["experiment=retinanet_lite0", *tiny[task], *small, *steps(8), f"runs_dir={tmp_path}"]
    printed = trellis("finetune", *recipe, f"run_dir={tmp_path / 'alone'}")
    assert "245 loaded" in printed and "step 4/8  the backbone is released" in printed
    assert_frozen_then_released(tmp_path / "alone", 4, 8)
    resume = ["train", f"run={tmp_path / 'cut'}", f"runs_dir={tmp_path}"]
    interrupt(trellis, ["finetune", *recipe, f"run_dir={tmp_path / 'cut'}"], "step 2/8")
    interrupt(trellis, resume, "step 6/8")
    printed = trellis(*resume)
    assert "starting weights efficientnet_lite0" not in printed
    records = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("alone", "cut")]  # fmt: skip
    assert records[0]["weights_sha256"] == records[1]["weights_sha256"]
    assert records[0]["metrics"] == records[1]["metrics"]
    assert records[0]["starting_weights"]["loaded"] == 245


def interrupt(trellis, command: list[str], moment: str) -> None:
    """Runs a command, and interrupts it where it prints a line that begins so."""
    with trellis.start(*command) as process:
        printed = []
        for line in process.stdout:
            printed.append(line)
            if line.startswith(moment):
                process.send_signal(signal.SIGINT)
    assert process.returncode == 128 + signal.SIGINT, printed
    assert any(line.startswith("interrupted") and "make train RUN=" in line for line in printed)


class Exported(tf.Module):
    """What the official exporters save: a module that has the model."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.model = model


@pytest.mark.parametrize("how", ["official", "keras"])
def test_the_weights_of_a_saved_model_are_found(how, tmp_path):
    model = Detector(7)
    for number, variable in enumerate(model.variables):
        variable.assign(tf.fill(variable.shape, number + 1.0))
    if how == "keras":
        model.save(str(tmp_path), save_format="tf")
    else:
        tf.saved_model.save(Exported(model), str(tmp_path))
    weights = named.of_checkpoint(tmp_path)
    other = Detector(7)
    outcome = load_whole(other, Starting("saved", checkpoint=str(weights.path)), print)
    assert len(outcome.loaded) == 12
    assert [float(value.flat[0]) for value in values(other)] == list(range(1, 13))


def test_a_backbone_alone_is_no_whole_model_and_what_is_missing_is_named(tmp_path):
    prefix = tf.train.Checkpoint(backbone=Detector(7).backbone).write(str(tmp_path / "ckpt-1"))
    with pytest.raises(UsageError) as error:
        load_whole(Detector(7), Starting(prefix, checkpoint=prefix), print)
    message = str(error.value)
    assert "a backbone alone, is not the whole model: 6 variables loaded, 6 do not match" in message
    assert "dense" in message and f"INIT={prefix}" in message


def test_a_head_of_another_size_is_no_whole_model(tmp_path):
    prefix = saved(Detector(7), tmp_path)
    with pytest.raises(UsageError, match=r"10 variables loaded, 2 do not match") as error:
        load_whole(Detector(9), Starting("run", checkpoint=prefix), print)
    assert "(6, 7) for (6, 9)" in str(error.value)
