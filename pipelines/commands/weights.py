"""Pretrained weights: lists, verifies, fetches and adds them.    trellis weights

    trellis weights                    every card: what it is for, and whether its file is here
    trellis weights verify=<card>      compares the file with the card's SHA-256
    trellis weights fetch=<card>       gets the file from where the card says
    trellis weights add=<file> name=<new card> like=<card> licence=<licence> data=<what it learned from>

Start from them with INIT=<card>, a checkpoint's path, or a run.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from pipelines import config, own
from pipelines.config import Config
from pipelines.usage import UsageError, file_name, nearest
from pipelines.weights import cards, store
from pipelines.weights.cards import Card
from pipelines.weights.named import Weights

ACTIONS = ("verify", "fetch", "add")
FACTS = ("name", "like", "licence", "data")  # of a card that is added
KEPT = (
    "layout",
    "backbone",
    "norm_activation",
    "preprocessing",
    "classes",
    "input_size",
    "params_m",
)


def main(overrides: Sequence[str]) -> int:
    """Does the one thing that is asked for, else lists."""
    asked, others = {}, []
    for word in overrides:
        key, _, value = word.partition("=")
        if key in (*ACTIONS, *FACTS):
            asked[key] = value
        else:
            others.append(word)
    cfg = config.compose(others)
    if "add" in asked:
        return _add(asked, cfg)
    for action in ("verify", "fetch"):
        if action in asked:
            return _have(asked[action], cfg, is_fetched=action == "fetch")
    return _list(cfg)


def _list(cfg: Config) -> int:
    for name in cards.names():
        card = cards.load(name)
        try:
            place = store.find(card, cfg.data_dir) or "not here"
        except UsageError as error:
            place = str(error)
        print(f"{name:<20} {card.headline}\n{'':<20} {place}")
    return 0


def _have(name: str, cfg: Config, is_fetched: bool) -> int:
    card = cards.load(name)
    file = store.fetch(card, cfg.data_dir) if is_fetched else store.find(card, cfg.data_dir)
    if file is None:
        raise UsageError(f"{name}: its file is not here; get it: trellis weights fetch={name}")
    print(f"{name}: {file} is what the card says (SHA-256 {card.sha256})")
    return 0


def _add(asked: dict[str, str], cfg: Config) -> int:
    absent = [fact for fact in FACTS if not asked.get(fact)]
    if absent:
        raise UsageError(f"add: say {', '.join(f'{fact}=…' for fact in absent)} too")
    source = Path(config.absolute(asked["add"]))
    if not source.is_file():
        raise UsageError(f"add: there is no file {source}")
    name = file_name(asked["name"], "name")
    if name in cards.names():
        raise UsageError(f"name: there is a card {name} already{nearest(name, cards.names())}")
    like = yaml.safe_load(cards.file(asked["like"]).read_text())
    document = {
        "file": source.name,
        "sha256": store.digest(source),
        "bytes": source.stat().st_size,
        "licence": asked["licence"],
        "sources": [],
        "data": asked["data"],
        **{key: like[key] for key in KEPT if key in like},
    }
    card = Card(name=name, **document)
    Weights(card.sha256, source, card).tensors()  # Refused, where it is of another network.
    place = store.folder(cfg.data_dir) / source.name
    place.parent.mkdir(parents=True, exist_ok=True)
    if place != source:
        shutil.copyfile(source, place)
    file = own.new_file(config.FOLDER, "weights", name)
    file.write_text(f"# {asked['data']}\n{yaml.safe_dump(document, sort_keys=False)}")
    print(f"{name}: wrote {file}; the file lies in {place}; start from it: INIT={name}")
    print(
        f"{name}: it is taken to want (x - {card.preprocessing['mean']}) / {card.preprocessing['deviation']} of pixels from 0 "
        f"to 255, as {asked['like']} does; if it wants another, say so in that file"
    )
    return 0
