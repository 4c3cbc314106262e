"""Measures where the time of a training goes: input, step, checkpoint, evaluation.    make profile EXP=retinanet

Each part is run alone, so that their rates say which one holds a training up: the input alone, the step alone on one batch
again and again, both together, a checkpoint, the flight record of a block of steps, two evaluations (the first is traced).
Beside it how near a step's convolutions and products come to a matrix product on the same machine, and what operations input and
step consist of. Nothing is recorded.
"""

import tempfile
from pathlib import Path
from typing import Any

from pipelines import assembly, config
from pipelines.config import Config
from pipelines.training import process

STEPS = 20
WARM_UP = 5
BLOCKS = 10  # of steps, which the flight record is written after
SHOWN = 12  # kinds of operations


def run(cfg: Config) -> int:
    """Prints the parts of a training of the experiment."""
    cfg = config.anchored(cfg)
    prepared = assembly.prepared(cfg)
    with tempfile.TemporaryDirectory(prefix="profile-") as scratch:
        folder = Path(scratch)
        with process.prepared(cfg, folder):
            from pipelines.training import parts  # TensorFlow: 10 s.

            built = assembly.built(prepared)
            training = parts.Parts(
                built.params,
                built.devices,
                folder,
                exact=cfg.determinism,
                record_flight=cfg.flight,
            )
            _print_input(training)
            step_s = _print_step(training)
            evaluation_s = _print_rest(training)
            interval = built.params.trainer.validation_interval
            share = evaluation_s / (interval * step_s)
            print(f"  an evaluation takes {share:.2f} of the {interval} steps between two")
    return 0


def _print_input(training: Any) -> None:
    from pipelines.training import parts  # TensorFlow, imported by now.

    read = training.reader()
    read(WARM_UP)
    with parts.timed() as spent:
        read(STEPS)
    _print("input alone", spent, STEPS)
    _print_kinds("a batch of input", training.kinds(read, parts.TRACED_BATCHES))


def _print_step(training: Any) -> float:
    """Prints the parts of a step; returns the seconds of one with its input."""
    from pipelines.training import parts  # TensorFlow, imported by now.

    training.repeat_one_batch()
    training.step(WARM_UP)
    with parts.timed() as spent:
        training.step(STEPS)
    _print("step alone", spent, STEPS)
    flops = training.flops()
    reached = flops / (spent.wall_s / STEPS)
    product = parts.flops_a_second()
    print(
        f"  convolutions and products: {flops / 1e9:.2f} GFLOP, {reached / 1e9:.1f} GFLOP/s; "
        f"a matrix product: {product / 1e9:.1f} GFLOP/s; share {reached / product:.2f}"
    )
    _print_kinds("a step", training.kinds(training.step, parts.TRACED_STEPS))
    training.read_data()
    training.step(WARM_UP)
    with parts.timed() as both:
        training.step(STEPS)
    _print("both", both, STEPS)
    return both.wall_s / STEPS


def _print_rest(training: Any) -> float:
    """Prints a checkpoint and two evaluations; returns the seconds of the second."""
    from pipelines.training import parts  # TensorFlow, imported by now.

    training.save()
    with parts.timed() as spent:
        training.save()
    _print("checkpoint", spent, 1)
    record = training.recorder()
    record(1)
    with parts.timed() as spent:
        record(BLOCKS)
    _print("flight, a block", spent, BLOCKS)
    with parts.timed() as spent:
        training.open_validation()
        training.evaluate()
    _print("first evaluation", spent, 1)
    with parts.timed() as spent:
        training.evaluate()
    _print("evaluation", spent, 1)
    return spent.wall_s


def _print_kinds(what: str, rows: list[tuple[str, float, float]]) -> None:
    print(f"  {what} consists of (milliseconds in all threads, calls):")
    for kind, seconds, calls in rows[:SHOWN]:
        print(f"    {kind:<36} {seconds * 1000:9.2f} {calls:8.0f}")


def _print(label: str, spent: Any, count: int) -> None:
    wall_ms = spent.wall_s / count * 1000
    cpu_ms = spent.cpu_s / count * 1000
    rate = count / spent.wall_s
    print(
        f"{label:<18} {wall_ms:9.1f} ms {cpu_ms:9.1f} ms of CPU {rate:9.2f} a second",
        flush=True,
    )


main = config.composed(run)
