"""A profile names the parts of a training, their rates and what they consist of."""

import re

import pytest


@pytest.mark.slow
def test_a_profile_times_each_part_and_says_what_it_consists_of(trellis, tiny, tmp_path):
    small = ["task.train_data.global_batch_size=4", "task.validation_data.global_batch_size=5"]
    printed = trellis(
        "profile",
        "experiment=resnet",
        *tiny["classification"],
        *small,
        f"runs_dir={tmp_path}",
    )
    for part in (
        "input alone",
        "step alone",
        "both",
        "flight, a block",
        "first evaluation",
        "evaluation",
    ):
        rate = re.search(rf"^{part} .* ([\d.]+) a second$", printed, re.MULTILINE)
        assert rate and float(rate[1]) > 0, printed
    share = re.search(r"products: ([\d.]+) GFLOP.* share ([\d.]+)", printed)
    assert share and float(share[1]) > 0 and 0 < float(share[2]) < 2, printed
    between = re.search(r"evaluation takes ([\d.]+) of the (\d+) steps", printed)
    assert between and float(between[1]) > 0 and int(between[2]) > 0, printed
    batch, step = printed.split("a step consists of")
    assert "DecodeAndCropJpeg" in batch or "DecodeJpeg" in batch or "DecodeImage" in batch, printed
    assert "Conv2DBackpropFilter" in step, printed
    assert not list(tmp_path.iterdir())  # Nothing is recorded.
