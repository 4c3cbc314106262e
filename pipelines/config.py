"""Our configuration schema, and the door from Hydra to plain dataclasses.

Two schemas meet here. Ours is `Config`: typed and closed, a misspelt key is an error at composition. The nodes `task`,
`trainer` and `runtime` speak Model Garden's own vocabulary: open here, checked against the registered experiment later.
"""

import dataclasses
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import StrEnum
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
from pipelines import own
from pipelines.outside import printable, redacted
from pipelines.usage import UsageError, file_name, nearest

NO_EXPERIMENT = "no experiment given; add EXP=<name> (experiment=<name>); all of them: make list"
GROUPS = ("experiment", "dataset", "runtime", "runner", "sweep")
FOLDER = Path(conf.__file__).parent
GARDEN_NODES = ("task", "trainer", "runtime")  # in Model Garden's own words


class Role(StrEnum):
    """What a setting is for. Every list of settings follows from the roles at the fields of `Config` and `Dataset`."""

    RESULT = "result"  # what is computed depends on it
    GUARD = "guard"  # says what is refused, or what a result is held against: nothing that passes depends on it
    PLACE = "place"  # says where something lies or runs
    VERB = "verb"  # is about one command
    PASSIVE = "passive"  # says what is noted beside


RESULT, GUARD, PLACE, VERB, PASSIVE = Role
UNSET = dataclasses.MISSING


def role(
    kind: Role, *, default: Any = UNSET, factory: Any = UNSET, verb: str = "", path: bool = False
) -> Any:
    """A dataclass field with its role.

    Args:
        verb: the command that a setting of role `VERB` is about.
        path: whether it holds a path, or paths by split.
    """
    if factory is UNSET and default is UNSET:
        default = MISSING
    return field(
        default=default,
        default_factory=factory,
        metadata={"role": kind, "verb": verb, "path": path},
    )


@dataclass
class Dataset:
    """What Beam builds: one source read into one task's records.

    `images`, `annotations` and `masks` are a path, or a mapping from split name (`train`, `validation`) to a path;
    `images` of COCO also a list of folders.
    """

    name: str = role(RESULT)
    task: str = role(RESULT)  # a module of `tasks`
    source: str = role(RESULT)  # a module of `pipelines.data.sources`
    # Where a published data set comes from, for those who do not have it.
    origin: str | None = role(PASSIVE, default=None)
    # Generator of `pipelines.data.embedded` that writes the source first.
    embedded: str | None = role(PLACE, default=None)
    # Where relative locations start; empty: the user has to say.
    root: str | None = role(PLACE, default=None, path=True)
    images: Any = role(PLACE, default=None, path=True)
    annotations: Any = role(PLACE, default=None, path=True)
    masks: Any = role(PLACE, default=None, path=True)
    # voc: {split: file that names the images of the split}.
    lists: Any = role(PLACE, default=None, path=True)
    # idx: SHA-256 of each file's content, unpacked, by field and split; others are refused.
    contents: Any = role(RESULT, default=None)
    builder: str | None = role(RESULT, default=None)  # tfds: name[/config]:version
    labels: Any = role(RESULT, default=None)  # class names, where the source does not carry them
    # csv: names of the columns {path, label, split, group}.
    columns: Any = role(RESULT, default=None)
    # mask_folder: what an image's name has after the part it shares with its mask.
    image_suffix: str = role(RESULT, default="")
    mask_suffix: str = role(RESULT, default="")
    # segmentation: {pixel value: class}; values left out become 255, which training ignores.
    remap: Any = role(RESULT, default=None)
    # {trait: treatment} of images that cannot pass as they are, see docs/data.md.
    convert: Any = role(RESULT, default=None)
    # detection: null takes them where the source has them.
    include_masks: bool | None = role(RESULT, default=None)
    # csv, elpv, image_folder: {class: how often each of its training pictures comes}.
    repeat: Any = role(RESULT, default=None)
    # image_folder: a class 0 `background` before the others, as in published ImageNet models.
    background: bool = role(RESULT, default=False)
    # coco: labels are the category ids, gaps and all, as in published COCO models.
    keep_category_ids: bool = role(RESULT, default=False)
    # Used where the source has no validation split of its own.
    validation_fraction: float = role(RESULT, default=0.1)
    shards: Any = role(RESULT, default=None)  # {split: count}; null: by size
    # Images, and likewise objects; above it the build fails.
    max_reject_fraction: float = role(GUARD, default=0.01)
    # Read back through Model Garden's decoder and parser: none, sample, full.
    validate: str = role(GUARD, default="sample")
    seed: int = role(RESULT, default=0)  # what an embedded generator draws from


@dataclass
class Figure:
    """A figure to reproduce, in the evaluator's unit (a fraction where the published table prints percent)."""

    metric: str = MISSING
    value: float = MISSING
    # Means over seeds that lie farther apart are not the same figure; declared before any run.
    margin: float = MISSING
    seeds: int = 1  # runs that `value` is the mean of
    # Standard deviation of a single run, from one seed to the next; null: not known.
    sd: float | None = None
    source: str = MISSING
    others: dict[str, float] = field(default_factory=dict)  # figures published beside it
    # What other sources give for the same training: {source: {metric: value}}.
    elsewhere: dict[str, dict[str, float]] = field(default_factory=dict)
    examples: dict[str, int] = field(default_factory=dict)  # sizes of the splits it was measured on


@dataclass
class Threads:
    """TensorFlow's thread pools. Results are bit-identical only for equal counts."""

    intra_op: int | None = (
        None  # for one operation; null: from the cores and the size of the pictures
    )
    inter_op: int | None = None  # operations at a time; null: the number of cores


@dataclass
class Sweep:
    """What a sweep visits; docs/sweeps.md says how parameters are written."""

    method: str = "grid"  # grid, list, random, tpe
    # Override key or short name: values, range or multiples.
    parameters: dict[str, Any] = field(default_factory=dict)
    points: list[dict[str, Any]] = field(default_factory=list)  # list: each point, key by key
    trials: int = 10  # random, tpe: points to visit
    seed: int = 0  # random, tpe: the proposals' seed, not the trainings'
    metric: str | None = None  # the evaluation's metric to rank by; null: the experiment's headline
    goal: str = "maximize"  # or minimize


@dataclass
class Config:
    """Everything that a command can be given. `task`, `trainer` and `runtime` are overrides of the Model Garden experiment."""

    name: str = role(RESULT, default="none")  # what a run is recorded as
    # Name registered in Model Garden's experiment factory.
    garden: str | None = role(RESULT, default=None)
    # Modules that register it, beyond the standard ones.
    imports: list[str] = role(RESULT, factory=list)
    # Gives `trainer.train_steps` from the data's size where that is not set.
    epochs: float | None = role(RESULT, default=None)
    # At most, evenly spread over a run whose `trainer.validation_interval` is not set.
    evaluations: int = role(RESULT, default=10)
    seed: int = role(RESULT, default=0)
    determinism: bool = role(RESULT, default=True)
    # Record a fingerprint of every step, for `make bisect`.
    flight: bool = role(PASSIVE, default=True)
    data_dir: str = role(PLACE, path=True)
    # Read all shards that are there and compare them with their SHA-256; else those whose size or times have changed.
    verify: bool = role(GUARD, default=False)
    runs_dir: str = role(PLACE, path=True)
    run_dir: str = role(PLACE, path=True)
    # A recorded run: an MLflow run id or a run directory.
    run: str | None = role(PLACE, default=None)
    against: str | None = role(PLACE, default=None)  # another one to compare it with
    # A run in one file: where `bundle` writes it, where `reproduce` takes it from.
    bundle: str | None = role(PLACE, default=None)
    dataset: Dataset | None = role(RESULT, default=None)
    runner: dict[str, Any] = role(PLACE, factory=dict)
    sweep: Sweep | None = role(VERB, default=None, verb="sweep")
    jobs: int = role(VERB, default=1, verb="sweep")  # trials at a time
    # The run that this one is part of: an MLflow run id or a run directory.
    parent: str | None = role(PLACE, default=None)
    # Trainings of a stated figure's recipe, from `seed` on, each with the next.
    seeds: int = role(VERB, default=1, verb="reproduce")
    # A published checkpoint, a SavedModel or a run directory: measured on the recipe's validation split.
    checkpoint: str | None = role(VERB, default=None, verb="reproduce")
    # Kinds of difference that a run made again may have and still count: processor, environment, …
    allow: list[str] = role(VERB, factory=list, verb="reproduce")
    workers: int = role(VERB, default=2, verb="launch")  # processes that train together
    # How often workers are started again when one has died.
    restarts: int = role(VERB, default=3, verb="launch")
    # `slurm` or `kubernetes`, printed instead of started.
    print: str | None = role(VERB, default=None, verb="launch")
    # Of `ui` and `serve`, on this machine; null: the first that is free from 5000.
    port: int | None = role(VERB, default=None, verb="ui")
    # Give back the alias `champion` to the version that had it before.
    rollback: bool = role(VERB, default=False, verb="register")
    # Pictures without annotations: a file, a folder, a pattern or a bucket.
    images: str | None = role(VERB, default=None, verb="predict")
    # A file or folder that `make export` wrote, in place of the run's checkpoint.
    model: str | None = role(VERB, default=None, verb="predict")
    # Which of the run's checkpoints predict and export take: `best`, `last` or a step.
    step: str = role(VERB, default="best", verb="predict")
    # Boxes that are less sure are not drawn.
    min_score: float = role(VERB, default=0.3, verb="predict")
    # What to write: see docs/shipping.md.
    formats: list[str] = role(VERB, factory=list, verb="export")
    # Of the weights, as it is to stand in the file.
    licence: str | None = role(VERB, default=None, verb="export")
    # Limits of the ship card: milliseconds (p95, all threads), megabytes, points of the figure.
    max_ms: float | None = role(VERB, default=None, verb="export")
    max_mb: float | None = role(VERB, default=None, verb="export")
    max_drop: float | None = role(VERB, default=None, verb="export")
    # Training pictures that int8 is calibrated on.
    calibration: int = role(VERB, default=200, verb="export")
    # What the process of one format may take, in minutes and gigabytes.
    export_minutes: float = role(VERB, default=60.0, verb="export")
    export_gb: float = role(VERB, default=16.0, verb="export")
    threads: Threads = role(RESULT, factory=Threads)
    # The highest instruction set that oneDNN may use, such as AVX2; null: the highest that there is.
    cpu_isa: str | None = role(RESULT, default=None)
    # mirrored: devices that the CPU is split into, to try it without GPUs.
    logical_cpus: int | None = role(RESULT, default=None)
    # Batch size that the recipe's learning rates are for; null: they stand as they are.
    scale_learning_rate: int | None = role(RESULT, default=None)
    # Weights to start from: a card (`trellis weights`), a checkpoint, a run; `scratch`: random ones. null: what
    # `task.init_checkpoint` says.
    init: str | None = role(PLACE, default=None)
    # What they are known by, filled in where it is not set; others are refused.
    init_sha256: str | None = role(RESULT, default=None)
    # Parts of the model that take them (backbone, decoder, head, …); null: all that the weights have.
    init_modules: list[str] | None = role(RESULT, default=None)
    # Share of the steps in which the backbone stays as it starts; then it is released.
    frozen: float = role(RESULT, default=0.0)
    # What the learning rate has come down to when it is released, as a share of where it starts.
    released_rate: float = role(RESULT, default=0.1)
    task: dict[str, Any] = role(RESULT, factory=dict)
    trainer: dict[str, Any] = role(RESULT, factory=dict)
    runtime: dict[str, Any] = role(RESULT, factory=dict)
    figure: Figure | None = role(GUARD, default=None)


# Leaves of Model Garden's nodes that are not of the result, by the last word of their key. All others are.
GARDEN_ROLES = {
    "input_path": PLACE,  # Follows from the manifest, as the next.
    "annotation_file": PLACE,
    "tfds_data_dir": PLACE,
    "tpu": PLACE,  # Its address.
    "saved_model_path": PLACE,  # `init` says it; its digest is `init_sha256`.
    "checkpoint_interval": PASSIVE,
    "max_to_keep": PASSIVE,
}
# What a batch is shared out to: bits depend on it, the recipe does not say it.
HARDWARE = ("runtime", "logical_cpus")
PRECISION = "mixed_precision_dtype"  # the one leaf of `runtime` that belongs to the recipe
# Fields of `Config` and `Figure` as earlier versions recorded them.
RENAMED = {"benchmark": "figure", "tolerance": "margin"}


def names(owner: type, *roles: Role, verb: str = "") -> tuple[str, ...]:
    """Fields of `Config` or `Dataset` that have one of these roles, in order; with `verb`, those about that command."""
    chosen = [setting for setting in fields(owner) if setting.metadata["role"] in roles]
    if verb:
        chosen = [setting for setting in chosen if setting.metadata["verb"] == verb]
    return tuple(setting.name for setting in chosen)


def paths(owner: type) -> tuple[str, ...]:
    """Fields of `Config` or `Dataset` that hold paths."""
    return tuple(setting.name for setting in fields(owner) if setting.metadata["path"])


def dataset_role(name: str, source: str) -> Role:
    """The role of a data set's field. The lists of a TFDS builder are names of splits, not places."""
    if source == "tfds" and name in paths(Dataset) and name != "root":
        return RESULT
    setting = Dataset.__dataclass_fields__.get(name)
    return setting.metadata["role"] if setting else RESULT


def locations(source: str) -> tuple[str, ...]:
    """Fields that say where the parts of a source lie."""
    return tuple(
        name for name in paths(Dataset) if name != "root" and dataset_role(name, source) is PLACE
    )


def substance(dataset: Mapping[str, Any], *roles: Role) -> dict[str, Any]:
    """The fields of a data set's node that have one of these roles."""
    source = dataset.get("source", "")
    kept = {}
    for name, value in dataset.items():
        if dataset_role(name, source) in roles:
            kept[name] = value
    return kept


def settings(document: Mapping[str, Any], *roles: Role) -> dict[str, Any]:
    """What a configuration says in these roles, down to the leaves of Model Garden's nodes.

    Args:
        document: as `to_yaml` writes it or once did. A key that this schema does not know counts as of the result.
    """
    other_roles = set(Role) - set(roles)
    others = names(Config, *other_roles)
    document = _renamed(document)
    kept = {key: document[key] for key in document if key not in others}
    if isinstance(kept.get("dataset"), Mapping):
        kept["dataset"] = substance(kept["dataset"], *roles)
    for node in GARDEN_NODES:
        if node in kept:
            kept[node] = _garden_leaves(kept[node], roles)
    return kept


def _renamed(document: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded configuration under today's names of the fields."""
    renamed = {RENAMED.get(key, key): document[key] for key in document}
    if isinstance(renamed.get("figure"), Mapping):
        stated = renamed["figure"]
        renamed["figure"] = {RENAMED.get(key, key): stated[key] for key in stated}
    return renamed


def _garden_leaves(node: Any, roles: Sequence[Role]) -> Any:
    if not isinstance(node, Mapping):
        return node
    kept = {}
    for key, value in node.items():
        if GARDEN_ROLES.get(key, RESULT) in roles:
            kept[key] = _garden_leaves(value, roles)
    return kept


def plain(cfg: Config) -> dict[str, Any]:
    """The configuration as plain values, as `to_yaml` writes it."""
    return OmegaConf.to_container(OmegaConf.structured(cfg))  # type: ignore[return-value]


_schema = OmegaConf.structured(Config)
for _node in GARDEN_NODES:
    OmegaConf.set_struct(_schema[_node], False)  # No `+` needed; Model Garden checks its words.
ConfigStore.instance().store(name="schema", node=_schema)


def options(group: str) -> dict[str, str]:
    """Names that `group=` accepts, each with the first line of its file's header."""
    return {name: _headline(file) for name, file in own.choices(FOLDER, group).items()}


def recorded_name(choice: str) -> str:
    """The `name:` of the experiment's file that `experiment=` chooses by this word."""
    return choice.removeprefix("published/").replace("/", "_")


def _headline(file: Path) -> str:
    for line in file.read_text().splitlines():
        text = line.lstrip("# ").strip()
        if line.startswith("#") and not text.startswith("@package"):
            return text
    return ""


def compose(overrides: Sequence[str]) -> Config:
    """Composes `conf/` under command-line overrides into a plain `Config` without interpolations.

    A first override `@<file>` is a recorded `config.yaml`, taken as it is in place of `conf/`.

    Raises:
        UsageError: a name, key or value that does not exist or does not fit, with the nearest that does.
    """
    if overrides and overrides[0].startswith("@"):
        with _readable_errors(overrides[1:]):
            file, *others = overrides
            return _named(_from_file(file[1:], others))
    overrides = [_official(override) for override in overrides]
    for override in overrides:
        _refuse_unknown_name(override)
    with _readable_errors(overrides), initialize_config_module("conf", version_base="1.3"):
        cfg = _settled(hydra_compose("config", overrides=[*_search_path(), *overrides]))
    _refuse_secrets(dataclasses.asdict(cfg))
    return _named(cfg)


def _official(override: str) -> str:
    """`experiment=<Model Garden's name>` as what stands for it in `conf/`, unless a recipe of ours has that name."""
    group, _, name = override.partition("=")
    if group != "experiment" or "/" in name:
        return override
    choices = own.choices(FOLDER, group)
    listed = f"catalogue/{name}"
    return f"{group}={listed}" if name not in choices and listed in choices else override


def _search_path() -> list[str]:
    """Has Hydra look into the user's own folder after ours."""
    place = own.folder()
    return [f"hydra.searchpath=[{override_value(place.as_uri())}]"] if place else []


def modules(cfg: Config) -> list[str]:
    """Modules that a configuration names: those it imports, and a source and a task that are named as such."""
    named = list(cfg.imports)
    if cfg.dataset is not None:
        words = (cfg.dataset.source, cfg.dataset.task)
        named += [word for word in words if "." in word]
    return named


def composed(run: Callable[[Config], int]) -> Callable[[Sequence[str]], int]:
    """The `main(overrides)` of a verb that needs nothing but the composed configuration."""
    return lambda overrides: run(compose(overrides))


def _refuse_secrets(node: Any, path: str = "") -> None:
    """Refuses an address with a password: settings are printed, kept in the run directory and sent to MLflow."""
    if isinstance(node, list):
        node = dict(enumerate(node))
    if isinstance(node, dict):
        for name, value in node.items():
            inner = f"{path}.{name}" if path else str(name)
            _refuse_secrets(value, inner)
    elif isinstance(node, str) and "://" in node and redacted(node) != node:
        raise UsageError(
            f"{path}: {redacted(node)} has a password or token in it, and settings are kept with every run; leave it out, "
            "and give it in ~/.config/fsspec, or where gcsfs and s3fs look for it (docs/data.md)"
        )


def _from_file(name: str, overrides: Sequence[str]) -> Config:
    try:
        text = Path(absolute(name)).read_text(errors="replace")
    except (OSError, ValueError):
        raise UsageError(
            f"@{printable(name)}: there is no such file; write @<run directory>/config.yaml"
        ) from None
    base = _recorded(text, f"@{printable(name)}")
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.key_or_group
        value = override.value()
        if key in GROUPS and isinstance(value, str):
            raise UsageError(
                f"{override.input_line}: a recorded configuration has its {key}; leave it out"
            )
        OmegaConf.update(base, key, value)
    return _settled(base)


def _settled(composed: Any) -> Config:
    """The plain dataclasses of what was composed.

    Raises:
        UsageError: a value still has an interpolation, which whoever reads the record would refuse.
    """
    cfg: Any = OmegaConf.to_object(composed)
    nodes = [value for value in vars(cfg).values() if is_dataclass(value)]
    for owner in (cfg, *nodes):
        for name, value in vars(owner).items():
            if owner is not cfg or not is_dataclass(value):
                setattr(owner, name, _without_dataclasses(value))
    # An interpolation can put a word in the place of a node, which only this notices.
    OmegaConf.structured(cfg)
    interpolation = _interpolation(dataclasses.asdict(cfg))
    if interpolation is not None:
        raise UsageError(
            f"{printable(interpolation)}: an interpolation that leaves another one; write out what is meant"
        )
    return cfg


def _interpolation(node: Any) -> str | None:
    """A word in a plain nested value that is still to be looked up."""
    return next((word for word in _words(node) if "${" in word), None)


def _without_dataclasses(value: Any) -> Any:
    """A node of ours becomes a mapping where an interpolation has copied it into one of Model Garden's."""
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, dict):
        return {key: _without_dataclasses(value[key]) for key in value}
    if isinstance(value, list):
        return [_without_dataclasses(item) for item in value]
    return value


def _named(cfg: Config) -> Config:
    """Refuses names under which no folder may be made."""
    file_name(cfg.name, "name")
    if cfg.dataset is not None:
        file_name(cfg.dataset.name, "dataset.name")
    return cfg


def to_yaml(cfg: Config) -> str:
    """The composed configuration as YAML, in the order of the schema."""
    return yaml.dump(
        plain(cfg),
        Dumper=_Dumper,
        sort_keys=False,
        width=120,
    )


def to_recorded_yaml(cfg: Config, text: str) -> str:
    """The configuration in the fields of a recorded one, for the version that recorded it: it refuses later ones.

    Args:
        text: as `to_yaml` wrote it in that version.
    """
    document = _in_fields_of(yaml.safe_load(text), plain(cfg))
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=120)


def _in_fields_of(recorded: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    kept = {}
    for key, before in recorded.items():
        value = document[RENAMED.get(key, key)]
        closed = key not in (*GARDEN_NODES, "runner")
        if closed and isinstance(value, dict) and isinstance(before, dict):
            value = _renamed_back(before, value)
        kept[key] = value
    return kept


def _renamed_back(before: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    kept = {}
    for name in before:
        today = RENAMED.get(name, name)
        if today in value:
            kept[name] = value[today]
    return kept


class _Dumper(yaml.SafeDumper):
    """Puts into quotes what OmegaConf would read as a number and PyYAML would not: 1e3."""


_NUMBER = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$")
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+0123456789."))


def from_yaml(text: str) -> Config:
    """Reads back what `to_yaml` wrote.

    Raises:
        UsageError: it is no recorded configuration, or has interpolations, which would read this machine's secrets.
    """
    with _readable_errors(["config.yaml"]):
        return _named(_settled(_recorded(text, "config.yaml")))


def _recorded(text: str, name: str) -> Any:
    try:
        document = OmegaConf.create(text if text.strip() else "{}")
        written: Any = OmegaConf.to_container(document, resolve=False)
        interpolation = _interpolation(written)
        if interpolation is not None:
            raise UsageError(
                f"{name}: {printable(interpolation)}: a recorded configuration has no interpolations; this one is refused"
            )
        return OmegaConf.merge(
            _schema, _renamed(written) if isinstance(written, dict) else document
        )
    except (OmegaConfBaseException, yaml.YAMLError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{name}: is no recorded configuration: {printable(error, 300)}") from None


def _words(node: Any) -> Iterator[str]:
    """Every string in a plain nested value, keys included."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _words(value)
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _words((key, value))


_NO_WORDS = ("true", "false", "null", "nan", "inf")  # what Hydra reads as something other than text


def override_value(value: Any) -> str:
    """Spells a plain value as the right-hand side of a Hydra override.

    Raises:
        UsageError: it has a key that cannot be written there.
    """
    if isinstance(value, dict):
        pairs = []
        for key, item in value.items():
            pairs.append(f"{_override_key(key)}:{override_value(item)}")
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list | tuple):
        items = [override_value(item) for item in value]
        return "[" + ",".join(items) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)  # YAML's `.inf` is a word to Hydra.
    if value is None or isinstance(value, bool | int | float):
        return yaml.safe_dump(value).split("\n")[0]
    # Hydra reads a backslash as an escape only where a quote follows: it's\ is spelled 'it\'s\\'.
    escaped = re.sub(r"(\\*)('|\Z)", _escape, str(value))
    return f"'{escaped}'"


def _escape(match: re.Match[str]) -> str:
    quote = "\\'" if match[2] else ""
    return match[1] * 2 + quote


def _override_key(key: Any) -> str:
    """A key as Hydra reads it; there are no quotes around keys."""
    if not isinstance(key, str):
        return override_value(key)
    words = re.fullmatch(r"[A-Za-z_][\w.-]*(?: [\w.-]+)*", key, re.ASCII)
    if words is None or key.lower() in _NO_WORDS:
        raise UsageError(
            f"key {printable(repr(key))} cannot be written in an override; write it in a file below conf/"
        )
    return key


def thread_overrides(chosen: Threads, count: int, recorded: Threads | None = None) -> list[str]:
    """Overrides that give a training `count` cores, where the user has not said otherwise.

    Args:
        recorded: counts of a run that is resumed, which keeps them: its bits depend on them.
    """
    wanted = recorded or Threads(inter_op=count)
    overrides = []
    for pool in ("intra_op", "inter_op"):
        threads = getattr(wanted, pool)
        if threads and getattr(chosen, pool) is None:
            overrides.append(f"threads.{pool}={threads}")
    return overrides


def chosen_dataset(cfg: Config) -> Dataset:
    """Returns the dataset that an experiment is to train on.

    Raises:
        UsageError: no experiment or no dataset is chosen.
    """
    if not cfg.garden:
        raise UsageError(NO_EXPERIMENT)
    return given_dataset(cfg)


def given_dataset(cfg: Config) -> Dataset:
    """Returns the chosen dataset, with an experiment or without.

    Raises:
        UsageError: none is chosen.
    """
    if cfg.dataset is None:
        raise UsageError(
            "no dataset given; add DATA=<name> (dataset=<name>); all of them: make list"
        )
    return cfg.dataset


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """Lines `key: before -> after` for every leaf in which two plain nested values differ."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        if before == after:
            return []
        return [f"{path}: {before} -> {after}"]
    lines = []
    for key in {**before, **after}:
        inner = f"{path}.{key}" if path else str(key)
        lines += differences(before.get(key), after.get(key), inner)
    return lines


def _refuse_unknown_name(override: str) -> None:
    if "=" not in override and not override.startswith(("~", "-")):
        raise UsageError(
            f"{override!r} is not an override; write key=value, as in experiment=retinanet"
        )
    group, _, name = override.lstrip("+").partition("=")
    if group not in GROUPS or name in ("", "null"):
        return
    if name.startswith(("[", "{")) or "," in name:
        return  # No name; composition says what it makes of it.
    choices = own.choices(FOLDER, group)
    if choices and name not in choices:
        near = _broken(name) if group == "experiment" else ""
        near = near or nearest(name, list(choices))
        raise UsageError(f"no {group} {name!r}{near}\nall of them: make list")


def catalogue() -> dict[str, dict[str, Any]]:
    """What was measured of every vision experiment of Model Garden, by name."""
    # The parser in C, where PyYAML has it: ten times as fast.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    rows: dict[str, dict[str, Any]] = yaml.load((FOLDER / "catalogue.yaml").read_text(), loader)
    return rows


def _broken(name: str) -> str:
    """Ends an error message where Model Garden has an experiment of that name that cannot work; else empty."""
    facts = catalogue().get(name, {})
    return f": {facts['status']}, {facts['why']}" if "why" in facts else ""


@contextmanager
def _readable_errors(overrides: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        text = str(error.__cause__ or error)
        missing = re.search(r"Key '([^']+)' (?:is )?not in", text)
        if missing:
            raise UsageError(_missing(missing[1], overrides)) from None
        raise UsageError(
            " ".join(text.split()) or f"cannot be composed: {printable(' '.join(overrides), 300)}"
        ) from None
    except UsageError:
        raise
    except Exception as error:
        # Hydra and OmegaConf assert, count and join what they expect to be otherwise: it comes from the overrides all the same.
        raise UsageError(_unforeseen(overrides, error)) from error


def _missing(key: str, overrides: Sequence[str]) -> str:
    names: list[str] = []
    for owner in (Config, Dataset, Figure, Threads, Sweep):
        names += owner.__dataclass_fields__
    hint = nearest(key, names)
    for override in overrides:
        if key in override.partition("=")[0]:
            return f"{override}: there is no key {key!r}{hint}"
    return f"{key}: there is no key {key!r}{hint}"


def _unforeseen(overrides: Sequence[str], error: Exception) -> str:
    for override in overrides:
        key, _, _ = override.lstrip("+~").partition("=")
        owner, _, inner = key.partition(".")
        if inner and owner in ("dataset", "sweep", "figure") and "NoneType" in str(error):
            reason = "the experiment has none"
            if owner in GROUPS:
                reason = f"choose it first: {owner}=<name>"
            return f"{printable(override)}: there is no {owner} to set it in; {reason}"
    said = f"{type(error).__name__}: {printable(error, 300)}"
    return f"{printable(' '.join(overrides), 300)}: cannot be composed; is every value of the kind that its key has? ({said})"


def anchored(cfg: Config) -> Config:
    """A copy whose paths are absolute, so that it means the same from any working directory."""
    anchored = replace(cfg)
    for name in paths(Config):
        setattr(anchored, name, absolute(getattr(cfg, name)))
    if cfg.init and is_path(cfg.init):
        anchored.init = absolute(cfg.init)
    if cfg.dataset is not None:
        anchored.dataset = _anchored_dataset(cfg.dataset)
    return anchored


def _anchored_dataset(dataset: Dataset) -> Dataset:
    anchored = replace(dataset)
    if dataset.root:
        anchored.root = absolute(dataset.root)
    elif not dataset.embedded:
        for name in locations(dataset.source):
            setattr(anchored, name, _absolute_each(getattr(dataset, name)))
    return anchored


def _absolute_each(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _absolute_each(value[key]) for key in value}
    if isinstance(value, list):
        return [_absolute_each(item) for item in value]
    return absolute(value) if isinstance(value, str) and value else value


def is_path(init: str) -> bool:
    """Whether `init` is written as a path: a card and a run id are plain words."""
    return "/" in init or init.startswith((".", "~"))


def absolute(path: str) -> str:
    """A local path made absolute, an address such as gs://… left as it is."""
    if "://" in path:
        return path
    return os.path.abspath(os.path.expanduser(path))
