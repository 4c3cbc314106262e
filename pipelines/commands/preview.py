"""Draws a contact sheet of the data and a page of statistics.    make preview DATA=digit_scenes

With an experiment (make preview EXP=retinanet) the pictures are what its model is trained on: augmented and resized.
"""

from etils import epath

from pipelines import assembly, config
from pipelines.config import Config

PICTURES = 24


def run(cfg: Config) -> int:
    """Writes <data_dir>/previews/<data set>.png and .html."""
    cfg = config.anchored(cfg)
    prepared = assembly.with_data(cfg)
    data = prepared.data
    from pipelines.data import preview  # Pillow and NumPy: only where something is drawn.
    from pipelines.data.reading import pictures  # TensorFlow: 10 s.

    name = f"{data.dataset}-{data.fingerprint}"
    if cfg.garden:
        params = assembly.resolved(cfg, prepared.task, data)
        shown = pictures.as_trained(params, data, PICTURES)
        name = f"{name}-{cfg.name}"
    else:
        shown = pictures.as_decoded(data, PICTURES)
    folder = epath.Path(cfg.data_dir) / "previews"
    file = folder / f"{name}.png"
    page = folder / f"{name}.html"
    count = preview.sheet(shown, data.labels, file)
    preview.page(data, file.name, page)
    print(f"{count} pictures: {file}\nstatistics: {page}")
    return 0


main = config.composed(run)
