"""Makes a recorded run again, or a stated figure.    make reproduce RUN=<run>    make reproduce EXP=resnet SEEDS=3

A run (or BUNDLE=<file>, one in a file): its recorded config, code, seed and thread counts, in a separate work tree; exit code 0
for identical, in another class of machine for equivalent by seeds, or where all that differs was allowed: ARGS=allow=[processor].
A published checkpoint (CKPT=<path>): its figure on the recipe's validation split; nothing is trained.
A figure: the experiment's own recipe, data and devices checked first; exit code 0 only where the figure is reproduced.
Its recipe is trained once, or with SEEDS of them in a sweep, which the same command resumes.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipelines import assembly, config, outcomes, own
from pipelines.commands import sweep, train
from pipelines.config import Config, Figure
from pipelines.reproduction import (
    bundle,
    classes,
    comparison,
    figure,
    inputs,
    levels,
    measured,
    worktree,
)
from pipelines.reproduction.comparison import Comparison
from pipelines.sweeps import commandline
from pipelines.system import kernels, processes
from pipelines.system.processes import ROOT
from pipelines.system.signals import Interrupted
from pipelines.tracking import environment, mlflow_store, runs
from pipelines.tracking.record import SUMMARY, RunRecord, read_summary, write_summary
from pipelines.training import process
from pipelines.usage import ExitCode, UsageError, make_command, nearest
from pipelines.weights import store

CODES = {
    figure.REPRODUCED: ExitCode.DONE,
    figure.NOT_REPRODUCED: ExitCode.FAILED,
    figure.INCONCLUSIVE: ExitCode.UNDECIDED,
    figure.RESCALED: ExitCode.UNDECIDED,
    figure.UNVERIFIED: ExitCode.UNDECIDED,
}
NOTHING = (
    "name what to make again: RUN=<run>, BUNDLE=<file>, or EXP=<experiment> for its stated figure"
)
SEEDS = ("seed", "seeds")  # keys that say which trainings there are, not what they train


def main(overrides: Sequence[str]) -> int:
    """Takes the overrides as they were written: several seeds are a sweep, which reads them itself."""
    environment.at_start()
    return run(config.compose(overrides), overrides)


def run(cfg: Config, overrides: Sequence[str] = ()) -> int:
    """Returns the exit code that the module's docstring states."""
    if cfg.bundle or cfg.run:
        try:
            return _reproduce_bundle(cfg) if cfg.bundle else _reproduce_run(cfg)
        except Interrupted:
            if cfg.seeds > 1:
                again = make_command("reproduce", overrides)
                print(f"other seeds that were trained are kept. To resume: {again}", flush=True)
            raise
    if cfg.checkpoint:
        return _measure_checkpoint(cfg)
    if not cfg.garden:
        raise UsageError(NOTHING)
    return _reproduce_figure(cfg, overrides)


@dataclass(frozen=True)
class Original:
    """What is made again.

    Attributes:
        name: how it is called in what is printed and kept.
        texts: what was recorded as text, by file name.
        metrics: every figure: name, then step.
        recorded: its configuration.
        run_dir: where it can be told that it was made again; None: nowhere.
        bundled: whether it comes from a bundle, whose source tree git knows nothing of.
    """

    name: str
    texts: Mapping[str, str]
    metrics: Mapping[str, Mapping[int, float]]
    recorded: Config
    run_dir: Path | None = None
    bundled: bool = False


def _reproduce_run(cfg: Config) -> int:
    record, recorded = assembly.recorded(cfg)
    name = str(record.run_id or cfg.run)
    original = Original(
        name,
        record.texts,
        record.metrics,
        recorded,
        record.run_dir,
    )
    environment = _environment(original, str(cfg.run))
    _refuse_strange_kinds(cfg, environment)
    commit = environment["git"]["commit"]
    again = _again(cfg, original)
    with worktree.checked_out(commit, record.texts.get("diff.patch", "")) as tree:
        print(f"reproducing {name} with the code of {commit[:12]}", flush=True)
        return _make_again(
            cfg,
            original,
            again,
            tree,
        )


def _reproduce_bundle(cfg: Config) -> int:
    file = Path(config.absolute(str(cfg.bundle)))
    with bundle.unpacked(file) as content:
        recorded = config.from_yaml(content.texts["config.yaml"])
        fingerprint = json.loads(content.texts["manifest.json"])["fingerprint"]
        # Not where the bundle is laid out: the run that comes of it can be made again too.
        root = Path(config.absolute(cfg.data_dir), "bundled", fingerprint)
        if content.names:
            shutil.copytree(content.folder / "data", root / "data", dirs_exist_ok=True)
            recorded = assembly.with_data_at(recorded, content.names, root)
        elif cfg.dataset is not None:
            recorded = assembly.with_places_of(recorded, cfg.dataset)
        if content.weights and not cfg.init:
            shutil.copytree(content.folder / "weights", root / "weights", dirs_exist_ok=True)
            recorded = replace(recorded, init=str(root / content.weights))
        original = Original(
            file.name,
            content.texts,
            content.metrics,
            recorded,
            bundled=True,
        )
        environment = _environment(original, file.name)
        _refuse_strange_kinds(cfg, environment)
        again = _again(cfg, original)
        print(f"reproducing {file.name} with the source in it", flush=True)
        return _make_again(
            cfg,
            original,
            again,
            content.tree,
        )


def _environment(original: Original, name: str) -> dict[str, Any]:
    """The recorded environment of a run.

    Raises:
        UsageError: the run has not finished, or has trained nothing.
    """
    summary = json.loads(original.texts.get("summary.json", "{}"))
    if summary.get("status") != "finished":
        raise UsageError(f"run: {name} has not finished; finish it first: make train RUN={name}")
    environment = json.loads(original.texts["environment.json"])
    if "determinism_class" not in environment:
        raise UsageError(_trained_nothing(name, summary))
    own.refuse_others(environment.get("own", {}))
    return environment


def _refuse_strange_kinds(cfg: Config, environment: Mapping[str, Any]) -> None:
    """Refuses to allow what is no kind of difference."""
    kinds = [*comparison.KINDS, *environment["determinism_class"]]
    for kind in cfg.allow:
        if kind not in kinds:
            raise UsageError(f"allow: no kind of difference {kind!r}{nearest(kind, kinds)}")


def _make_again(cfg: Config, original: Original, recorded: Config, tree: Path) -> int:
    """Trains `original` as `recorded` says with the code of `tree`, and compares."""
    texts = original.texts
    _refuse_other_data(recorded, json.loads(texts["manifest.json"]))
    kernels.cap(recorded.cpu_isa)
    machine = classes.here(texts)
    if not machine.promised:  # Said before the hours that it takes.
        print("\n".join(machine.lines()), flush=True)
    code = _train_apart(recorded, texts["config.yaml"], tree)
    if code != 0:
        return code
    found = runs.find(recorded.run_dir, cfg)
    again = found.texts
    if original.bundled:
        again = bundle.with_its_code(again, texts)
        print(bundle.golden(texts, again))
    more: list[float] = []
    if not classes.between(texts, again).promised:
        more = _other_seeds(
            original,
            recorded,
            again,
            tree,
            cfg.seeds,
        )
    elif cfg.seeds > 1:
        print("SEEDS: this is the run's own class, where bits decide: other seeds are not trained")
    compared = _compared(
        original,
        recorded,
        again,
        found,
        more,
    )
    kinds = inputs.kinds(texts, again) | classes.kinds(texts, again)
    accepted = _accepted(compared, kinds, cfg.allow)
    lines = [*compared.lines(), *accepted.lines]
    print("\n".join(lines))
    tags = {"reproduces": original.name, "verdict": compared.verdict}
    document = {
        **tags,
        "comparison": lines,
        "differing": sorted(kinds),
        "allowed": cfg.allow,
        "accepted": accepted.code == ExitCode.DONE,
    }
    _annotate(
        Path(recorded.run_dir),
        mlflow_store.address(cfg),
        tags,
        document,
    )
    if compared.verdict == comparison.IDENTICAL:
        _note_repeat(
            original,
            again,
            Path(recorded.run_dir),
            cfg,
        )
    return accepted.code


def _other_seeds(
    original: Original,
    recorded: Config,
    again: Mapping[str, str],
    tree: Path,
    seeds: int,
) -> list[float]:
    """Trains the recorded configuration with the seeds that follow its own; returns the headline values.

    Their directories go by the run and the class, so that the same command resumes them.

    Raises:
        UsageError: one of them did not finish.
    """
    weights = json.loads(original.texts["summary.json"])["weights_sha256"]
    recipe = original.texts["config.yaml"]
    identity = f"{weights} {levels.of_class(again)} {recipe}"
    mark = hashlib.sha256(identity.encode()).hexdigest()[:8]
    values = []
    for seed in range(recorded.seed + 1, recorded.seed + seeds):
        run_dir = Path(recorded.run_dir).with_name(f"{recorded.name}-{mark}-seed_{seed}")
        other = replace(recorded, seed=seed, run_dir=str(run_dir))
        finished = read_summary(run_dir).get("status") == "finished"
        if not finished and _train_apart(other, recipe, tree) != 0:
            raise UsageError(f"seed {seed} did not finish; what it told is in {run_dir}/train.log")
        values.append(read_summary(run_dir)["headline"]["value"])
    return values


def _compared(
    original: Original,
    recorded: Config,
    again: Mapping[str, str],
    found: RunRecord,
    more: Sequence[float] = (),
) -> Comparison:
    texts = original.texts
    tolerance = recorded.figure.margin if recorded.figure else comparison.TOLERANCE
    headline = json.loads(texts["summary.json"])["headline"]
    last = json.loads(again["summary.json"])["headline"]
    images = assembly.images_shared_out(texts["manifest.json"], headline["metric"])
    return comparison.compare(
        texts,
        again,
        (original.metrics, found.metrics),
        tolerance,
        images,
        outcomes.pair_of_runs([(original.run_dir, headline), (found.run_dir, last)]),
        more,
    )


@dataclass(frozen=True)
class Accepted:
    """What a comparison comes to: the exit code, and what to say of differences that were allowed."""

    code: int
    lines: tuple[str, ...] = ()


def _accepted(compared: Comparison, kinds: Collection[str], allow: Sequence[str]) -> Accepted:
    """Accepts equal bits, what is promised between classes, and equivalent figures where all that differs was allowed before."""
    if compared.verdict == comparison.IDENTICAL:
        return Accepted(ExitCode.DONE)
    if not allow:
        return Accepted(_between_classes(compared, kinds))
    differing = ", ".join(sorted(kinds)) or "nothing that is recorded"
    stated = f"allow=[{','.join(allow)}]; differing: {differing}"
    if compared.verdict == comparison.EQUIVALENT and kinds and set(kinds) <= set(allow):
        return Accepted(ExitCode.DONE, (f"accepted: {compared.verdict}, {stated}",))
    undecided = compared.verdict == comparison.INCONCLUSIVE
    code = ExitCode.UNDECIDED if undecided else ExitCode.FAILED
    return Accepted(code, (f"not accepted: {compared.verdict}, {stated}",))


def _between_classes(compared: Comparison, kinds: Collection[str]) -> int:
    """The exit code where nothing was allowed: between classes equivalence is promised, and a few seeds may not show it."""
    if compared.classes.promised or set(kinds) & set(comparison.KINDS):
        return ExitCode.FAILED
    if compared.verdict == comparison.DIFFERENT:
        return ExitCode.FAILED
    shown = compared.verdict == comparison.EQUIVALENT and compared.weighed
    return ExitCode.DONE if shown else ExitCode.UNDECIDED


def _note_repeat(original: Original, texts: Mapping[str, str], again: Path, cfg: Config) -> None:
    """Writes back to a run that it was made again with equal bits; prints the level that it has by that."""
    runs_dir = Path(config.absolute(cfg.runs_dir))
    levels.witness(runs_dir, "repeat", texts)
    if original.run_dir is None:
        return  # Its directory is gone, and with it what could be written to.
    summary = read_summary(original.run_dir)
    repeat = {"run_dir": str(again), "class": levels.of_class(texts)}
    summary["repeats"] = [*summary.get("repeats", []), repeat]
    level = levels.of_directory(original.run_dir, ROOT, runs_dir, summary)
    summary["level"] = level.recorded()
    write_summary(original.run_dir, summary)
    print(level.line())
    tags = {"level": level.name, "repeated": len(summary["repeats"])}
    runs.annotate(
        original.run_dir,
        mlflow_store.address(cfg),
        tags,
        files=(SUMMARY,),
    )


def _again(cfg: Config, original: Original) -> Config:
    """The recorded configuration, with its data and a new run directory where they are here, on as many threads."""
    recorded = original.recorded
    time_of_day = time.strftime("%Y%m%d-%H%M%S")
    run_dir = f"{cfg.runs_dir}/reproductions/{recorded.name}-{time_of_day}"
    environment = json.loads(original.texts["environment.json"])
    threads = environment["determinism_class"]["threads"]
    moved = replace(
        recorded,
        data_dir=cfg.data_dir,
        runs_dir=cfg.runs_dir,
        run_dir=run_dir,
        threads=config.Threads(**threads),
        init=cfg.init or recorded.init,  # Wherever they lie, their digest is compared.
    )
    return config.anchored(moved)


def _trained_nothing(run: str, summary: dict) -> str:
    for trial in summary.get("trials", ()):
        if trial.get("state") == "finished":
            command = f"make reproduce RUN={trial['run_dir']}"
            return f"run: {run} is a sweep; reproduce one of its trials: {command}"
    return f"run: {run} trained nothing that could be made again; the runs there are: make ui"


def _refuse_other_data(recorded: Config, before: dict) -> None:
    dataset, _, data = assembly.as_built(recorded)
    if data is not None and data.fingerprint != before["fingerprint"]:
        raise UsageError(
            f"dataset: {dataset.name} is no longer what the run learned from (fingerprint {before['fingerprint']}, now "
            f"{data.fingerprint}); bring the old data back, or train on the new: make train EXP={recorded.name}"
        )


def _train_apart(cfg: Config, text: str, tree: Path) -> int:
    """Trains in another process, which imports the packages of `tree`, which recorded `text`."""
    file = Path(cfg.run_dir, "recorded.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(config.to_recorded_yaml(cfg, text))
    command, environment = processes.this_tool(
        "train",
        f"@{file}",
        root=tree,
    )
    with subprocess.Popen(command, env=environment) as child:
        try:
            return child.wait()
        except Interrupted as stop:  # The terminal may have sent it to the child too, which saves and says how to resume.
            child.send_signal(stop.signum)
            child.wait()
            raise


def _annotate(run_dir: Path, uri: str, tags: dict[str, str], document: dict[str, Any]) -> None:
    """Adds the verdict to a finished run: `reproduction.json`, and tags in MLflow."""
    text = json.dumps(document, indent=1)
    (run_dir / "reproduction.json").write_text(f"{text}\n")
    runs.annotate(
        run_dir,
        uri,
        tags,
        files=("reproduction.json",),
    )


def _reproduce_figure(cfg: Config, overrides: Sequence[str]) -> int:
    stated = figure.stated(cfg)
    if cfg.seeds < 1:
        raise UsageError(
            f"seeds: {cfg.seeds}; at least 1, as in: make reproduce EXP={cfg.name} SEEDS=3"
        )
    examples = _examples(cfg)
    departures = figure.Departures()
    if examples:
        departures = figure.departures(
            cfg,
            examples,
            _resolved,
        )
    _refuse_hopeless(cfg, departures)
    goal = f"{stated.metric} {stated.value} ± {stated.margin}"
    print(f"{cfg.name}: {goal} stated by {stated.source}")
    planned = figure.plan(stated, cfg.seeds)
    if planned:
        print(planned, flush=True)
    if cfg.seeds > 1:
        return _reproduce_with_seeds(
            cfg,
            stated,
            overrides,
        )
    code = train.run(cfg)
    if code != 0:
        return code
    run_dir = Path(config.absolute(cfg.run_dir))
    return _judge(
        cfg,
        stated,
        {cfg.seed: run_dir},
        run_dir,
    )


def _measure_checkpoint(cfg: Config) -> int:
    """Holds somebody's checkpoint against the figure that is stated for it, on the data that it is stated on."""
    stated = figure.stated(cfg)
    time_of_day = time.strftime("%Y%m%d-%H%M%S")
    folder = Path(config.absolute(cfg.runs_dir), "reproductions", f"{cfg.name}-{time_of_day}")
    with process.prepared(cfg, folder):
        examples = _examples(cfg)
        print(f"{cfg.name}: measuring {cfg.checkpoint}; nothing is trained", flush=True)
        say = partial(print, file=sys.stdout, flush=True)  # What libraries print goes to the log.
        reached = assembly.measured(
            replace(cfg, figure=stated),
            folder,
            say,
        )
        examples = examples or _examples(cfg)
        departures = figure.departures(
            cfg,
            examples,
            _resolved,
        )
    verdict = measured.judge(
        stated,
        reached,
        departures,
        examples["validation"],
    )
    print("\n".join(verdict.lines()))
    text = json.dumps(verdict.document(), indent=1)
    (folder / "reproduction.json").write_text(f"{text}\n")
    print(folder / "reproduction.json")
    return CODES[verdict.word]


def _reproduce_with_seeds(cfg: Config, stated: Figure, overrides: Sequence[str]) -> int:
    """Trains the recipe with each seed as a sweep, which the same command resumes, and weighs them together."""
    others = [text for text in overrides if text.partition("=")[0] not in SEEDS]
    seeds = range(cfg.seed, cfg.seed + cfg.seeds)
    request = commandline.read([*others, f"seed={','.join(map(str, seeds))}"])
    together = config.compose([*request.fixed, *request.own])
    again = make_command("reproduce", overrides)
    swept = sweep.run(
        config.anchored(together),
        request,
        again,
    )
    if swept.code != 0:
        return swept.code
    run_dirs = {trial.settings["seed"]: trial.run_dir for trial in swept.trials}
    return _judge(
        cfg,
        stated,
        run_dirs,
        swept.run_dir,
    )


def _judge(cfg: Config, stated: Figure, run_dirs: Mapping[int, Path], where: Path) -> int:
    """Weighs finished runs, by seed; the verdict is kept in `where`."""
    first = next(iter(run_dirs.values()))
    splits = json.loads((first / "manifest.json").read_text())["splits"]
    examples = {name: splits[name]["examples"] for name in splits}
    departures = figure.departures(
        cfg,
        examples,
        _resolved,
    )
    metrics = {}
    for seed, run_dir in run_dirs.items():
        metrics[seed] = read_summary(run_dir)["metrics"]
        changes = figure.redeclared(stated, (run_dir / "config.yaml").read_text())
        fresh = [change for change in changes if change not in departures.changed]
        departures = replace(departures, changed=(*departures.changed, *fresh))
    verdict = figure.judge(
        stated,
        metrics,
        departures,
    )
    print("\n".join(verdict.lines()))
    tags = {"verdict": verdict.sentence()}
    _annotate(
        where,
        mlflow_store.address(cfg),
        tags,
        verdict.document(),
    )
    return CODES[verdict.word]


def _examples(cfg: Config) -> dict[str, int]:
    """Sizes of the splits; empty for embedded data not built yet. Data that cannot be had are refused here, others built."""
    dataset = config.chosen_dataset(cfg)
    try:
        _, _, data = assembly.as_built(cfg)
    except UsageError as error:
        if dataset.origin is None:
            raise
        raise UsageError(
            f"{dataset.name}: not here. Where from: {dataset.origin}\n{error}"
        ) from None
    if data is None and dataset.embedded:
        return {}
    # Those of a published recipe take hours, before it is known whether they can be trained on here.
    if data is None and _is_published(cfg):
        settings = [f"dataset={dataset.name}"]
        settings += [f"dataset.root={dataset.root}"] if dataset.root else []
        command = make_command("data", settings)
        raise UsageError(
            f"{dataset.name} is not built yet; build it first with the same settings: {command}"
        )
    data = data or assembly.with_data(cfg).data
    return {name: split.examples for name, split in data.splits.items()}


def _is_published(cfg: Config) -> bool:
    return figure.choice(cfg).startswith("published/")


def _refuse_hopeless(cfg: Config, departures: figure.Departures) -> None:
    """Refuses what would take months, or fail for lack of its starting weights."""
    if not _is_published(cfg):
        return
    if not departures.changed and _on_a_cpu(cfg):
        steps = cfg.trainer.get("train_steps") or "registered"
        batch = cfg.task.get("train_data", {}).get("global_batch_size") or "registered"
        raise UsageError(
            f"{cfg.name} is a full-size recipe ({steps} steps, batch {batch}); a CPU would take "
            f"months. Choose the hardware: RUNTIME=gpu, mirrored or tpu; or rehearse at reduced size, for example "
            f'ARGS="trainer.train_steps=10 task.train_data.global_batch_size=8"'
        )
    checkpoint = _resolved(cfg)["task"]["init_checkpoint"]
    if checkpoint and checkpoint.startswith("gs://") and not store.is_reachable(checkpoint):
        raise UsageError(
            f"task.init_checkpoint: {checkpoint} does not answer; public buckets have refused access at times. "
            f"Give a local copy: task.init_checkpoint=<path>. The verdict will be {figure.UNVERIFIED!r}, since nothing "
            f"says what the published file holds"
        )


def _on_a_cpu(cfg: Config) -> bool:
    one_device = cfg.runtime.get("distribution_strategy") == "one_device"
    return one_device and not cfg.runtime.get("num_gpus")


def _resolved(cfg: Config) -> dict[str, Any]:
    return assembly.resolved(cfg).as_dict()
