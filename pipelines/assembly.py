"""Puts a training together: task, data, parameters, devices; and takes a recorded run's configuration back.

A floor of its own, above the subjects and below the commands: whatever trains, evaluates, checks or shows asks here.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import tasks
from pipelines import config
from pipelines.config import Config, Dataset
from pipelines.data import manifest, store
from pipelines.data.manifest import Manifest
from pipelines.tracking import continuation, runs
from pipelines.tracking.record import RunRecord
from pipelines.usage import UsageError


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

    return parameters.build(cfg, task, data)


def built(prepared: Prepared) -> Built:
    """Sets up TensorFlow's threads and devices, which can be done once in a process, before its first operation.

    Raises:
        UsageError: the experiment cannot train on these data or these devices, naming what to change.
    """
    from pipelines.training import strategy  # TensorFlow: 10 s.
    from pipelines.training.exact import determinism  # Likewise.

    cfg = prepared.cfg
    params = resolved(cfg, prepared.task, prepared.data)
    input_size = getattr(params.task.model, "input_size", ())
    cfg = replace(cfg, threads=determinism.pin_threads(cfg.threads, input_size))
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


def recorded(cfg: Config) -> tuple[RunRecord, Config]:
    """The run that `cfg.run` names, and the configuration that it was recorded with.

    Raises:
        UsageError: there is no such run.
    """
    record = runs.find(cfg.run, cfg)
    return record, config.from_yaml(record.texts["config.yaml"])


def to_train(cfg: Config) -> Config:
    """The configuration that a training starts under, or resumes under where its run directory holds a run.

    Raises:
        UsageError: the run that `cfg.run` names is not there, or what it has so far came of other settings.
    """
    if cfg.run:
        if cfg.garden:
            raise UsageError("run: a recorded run has its own experiment; leave EXP out")
        recorded = to_resume(cfg, f"to make it again: make reproduce RUN={cfg.run}")
        cfg = continuation.resumed(cfg, recorded)
    cfg = config.anchored(cfg)
    return continuation.settled(Path(cfg.run_dir), cfg)


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
