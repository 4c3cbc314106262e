"""What can be a backbone beside Model Garden's own: networks of Keras Applications, and SavedModels."""

import dataclasses
from typing import Any

from official.vision.configs import backbones

from pipelines.training import keras_applications, saved_models
from pipelines.training.keras_applications import Keras
from pipelines.training.saved_models import SavedModel

TYPES = (keras_applications.TYPE, saved_models.TYPE)


@dataclasses.dataclass
class Backbone(backbones.Backbone):
    """Model Garden's choice of backbones, and these."""

    keras: Keras = dataclasses.field(default_factory=Keras)
    saved_model: SavedModel = dataclasses.field(default_factory=SavedModel)


def offered(params: Any) -> None:
    """Adds these backbones to the choice that an experiment has."""
    model = getattr(params.task, "model", None)
    if model is None or not hasattr(model, "backbone"):
        return
    choice = Backbone()
    choice.override(model.backbone.as_dict())
    model.backbone = choice
