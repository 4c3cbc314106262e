"""What a training shows while it runs, and what it keeps from the terminal."""

import logging
import warnings

import pytest
import tensorflow as tf

from pipelines.training.progress import quiet


@pytest.mark.filterwarnings("default")
def test_warnings_of_python_and_of_a_logger_without_handlers_go_to_the_file_too(
    tmp_path, monkeypatch, capsys
):
    # Python has a handler of last resort, which prints to the terminal.
    logger = tf.get_logger()
    monkeypatch.setattr(logger, "handlers", [])
    with quiet(tmp_path / "train.log"):
        logger.warning("no gradients")
        print("step 20")
        warnings.warn("an initializer without a seed", stacklevel=1)
    said = (tmp_path / "train.log").read_text()
    assert said.startswith("WARNING:tensorflow:no gradients\nstep 20\n")
    assert "UserWarning: an initializer without a seed" in said
    assert capsys.readouterr() == ("", "")
    assert logger.handlers == []


def test_a_logger_has_its_handlers_back_and_what_listens_in_goes_on(tmp_path, monkeypatch):
    logger = tf.get_logger()
    heard = []
    listener = logging.Handler()
    listener.emit = heard.append
    handlers = [logging.StreamHandler(), listener]
    monkeypatch.setattr(logger, "handlers", handlers)
    with quiet(tmp_path / "train.log"):
        logger.warning("no gradients")
    assert logger.handlers is handlers
    assert len(heard) == 1
