"""Adapts pretrained weights to your data: head first, then all of it.    make finetune EXP=retinanet_lite0 DATA=voc …

The same as `make train`, with defaults by the size of the data, said in one line each; whatever you set stands, and so does a
recipe whose figure is stated for as many images.
The backbone keeps every bit until it is released; the rate has then come down to `released_rate` of itself.
"""

import math
from collections.abc import Sequence

from pipelines import assembly, config
from pipelines.assembly import Prepared
from pipelines.commands import train
from pipelines.config import Config
from pipelines.usage import UsageError
from pipelines.weights import cards

FEW, MANY = (
    100,
    2000,
)  # images: under the first only the head learns, above the second the backbone is soon released
EPOCHS = 12  # at `MANY`; steps grow with the root of the number of images
LEAST, MOST = 2, 80
EVALUATIONS = 5
# What an experiment that varies the pictures' size varies by, where there are few.
VARIED = {"aug_scale_min": 0.7, "aug_scale_max": 1.4, "crop_area_range": "[0.5,1.0]"}


def main(overrides: Sequence[str]) -> int:
    """Trains under the defaults and the overrides; the latter win."""
    cfg = config.compose(overrides)
    if cfg.run:
        return train.run(cfg)
    if not cfg.garden:
        raise UsageError(config.NO_EXPERIMENT)
    if not cfg.init:
        raise UsageError(
            f"init: {cfg.name} names no weights to start from; add INIT=<card, checkpoint or run> (all cards: trellis "
            "weights), or INIT=scratch"
        )
    assembly.refuse_other_task(overrides, cfg)
    cfg = assembly.with_starting_weights(cfg)
    prepared = assembly.prepared(cfg)
    images = prepared.data.splits["train"].examples
    _warn(cfg, prepared)
    defaults = _defaults(cfg, images, overrides)
    chosen = [f"{key}={value}" for key, (value, _) in defaults.items()]
    for key, (value, reason) in defaults.items():
        print(f"finetune: {key}={value}: {reason}")
    return train.run(config.compose([*overrides, *chosen]))


def _warn(cfg: Config, prepared: Prepared) -> None:
    """Says what of the data speaks against this start."""
    model = cfg.task.get("model") or {}
    edge = model.get("input_size", [0])[0]
    learned = None
    if cfg.init in cards.names():
        learned = cards.load(str(cfg.init)).input_size
    for note in assembly.notes(prepared.data, model, edge, learned):
        print(f"warning: {note}")


def _defaults(cfg: Config, images: int, overrides: Sequence[str]) -> dict[str, tuple]:
    """Settings that follow from the number of images and the user has not set, each with its reason."""
    if _is_stated(cfg, images):
        print(f"finetune: the recipe's own settings: its figure is stated for {images} images")
        return {}
    said = {word.lstrip("+").partition("=")[0] for word in overrides}
    defaults: dict[str, tuple] = {}
    epochs = min(
        MOST,
        max(LEAST, round(EPOCHS * math.sqrt(MANY / images))),
    )
    if not {"epochs", "trainer.train_steps"} & said:
        defaults["epochs"] = (epochs, f"steps grow with the root of the {images} images")
        defaults["evaluations"] = (EVALUATIONS, "enough to see it rise")
    frozen, reason = _frozen(images, is_pretrained=cfg.init_sha256 is not None)
    defaults["frozen"] = (frozen, reason)
    if 0 < frozen < 1:
        defaults["released_rate"] = _released_rate(images)
    if images < MANY:
        defaults |= _varied(cfg)
    for key in said & set(defaults):
        del defaults[key]
    return defaults


def _is_stated(cfg: Config, images: int) -> bool:
    """Whether the experiment is a recipe for just these data, as its figure says."""
    if cfg.figure is None:
        return False
    return cfg.figure.examples.get("train") == images


def _frozen(images: int, is_pretrained: bool) -> tuple[float, str]:
    if not is_pretrained:
        return 0.0, "random weights have to learn everywhere"
    if images < FEW:
        return 1.0, f"under {FEW} images only the head learns"
    share = 0.3 if images < MANY else 0.1
    return share, "the head first, then everything at a lower rate"


def _released_rate(images: int) -> tuple[float, str]:
    if images < MANY:
        return 0.1, f"under {MANY} images the backbone moves little"
    return 0.3, f"{images} images can move the backbone farther"


def _varied(cfg: Config) -> dict[str, tuple]:
    """More of the augmentation that the experiment has."""
    data = cfg.task.get("train_data") or {}
    nodes = {"task.train_data": data, "task.train_data.parser": data.get("parser") or {}}
    wider: dict[str, tuple] = {}
    for path, node in nodes.items():
        for key, value in VARIED.items():
            if key in node:
                wider[f"{path}.{key}"] = (value, f"under {MANY} pictures they vary more")
    if data.get("aug_crop") is False:
        wider.pop("task.train_data.crop_area_range", None)  # Nothing is cropped.
    return wider
