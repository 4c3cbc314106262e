"""Builds the Model Garden experiment configuration: the registered one, under ours, checked strictly."""

import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from official.core import config_definitions, exp_factory
from official.modeling.hyperparams import oneof, params_dict
from official.vision import registry_imports  # noqa: F401  registers the standard experiments

from pipelines import own
from pipelines.config import NO_EXPERIMENT, Config
from pipelines.data.manifest import Manifest
from pipelines.training import backbones, projects, upstream
from pipelines.usage import UsageError, nearest

# Settings of a schedule that grow with the batch.
RATES = (
    "initial_learning_rate",
    "end_learning_rate",
    "learning_rate",
    "values",
)
LOOP_STEPS = 20  # between two reports, where the recipe sets no `trainer.steps_per_loop`


def registered(
    garden: str | None, imports: Sequence[str] = ()
) -> config_definitions.ExperimentConfig:
    """Returns a fresh copy of the experiment that Model Garden registers as `garden`.

    Raises:
        UsageError: nothing is registered under that name, or a module of `imports` cannot be imported.
    """
    if not garden:
        raise UsageError(NO_EXPERIMENT)
    for module in imports:
        own.imported(module, "imports")
    projects.register(lambda: garden in upstream.registered_experiments())
    names = upstream.registered_experiments()
    if garden not in names:
        raise UsageError(
            f"garden: Model Garden has no experiment {garden!r}{nearest(garden, names)}"
        )
    return exp_factory.get_exp_config(garden)


def build(
    cfg: Config, task: Any = None, data: Manifest | None = None
) -> config_definitions.ExperimentConfig:
    """Builds the parameters that the official runner is given.

    Args:
        cfg: the composed configuration.
        task: module of the dataset's vision task; None: whatever the experiment is made for.
        data: manifest of the data to train on; None: what follows from the data stays as registered.

    Raises:
        UsageError: unknown key, wrong leaf type, or a combination that cannot train, naming the key and what to do.
    """
    params = registered(cfg.garden, cfg.imports)
    nodes = {"task": cfg.task, "trainer": cfg.trainer, "runtime": cfg.runtime}
    if _chosen_backbone(cfg) in backbones.TYPES:
        backbones.offered(params)
    _refuse_misfits(params, nodes, "")
    params.override(nodes, is_strict=True)
    if task is not None:
        _refuse_other_task(params, task, cfg)
        if not params.trainer.best_checkpoint_eval_metric:
            params.trainer.best_checkpoint_eval_metric = task.METRIC
    _refuse_impossible(params, cfg)
    if cfg.scale_learning_rate is not None:
        _scale_learning_rate(params, cfg.scale_learning_rate)
    # It would take SIGTERM from us, and saves without stopping.
    params.trainer.preemption_on_demand_checkpoint = False
    # Where evaluation and tracking look for it.
    params.trainer.best_checkpoint_export_subdir = "best"
    if data is not None:
        inputs = task.inputs(data.patterns(), data.labels, data.formats)
        _refuse_conflicts(cfg.task, inputs, "task", data)
        params.override({"task": inputs}, is_strict=True)
        examples = {name: split.examples for name, split in data.splits.items()}
        _schedule(params, cfg, examples)
        _refuse_too_little(params, examples)
        _release(params, cfg)
    if cfg.init:
        params.task.init_checkpoint = None  # `init` says it.
    _seed(params, cfg)
    params.validate()
    return params


def _chosen_backbone(cfg: Config) -> str | None:
    model = cfg.task.get("model") or {}
    backbone = model.get("backbone") or {}
    return backbone.get("type")


def _refuse_other_task(params: Any, task: Any, cfg: Config) -> None:
    kinds = {kind.__name__ for kind in type(params.task).__mro__}
    if kinds & task.GARDEN_TASKS:
        return
    dataset = cfg.dataset.name if cfg.dataset else ""
    kind = task.__name__.rpartition(".")[2]
    raise UsageError(
        f"experiment {cfg.name} ({type(params.task).__name__}) cannot train on dataset "
        f"{dataset}, which is for {kind}; choose another: DATA=<name> (all of them: make list), "
        f"or dataset.task=<task> where its source serves several"
    )


def _refuse_misfits(node: params_dict.ParamsDict, values: Mapping[str, Any], path: str) -> None:
    hints = typing.get_type_hints(type(node))
    for key, value in values.items():
        here = f"{path}{key}"
        if not hasattr(node, key):
            names = sorted(node.as_dict())
            raise UsageError(f"{here}: Model Garden knows no such key{nearest(key, names)}")
        current = getattr(node, key)
        hint = hints.get(key, Any)
        if isinstance(value, Mapping):
            inner = _default(hint, here) if current is None else current
            _refuse_misfits(inner, value, f"{here}.")
        elif not fits(value, hint) and not _is_like(value, current):
            kind = type(value).__name__
            raise UsageError(f"{here}: {value!r} is a {kind}, Model Garden wants {_spell(hint)}")
        if key == "type" and value is not None and isinstance(node, oneof.OneOfConfig):
            _refuse_other_choice(node, value, here)


def _is_like(value: Any, registered: Any) -> bool:
    """Whether a value has the type of upstream's own, which need not be the annotated one: `random_pad: float = True`."""
    return registered is None is value or (
        isinstance(registered, bool | int | float | str) and type(value) is type(registered)
    )


def _refuse_other_choice(node: oneof.OneOfConfig, value: str, path: str) -> None:
    if not hasattr(node, value):
        choice = sorted(set(node.as_dict()) - {"type"})
        raise UsageError(f"{path}: there is no {value!r}{nearest(value, choice)}")


def _default(hint: Any, path: str) -> params_dict.ParamsDict:
    for kind in (hint, *typing.get_args(hint)):
        if isinstance(kind, type) and issubclass(kind, params_dict.ParamsDict):
            return kind()
    raise UsageError(f"{path}: takes a plain value, not a mapping")


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value has the type that a Model Garden annotation states (an int fits a float)."""
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if hint is Any or isinstance(hint, typing.TypeVar):
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, choice) for choice in arguments)
    if origin is not None and issubclass(origin, Sequence):
        return isinstance(value, list | tuple) and _items_fit(value, origin, arguments)
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    if isinstance(hint, type) and issubclass(hint, params_dict.ParamsDict):
        return isinstance(value, Mapping)
    return isinstance(value, origin or hint)


def _items_fit(value: Sequence[Any], origin: type, arguments: tuple[Any, ...]) -> bool:
    if not arguments:
        return True
    if origin is tuple and arguments[-1] is not Ellipsis:
        return len(value) == len(arguments) and all(map(fits, value, arguments))
    # Any item may be left open, as in input_size: [null, null, 3].
    return all(item is None or fits(item, arguments[0]) for item in value)


def _spell(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _refuse_conflicts(
    ours: Mapping[str, Any], follows: Mapping[str, Any], path: str, data: Manifest
) -> None:
    for key, value in follows.items():
        set_value = ours.get(key)
        if isinstance(value, Mapping) and isinstance(set_value, Mapping):
            _refuse_conflicts(set_value, value, f"{path}.{key}", data)
        elif key == "num_classes" and set_value not in (None, value):
            raise UsageError(
                f"{path}.{key}: set to {set_value}, but {data.dataset} has {value} (background included where there is "
                f"one); leave the key out: it follows from the data"
            )


def _schedule(params: Any, cfg: Config, examples: Mapping[str, int]) -> None:
    """Fills what follows from the data's size and is not set: steps, intervals, the length of the learning-rate decay."""
    trainer = params.trainer
    published = None if "train_steps" in cfg.trainer else trainer.train_steps
    epoch = steps_per_epoch(params, examples)
    if cfg.epochs is not None and "train_steps" not in cfg.trainer:
        trainer.train_steps = max(1, round(cfg.epochs * epoch))
    if "validation_steps" not in cfg.trainer:
        _evaluate_all(params, examples.get("validation", 0))
    if trainer.train_steps == published:
        return  # The registered schedule stands as it is.
    _set_intervals(trainer, cfg, epoch)
    rate = trainer.optimizer_config.learning_rate
    schedule = rate.get() if rate.type else None
    if schedule is None or _sets_decay(cfg.trainer):
        return
    if "decay_steps" in schedule.as_dict():
        schedule.decay_steps = trainer.train_steps


def release_step(params: Any, frozen: float) -> int:
    """The step after which the backbone learns too: the end of a block of steps; 0: it does from the first."""
    trainer = params.trainer
    if not frozen:
        return 0
    block = trainer.steps_per_loop
    step = max(block, round(frozen * trainer.train_steps / block) * block)
    return min(step, trainer.train_steps)


def _release(params: Any, cfg: Config) -> None:
    """Has the learning rate come down to `released_rate` of itself while the backbone is frozen, and then to its end."""
    if not 0 <= cfg.frozen <= 1:
        raise UsageError(f"frozen: {cfg.frozen}; a share of the steps, from 0 to 1")
    if not 0 < cfg.released_rate <= 1:
        raise UsageError(f"released_rate: {cfg.released_rate}; a share of the rate, up to 1")
    step = release_step(params, cfg.frozen)
    if step in (0, params.trainer.train_steps):
        return
    rate = params.trainer.optimizer_config.learning_rate
    if rate.type != "cosine":
        raise UsageError(
            f"frozen: the rate after the release is known for a cosine schedule, this is {rate.type}; set "
            "trainer.optimizer_config.learning_rate.type=cosine, or frozen=0 or 1"
        )
    _refuse_long_warmup(params.trainer)
    first = rate.cosine.initial_learning_rate
    last = rate.cosine.alpha * first
    values = [first, first * cfg.released_rate, last]
    boundaries = [0, step, params.trainer.train_steps]
    schedule = {"boundaries": boundaries, "values": values}
    rate.override({"type": "step_cosine_with_offset", "step_cosine_with_offset": schedule})


def _refuse_long_warmup(trainer: Any) -> None:
    """Refuses a warm-up that outlasts the training: it leads up to a rate that upstream's schedule gives as 0/0 there."""
    warmup = trainer.optimizer_config.warmup
    steps = getattr(warmup.get(), "warmup_steps", 0) if warmup.type else 0
    if steps >= trainer.train_steps:
        raise UsageError(
            f"trainer.optimizer_config.warmup.{warmup.type}.warmup_steps: {steps} of {trainer.train_steps} steps; with "
            "frozen the warm-up has to end before the training; set it lower, or train longer (epochs)"
        )


def _evaluate_all(params: Any, examples: int) -> None:
    validation = params.task.validation_data
    if params.runtime.distribution_strategy != "tpu":  # TPUs need batches of one shape
        validation.drop_remainder = False
    batches = examples / max(1, validation.global_batch_size)
    is_cut = validation.drop_remainder
    params.trainer.validation_steps = int(batches) if is_cut else math.ceil(batches)


def _set_intervals(trainer: Any, cfg: Config, epoch: int) -> None:
    if "validation_interval" not in cfg.trainer:
        interval = max(epoch, math.ceil(trainer.train_steps / cfg.evaluations))
        block = LOOP_STEPS if interval > LOOP_STEPS else 1  # Intervals are made of whole loops.
        interval = math.ceil(interval / block) * block
        trainer.validation_interval = min(trainer.train_steps, interval)
    if "checkpoint_interval" not in cfg.trainer:
        trainer.checkpoint_interval = trainer.validation_interval
    if "steps_per_loop" not in cfg.trainer:
        shared = math.gcd(trainer.checkpoint_interval, trainer.validation_interval)
        trainer.steps_per_loop = _divisor(shared, LOOP_STEPS)
    if "summary_interval" not in cfg.trainer:
        trainer.summary_interval = trainer.steps_per_loop
    if trainer.summary_interval % trainer.steps_per_loop:
        raise UsageError(
            f"trainer.summary_interval: {trainer.summary_interval} is not a multiple of trainer.steps_per_loop "
            f"({trainer.steps_per_loop}); leave both out, or set both"
        )


def few_steps(params: Any, examples: int) -> str | None:
    """Says so where few examples under a recipe made for many, or few steps, end before the learning rate is reached."""
    train = params.trainer
    warmup = train.optimizer_config.warmup
    if not warmup.type:
        return None
    steps = getattr(warmup.get(), "warmup_steps", 0)
    if not steps or train.train_steps >= 2 * steps:
        return None
    epoch = steps_per_epoch(params, {"train": examples})
    epochs = math.ceil(10 * steps / epoch)
    shorter = max(1, train.train_steps // 10)
    return (
        f"of {train.train_steps} steps, {min(steps, train.train_steps)} are the learning rate's warm-up; to learn more: "
        f"epochs={epochs} (trainer.train_steps={epochs * epoch}); or a shorter warm-up: "
        f"trainer.optimizer_config.warmup.{warmup.type}.warmup_steps={shorter}"
    )


def steps_per_epoch(params: Any, examples: Mapping[str, int]) -> int:
    """Number of whole batches in the training split, at least 1."""
    batch = max(1, params.task.train_data.global_batch_size)
    return max(1, examples.get("train", 0) // batch)


def _sets_decay(trainer: Mapping[str, Any]) -> bool:
    rate = (trainer.get("optimizer_config") or {}).get("learning_rate") or {}
    schedules = [value for value in rate.values() if isinstance(value, Mapping)]
    return any(schedule.get("decay_steps") is not None for schedule in schedules)


def _divisor(number: int, most: int) -> int:
    """The greatest divisor of a number that is at most `most`."""
    for divisor in range(min(number, most), 1, -1):
        if number % divisor == 0:
            return divisor
    return 1


def _seed(params: Any, cfg: Config) -> None:
    params.task.train_data.seed = cfg.seed
    params.task.validation_data.seed = cfg.seed
    if cfg.determinism:
        params.task.train_data.deterministic = True
        params.task.validation_data.deterministic = True


def _scale_learning_rate(params: Any, base: int) -> None:
    """Multiplies the schedule's rates by batch size / `base`: the linear rule (Goyal et al. 2017, arXiv 1706.02677)."""
    if base < 1:
        raise UsageError(
            f"scale_learning_rate: {base}; the batch size that the recipe's learning rates are for, at least 1"
        )
    rate = params.trainer.optimizer_config.learning_rate
    schedule = rate.get() if rate.type else None
    names = [name for name in RATES if getattr(schedule, name, None) is not None]
    if not names:
        raise UsageError(
            f"scale_learning_rate: cannot scale a schedule of type {rate.type}; set its rates and leave scale_learning_rate out"
        )
    factor = params.task.train_data.global_batch_size / base
    for name in names:
        value = getattr(schedule, name)
        if isinstance(value, float | int):
            setattr(schedule, name, value * factor)
        else:
            setattr(schedule, name, [single * factor for single in value])


def _refuse_too_little(params: Any, examples: Mapping[str, int]) -> None:
    batch = params.task.train_data.global_batch_size
    count = examples.get("train", 0)
    if batch > count:
        raise UsageError(
            f"task.train_data.global_batch_size: {batch} is more than the {count} training examples; "
            f"set it to {count} or less, or bring more data"
        )
    if not examples.get("validation"):
        raise UsageError(
            "dataset: there are no validation examples; give a validation split or dataset.validation_fraction"
        )


def _refuse_impossible(params: Any, cfg: Config) -> None:
    _refuse_uneven_edges(params.task.model)
    if params.runtime.distribution_strategy == "parameter_server":
        raise UsageError(
            "runtime.distribution_strategy: under parameter_server the official trainer trains but cannot evaluate, and no two "
            "runs are alike (docs/strategies.md); train with several workers in step: RUNTIME=multi_worker"
        )
    if params.task.train_data.global_batch_size < 1:
        raise UsageError("task.train_data.global_batch_size: must be at least 1")
    if params.trainer.train_steps < 1 and (cfg.epochs is None or "train_steps" in cfg.trainer):
        raise UsageError("trainer.train_steps: must be at least 1; set it, or epochs=<number>")


def _refuse_uneven_edges(model: Any) -> None:
    """Refuses an input size of which a pyramid's coarsest level would hold a part of a cell."""
    if not hasattr(model, "anchor") or not hasattr(model, "max_level"):
        return
    stride = 2**model.max_level
    for edge in (getattr(model, "input_size", None) or [])[:2]:
        if not edge or edge % stride == 0:
            continue
        lower = edge // stride * stride
        upper = lower + stride
        raise UsageError(
            f"task.model.input_size: {edge} is not a multiple of {stride}, the stride of pyramid level "
            f"{model.max_level} (task.model.max_level); the nearest that fit: {lower or upper}, {upper}"
        )
