"""Under what a run is resumed: the settings that gave what it has so far.

Under others one directory would hold two runs. What may differ is what no bit and no figure of the
result depends on: settings of the roles place, guard, passive and of one verb (`pipelines.config`),
and the leaves of Model Garden's nodes that have such a role there. With `determinism=off`, where no
bits are promised, also devices and thread counts. docs/faults.md lists them.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines import config
from pipelines.config import Config, Threads, differences
from pipelines.usage import UsageError

MOST_LINES = 10  # differences that an error shows


def settled(run_dir: Path, cfg: Config) -> Config:
    """The configuration to resume the run in `run_dir` under.

    It is `cfg`, with the recorded thread counts where it asks for none.

    Raises:
        UsageError: anything that the run's result depends on differs, thread counts included.
    """
    recorded = _recorded(run_dir)
    if recorded is None:
        return cfg
    exact = recorded.determinism
    if exact:
        cfg = replace(cfg, threads=_filled(cfg.threads, recorded.threads))
    before = _of_the_result(recorded, exact)
    after = _of_the_result(cfg, exact)
    _refuse(run_dir, cfg, "other settings", differences(before, after))
    return cfg


def resumed(cfg: Config, recorded: Config) -> Config:
    """The recorded configuration, to resume by name.

    Raises:
        UsageError: the command line asks for something else besides, which must not get lost.
    """
    default = _of_the_result(config.compose([]))
    composed = _of_the_result(cfg)
    before = _of_the_result(recorded)
    asked = {_key(line) for line in differences(default, composed)}
    changed = [line for line in differences(before, composed) if _key(line) in asked]
    _refuse(
        Path(recorded.run_dir),
        recorded,
        "other settings",
        changed,
    )
    return recorded


def refuse_other_data(run_dir: Path, cfg: Config, fingerprint: str) -> None:
    """Refuses to resume on data of another content than the run has learned from."""
    recorded = _document(run_dir / "manifest.json")
    before = {"fingerprint": recorded.get("fingerprint", fingerprint)}
    after = {"fingerprint": fingerprint}
    _refuse(
        run_dir,
        cfg,
        "other data",
        differences(before, after),
    )


def refuse_other_devices(run_dir: Path, cfg: Config, determinism_class: Mapping[str, Any]) -> None:
    """Refuses to resume on other numbers of replicas or workers: a batch's sums are split between them."""
    if not cfg.determinism:
        return
    recorded = _document(run_dir / "environment.json").get("determinism_class") or {}
    after = {name: determinism_class[name] for name in ("replicas", "workers")}
    before = {name: recorded.get(name, count) for name, count in after.items()}
    _refuse(
        run_dir,
        cfg,
        "other devices",
        differences(before, after),
    )


def threads(run_dir: Path) -> Threads | None:
    """The thread counts of the run recorded in `run_dir`; None where there is none."""
    recorded = _recorded(run_dir)
    return recorded.threads if recorded else None


def _recorded(run_dir: Path) -> Config | None:
    file = run_dir / "config.yaml"
    return config.from_yaml(file.read_text()) if file.exists() else None


def _document(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text()) if file.exists() else {}


def _filled(asked: Threads, recorded: Threads) -> Threads:
    return Threads(
        intra_op=asked.intra_op or recorded.intra_op,
        inter_op=asked.inter_op or recorded.inter_op,
    )


def _of_the_result(cfg: Config, determinism: bool = True) -> dict[str, Any]:
    """The settings that the result depends on."""
    settings = config.settings(config.plain(cfg), config.RESULT)
    if not determinism:
        for name in ("threads", *config.HARDWARE):
            settings.pop(name)
        precision = cfg.runtime.get(config.PRECISION)
        settings["runtime"] = {config.PRECISION: precision}
    return settings


def _key(line: str) -> str:
    return line.partition(": ")[0]


def _refuse(run_dir: Path, cfg: Config, what: str, changed: list[str]) -> None:
    if not changed:
        return
    several = cfg.runtime.get("distribution_strategy") == "multi_worker_mirrored"
    verb = "launch" if several else "train"
    lines = changed[:MOST_LINES]
    if len(changed) > MOST_LINES:
        lines.append(f"… {len(changed) - MOST_LINES} more")
    listed = "".join(f"\n  {line}" for line in lines)
    raise UsageError(
        f"run_dir: {run_dir} holds a run of {what}:{listed}\n"
        f"to resume it as it is: make {verb} RUN={run_dir}\n"
        f"to train anew under these: the same command with EXP=… and run_dir={_free(run_dir)}"
    )


def _free(run_dir: Path) -> Path:
    """The first name after this one that is not taken."""
    number = 2
    while True:
        folder = run_dir.with_name(f"{run_dir.name}-{number}")
        if not folder.exists():
            return folder
        number += 1
