"""Whether a SavedModel answers the bytes of pictures as its checkpoint does, its own preprocessing included."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.shipping import graphs, parity
from pipelines.shipping.graphs import Preprocess
from pipelines.shipping.parity import Forward
from pipelines.shipping.prediction import keywords

SERVING = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY


def agreement(
    kind: str,
    contents: Sequence[bytes],
    exported: Path,
    *,
    preprocess: Preprocess,
    forward: Forward,
) -> float:
    """The share of the answers to these pictures that are the checkpoint's.

    Args:
        kind: name of the vision task.
        forward: the checkpoint's model.
    """
    loaded = tf.saved_model.load(str(exported))
    prepare = tf.function(preprocess)
    before = []
    after = []
    for content in contents:
        shown = prepare(tf.constant(content))
        images, shapes = tf.nest.map_structure(lambda part: part[None], shown)
        outputs = dict(forward(images, keywords(shapes)))
        if kind == "detection":
            outputs = graphs.in_the_picture(outputs, shapes["image_info"])
        found = loaded.signatures[SERVING](images=tf.constant([content]))
        side = images.shape[1:3]
        before.append(parity.kept(kind, outputs, 0, side))
        after.append(parity.kept(kind, _as_logits(found), 0, side))
    return parity.share(parity.agreement(kind, before, after))


def _as_logits(found: Mapping[str, Any]) -> dict[str, Any]:
    """Probabilities in the place of logits: the surest class is the same."""
    outputs = dict(found)
    if "probabilities" in outputs:
        outputs["logits"] = np.log(np.maximum(outputs["probabilities"], 1e-30))
    return outputs
