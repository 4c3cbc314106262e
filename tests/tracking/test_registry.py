"""MLflow's registry: the newest version is champion, the one before it previous, and a rollback changes them over."""

import shutil
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from pipelines.tracking.registry import CHAMPION, PREVIOUS, Registry
from pipelines.usage import UsageError


@pytest.fixture
def store(empty_store, tmp_path) -> str:
    database = tmp_path / "mlflow.db"
    shutil.copyfile(empty_store, database)
    return f"sqlite:///{database}"


def test_champions_follow_each_other_and_can_be_given_their_title_back(store, tmp_path):
    client = MlflowClient(store, store)
    experiment = client.create_experiment("tries", artifact_location=str(tmp_path / "artifacts"))
    run_id = client.create_run(experiment).info.run_id
    model = tmp_path / "model"
    model.mkdir()
    (model / "MLmodel").write_text("flavors: {}\n")
    registry = Registry(store)

    def holders() -> dict[str, str]:
        aliases = client.get_registered_model("digits").aliases
        return {alias: str(version) for alias, version in aliases.items()}

    assert registry.add("digits", run_id, model, "| card |") == "1"
    assert holders() == {CHAMPION: "1"}
    with pytest.raises(UsageError, match="make register"):
        registry.roll_back("digits")
    (model / "MLmodel").write_text("flavors: {another: 1}\n")
    assert registry.add("digits", run_id, model, "| card |") == "2"
    assert holders() == {CHAMPION: "2", PREVIOUS: "1"}
    assert registry.roll_back("digits") == ("1", "2")
    assert holders() == {CHAMPION: "1", PREVIOUS: "2"}
    version = client.get_model_version("digits", "2")
    assert version.description == "| card |" and version.run_id == run_id
    # What a rollback goes back to is what was registered then.
    kept = {}
    for number in ("1", "2"):
        source = client.get_model_version("digits", number).source
        file = mlflow.artifacts.download_artifacts(f"{source}/MLmodel", tracking_uri=store)
        kept[number] = Path(file).read_text()
    assert kept == {"1": "flavors: {}\n", "2": "flavors: {another: 1}\n"}
