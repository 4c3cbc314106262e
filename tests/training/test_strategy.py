"""Devices that are not there are refused with what was looked for."""

import pytest

from pipelines.config import UsageError, compose
from pipelines.training import parameters, strategy


@pytest.mark.parametrize(("runtime", "says"), [("gpu", "1 GPU asked for"), ("mirrored", "all GPUs asked for"), ("tpu", "distribution_strategy=tpu")])
def test_a_missing_device_is_named(runtime, says):
    params = parameters.build(compose(["experiment=resnet", f"runtime={runtime}"]))
    with pytest.raises(UsageError, match=says):
        strategy.build(params.runtime)
