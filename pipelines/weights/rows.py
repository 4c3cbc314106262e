"""Networks to choose from, with what is known of each: published rows of `conf/zoo/` and the cards of weights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import yaml

from pipelines import config
from pipelines.weights import cards

FOLDER = config.FOLDER / "zoo"
NETWORKS = {  # that start from a card, by task: their experiments
    "classification": "efficientnet_lite0",
    "detection": "retinanet_lite0",
    "segmentation": "deeplabv3plus_lite0",
}
PUBLISHED = "published/"  # begins the name of a recipe
HERE = "efficientnet_lite0"  # the card whose weights are always here
WORD = 4  # bytes of a parameter


@dataclass(frozen=True)
class Row:
    """One network for one task.

    Attributes:
        value: of `metric`, in percent, published; None where nothing is.
        cpu_ms: published, of another machine.
        here_ms: measured on this one, as `memory_mb` is; None where it was not.
        size_mb: of the file of weights; where nobody says it, that of all parameters in float32.
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
    here_ms: float | None = None
    memory_mb: float | None = None
    size_mb: float | None = None
    garden: str = ""
    imports: str = ""
    keras: str = ""
    experiment: str = ""
    init: str = ""

    def words(self) -> list[str]:
        """What chooses it on a command line."""
        if self.experiment:
            return [f"experiment={self.experiment}"]
        if self.keras:
            backbone = f"task.model.backbone={{type:keras,keras:{{model_name:{self.keras}}}}}"
            edge = self.input_size
            return ["experiment=resnet", backbone, f"task.model.input_size=[{edge},{edge},3]"]
        imports = [f"imports=[{self.imports}]"] if self.imports else []
        return [f"garden={self.garden}", f"name={self.garden}", *imports]

    def _states_classes(self) -> bool:
        """Whether it is a recipe with the number of its own data's classes, which other data contradict."""
        if not self.experiment.startswith(PUBLISHED):
            return False
        recipe = config.compose(self.words())
        model = recipe.task.get("model") or {}
        return "num_classes" in model

    def command(self, dataset: str, places: Sequence[str] = ()) -> str:
        """What to type to start from it.

        Args:
            places: words that say what and where the data are.
        """
        first, *others = self.words()
        verb = "finetune" if self.init else "train"
        parts = [f"make {verb}"]
        if first.startswith("experiment="):
            parts.append(first.replace("experiment=", "EXP=", 1))
        else:
            others = [first, *others]
        if dataset:
            parts.append(f"DATA={dataset}")
            if self._states_classes():
                others.append("~task.model.num_classes")
        others = [*others, *places]
        if others:
            parts.append(f"ARGS='{' '.join(others)}'")
        return " ".join(parts)


def load() -> list[Row]:
    """Every row there is."""
    rows = [_of_card(task) for task in NETWORKS]
    for file in sorted(FOLDER.glob("*.yaml")):
        for document in yaml.safe_load(file.read_text()):
            rows.append(Row(**document))
    return [_sized(row) for row in rows]


def _sized(row: Row) -> Row:
    return row if row.size_mb else replace(row, size_mb=round(WORD * row.params_m, 1))


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
