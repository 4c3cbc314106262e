"""MLflow's own format of a model, and its registry: versions under a name, with the aliases `champion` and `previous`."""

import base64
import io
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types.schema import ColSpec, DataType, Schema
from PIL import Image

from pipelines.usage import UsageError

CHAMPION = "champion"
PREVIOUS = "previous"
ARTIFACTS = "served"  # folder of the model among the run's artifacts
MOST_WORDS = 20_000  # of a version's description


def save(
    folder: Path,
    code: Path,
    saved_model: Path,
    metadata: Mapping[str, Any],
) -> None:
    """Writes a model that `mlflow models serve` runs.

    Args:
        code: file of the `PythonModel` that answers.
        saved_model: folder of what it answers with.
        metadata: its own, with the size of its input.
    """
    example = pandas.DataFrame({"image": [_grey(*metadata["input"]["size"])]})
    column = ColSpec(DataType.string, name="image")
    mlflow.pyfunc.save_model(
        folder,
        python_model=str(code),
        artifacts={"saved_model": str(saved_model)},
        signature=ModelSignature(inputs=Schema([column])),
        input_example=example,
        pip_requirements=["mlflow", "tensorflow", "pycocotools", "opencv-python-headless"],
        metadata=dict(metadata),
    )


def _grey(height: int, width: int) -> str:
    """A picture for the example of a request: none of the data's own, which may be nobody else's business."""
    content = io.BytesIO()
    Image.new("RGB", (width, height), "grey").save(content, "JPEG")
    return base64.b64encode(content.getvalue()).decode()


@dataclass(frozen=True)
class Registry:
    """The registry of one store."""

    uri: str

    def add(self, name: str, run_id: str, folder: Path, description: str) -> str:
        """Adds a model as the newest version of a name, and makes it the champion; returns the version."""
        client = self._client()
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        # The versions of one run lie apart: what a rollback goes back to is still there.
        place = f"{ARTIFACTS}/{name}/{uuid.uuid4().hex[:8]}"
        client.log_artifacts(run_id, str(folder), place)
        root = client.get_run(run_id).info.artifact_uri
        version = client.create_model_version(
            name,
            f"{root}/{place}",
            run_id,
            description=description[:MOST_WORDS],
        )
        self._promote(name, str(version.version))
        return str(version.version)

    def roll_back(self, name: str) -> tuple[str, str]:
        """Makes the previous champion the champion again; returns its version, and the one that it replaces.

        Raises:
            UsageError: the name has none.
        """
        champion = self._version(name, CHAMPION)
        previous = self._version(name, PREVIOUS)
        if champion is None or previous is None:
            raise UsageError(
                f"name: {name} has no version {PREVIOUS}; register one first: "
                f"make register RUN=<run> ARGS=name={name}"
            )
        self._promote(name, previous)
        return previous, champion

    def _promote(self, name: str, version: str) -> None:
        before = self._version(name, CHAMPION)
        client = self._client()
        if before is not None and before != version:
            client.set_registered_model_alias(name, PREVIOUS, before)
        client.set_registered_model_alias(name, CHAMPION, version)

    def _version(self, name: str, alias: str) -> str | None:
        try:
            return str(self._client().get_model_version_by_alias(name, alias).version)
        except MlflowException:
            return None

    def _client(self) -> MlflowClient:
        return MlflowClient(self.uri, self.uri)
