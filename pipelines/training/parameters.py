"""Builds the Model Garden experiment configuration: the registered one, under ours, checked strictly."""

import importlib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from official.core import config_definitions, exp_factory
from official.modeling.hyperparams import oneof, params_dict
from official.vision import registry_imports  # noqa: F401  registers the standard experiments

from pipelines.config import NO_EXPERIMENT, Config
from pipelines.data.manifest import Manifest
from pipelines.usage import UsageError, nearest

RATES = (
    "initial_learning_rate",
    "end_learning_rate",
    "learning_rate",
    "values",
)  # of a schedule: what grows with the batch
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
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UsageError(f"imports: {module} cannot be imported ({error})") from error
    known = sorted(exp_factory._REGISTERED_CONFIGS)
    if garden not in known:
        raise UsageError(
            f"garden: Model Garden has no experiment {garden!r}{nearest(garden, known)}"
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
        UsageError: unknown key, wrong leaf type, or a combination that cannot train, naming the key and the mend.
    """
    params = registered(cfg.garden, cfg.imports)
    nodes = {"task": cfg.task, "trainer": cfg.trainer, "runtime": cfg.runtime}
    _refuse_misfits(params, nodes, "")
    params.override(nodes, is_strict=True)
    if task is not None:
        _refuse_other_task(params, task, cfg)
        if not params.trainer.best_checkpoint_eval_metric:
            params.trainer.best_checkpoint_eval_metric = task.METRIC
    _refuse_impossible(params, cfg)
    if cfg.scale_learning_rate is not None:
        _scale_learning_rate(params, cfg.scale_learning_rate)
    params.trainer.preemption_on_demand_checkpoint = (
        False  # it would take SIGTERM from us, and saves without stopping
    )
    params.trainer.best_checkpoint_export_subdir = (
        "best"  # where evaluation and tracking look for it
    )
    if data is not None:
        inputs = task.inputs(data.patterns(), data.labels, data.formats)
        _refuse_conflicts(cfg.task, inputs, "task", data)
        params.override({"task": inputs}, is_strict=True)
        examples = {name: split.examples for name, split in data.splits.items()}
        _schedule(params, cfg, examples)
        _refuse_too_little(params, examples)
    _seed(params, cfg)
    params.validate()
    return params


def _refuse_other_task(params: Any, task: Any, cfg: Config) -> None:
    kinds = {kind.__name__ for kind in type(params.task).__mro__}
    if not kinds & task.GARDEN_TASKS:
        raise UsageError(
            f"experiment {cfg.name} ({type(params.task).__name__}) cannot train on dataset "
            f"{cfg.dataset.name if cfg.dataset else ''}, which is for {task.__name__.rpartition('.')[2]}; "
            f"choose another: DATA=<name> (all of them: make list), or dataset.task=<task> where its source serves several"
        )


def _refuse_misfits(node: params_dict.ParamsDict, values: Mapping[str, Any], path: str) -> None:
    hints = typing.get_type_hints(type(node))
    for key, value in values.items():
        here = f"{path}{key}"
        if not hasattr(node, key):
            raise UsageError(
                f"{here}: Model Garden knows no such key{nearest(key, sorted(node.as_dict()))}"
            )
        current, hint = getattr(node, key), hints.get(key, Any)
        if isinstance(value, Mapping):
            _refuse_misfits(
                current if current is not None else _default(hint, here), value, f"{here}."
            )
        elif not fits(value, hint) and not (value is None and current is None):
            raise UsageError(
                f"{here}: {value!r} is a {type(value).__name__}, Model Garden wants {_spell(hint)}"
            )
        if (
            isinstance(node, oneof.OneOfConfig)
            and key == "type"
            and value is not None
            and not hasattr(node, value)
        ):
            choice = sorted(set(node.as_dict()) - {"type"})
            raise UsageError(f"{here}: there is no {value!r}{nearest(value, choice)}")


def _default(hint: Any, path: str) -> params_dict.ParamsDict:
    for kind in (hint, *typing.get_args(hint)):
        if isinstance(kind, type) and issubclass(kind, params_dict.ParamsDict):
            return kind()
    raise UsageError(f"{path}: takes a plain value, not a mapping")


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value has the type that a Model Garden annotation states (an int fits a float)."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or isinstance(hint, typing.TypeVar):
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in arguments)
    if origin is not None and issubclass(origin, Sequence):
        if not isinstance(value, list | tuple):
            return False
        if origin is tuple and arguments and arguments[-1] is not Ellipsis:
            return len(value) == len(arguments) and all(map(fits, value, arguments))
        return (
            all(item is None or fits(item, arguments[0]) for item in value) if arguments else True
        )  # input_size: [null, null, 3]
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    if isinstance(hint, type) and issubclass(hint, params_dict.ParamsDict):
        return isinstance(value, Mapping)
    return isinstance(value, origin or hint)


def _spell(hint: Any) -> str:
    return (
        getattr(hint, "__name__", None)
        if isinstance(hint, type)
        else str(hint).replace("typing.", "")
    )  # type: ignore


def _refuse_conflicts(
    ours: Mapping[str, Any], follows: Mapping[str, Any], path: str, data: Manifest
) -> None:
    for key, value in follows.items():
        if isinstance(value, Mapping) and isinstance(ours.get(key), Mapping):
            _refuse_conflicts(ours[key], value, f"{path}.{key}", data)
        elif key == "num_classes" and ours.get(key) not in (None, value):
            raise UsageError(
                f"{path}.{key}: set to {ours[key]}, but {data.dataset} has {value} (background included where there is "
                f"one); leave the key out: it follows from the data"
            )


def _schedule(params: Any, cfg: Config, examples: Mapping[str, int]) -> None:
    """Fills what follows from the data's size and is not set: steps, intervals, the length of the learning-rate decay."""
    train, task, given = params.trainer, params.task, cfg.trainer
    published = train.train_steps if "train_steps" not in given else None
    epoch = steps_per_epoch(params, examples)
    if cfg.epochs is not None and "train_steps" not in given:
        train.train_steps = max(1, round(cfg.epochs * epoch))
    _warn_of_few_steps(train, epoch)
    if "validation_steps" not in given:
        if params.runtime.distribution_strategy != "tpu":  # TPUs need batches of one shape
            task.validation_data.drop_remainder = False
        batches = examples.get("validation", 0) / max(1, task.validation_data.global_batch_size)
        train.validation_steps = (
            int(batches) if task.validation_data.drop_remainder else math.ceil(batches)
        )
    if train.train_steps == published:
        return  # The registered schedule stands as it is.
    if "validation_interval" not in given:
        interval = max(epoch, math.ceil(train.train_steps / cfg.evaluations))
        whole = LOOP_STEPS if interval > LOOP_STEPS else 1  # Intervals are made of whole loops.
        train.validation_interval = min(train.train_steps, math.ceil(interval / whole) * whole)
    if "checkpoint_interval" not in given:
        train.checkpoint_interval = train.validation_interval
    if "steps_per_loop" not in given:
        train.steps_per_loop = _divisor(
            math.gcd(train.checkpoint_interval, train.validation_interval), LOOP_STEPS
        )
    if "summary_interval" not in given:
        train.summary_interval = train.steps_per_loop
    if train.summary_interval % train.steps_per_loop:
        raise UsageError(
            f"trainer.summary_interval: {train.summary_interval} is not a multiple of trainer.steps_per_loop "
            f"({train.steps_per_loop}); leave both out, or set both"
        )
    rate = train.optimizer_config.learning_rate
    schedule = rate.get() if rate.type else None
    if schedule is not None and "decay_steps" in schedule.as_dict() and not _given_decay(given):
        schedule.decay_steps = train.train_steps


def _warn_of_few_steps(train: Any, epoch: int) -> None:
    """Few examples of one's own under a recipe made for many, or few steps: it would end before its learning rate is reached."""
    kind = train.optimizer_config.warmup.type
    steps = getattr(train.optimizer_config.warmup.get(), "warmup_steps", 0) if kind else 0
    if steps and train.train_steps < 2 * steps:
        epochs = math.ceil(10 * steps / epoch)
        print(
            f"warning: of {train.train_steps} steps, {min(steps, train.train_steps)} are the learning rate's warm-up; to learn more: "
            f"epochs={epochs} (trainer.train_steps={epochs * epoch}); or a shorter warm-up: "
            f"trainer.optimizer_config.warmup.{kind}.warmup_steps={max(1, train.train_steps // 10)}"
        )


def steps_per_epoch(params: Any, examples: Mapping[str, int]) -> int:
    """Number of whole batches in the training split, at least 1."""
    return max(1, examples.get("train", 0) // max(1, params.task.train_data.global_batch_size))


def _given_decay(trainer: Mapping[str, Any]) -> bool:
    rate = (trainer.get("optimizer_config") or {}).get("learning_rate") or {}
    return any(
        isinstance(value, Mapping) and value.get("decay_steps") is not None
        for value in rate.values()
    )


def _divisor(number: int, most: int) -> int:
    return max(one for one in range(1, min(number, most) + 1) if number % one == 0)


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
    schedule, factor = (
        rate.get() if rate.type else None,
        params.task.train_data.global_batch_size / base,
    )
    scaled = [
        key for key in RATES if schedule is not None and getattr(schedule, key, None) is not None
    ]
    if not scaled:
        raise UsageError(
            f"scale_learning_rate: does not know the rates of a schedule of type {rate.type}; set them, and leave it out"
        )
    for key in scaled:
        value = getattr(schedule, key)
        setattr(
            schedule,
            key,
            value * factor if isinstance(value, float | int) else [one * factor for one in value],
        )


def _refuse_too_little(params: Any, examples: Mapping[str, int]) -> None:
    batch, found = params.task.train_data.global_batch_size, examples.get("train", 0)
    if batch > found:
        raise UsageError(
            f"task.train_data.global_batch_size: {batch} is more than the {found} training examples; "
            f"set it to {found} or less, or bring more data"
        )
    if not examples.get("validation"):
        raise UsageError(
            "dataset: there are no validation examples; give a validation split or dataset.validation_fraction"
        )


def _refuse_impossible(params: Any, cfg: Config) -> None:
    model = params.task.model
    stride = 2**model.max_level if hasattr(model, "anchor") and hasattr(model, "max_level") else 0
    for edge in (getattr(model, "input_size", None) or [])[:2]:
        if stride and edge and edge % stride:
            lower, upper = edge // stride * stride, (edge // stride + 1) * stride
            raise UsageError(
                f"task.model.input_size: {edge} is not a multiple of {stride}, the stride of pyramid level "
                f"{model.max_level} (task.model.max_level); the nearest that fit: {lower or upper}, {upper}"
            )
    if params.runtime.distribution_strategy == "parameter_server":
        raise UsageError(
            "runtime.distribution_strategy: under parameter_server the official trainer trains but cannot evaluate, and no two "
            "runs are alike (docs/strategies.md); train with several workers in step: RUNTIME=multi_worker"
        )
    if params.task.train_data.global_batch_size < 1:
        raise UsageError("task.train_data.global_batch_size: must be at least 1")
    if params.trainer.train_steps < 1 and (cfg.epochs is None or "train_steps" in cfg.trainer):
        raise UsageError("trainer.train_steps: must be at least 1; set it, or epochs=<number>")
