"""Puts a training together: task, data, parameters, devices; and takes a recorded run's configuration back.

It stands above the subjects and below the commands: whatever trains, evaluates, checks or shows asks here.
"""

import copy
import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from etils import epath

import tasks
from pipelines import config, outcomes
from pipelines.config import Config, Dataset
from pipelines.data import manifest, portable, store
from pipelines.data.manifest import Manifest
from pipelines.outcomes import Outcomes
from pipelines.reproduction.measured import Measured
from pipelines.shipping import metadata
from pipelines.tracking import continuation, runs
from pipelines.tracking.record import RunRecord
from pipelines.usage import UsageError
from pipelines.weights import cards, hub, named, rows, suitability
from pipelines.weights.cards import Card, misfits
from pipelines.weights.named import Weights

ASKED = 64  # validation pictures that a SavedModel is asked about by their bytes


@dataclass(frozen=True)
class Prepared:
    """What a training needs that takes no TensorFlow to say.

    Attributes:
        task: module of the dataset's vision task.
        data: what was built of the dataset.
    """

    cfg: Config
    task: ModuleType
    data: Manifest


@dataclass(frozen=True)
class Built:
    """What a training needs beside that.

    Attributes:
        cfg: the configuration, its thread counts those in force instead of "all cores".
        params: Model Garden's experiment configuration.
        devices: the strategy that `params.runtime` asks for.
        determinism_class: what, beside configuration, data and seed, the bits of the result depend on.
    """

    cfg: Config
    task: ModuleType
    data: Manifest
    params: Any
    devices: Any
    determinism_class: Mapping[str, Any]


def prepared(cfg: Config) -> Prepared:
    """Finds or builds the data of an experiment.

    Raises:
        UsageError: no experiment is chosen, or its data cannot be had.
    """
    config.chosen_dataset(cfg)
    return with_data(cfg)


def with_data(cfg: Config) -> Prepared:
    """Finds or builds the data of a dataset, with an experiment or without.

    Raises:
        UsageError: none is chosen, or its data cannot be had.
    """
    task = tasks.load(config.given_dataset(cfg).task)
    return Prepared(cfg, task, store.obtain(cfg, task))


def refuse_other_task(overrides: Sequence[str], cfg: Config) -> None:
    """Refuses data of another task than the experiment's before they are fetched or built; `parameters` would do so after.

    Args:
        overrides: of which `cfg` was composed.

    Raises:
        UsageError: naming what fits.
    """
    if not any("dataset" in word or word.startswith("@") for word in overrides):
        return  # The data are the experiment's own; it need not be composed once more.
    chosen = [word for word in overrides if word.startswith("experiment=")]
    dataset = config.compose(chosen).dataset if chosen else None
    if dataset is None or cfg.dataset is None or dataset.task == cfg.dataset.task:
        return
    if "." in f"{dataset.task}{cfg.dataset.task}":
        return  # A task of one's own says itself which experiments are for it.
    wanted = cfg.dataset.task
    fitting = rows.NETWORKS.get(wanted)
    advice = (
        f"EXP={fitting} fits these data (others: make list)"
        if fitting
        else "all there are: make list"
    )
    raise UsageError(
        f"{chosen[0]} is for {dataset.task}, and {cfg.dataset.name} for {wanted}; {advice}; or choose other data: "
        "DATA=<name>, or dataset.task=<task> where its source serves several"
    )


def as_built(cfg: Config) -> tuple[Dataset, ModuleType, Manifest | None]:
    """The dataset of an experiment, its task and its data, None where they are not built yet.

    Raises:
        UsageError: no experiment is chosen, or the source of its data is not there.
    """
    dataset = config.chosen_dataset(cfg)
    task = tasks.load(dataset.task)
    return dataset, task, manifest.find(cfg.data_dir, dataset, task.VERSION)


def resolved(cfg: Config, task: ModuleType | None = None, data: Manifest | None = None) -> Any:
    """Model Garden's experiment configuration, without a look at devices; the rest is as for `parameters.build`."""
    from pipelines.training import parameters  # TensorFlow: 10 s.

    return parameters.build(_with_network(cfg), task, data)


def _is_network(cfg: Config) -> bool:
    """Whether `init` names a network with its weights: a handle of TF Hub, or a SavedModel that is to be the backbone.

    Of any other SavedModel the weights are taken, for the experiment's own network.
    """
    if not cfg.init or hub.is_handle(cfg.init):
        return bool(cfg.init)
    backbone = (cfg.task.get("model") or {}).get("backbone") or {}
    return backbone.get("type") == "saved_model" and hub.is_saved_model(cfg.init)


def _with_network(cfg: Config) -> Config:
    """The configuration with the SavedModel that `init` names as its backbone: it is a network with its weights."""
    if not _is_network(cfg):
        return cfg
    weights = _starting_weights(cfg)
    task = copy.deepcopy(cfg.task)
    backbone = task.setdefault("model", {}).setdefault("backbone", {})
    backbone["type"] = "saved_model"
    chosen = backbone.setdefault("saved_model", {})
    chosen["saved_model_path"] = str(weights.path) if weights else ""
    return replace(cfg, task=task)


def input_size(params: Any) -> Sequence[int | None]:
    """The model's, height and width before the channels; empty where the experiment has none."""
    return getattr(params.task.model, "input_size", ())


def notes(data: Manifest, model: Mapping[str, Any], edge: int, learned: int | None) -> list[str]:
    """What of the data speaks against a network, or against weights that learned from photographs.

    Args:
        model: its `task.model`, as far as its experiment states it.
        edge: of its input, in pixels; 0: not known.
        learned: the edge of those photographs, 0: not known; None: these are no such weights.
    """
    counts = data.classes.get("train", {})
    ordered = {label: counts.get(label, 0) for label in data.labels}
    said = [
        suitability.small_objects(data.image_sizes, data.box_sizes, edge) if edge else None,
        suitability.odd_objects(data.image_sizes, data.box_sizes, model),
        suitability.rare_class(ordered, data.task),
    ]
    if learned is not None:
        from pipelines.data import likeness  # Pillow and NumPy.

        said.append(suitability.small_input(edge, learned))
        said += likeness.notes(data, tasks.load(data.task).decode)
    return [note for note in said if note]


def built(prepared: Prepared) -> Built:
    """Sets up TensorFlow's threads and devices, which can be done once in a process, before its first operation.

    Raises:
        UsageError: the experiment cannot train on these data or these devices, naming what to change.
    """
    from pipelines.training import strategy  # TensorFlow: 10 s.
    from pipelines.training.exact import determinism  # Likewise.

    cfg = prepared.cfg
    params = resolved(cfg, prepared.task, prepared.data)
    cfg = replace(cfg, threads=determinism.pin_threads(cfg.threads, input_size(params)))
    devices = strategy.build(params.runtime, cfg.logical_cpus)
    examples = prepared.data.splits["validation"].examples
    strategy.refuse_uneven(params, devices, examples)
    described = {**determinism.describe(cfg), **strategy.describe(devices)}
    return Built(cfg, prepared.task, prepared.data, params, devices, described)


def images_shared_out(manifest_text: str, metric: str | None) -> int | None:
    """Number of images of a validation split, where the figure is a share of them; None where it is not."""
    data = json.loads(manifest_text or "{}")
    if data.get("task") not in tasks.names():
        return None
    if metric not in tasks.load(data["task"]).SHARES:
        return None
    return data["splits"]["validation"]["examples"]


def source_files(cfg: Config, manifest_text: str) -> dict[str, dict[str, str]] | None:
    """Files of the source of a recorded run's data, by place; as `portable.source_files`.

    Raises:
        UsageError: they are no longer what the run learned from.
    """
    built = json.loads(manifest_text)["source"]
    return portable.source_files(
        cfg.data_dir,
        config.given_dataset(cfg),
        built,
    )


def with_data_at(cfg: Config, names: Mapping[str, str], root: Path) -> Config:
    """The configuration with the source of its data laid out below `root`; `names` as for `portable.moved`."""
    dataset = config.given_dataset(cfg)
    return replace(cfg, dataset=portable.moved(dataset, names, str(root)))


def with_places_of(cfg: Config, dataset: Dataset) -> Config:
    """The configuration with its data where another description of the data set says that they lie."""
    places = {name: getattr(dataset, name) for name in config.paths(Dataset)}
    return replace(cfg, dataset=replace(config.given_dataset(cfg), **places))


def with_starting_weights(cfg: Config) -> Config:
    """The configuration with the digest of the weights that it starts from.

    Raises:
        UsageError: they are not to be had, or others than `init_sha256` says.
    """
    weights = _starting_weights(cfg)
    return replace(cfg, init_sha256=weights.sha256) if weights else cfg


def _starting_weights(cfg: Config) -> Weights | None:
    if cfg.init in (None, named.SCRATCH):
        if cfg.init_sha256:
            raise UsageError(
                f"init_sha256: {cfg.init_sha256[:16]}… is said, and init names no weights; add INIT=<file>"
            )
        return None
    try:
        weights = _named_weights(cfg)
    except UsageError as error:
        if not cfg.init_sha256:
            raise
        raise UsageError(
            f"{error}\nthe run started from weights of the digest {cfg.init_sha256[:16]}…; bring them, and name where they "
            "lie now: INIT=<path>"
        ) from None
    if cfg.init_sha256 not in (None, weights.sha256):
        raise UsageError(
            f"init: {cfg.init} is other weights than the run started from: digest {weights.sha256[:16]}…, recorded "
            f"{str(cfg.init_sha256)[:16]}…; name the file that it was: INIT=<path>"
        )
    return weights


def starting_files(cfg: Config) -> dict[str, Path]:
    """The files of the weights that a run started from, as `named.files`; none where a card or a handle names them, or they are gone."""
    if hub.is_handle(str(cfg.init)):
        return {}
    try:
        weights = _starting_weights(cfg)
    except UsageError:
        return {}
    if weights is None or weights.card:
        return {}
    return named.files(weights)


def _named_weights(cfg: Config) -> Weights:
    init = str(cfg.init)
    if _is_network(cfg):
        return named.of_network(init, cfg.data_dir)
    if config.is_path(init):
        return named.of_checkpoint(init)
    if re.fullmatch(r"[0-9a-f]{32}", init):  # MLflow's run ids.
        record = runs.find(init, cfg)
        folder = runs.checkpoints(record, tempfile.gettempdir())
        return named.of_checkpoint(folder, record.texts.get("manifest.json", ""))
    return named.of_card(init, cfg.data_dir)


def _refuse_other_network(card: Card, built: Built) -> None:
    """Refuses weights of another network than the experiment's, before it is built."""
    wanted = {"backbone": card.backbone, "norm_activation": card.norm_activation}
    there = built.params.task.model.as_dict()
    differing = misfits(wanted, there, "task.model")
    if differing:
        lines = "\n  ".join(differing)
        raise UsageError(
            f"init: the weights {card.name} are for another network than {built.cfg.name}:\n  {lines}\n"
            f"experiments that they fit: {', '.join(cards.experiments(card))}; or set these keys; or INIT=scratch"
        )


def starting(built: Built, folder: Path) -> Any:
    """The weights to start from, for `training.loop`; None: nothing, or it resumes from a checkpoint.

    Args:
        folder: the run directory.
    """
    from pipelines.training.starting import Starting  # TensorFlow, imported by now.

    if any(folder.glob("checkpoints/*.index")):
        return None
    quantization = getattr(built.params.task, "quantization", None)
    float_weights = getattr(quantization, "pretrained_original_checkpoint", None)
    if float_weights:
        named.refuse_absent(float_weights, "task.quantization.pretrained_original_checkpoint")
    weights = _starting_weights(built.cfg)
    if weights is None:
        checkpoint = getattr(built.params.task, "init_checkpoint", None)
        if checkpoint:
            named.refuse_absent(checkpoint)
        return None
    if weights.card:
        _refuse_other_network(weights.card, built)
    tensors = weights.tensors()
    labels = tuple(built.data.labels)
    return Starting(
        name=str(built.cfg.init),
        sha256=weights.sha256,
        licence=weights.card.licence if weights.card else "",
        checkpoint=None if tensors else str(weights.path),
        tensors=tensors,
        modules=tuple(built.cfg.init_modules or ()),
        source_classes=weights.classes,
        classes=labels,
        has_background=getattr(built.params.task.model, "num_classes", None) == len(labels) + 1,
    )


def recorded(cfg: Config) -> tuple[RunRecord, Config]:
    """The run that `cfg.run` names, and the configuration that it was recorded with.

    Raises:
        UsageError: there is no such run.
    """
    record = runs.find(cfg.run, cfg)
    return record, config.from_yaml(record.texts["config.yaml"])


def recorded_of_pictures(cfg: Config) -> tuple[RunRecord, Config]:
    """What `recorded` returns of a run whose model can be shown a picture.

    Raises:
        UsageError: there is no such run, or its model takes clips or volumes.
    """
    record, configuration = recorded(cfg)
    dataset = configuration.dataset
    if dataset and not getattr(tasks.load(dataset.task), "PICTURES", True):
        raise UsageError(
            f"run: {configuration.name} is of {dataset.task}; predict, export and serve show a model single pictures, "
            f"which this one does not take; what it is worth: make evaluate RUN={cfg.run}"
        )
    return record, configuration


def to_train(cfg: Config) -> Config:
    """The configuration that a training starts under, or resumes under where its run directory holds a run.

    Raises:
        UsageError: the run that `cfg.run` names is not there, or what it has so far came of other settings.
    """
    if cfg.run:
        if cfg.garden:
            raise UsageError("run: a recorded run has its own experiment; leave EXP out")
        recorded = to_resume(cfg, f"to make it again: make reproduce RUN={cfg.run}")
        cfg = config.anchored(continuation.resumed(cfg, recorded))
    else:
        cfg = with_starting_weights(config.anchored(cfg))
    return continuation.settled(Path(cfg.run_dir), cfg)


@dataclass(frozen=True)
class Trained:
    """A recorded run's model with its best weights; its data need not be there.

    Attributes:
        cfg: as it was recorded.
        data: what it was trained on, as its record says.
        run_dir: where the run lies, or would.
        model: the official task and model (`inference.Restored`).
    """

    record: RunRecord
    cfg: Config
    task: ModuleType
    data: Manifest
    run_dir: Path
    model: Any


def trained_on(record: RunRecord) -> Manifest:
    """What a recorded run was trained on, as its record says.

    Raises:
        UsageError: the record does not say it.
    """
    if "manifest.json" not in record.texts:
        raise UsageError("run: its record has no manifest.json, so nothing knows its classes")
    return manifest.from_json(record.texts["manifest.json"])


def trained(cfg: Config, say: Callable[[str], None] = print) -> Trained:
    """The model of the run that `cfg.run` names, with the weights of the checkpoint that `cfg.step` names.

    Sets up TensorFlow's threads, which can be done once in a process, before its first operation.

    Raises:
        UsageError: there is no such run, or it has saved no checkpoint.
    """
    from pipelines.training import checkpoints, inference  # TensorFlow: 10 s.
    from pipelines.training.exact import determinism  # Likewise.

    record, configuration = recorded(cfg)
    data = trained_on(record)
    task = tasks.load(data.task)
    params = resolved(configuration, task, data)
    inference.refuse_unread(params)
    threads = determinism.pin_threads(configuration.threads, input_size(params))
    configuration = replace(configuration, threads=threads)
    run_dir = record.run_dir or Path(config.absolute(configuration.run_dir))
    folder = runs.checkpoints(record, tempfile.gettempdir())
    model = inference.restore(params, checkpoints.chosen(folder, cfg.step, say))
    return Trained(record, configuration, task, data, run_dir, model)


def predictor(trained: Trained, exported: Path | None = None) -> Any:
    """What shows pictures to a run's model as its evaluations do (`prediction.Predictor`).

    Args:
        exported: a file of `make export` to show them to instead.
    """
    from pipelines.shipping import prediction, results, running  # TensorFlow: 10 s.
    from pipelines.training import inference  # Likewise.

    kind = trained.data.task
    forward = trained.model.forward
    if exported:
        forward = running.forward(exported, trained.model.model)
    return prediction.Predictor(
        inference.Preprocessing(trained.model, kind),
        forward,
        results.reading(kind, trained.model.params),
    )


def measured(cfg: Config, folder: Path, say: Callable[[str], None]) -> Measured:
    """Evaluates the checkpoint that `cfg.checkpoint` names on the validation data of `cfg`, image by image.

    Args:
        folder: gets the outcomes of the images, and a log with the name of every variable.

    Raises:
        UsageError: there is no such checkpoint, or it is not the whole of this model.
    """
    name = str(cfg.checkpoint)
    weights = named.of_checkpoint(name)
    together = built(prepared(cfg))
    from pipelines.training import evaluation, starting  # TensorFlow, imported by now.

    params = together.params
    params.trainer.optimizer_config.ema = None  # Averages are in the model where there are any.
    images = together.data.splits["validation"].examples
    batch = params.task.validation_data.global_batch_size
    params.trainer.validation_steps = math.ceil(images / batch)
    saved = starting.Starting(name, weights.sha256, checkpoint=str(weights.path))
    loaded = starting.Loaded()

    def restore(trainer: Any) -> None:
        nonlocal loaded
        loaded = starting.load_whole(trainer.model, saved, say)

    outcome = evaluation.evaluate(
        params,
        restore,
        folder,
        devices=together.devices,
        exact=cfg.determinism,
    )
    return Measured(
        name,
        weights.sha256,
        len(loaded.loaded),
        loaded.skipped,
        loaded.averaged,
        outcome.metrics,
        outcomes.read(folder / outcomes.FILE),
    )


@dataclass(frozen=True)
class Shipped:
    """What an export needs of a run: its model, and the data that it is held against.

    Attributes:
        params: as for an evaluation, with the places of the data.
        source: what is exported (`conversion.Source`).
        asked: bytes of some validation pictures.
    """

    trained: Trained
    params: Any
    source: Any
    asked: list[bytes]

    def figures(self, forward: Any) -> tuple[dict[str, float], dict[str, Outcomes]]:
        """The official evaluation of whatever answers as the model would; see `evaluation.figures`."""
        from pipelines.training import evaluation  # TensorFlow: 10 s.

        return evaluation.figures(self.params, forward)


def shipped(cfg: Config, pictures: int) -> Shipped:
    """What an export of the run that `cfg.run` names needs.

    Args:
        pictures: of the training data, for a calibration; chosen by the run's seed.

    Raises:
        UsageError: there is no such run, it has saved no checkpoint, or its data cannot be had.
    """
    from pipelines.shipping import conversion  # TensorFlow: 10 s.
    from pipelines.training import inference  # Likewise.

    model = trained(cfg)
    data = prepared(replace(model.cfg, data_dir=cfg.data_dir)).data
    params = resolved(model.cfg, model.task, data)
    source = conversion.Source(
        kind=model.data.task,
        params=params,
        model=model.model.model,
        preprocess=inference.Preprocessing(model.model, model.data.task),
        document=_document(model, cfg, params),
        calibration=_pictures(model, data, "train", pictures),
        seed=model.cfg.seed,
    )
    asked = _pictures(model, data, "validation", ASKED)
    return Shipped(model, params, source, asked)


def _document(trained: Trained, cfg: Config, params: Any) -> dict[str, Any]:
    """The metadata of whatever is exported of a run."""
    return {
        "written_by": "trellis",
        "experiment": trained.cfg.name,
        "run": trained.record.run_id or str(trained.run_dir),
        "checkpoint_step": trained.model.step,
        "task": trained.data.task,
        "dataset": trained.data.dataset,
        "fingerprint": trained.data.fingerprint,
        "labels": list(trained.data.labels),
        "first_label": trained.task.FIRST_LABEL,
        "multilabel": getattr(params.task.validation_data, "is_multilabel", False),
        "min_score": cfg.min_score,
        "licence": cfg.licence,
        "input": metadata.shown(trained.data.task, params),
    }


def _pictures(trained: Trained, data: Manifest, split: str, count: int) -> list[bytes]:
    """Bytes of some pictures of a split, drawn by the run's seed."""
    if not count:
        return []
    from pipelines.training.exact import order  # Likewise.

    pattern = epath.Path(data.patterns()[split])
    shards = [str(shard) for shard in pattern.parent.glob(pattern.name)]
    records = order.Records(shards)
    chosen = order.Stream(trained.cfg.seed).order(0, len(records))[:count]
    contents = []
    for index in sorted(chosen):
        record, _ = records.read(int(index))
        contents.append(trained.task.decode(record)["image"])
    return contents


def servable(exports: Path, export: Callable[[], None]) -> Path:
    """The folder of a run's model in MLflow's own format, made of its SavedModel.

    Args:
        exports: where `make export` writes.
        export: called where there is no SavedModel yet.
    """
    from pipelines.tracking import registry  # MLflow takes seconds to import.

    saved_model = exports / "saved_model" / "saved_model"
    if not saved_model.is_dir():
        export()
    folder = exports / "served"
    shutil.rmtree(folder, ignore_errors=True)
    code = Path(metadata.__file__).with_name("served.py")
    registry.save(folder, code, saved_model, metadata.read(saved_model))
    return folder


def to_resume(cfg: Config, instead: str) -> Config:
    """The recorded configuration of the run that `cfg.run` names, in its own run directory.

    Args:
        instead: what to do, for the message, where the directory is gone.

    Raises:
        UsageError: there is no such run, or its directory is gone.
    """
    record, configuration = recorded(cfg)
    run_dir: Path = runs.directory(record, cfg.run, instead)
    return replace(configuration, run_dir=str(run_dir))
