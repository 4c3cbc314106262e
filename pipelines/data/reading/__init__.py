"""Records as Model Garden reads them: one file for each task, in which alone data import TensorFlow.

The file of a task has five functions:

    decode(record, built)                     values by name, as the official decoder returns them
    parser(built)                             decoder and parser, one after the other
    problems(record, built)                   what is wrong with a record, one line each
    as_decoded(record, built, caption)        the picture of a record
    as_trained(image, labels, number, built)  the picture of one image of a training batch, with its targets
    colours(batch, data)                      optional: the colours of a training batch, where it is no batch of images

`record` is a serialized `tf.train.Example`, or `SequenceExample` of a clip, and `built` the manifest that it belongs to.
"""

import importlib
from types import ModuleType

from pipelines import own

SIZE = 64  # pixels of a parsed image's side: enough to run the parser


def load(task: str) -> ModuleType:
    """Imports the file of one task, and TensorFlow with it; that of the user's own `x.y` is `x.y_reading`."""
    if "." in task:
        return own.imported(f"{task}_reading", "dataset.task")
    return importlib.import_module(f"pipelines.data.reading.{task}")
