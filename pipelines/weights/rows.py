"""Networks to choose from, with what is known of each: published rows of `conf/zoo/` and the cards of weights."""

from dataclasses import dataclass

import yaml

from pipelines import config
from pipelines.weights import cards

FOLDER = config.FOLDER / "zoo"
NETWORKS = {  # that start from a card, by task: their experiments
    "classification": "efficientnet_lite0",
    "detection": "retinanet_lite0",
    "segmentation": "deeplabv3plus_lite0",
}
HERE = "efficientnet_lite0"  # the card whose weights are always here


@dataclass(frozen=True)
class Row:
    """One network for one task.

    Attributes:
        value: of `metric`, in percent, published; None where nothing is.
        init: the card of weights that are here for it; empty: none are.
    """

    name: str
    task: str
    model: str
    licence: str
    params_m: float
    source: str
    metric: str = ""
    value: float | None = None
    data: str = ""
    flops_b: float | None = None
    input_size: int | None = None
    cpu_ms: float | None = None
    size_mb: float | None = None
    garden: str = ""
    imports: str = ""
    keras: str = ""
    experiment: str = ""
    init: str = ""

    def command(self, dataset: str) -> str:
        """What to type to start from it."""
        data = f" DATA={dataset}" if dataset else ""
        if self.init:
            return f"make finetune EXP={self.experiment}{data}"
        if self.experiment:
            return f"make train EXP={self.experiment}{data}"
        if self.keras:
            chosen = f"task.model.backbone={{type:keras,keras:{{model_name:{self.keras}}}}}"
            return f"make train EXP=resnet{data} ARGS='{chosen}'"
        imports = f" imports=[{self.imports}]" if self.imports else ""
        return f"make train{data} ARGS='garden={self.garden} name={self.garden}{imports}'"


def load() -> list[Row]:
    """Every row there is."""
    rows = [_of_card(task) for task in NETWORKS]
    for file in sorted(FOLDER.glob("*.yaml")):
        for document in yaml.safe_load(file.read_text()):
            rows.append(Row(**document))
    return rows


def _of_card(task: str) -> Row:
    card = cards.load(HERE)
    experiment = NETWORKS[task]
    row = Row(
        name=experiment,
        task=task,
        model=f"EfficientNet-Lite0, backbone alone ({experiment})",
        licence=card.licence,
        params_m=card.params_m,
        source="docs/zoo.md",
        flops_b=card.flops_b,
        input_size=card.input_size,
        experiment=experiment,
        init=card.name,
    )
    if task != "classification":
        return row
    percent = 100 * card.figure["value"]
    return Row(**{**vars(row), "metric": "top1", "value": percent, "data": "imagenet2012"})
