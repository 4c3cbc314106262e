"""A stated figure's recipe trained with several seeds: resumed where it was stopped, and weighed together."""

import json
import signal
import time

import pytest

from tests.training.test_experiment import SMALL


@pytest.mark.slow
def test_seeds_are_trained_resumably_and_weighed_together(trellis, tiny, tmp_path):
    command = [
        "experiment=resnet", *tiny["classification"], *SMALL["resnet"], "trainer.train_steps=4", "trainer.steps_per_loop=1",
        "trainer.summary_interval=1", "trainer.checkpoint_interval=2", "trainer.validation_interval=4",
        f"runs_dir={tmp_path}", f"run_dir={tmp_path / 'seeds'}", "seeds=2",
    ]  # fmt: skip
    trellis("data", *tiny["classification"])
    first = trellis.start("reproduce", *command)
    ledger = tmp_path / "seeds" / "ledger.jsonl"
    until = time.monotonic() + 900
    while not (ledger.exists() and '"finished"' in ledger.read_text()):
        assert time.monotonic() < until and first.poll() is None
        time.sleep(0.2)
    first.send_signal(signal.SIGINT)
    printed, _ = first.communicate(timeout=600)
    assert first.returncode == 130, printed
    assert "To resume: make reproduce EXP=resnet DATA=image_folder SEEDS=2" in printed

    printed = trellis("reproduce", *command, code=3)
    assert "resnet: accuracy 0.9822 ± 0.018 stated by docs/benchmarks.md" in printed
    assert "2 trials, 1 of them finished earlier" in printed
    document = json.loads((tmp_path / "seeds" / "reproduction.json").read_text())
    assert set(document["values"]) == {"0", "1"}
    assert document["figure"]["margin"] == 0.018
    lines = printed.strip().splitlines()
    assert lines[-1] == document["word"] == "rescaled"
    assert any(line.startswith("changed: trainer.train_steps") for line in lines)
    assert not any("seed" in line for line in document["departures"]["changed"])


def test_no_seeds_are_refused(trellis, tmp_path):
    printed = trellis("reproduce", "experiment=resnet", "seeds=0", f"runs_dir={tmp_path}", code=2)
    assert "seeds: 0; at least 1" in printed
