"""Our configuration schema, and the door from Hydra to plain dataclasses.

Two schemas meet here. Ours is `Config`: typed and closed, a misspelt key is an error at composition. The nodes `task`,
`trainer` and `runtime` speak Model Garden's own vocabulary: open here, checked against the registered experiment later.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import conf
from pipelines.usage import UsageError, nearest

GROUPS = ("experiment", "dataset", "runtime", "runner", "sweep", "launcher")
FOLDER = Path(conf.__file__).parent


@dataclass
class Dataset:
    """What Beam builds: one source read into one task's records.

    `images`, `annotations` and `masks` are a path, or a mapping from split name (`train`, `validation`) to a path;
    `images` of COCO also a list of folders.
    """

    name: str = MISSING
    task: str = MISSING  # a module of `tasks`
    source: str = MISSING  # a module of `pipelines.data.sources`
    origin: str | None = None  # where a published data set comes from, for those who do not have it
    embedded: str | None = None  # generator of `pipelines.data.embedded` that writes the source first
    root: str | None = None  # where relative locations start; empty: the user has to say
    images: Any = None
    annotations: Any = None
    masks: Any = None
    lists: Any = None  # voc: {split: file that names the images of the split}
    builder: str | None = None  # tfds: name[/config]:version
    labels: Any = None  # class names, where the source does not carry them
    columns: Any = None  # csv: names of the columns {path, label, split, group}
    image_suffix: str = ""  # mask_folder: what an image's name has after the part it shares with its mask
    mask_suffix: str = ""
    remap: Any = None  # segmentation: {pixel value: class}; values left out become 255, which training ignores
    convert: Any = None  # {trait: treatment} of images that cannot pass as they are, see docs/data.md
    include_masks: bool | None = None  # detection: null takes them where the source has them
    background: bool = False  # image_folder: a class 0 `background` before the others, as in published ImageNet models
    keep_category_ids: bool = False  # coco: labels are the category ids, gaps and all, as in published COCO models
    validation_fraction: float = 0.1  # used where the source has no validation split of its own
    shards: Any = None  # {split: count}; null: by size
    max_reject_fraction: float = 0.01  # of images, and of objects; above it the build fails
    validate: str = "sample"  # read back through Model Garden's decoder and parser: none, sample, full
    seed: int = 0  # of an embedded generator


@dataclass
class Benchmark:
    """A figure to reproduce, in the evaluator's unit (a fraction where the published table prints percent)."""

    metric: str = MISSING
    value: float = MISSING
    tolerance: float = MISSING
    source: str = MISSING
    others: dict[str, float] = field(default_factory=dict)  # figures published beside it
    examples: dict[str, int] = field(default_factory=dict)  # sizes of the splits it was measured on


@dataclass
class Threads:
    """TensorFlow's thread pools. Results are bit-identical only for equal counts; null: the number of cores."""

    intra_op: int | None = None
    inter_op: int | None = None


@dataclass
class Sweep:
    """A search space; docs/sweeps.md says how parameters are written."""

    method: str = "grid"  # grid, list, random, tpe
    parameters: dict[str, Any] = field(default_factory=dict)  # override key or short name: values, range or multiples
    points: list[dict[str, Any]] = field(default_factory=list)  # list: each point, key by key
    trials: int = 10  # random, tpe: points to visit
    seed: int = 0  # random, tpe: of the search, not of the trainings
    metric: str | None = None  # of the evaluation, to rank by; null: the experiment's headline
    goal: str = "maximize"  # or minimize


@dataclass
class Config:
    """Everything a command is told. `task`, `trainer` and `runtime` are overrides of the Model Garden experiment."""

    name: str = "none"
    garden: str | None = None  # name registered in Model Garden's experiment factory
    imports: list[str] = field(default_factory=list)  # modules that register it, beyond the standard ones
    epochs: float | None = None  # gives `trainer.train_steps` from the data's size where that is not set
    evaluations: int = 10  # at most, evenly spread over a run whose `trainer.validation_interval` is not set
    seed: int = 0
    determinism: bool = True
    flight: bool = True  # record a fingerprint of every step, for `trellis bisect`
    data_dir: str = MISSING
    runs_dir: str = MISSING
    run_dir: str = MISSING
    run: str | None = None  # a recorded run: an MLflow run id or a run directory
    against: str | None = None  # another one to compare it with
    dataset: Dataset | None = None
    runner: dict[str, Any] = field(default_factory=dict)
    sweep: Sweep | None = None
    jobs: int = 1  # sweep: trials at a time
    parent: str | None = None  # the run that this one is part of: an MLflow run id or a run directory
    workers: int = 2  # launch: processes that train together
    restarts: int = 3  # launch: how often workers are started again when one has died
    print: str | None = None  # launch: slurm or kubernetes, printed instead of started
    threads: Threads = field(default_factory=Threads)
    logical_cpus: int | None = None  # mirrored: devices that the CPU is split into, to try it without GPUs
    scale_learning_rate: int | None = None  # batch size that the recipe's learning rates are for; null: they stand as they are
    task: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    runtime: dict[str, Any] = field(default_factory=dict)
    benchmark: Benchmark | None = None


_schema = OmegaConf.structured(Config)
for _node in (_schema.task, _schema.trainer, _schema.runtime):
    OmegaConf.set_struct(_node, False)  # Model Garden's own words: no `+` needed, checked by Model Garden
ConfigStore.instance().store(name="schema", node=_schema)


def options(group: str) -> dict[str, str]:
    """Names that `group=` accepts, each with the first line of its file's header."""
    folder = FOLDER / group
    return {str(file.relative_to(folder).with_suffix("")): _headline(file) for file in sorted(folder.rglob("*.yaml"))}


def _headline(file: Path) -> str:
    lines = (line.lstrip("# ").strip() for line in file.read_text().splitlines() if line.startswith("#"))
    return next((line for line in lines if not line.startswith("@package")), "")


def compose(overrides: Sequence[str]) -> Config:
    """Composes `conf/` under command-line overrides into a plain `Config` without interpolations.

    A first override `@<file>` is a recorded `config.yaml`, taken as it is in place of `conf/`.

    Raises:
        UsageError: a name, key or value that does not exist or does not fit, with the nearest that does.
    """
    if overrides and overrides[0].startswith("@"):
        with _readable_errors(overrides[1:]):
            return _from_file(overrides[0][1:], overrides[1:])
    for override in overrides:
        _refuse_unknown_name(override)
    with _readable_errors(overrides), initialize_config_module("conf", version_base="1.3"):
        return OmegaConf.to_object(hydra_compose("config", overrides=list(overrides)))  # type: ignore[return-value]


def _from_file(name: str, overrides: Sequence[str]) -> Config:
    file = Path(absolute(name))
    if not file.exists():
        raise UsageError(f"@{name}: there is no such file; write @<run directory>/config.yaml")
    base = OmegaConf.merge(_schema, OmegaConf.load(file))
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.key_or_group in GROUPS and isinstance(override.value(), str):
            raise UsageError(f"{override.input_line}: a recorded configuration has its {override.key_or_group}; leave it out")
        OmegaConf.update(base, override.key_or_group, override.value())
    return OmegaConf.to_object(base)  # type: ignore[return-value]


def to_yaml(cfg: Config) -> str:
    """The composed configuration as YAML, in the order of the schema."""
    return yaml.safe_dump(OmegaConf.to_container(OmegaConf.structured(cfg)), sort_keys=False, width=120)


def from_yaml(text: str) -> Config:
    """Reads back what `to_yaml` wrote."""
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.create(text)))  # type: ignore


def override_value(value: Any) -> str:
    """Spells a plain value as the right-hand side of a Hydra override."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{override_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(override_value(item) for item in value) + "]"
    if value is None or isinstance(value, bool | int | float):
        return yaml.safe_dump(value).split("\n")[0]
    # Hydra reads a backslash as an escape only where a quote follows.
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + (found[2] and "\\'"), str(value)) + "'"


def chosen_dataset(cfg: Config) -> Dataset:
    """Returns the dataset that an experiment is to train on.

    Raises:
        UsageError: no experiment or no dataset is chosen.
    """
    if not cfg.garden:
        raise UsageError("no experiment given; add EXP=<name> (experiment=<name>); all of them: make list")
    if cfg.dataset is None:
        raise UsageError(f"{cfg.name} names no dataset; add DATA=<name> (dataset=<name>); all of them: make list")
    return cfg.dataset


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """Lines `key: before -> after` for every leaf in which two plain nested values differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [*before, *(key for key in after if key not in before)]
        pairs = ((f"{path}.{key}" if path else str(key), before.get(key), after.get(key)) for key in keys)
        return [line for where, one, other in pairs for line in differences(one, other, where)]
    return [] if before == after else [f"{path}: {before} -> {after}"]


def _refuse_unknown_name(override: str) -> None:
    if "=" not in override and not override.startswith(("~", "-")):
        raise UsageError(f"{override!r} is not an override; write key=value, as in experiment=retinanet")
    group, _, name = override.lstrip("+").partition("=")
    known = options(group) if group in GROUPS else {}
    if known and name and name not in known and name != "null" and not name.startswith(("[", "{")) and "," not in name:
        raise UsageError(f"no {group} {name!r}{nearest(name, list(known))}\nall of them: trellis list")


@contextmanager
def _readable_errors(overrides: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        text = str(error.__cause__ or error)
        missing = re.search(r"Key '([^']+)' (?:is )?not in", text)
        if missing:
            known = [name for owner in (Config, Dataset, Benchmark, Threads, Sweep) for name in owner.__dataclass_fields__]
            where = next((item for item in overrides if missing.group(1) in item.partition("=")[0]), missing.group(1))
            raise UsageError(f"{where}: there is no key {missing.group(1)!r}{nearest(missing.group(1), known)}") from None
        raise UsageError(" ".join(text.split())) from None


def anchored(cfg: Config) -> Config:
    """A copy whose paths are absolute, so that it means the same from any working directory."""
    places = {key: absolute(getattr(cfg, key)) for key in ("data_dir", "runs_dir", "run_dir")}
    dataset = cfg.dataset
    if dataset is not None and dataset.root:
        dataset = replace(dataset, root=absolute(dataset.root))
    elif dataset is not None and not dataset.embedded:
        fields = ("images", "annotations", "masks", "lists")
        dataset = replace(dataset, **{key: _absolute_each(getattr(dataset, key)) for key in fields})
    return replace(cfg, dataset=dataset, **places)


def _absolute_each(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _absolute_each(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_absolute_each(item) for item in value]
    return absolute(value) if isinstance(value, str) and value else value


def absolute(path: str) -> str:
    """A local path made absolute, an address such as gs://… left as it is."""
    return path if "://" in path else os.path.abspath(os.path.expanduser(path))
