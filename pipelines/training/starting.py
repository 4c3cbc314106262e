"""Puts weights to start from into a model, and says what was loaded: nothing that is not is silent.

What is saved and what is built are walked side by side, by the names that TensorFlow's checkpoints use. Unlike the
official `initialize` this takes what fits of a checkpoint whose last layer has another number of classes, and a module
that is misspelt or holds nothing is an error.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.outside import printable
from pipelines.training import checkpoints, upstream
from pipelines.training.upstream import Saved
from pipelines.usage import MOST_NAMES, UsageError, nearest

# Model Garden's tasks whose `initialize` reads whole modules and nothing else; others load in their own ways.
LOADING_ALIKE = tuple(
    f"official.vision.tasks.{name}"
    for name in ("image_classification", "maskrcnn", "retinanet", "semantic_segmentation")
)
KERAS = ".h5"  # ends the name of a file that Keras wrote
SAVED_BY_KERAS = "keras_api"  # belongs to the root of a SavedModel that is the model itself
WHOLE = "model"  # the root of everything, under which what belongs to no module is found
EVERY = "all"  # Model Garden's word for every module
BACKGROUND = "background"
IMAGENET = 1000  # classes; with a background before them 1001
BACKBONE = "backbone/"
FEATURES = (BACKBONE, "decoder/")  # tell no classes apart


@dataclass(frozen=True)
class Starting:
    """Weights to start from.

    Attributes:
        name: as it is shown.
        checkpoint: what its files begin with, or the folder of a SavedModel; None where there are `tensors`.
        tensors: values by path in a checkpoint of Model Garden's.
        modules: parts of the model that take them; empty: all.
        source_classes: names of the classes that they tell apart, in order, background left out; empty: not known.
        classes: names of those of the data to train on.
        has_background: whether the model counts a background before the classes, as detectors do.
    """

    name: str
    sha256: str | None = None
    licence: str = ""
    checkpoint: str | None = None
    tensors: Mapping[str, np.ndarray] | None = None
    modules: tuple[str, ...] = ()
    source_classes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    has_background: bool = False


@dataclass
class Loaded:
    """What became of weights, by name."""

    loaded: list[str] = field(default_factory=list)
    by_class: list[str] = field(
        default_factory=list
    )  # of `loaded`, those of which rows were taken by class
    skipped: list[str] = field(default_factory=list)  # saved, and wanted by nothing
    other_shape: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)  # in the model, at random
    averaged: bool = False

    def line(self, starting: Starting) -> str:
        """The four counts."""
        digest = (starting.sha256 or "")[:12]
        known = ", ".join(word for word in (digest, starting.licence) if word)
        shown = printable(starting.name)
        name = f"{shown} ({known})" if known else shown
        averaged = "; moving averages taken" if self.averaged else ""
        classes = f" ({len(self.by_class)} by class)" if self.by_class else ""
        return (
            f"starting weights {name}: {len(self.loaded)} loaded{classes}, {len(self.skipped)} skipped, "
            f"{len(self.other_shape)} of another shape, {len(self.left)} left at random{averaged}"
        )

    def names(self) -> str:
        """Every name under its word, for the log."""
        lines = []
        for word in ("loaded", "by_class", "skipped", "other_shape", "left"):
            title = {"by_class": "by class", "other_shape": "another shape"}.get(word, word)
            lines += [f"starting weights: {title}: {name}" for name in getattr(self, word)]
        return "\n".join(lines)


def load(model: Any, starting: Starting, say: Callable[[str], None]) -> Loaded:
    """Gives a model its starting weights.

    Args:
        say: told the counts; the names are printed, to where the output goes.

    Raises:
        UsageError: a module that the model does not have, weights that cannot be read, or none that fit.
    """
    checkpoint = str(starting.checkpoint)
    if checkpoint.endswith(KERAS) or tf.io.gfile.isdir(checkpoint):
        outcome = _of_network(model, checkpoint)
        print(outcome.names(), flush=True)
        say(outcome.line(starting))
        return outcome
    wanted = _wanted(model, starting.modules)
    saved = _saved(starting)
    pairs, unused = _paired(wanted, saved)
    outcome = Loaded(skipped=unused)
    taken = set()
    for variable, name, leaf in pairs:
        value = leaf.value()
        taken.add(id(variable))
        _give(variable, value, name, starting, outcome)
        outcome.averaged |= leaf.is_average
    outcome.left = _left(wanted, taken)
    print(outcome.names(), flush=True)
    say(outcome.line(starting))
    if not outcome.loaded:
        raise UsageError(_nothing(starting, wanted, saved))
    _refuse_other_network(outcome, starting)
    return outcome


def _refuse_other_network(outcome: Loaded, starting: Starting) -> None:
    """Refuses weights of which some fit the backbone by chance: the norms of other networks have like sizes."""
    fits = [name for name in outcome.loaded if name.startswith(BACKBONE)]
    odd = []
    for name in outcome.other_shape:
        if name.startswith(BACKBONE):
            odd.append(name)
    if len(odd) > len(fits):
        shown = printable(starting.name, 300)
        raise UsageError(
            f"init: {shown} is of another network: of the backbone {len(fits)} tensors fit and "
            f"{len(odd)} are of another shape:{_listed(odd)}\nset task.model.backbone as it was there; or without the "
            "backbone: init_modules=[decoder]; from random weights: INIT=scratch"
        )


def _of_network(model: Any, place: str) -> Loaded:
    """Loads a file of Keras Applications into the backbone that it is for; a SavedModel is a backbone with its weights."""
    backbone = model.backbone
    if not place.endswith(KERAS):
        loaded = [variable.name for variable in backbone.variables]
    elif not hasattr(backbone, "load_file"):
        raise UsageError(
            f"init: {place} is for a network of Keras: task.model.backbone.type=keras "
            "task.model.backbone.keras.model_name=<network>"
        )
    else:
        loaded = backbone.load_file(place)
    taken = {id(variable) for variable in backbone.variables}
    return Loaded(loaded=loaded, left=_left({WHOLE: model}, taken))


def _wanted(model: Any, modules: Sequence[str]) -> dict[str, Any]:
    """Parts of a model by name."""
    parts = dict(getattr(model, "checkpoint_items", {}))
    if hasattr(model, "backbone"):
        parts["backbone"] = model.backbone
    if not modules or EVERY in modules:
        return {**parts, WHOLE: model}
    for module in modules:
        if module not in parts:
            raise UsageError(
                f"init_modules: this model has no {module!r}{nearest(module, [*parts, EVERY])}"
            )
    return {name: parts[name] for name in parts if name in modules}


def _saved(starting: Starting) -> Saved:
    """The tree of what is saved."""
    if starting.tensors is not None:
        return _tree(starting.tensors)
    prefix = str(starting.checkpoint)
    try:
        saved = upstream.saved_objects(prefix, averages=not checkpoints.is_best(prefix))
    # TensorFlow has many words for a file that is not there or damaged.
    except (tf.errors.OpError, ValueError, KeyError, OSError) as error:
        raise UsageError(
            f"init: the checkpoint {printable(prefix, 300)} cannot be read: {printable(error, 200)}"
        ) from None
    if WHOLE not in saved.children and SAVED_BY_KERAS in saved.children:
        saved.children = {**saved.children, WHOLE: saved}
    return saved


def _tree(tensors: Mapping[str, np.ndarray]) -> Saved:
    root = Saved()
    for path, value in tensors.items():
        node = root
        for word in path.split("/"):
            node = node.children.setdefault(word, Saved())
        node.key = path
        node.read = lambda value=value: value
    return root


Pair = tuple[tf.Variable, str, Saved]


def _paired(wanted: Mapping[str, Any], saved: Saved) -> tuple[list[Pair], list[str]]:
    """Each variable beside what is saved of it; and the names of what is saved and beside nothing."""
    queue: deque[tuple[str, Any, Saved]] = deque()
    for name, part in wanted.items():
        if name in saved.children:
            queue.append((name, part, saved.children[name]))
    seen: set[int] = set()
    pairs: list[Pair] = []
    while queue:
        path, live, node = queue.popleft()
        if id(live) in seen:
            continue
        seen.add(id(live))
        if isinstance(live, tf.Variable):
            if node.key:
                pairs.append((live, path, node))
            continue
        for name, child in upstream.tracked(live).items():
            if name in node.children:
                queue.append((f"{path}/{name}", child, node.children[name]))
    used = {node.key for _, _, node in pairs}
    return pairs, _unused(saved, used)


def _unused(saved: Saved, used: set[str]) -> list[str]:
    """Keys of the model's weights that are saved and not among `used`; those of an optimizer are none."""
    names = set()
    queue = deque(node for name, node in saved.children.items() if name != "optimizer")
    seen = set()
    while queue:
        node = queue.popleft()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.key and node.key not in used:
            names.add(node.key)
        queue.extend(node.children.values())
    return sorted(names - {"global_step/.ATTRIBUTES/VARIABLE_VALUE"})


def _give(
    variable: tf.Variable,
    value: np.ndarray,
    name: str,
    starting: Starting,
    outcome: Loaded,
) -> None:
    is_alike = variable.shape == value.shape
    if is_alike and not _classes_differ(name, starting):
        variable.assign(value)
        outcome.loaded.append(name)
        return
    rows = _rows(variable, value, starting)
    if rows is None and is_alike:
        rows = value  # No axis of it counts classes.
    elif rows is None:
        shapes = f"{value.shape} for {tuple(variable.shape)}"
        outcome.other_shape.append(f"{name} {shapes}")
        return
    else:
        outcome.by_class.append(name)
    variable.assign(rows)
    outcome.loaded.append(name)


def _classes_differ(name: str, starting: Starting) -> bool:
    """Whether a part that tells classes apart learned others, or others in this order."""
    if name.startswith(FEATURES) or not starting.source_classes:
        return False
    return starting.source_classes != starting.classes


def _rows(
    variable: tf.Variable,
    value: np.ndarray,
    starting: Starting,
) -> np.ndarray | None:
    """The variable's value with the rows of classes of the same name put in; None where nothing says which they are."""
    *lead, saved_size = value.shape
    *wanted_lead, size = variable.shape
    if lead != wanted_lead:
        return None
    source, target = _names(saved_size, size, starting)
    if not set(source) & set(target):
        return None
    groups = saved_size // len(source)
    if groups * len(target) != size:
        return None  # Such as boxes for each class: theirs are not the last axis.
    saved = value.reshape(*lead, groups, len(source))
    rows = variable.numpy()
    rows = rows.reshape(*lead, groups, len(target))
    for place, name in enumerate(target):
        if name in source:
            rows[..., place] = saved[..., source.index(name)]
    return rows.reshape(variable.shape)


Names = Sequence[str]


def _names(saved: int, wanted: int, starting: Starting) -> tuple[Names, Names]:
    """What the rows of a last layer stand for, saved and wanted; both empty where that is not known."""
    if starting.source_classes:
        before = (BACKGROUND,) if starting.has_background else ()
        source = (*before, *starting.source_classes)
        target = (*before, *starting.classes)
        is_counted = saved % len(source) == wanted % len(target) == 0
        return (source, target) if is_counted else ((), ())
    numbers = [str(number) for number in range(IMAGENET)]
    named = {
        IMAGENET: numbers,
        IMAGENET + 1: [BACKGROUND, *numbers],
    }
    return named.get(saved, ()), named.get(wanted, ())


def _left(wanted: Mapping[str, Any], taken: set[int]) -> list[str]:
    model = {}
    for part in wanted.values():
        for variable in part.variables:
            model[id(variable)] = variable.name
    return sorted(name for number, name in model.items() if number not in taken)


def _nothing(starting: Starting, wanted: Mapping[str, Any], saved: Saved) -> str:
    there = sorted(set(saved.children) - {"optimizer", "global_step", "save_counter", WHOLE})
    return (
        f"init: nothing of {printable(starting.name)} fits this model: asked for {', '.join(wanted)}, "
        f"saved are {', '.join(there) or 'no modules'}; the backbone (task.model.backbone) has to be the one that "
        f"the weights are for; from random weights: INIT=scratch"
    )


def load_whole(model: Any, starting: Starting, say: Callable[[str], None]) -> Loaded:
    """As `load`, of weights that are to be measured as they are.

    Raises:
        UsageError: also where variables are left at random, of another shape, or taken in part.
    """
    loaded = load(model, starting, say)
    missing = [*loaded.left, *loaded.other_shape, *loaded.by_class]
    if not missing:
        return loaded
    parts = sorted({name.partition("/")[0] for name in loaded.loaded})
    shown = printable(starting.name, 300)
    if parts == ["backbone"]:
        shown += ", a backbone alone,"
    raise UsageError(
        f"checkpoint: {shown} is not the whole model: {len(loaded.loaded)} variables loaded, {len(missing)} do not match:"
        f"{_listed(missing)}\nsaved and wanted by nothing: {len(loaded.skipped)}{_listed(loaded.skipped)}\n"
        f"to train from it: INIT={printable(starting.name, 300)}"
    )


def _listed(names: Sequence[str]) -> str:
    """Names one below the other, the first of many."""
    lines = [printable(name, 200) for name in names[:MOST_NAMES]]
    if len(names) > MOST_NAMES:
        lines.append(f"… {len(names) - MOST_NAMES} more")
    return "".join(f"\n  {line}" for line in lines)


def official_loading(task: Any) -> Starting | None:
    """What Model Garden's own keys say, `task.init_checkpoint` and its modules; None: nothing, or a task with its own way."""
    params = task.task_config
    path = getattr(params, "init_checkpoint", None)
    loads_alike = type(task).initialize.__module__ in LOADING_ALIKE
    if not path or not loads_alike:
        return None
    if tf.io.gfile.isdir(path):
        path = tf.train.latest_checkpoint(path) or path
    modules = params.init_checkpoint_modules
    if isinstance(modules, str):
        modules = [word for word in modules.replace(",", " ").split() if word]
    return Starting(name=params.init_checkpoint, checkpoint=path, modules=tuple(modules or ()))
