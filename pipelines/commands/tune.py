"""Measures which threads and kernels are fastest on this machine.    make tune EXP=retinanet

Trains the first steps of the experiment in turns, each time in a separate process, and writes a runtime for it:
make train EXP=retinanet RUNTIME=tuned_retinanet. A training never measures, so that equal machines get equal bits.
"""

import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipelines import assembly, config, own
from pipelines.assembly import Prepared
from pipelines.config import Config, Threads
from pipelines.system import arithmetic, kernels, processes
from pipelines.training import rehearsal
from pipelines.usage import UsageError

ROUNDS, BLOCKS, LEAST_BLOCK = 2, 6, 5
BLOCK_S = 3.0  # about how long a block of steps is to take
LEAST_GAIN = 1.05  # Below that the machine's own speed moves as much.


@dataclass
class Choice:
    """One way to compute, and how fast it was."""

    threads: Threads
    onednn: str  # value of the variable
    rates: list[float] = field(default_factory=list)  # steps/s, a round each

    @property
    def rate(self) -> float:
        """Steps/s of the best round: whatever else runs can only slow one down."""
        return max(self.rates)


def run(cfg: Config) -> int:
    """Prints the table and writes conf/runtime/tuned_<experiment>.yaml."""
    cfg = config.anchored(cfg)
    if cfg.runtime.get("num_gpus") or cfg.runtime.get("distribution_strategy") != "one_device":
        raise UsageError("runtime: only the threads of one CPU are tuned; leave RUNTIME out")
    prepared = assembly.prepared(cfg)
    choices = list(candidates(processes.cores()))
    ruled = _by_rule(prepared, choices)
    with tempfile.TemporaryDirectory() as folder:
        block = _block(cfg, Path(folder), ruled)
        for turn, choice in itertools.product(range(ROUNDS), choices):
            name = f"{turn}-{choices.index(choice)}"
            choice.rates.append(
                _rate(
                    cfg,
                    Path(folder, name),
                    choice,
                    block,
                )
            )
            print(f"{_name(choice)}: {choice.rates[-1]:.2f} steps/s", flush=True)
    best = max(choices, key=lambda choice: choice.rate)
    _print_table(choices, ruled)
    if best.rate < LEAST_GAIN * ruled.rate:
        print(f"nothing is faster than the rule by {LEAST_GAIN - 1:.0%}: no runtime is needed")
        return 0
    file = _write(
        cfg,
        prepared.cfg.name,
        best,
        best.rate / ruled.rate,
    )
    variable = f"{kernels.ONEDNN}={best.onednn} " if best.onednn != ruled.onednn else ""
    print(f"{file}\nto use it: {variable}make train EXP={cfg.name} RUNTIME={file.stem}")
    return 0


def candidates(cores: int) -> Iterator[Choice]:
    """What is tried: one thread an operation, half the cores, all of them; oneDNN on and off."""
    each = sorted({1, max(1, cores // 2), cores})
    for onednn, intra_op in itertools.product(("1", "0"), each):
        yield Choice(Threads(intra_op=intra_op, inter_op=cores), onednn)


def _by_rule(prepared: Prepared, choices: list[Choice]) -> Choice:
    """The choice of a training that is given none; TensorFlow itself says whether oneDNN is on."""
    params = assembly.resolved(prepared.cfg, prepared.task, prepared.data)
    from pipelines.training import upstream  # TensorFlow, imported by now.
    from pipelines.training.exact import determinism  # Likewise.

    threads = determinism.counted(Threads(), assembly.input_size(params))
    onednn = "1" if upstream.onednn_in_force() else "0"
    matching = (choice for choice in choices if choice.onednn == onednn)
    return next(choice for choice in matching if choice.threads == threads)


def _block(cfg: Config, folder: Path, choice: Choice) -> int:
    """So many steps that they take about `BLOCK_S`."""
    told = _told(
        cfg,
        folder / "pace",
        choice,
        LEAST_BLOCK,
        3,
    )
    return max(LEAST_BLOCK, round(BLOCK_S * _steps_per_second(told)))


def _rate(cfg: Config, run_dir: Path, choice: Choice, block: int) -> float:
    return _steps_per_second(
        _told(
            cfg,
            run_dir,
            choice,
            block,
            BLOCKS,
        )
    )


def _told(cfg: Config, run_dir: Path, choice: Choice, block: int, blocks: int) -> dict[int, float]:
    interval = {"steps_per_loop": block, "summary_interval": block}
    rare = {"checkpoint_interval": block * blocks * 10, "validation_interval": block * blocks * 10}
    file = rehearsal.recipe(
        replace(cfg, threads=choice.threads),
        run_dir,
        **interval,
        **rare,
    )
    return rehearsal.until(block * blocks, file, variables={kernels.ONEDNN: choice.onednn})


def _steps_per_second(told: dict[int, float]) -> float:
    """From the end of the first block, which holds the tracing of the graph."""
    first, last = min(told), max(told)
    return (last - first) / (told[last] - told[first])


def _name(choice: Choice) -> str:
    threads = choice.threads
    onednn = "on" if choice.onednn == "1" else "off"
    return (
        f"threads.intra_op={threads.intra_op} threads.inter_op={threads.inter_op} oneDNN {onednn}"
    )


def _print_table(choices: list[Choice], ruled: Choice) -> None:
    table = Table("threads an operation", "at a time", "oneDNN", "steps/s", "to the rule's", "")
    for choice in choices:
        table.add_row(
            str(choice.threads.intra_op),
            str(choice.threads.inter_op),
            "on" if choice.onednn == "1" else "off",
            " ".join(f"{rate:.2f}" for rate in choice.rates),
            f"{choice.rate / ruled.rate:.2f}",
            "by rule" if choice is ruled else "",
        )
    Console().print(table)


def _write(cfg: Config, name: str, best: Choice, gain: float) -> Path:
    """Writes the runtime; it belongs to this machine, so that git ignores it."""
    file = own.new_file(config.FOLDER, "runtime", f"tuned_{name.replace('/', '_')}")
    threads = f"{{intra_op: {best.threads.intra_op}, inter_op: {best.threads.inter_op}}}"
    file.write_text(
        "# @package _global_\n"
        f"# This machine for {cfg.name}, {gain:.2f} of the rule's speed: {arithmetic.model_name()}, "
        f"{processes.cores()} cores.\n"
        "runtime: {distribution_strategy: one_device, num_gpus: 0}\n"
        f"threads: {threads}\n"
    )
    return file


main = config.composed(run)
