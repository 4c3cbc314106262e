"""The model that MLflow's server runs: pictures in base64 in, classes, boxes or masks out. MLflow keeps a copy of this file."""

import base64
import binascii
import json
from pathlib import Path
from typing import Any

import pandas
import tensorflow as tf
from mlflow.exceptions import BAD_REQUEST, MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from pipelines.shipping import answers

SERVING = "serving_default"


class Pictures(PythonModel):
    """The SavedModel of a run, with the preprocessing of its evaluations inside."""

    def load_context(self, context: Any) -> None:
        """Loads the model, once in every process of the server."""
        folder = context.artifacts["saved_model"]
        self._about = json.loads(Path(folder, "assets", "trellis.json").read_text())
        self._loaded = tf.saved_model.load(folder)

    def predict(
        self, context: Any, model_input: pandas.DataFrame, params: Any = None
    ) -> list[dict[str, Any]]:
        """What is in each picture of the column `image`.

        Raises:
            MlflowException: a request that cannot be answered; its sender is told why.
        """
        return [self._answer(text, row) for row, text in enumerate(model_input["image"])]

    def _answer(self, text: str, row: int) -> dict[str, Any]:
        try:
            content = base64.b64decode(text, validate=True)
            picture = tf.io.decode_image(content, channels=3, expand_animations=False)
            found = self._loaded.signatures[SERVING](images=tf.constant([content]))
        except binascii.Error as error:
            raise _bad(row, f"is no base64 ({error})") from None
        except tf.errors.InvalidArgumentError:
            raise _bad(row, "is no JPEG or PNG that can be decoded") from None
        of_this = {name: value[0].numpy() for name, value in found.items()}
        height, width, _ = picture.shape
        return answers.plain(of_this, (height, width), self._about)


def _bad(row: int, reason: str) -> MlflowException:
    return MlflowException(f"image of row {row}: it {reason}", error_code=BAD_REQUEST)


set_model(Pictures())
