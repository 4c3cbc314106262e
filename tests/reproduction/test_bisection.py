"""Where two flight records part."""

import json

import pytest

from pipelines.reproduction.bisection import bisect
from pipelines.reproduction.classes import Classes

RECORD = [{"step": 0, "weights": "w0"}] + [
    {
        "step": step,
        "order": f"o{step}",
        "inputs": f"i{step}",
        "loss": 1 / step,
        "gradient": 2.0,
        **({"weights": f"w{step}"} if step % 2 == 0 else {}),
    }
    for step in range(1, 7)
]


def text(changes: dict[int, dict] | None = None) -> str:
    return "".join(
        json.dumps({**record, **(changes or {}).get(record["step"], {})}) + "\n"
        for record in RECORD
    )


@pytest.mark.parametrize(
    ("changes", "step", "cause"),
    [
        ({0: {"weights": "x"}, 1: {"order": "x", "loss": 9}}, 0, "the initial weights"),
        (
            {3: {"order": "x", "inputs": "x", "loss": 9}, 4: {"weights": "x"}},
            3,
            "the order of the data",
        ),
        ({2: {"inputs": "x", "loss": 9}, 3: {"order": "x"}}, 2, "the inputs after augmentation"),
        ({5: {"loss": 9}}, 5, "the arithmetic"),
        ({5: {"gradient": float("nan")}}, 5, "the arithmetic"),
        ({4: {"weights": "x"}}, 4, "the arithmetic"),
    ],
)
def test_the_first_cause_of_the_first_step_is_named(changes, step, cause):
    found = bisect(text(), text(changes))
    assert (found.step, found.cause) == (step, cause)
    assert f"part at step {step}, first in {cause}" in found.lines()[0]


def test_other_data_are_not_called_another_order():
    found = bisect(text(), text({3: {"order": "x", "inputs": "x"}}))
    assert found.lines(same_data=False)[0] == "the runs part at step 3, first in the records"


def test_equal_records_do_not_part_however_far_each_has_come():
    lost = {3: {"loss": float("nan")}}
    assert bisect(text(lost), text(lost)) is None
    assert (
        bisect(text(), "".join(text().splitlines(keepends=True)[:4]) + '{"step": 4, "ord') is None
    )


def test_records_without_a_common_step_are_refused():
    with pytest.raises(ValueError, match="no step in common"):
        bisect(text(), json.dumps({"step": 99, "loss": 1.0}) + "\n")


@pytest.mark.parametrize(
    ("changes", "explained"), [({5: {"loss": 9}}, True), ({3: {"order": "x"}}, False)]
)
def test_another_class_explains_what_was_computed_otherwise(changes, explained):
    found = bisect(text(), text(changes))
    line = found.lines(Classes(differing=["instruction set AVX2 -> SSE41 (ONEDNN_MAX_CPU_ISA)"]))[0]
    assert (
        line.endswith(" (class: instruction set AVX2 -> SSE41 (ONEDNN_MAX_CPU_ISA))") == explained
    )
    assert found.lines(Classes())[0] == found.lines()[0]
