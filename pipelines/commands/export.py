"""Writes a recorded run's model as files that run elsewhere.    make export RUN=<run> FORMAT=saved_model,tflite_int8

Formats: saved_model, tflite, tflite_fp16, tflite_dynamic, tflite_int8, tfhub, onnx. Each is held against the checkpoint on
the run's validation data, in a separate process; the ship card says what it gives and costs. max_ms=, max_mb=, max_drop=
are limits: exit code 1 when one is broken.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from pipelines import assembly, config
from pipelines.config import Config
from pipelines.outside import printable, reason
from pipelines.shipping.formats import FORMATS, INT8, refusal
from pipelines.system import arithmetic, durable, processes
from pipelines.training import process
from pipelines.usage import ExitCode, UsageError, make_command, nearest

ALONE = "--alone="  # begins what makes this the process of one format
SAMPLES = {
    "": "sample_saved_model.py",
    ".tflite": "sample_tflite.py",
    ".onnx": "sample_onnx.py",
}  # by the end of what it asks
ARITHMETIC = "in_numpy.py"  # of all samples
LOOK_S = 0.2  # between two looks at a process


def main(overrides: Sequence[str]) -> int:
    """Exports; or is the process of one format, which says so by its first word."""
    if overrides and overrides[0].startswith(ALONE):
        first, *others = overrides
        return _alone(config.compose(others), first.removeprefix(ALONE))
    return run(config.compose(overrides), overrides)


def run(cfg: Config, overrides: Sequence[str]) -> int:
    """Writes `exports/` in the run directory; 1 where a format failed, was refused or breaks a limit."""
    _check(cfg)
    record, configuration = assembly.recorded_of_pictures(cfg)
    _refuse_without_checkpoint(cfg, record)
    kind = assembly.trained_on(record).task
    folder = _folder(record, configuration)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    _remove(folder / "work")
    for form in cfg.formats:
        refused = refusal(form, kind)
        if refused:
            rows.append({"format": form, "status": f"refused: {refused}"})
            continue
        row = _exported(cfg, form, folder, overrides)
        if row["status"] == "ok":
            row |= _measured(folder / row["file"], row["size"])
            if form != "tfhub":  # Hub's users ask Keras.
                _put_sample(folder / row["file"])
        rows.append(row)
    _remove(folder / "work")
    return _tell(cfg, folder, configuration, rows)


def _check(cfg: Config) -> None:
    if not cfg.formats:
        raise UsageError(f"formats: name some: FORMAT={','.join(FORMATS)}")
    for form in cfg.formats:
        if form not in FORMATS:
            raise UsageError(f"formats: there is no {form!r}{nearest(form, FORMATS)}")


def _refuse_without_checkpoint(cfg: Config, record: Any) -> None:
    """Each format's process would find that out, after seconds of imports."""
    run_dir = record.run_dir
    if run_dir and run_dir.is_dir() and not any(run_dir.glob("checkpoints/**/*.index")):
        raise UsageError(
            f"run: {run_dir} has no checkpoint, so there is no model to export; "
            f"train it: {make_command('train', [f'run={cfg.run}'])}"
        )


def _folder(record: Any, configuration: Config) -> Path:
    run_dir = record.run_dir or Path(config.absolute(configuration.run_dir))
    return run_dir / "exports"


def _exported(cfg: Config, form: str, folder: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The card's row of one format, which a separate process has written."""
    print(f"{form}: exporting", flush=True)
    file = folder / f"{form}.json"
    file.unlink(missing_ok=True)
    command, environment = processes.this_tool("export", f"{ALONE}{form}", *overrides)
    log = folder / f"{form}.log"
    with log.open("w") as words:
        child = subprocess.Popen(
            command,
            env=environment,
            stdout=words,
            stderr=subprocess.STDOUT,
            preexec_fn=processes.end_with(os.getpid()),
        )
        trouble = _watched(child, 60 * cfg.export_minutes, 1e9 * cfg.export_gb)
    if file.exists():  # It comes last but for the name of a layer, whose search may crash.
        return json.loads(file.read_text())
    if trouble is None:
        trouble = _last_words(child.returncode, log)
    _remove(folder / form)  # Half a file, or one that nothing was held against.
    return {"format": form, "status": trouble}


def _watched(child: processes.Process, most_s: float, most_bytes: float) -> str | None:
    """Waits for a process; kills it where it takes too much, and says of what."""
    until = time.monotonic() + most_s
    try:
        while child.poll() is None:
            if time.monotonic() > until:
                return f"failed: it took more than export_minutes={most_s / 60:g}"
            if _memory(child.pid) > most_bytes:
                return f"failed: it took more memory than export_gb={most_bytes / 1e9:g}"
            time.sleep(LOOK_S)
    finally:
        processes.kill([child])
    return None


def _memory(pid: int) -> int:
    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return 0


def _last_words(code: int, log: Path) -> str:
    """Why a process ended as it did, in one line."""
    if code < 0:
        return f"failed: the converter was ended by signal {-code}; {log}"
    lines = log.read_text(errors="replace").strip().splitlines()
    said = lines[-1] if lines else f"exit code {code}"
    word = "refused" if code == ExitCode.REFUSED else "failed"
    said = said.removeprefix("trellis: ")
    return f"{word}: {printable(said, 300)}"


def _alone(cfg: Config, form: str) -> int:
    """Writes one format, holds it against its checkpoint, and leaves the card's row beside it."""
    record, configuration = assembly.recorded(cfg)
    folder = _folder(record, configuration)
    with process.prepared(configuration, folder / "work" / form):
        from pipelines.shipping import conversion  # TensorFlow: 10 s.

        calibration = cfg.calibration if form == INT8 else 0
        shipped = assembly.shipped(cfg, calibration)
        try:
            row = _written(shipped, form, folder)
        except conversion.Refused as refusal:
            row = {
                "format": form,
                "status": f"refused: {refusal}",
            }
        _keep(row, folder)
        if form == INT8 and "figure" in row and row["status"] != "ok":
            row["status"] += f"; most is lost in {_layer(shipped.source)}"
            _keep(row, folder)
    return ExitCode.DONE


def _keep(row: dict[str, Any], folder: Path) -> None:
    file = folder / f"{row['format']}.json"
    durable.write_whole(file, json.dumps(row, indent=1) + "\n")


def _written(shipped: assembly.Shipped, form: str, folder: Path) -> dict[str, Any]:
    from pipelines.shipping import conversion, proof  # Likewise.

    source = shipped.source
    _remove(folder / form)
    exported = conversion.write(source, form, folder / form)
    described = proof.described(exported, folder)
    if form == INT8:
        described |= conversion.operations(exported)
    row = _held(shipped, form, exported, folder / "work")
    if row["status"] != "ok":
        _remove(folder / form)
    return {
        **row,
        **described,
        "size": source.document["input"]["size"],
    }


def _layer(source: Any) -> str:
    """The layer that int8 does most harm to, or why TensorFlow's debugger cannot name it."""
    from pipelines.shipping import conversion  # Likewise.

    try:
        return conversion.most_lost(source)
    except Exception as error:  # It converts once more, with errors of C++ and of MLIR.
        return f"a layer that the debugger cannot name: {reason(error, 200)}"


def _held(
    shipped: assembly.Shipped,
    form: str,
    exported: Path,
    work: Path,
) -> dict[str, Any]:
    """What the card says of a file, held against its checkpoint."""
    from pipelines.shipping import asking, proof, running  # Likewise.

    kind = shipped.source.kind
    official = shipped.trained.model
    metric = shipped.params.trainer.best_checkpoint_eval_metric
    # The first format evaluates the checkpoint for all of them.
    reference = proof.kept(
        work / "reference",
        lambda: proof.evaluated(kind, shipped.figures, official.forward),
    )
    answers = running.forward(exported, official.model)
    found = proof.evaluated(kind, shipped.figures, answers)
    row = proof.row(form, kind, metric, reference=reference, exported=found)
    row["step"] = official.step
    if form == "saved_model" and row["status"] == "ok":
        shared = asking.agreement(
            kind,
            shipped.asked,
            exported,
            preprocess=shipped.source.preprocess,
            forward=official.forward,
        )
        row["agreement_of_bytes"] = shared
        row["status"] = proof.verdict_of_bytes(shared)
    return row


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _measured(exported: Path, size: Sequence[int]) -> dict[str, Any]:
    """Times and memory of a file, at one thread and at all."""
    cores = processes.cores()
    measured = {}
    for name, threads in (("one_thread", 1), ("all_threads", cores)):
        command, environment = processes.this_tool(
            str(exported),
            str(threads),
            *map(str, size),
            module="pipelines.shipping.latency",
        )
        answer = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
        )
        if answer.returncode == 0:
            measured[name] = json.loads(answer.stdout.splitlines()[-1])
    return measured


def _put_sample(exported: Path) -> None:
    """Lays a script beside a file that shows how it is asked, without this tool."""
    folder = Path(__file__).parents[1] / "shipping"
    sample = folder / SAMPLES[exported.suffix]
    shutil.copyfile(sample, exported.parent / "sample.py")
    shutil.copyfile(folder / ARITHMETIC, exported.parent / ARITHMETIC)


def _tell(
    cfg: Config,
    folder: Path,
    configuration: Config,
    rows: list[dict[str, Any]],
) -> int:
    from pipelines.shipping import card  # Its table is drawn at the end.

    cores = processes.cores()
    machine = f"{arithmetic.model_name()}, {cores} cores, {platform.system()}"
    title = f"{configuration.name}: {machine}"
    told = {
        "title": title,
        "run": str(cfg.run),
        "machine": machine,
        "formats": rows,
    }
    document = card.with_earlier(told, folder)
    files = card.write(document, folder)
    card.show(
        document["formats"],
        title,
        Console(width=None if sys.stdout.isatty() else 200),
    )
    limits = {
        "max_ms": cfg.max_ms,
        "max_mb": cfg.max_mb,
        "max_drop": cfg.max_drop,
    }
    broken: list[str] = []
    for row in rows:
        broken += card.broken(row, limits)
    for line in broken:
        print(line)
    print(f"{folder}: {', '.join(file.name for file in files)}")
    failed = any(row["status"] != "ok" for row in rows)
    return ExitCode.FAILED if failed or broken else ExitCode.DONE
