"""The points that a sweep visits, in order: each a function of the space, its number and the results before it.

No method keeps state, so a sweep that was killed continues exactly as it would have.
"""

import itertools
import random
from collections.abc import Sequence
from typing import Any

from pipelines.sweeps.space import Parameter, Point, Space

STARTUP = 5  # random points before TPE has enough results to learn from


def fixed(space: Space) -> list[Point]:
    """Every point of a space that does not depend on results."""
    if space.method == "list":
        return list(space.points)
    if space.method == "grid":
        return combinations(space.parameters)
    return [_draw(space, number) for number in range(space.trials)]


def combinations(parameters: Sequence[Parameter]) -> list[Point]:
    """The grid over `parameters`; of none, the one empty point."""
    names = [parameter.name for parameter in parameters]
    every = itertools.product(*(parameter.every() for parameter in parameters))
    return [dict(zip(names, values, strict=True)) for values in every]


def suggest(
    space: Space, past: Sequence[tuple[Point, float | None]], pending: Sequence[Point]
) -> Point:
    """The next point by Optuna's TPE.

    Args:
        past: points with their result, None where there is none, in the order in which they were suggested.
        pending: points after those whose result is still to come.
    """
    # Imported here: grids and lists do without it.
    import optuna
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    number = len(past) + len(pending)
    axes = {
        parameter.name: _distribution(parameter, optuna.distributions)
        for parameter in space.parameters
    }

    # A sampler seeded anew for each number: what it has drawn before a restart does not matter.
    sampler = optuna.samplers.TPESampler(
        seed=space.seed * 100_003 + number, n_startup_trials=STARTUP, constant_liar=True
    )
    study = optuna.create_study(direction=space.goal, sampler=sampler)

    def tell(point: Point, state: TrialState, value: float | None = None) -> None:
        coordinates = {
            parameter.name: _coordinate(parameter, point[parameter.name])
            for parameter in space.parameters
        }
        study.add_trial(
            create_trial(state=state, value=value, params=coordinates, distributions=axes)
        )

    for point, value in past:
        tell(
            point,
            TrialState.FAIL if value is None else TrialState.COMPLETE,
            value,
        )
    for point in pending:
        tell(point, TrialState.RUNNING)
    drawn = study.ask(axes).params
    return {
        parameter.name: _spelled(parameter, drawn[parameter.name]) for parameter in space.parameters
    }


def _draw(space: Space, number: int) -> Point:
    chance = random.Random(f"{space.seed}/{number}")
    return {parameter.name: parameter.draw(chance) for parameter in space.parameters}


def _distribution(parameter: Parameter, distributions: Any) -> Any:
    if parameter.choices:  # By position: Optuna takes no lists or mappings as categories.
        return distributions.CategoricalDistribution(tuple(range(len(parameter.choices))))
    if parameter.whole:
        step = int(parameter.step or 1)
        return distributions.IntDistribution(
            int(parameter.low), int(parameter.high), log=parameter.log, step=step
        )
    return distributions.FloatDistribution(
        parameter.low, parameter.high, log=parameter.log, step=parameter.step
    )


def _coordinate(parameter: Parameter, value: Any) -> Any:
    value = value["times"] if parameter.times else value
    return parameter.choices.index(value) if parameter.choices else value


def _spelled(parameter: Parameter, coordinate: Any) -> Any:
    value = parameter.choices[coordinate] if parameter.choices else coordinate
    return parameter.spell(value)
