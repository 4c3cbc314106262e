"""Looks at built data: a contact sheet of pictures with what is known of them, and a page of the manifest's figures."""

import colorsys
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from etils import epath
from PIL import Image, ImageDraw

from pipelines.data import manifest
from pipelines.data.manifest import Manifest
from pipelines.outside import printable

SIDE = 256  # pixels of one picture on the sheet, without its caption
CAPTION = 14
COLUMNS = 6
MARGIN = 4  # pixels between two pictures
IGNORED = 255  # the class of pixels that training leaves out
STYLE = (
    "body{font:14px sans-serif;margin:2em}"
    "table{border-spacing:0}"
    "td{padding:1px 8px}"
    ".bar{background:#4a7;height:12px}"
    ".warning{background:#fd8;padding:6px}"
    "img{max-width:100%}"
)


@dataclass(frozen=True)
class Picture:
    """One image as a decoder or parser returned it."""

    image: np.ndarray  # height x width x 3, uint8
    caption: str
    boxes: Sequence[Sequence[float]] | np.ndarray = ()  # (top, left, bottom, right) in pixels
    labels: Sequence[int] = ()  # one a box, from 0
    masks: Sequence[np.ndarray] | np.ndarray = ()  # one a box, height x width
    classes: np.ndarray | None = None  # height x width, from 0; 255 is ignored


def sheet(pictures: Iterable[Picture], names: Sequence[str], file: epath.Path) -> int:
    """Writes a contact sheet as PNG and returns the number of pictures on it."""
    tiles = [_tile(picture, names) for picture in pictures]
    rows = -(-len(tiles) // COLUMNS)
    column_width = SIDE + MARGIN
    row_height = SIDE + CAPTION + MARGIN
    canvas = Image.new(
        "RGB",
        (COLUMNS * column_width, rows * row_height),
        "white",
    )
    for number, tile in enumerate(tiles):
        row, column = divmod(number, COLUMNS)
        canvas.paste(tile, (column * column_width, row * row_height))
    content = io.BytesIO()
    canvas.save(content, "PNG")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.getvalue())
    return len(tiles)


def colour(label: int) -> tuple[int, int, int]:
    """A colour that neighbours in number do not share."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.381966 % 1, 0.9, 1.0)
    return int(255 * red), int(255 * green), int(255 * blue)


def _tile(picture: Picture, names: Sequence[str]) -> Image.Image:
    pixels = _painted(picture)
    height, width = pixels.shape[:2]
    scale = SIDE / max(height, width)
    wide = max(1, round(width * scale))
    tall = max(1, round(height * scale))
    size = (wide, tall)
    tile = Image.new(
        "RGB",
        (SIDE, SIDE + CAPTION),
        "white",
    )
    tile.paste(Image.fromarray(pixels).resize(size), (0, 0))
    draw = ImageDraw.Draw(tile)
    for box, label in zip(picture.boxes, picture.labels, strict=True):
        _draw_box(
            draw,
            [round(float(side) * scale) for side in box],
            label,
            names,
        )
    draw.text(
        (2, SIDE + 1),
        printable(picture.caption, 42),
        fill="black",
    )
    return tile


def drawn(picture: Picture, names: Sequence[str]) -> Image.Image:
    """The picture in its own size with its boxes, masks and classes over it."""
    canvas = Image.fromarray(_painted(picture))
    draw = ImageDraw.Draw(canvas)
    for box, label in zip(picture.boxes, picture.labels, strict=True):
        corners = [round(float(side)) for side in box]
        _draw_box(draw, corners, label, names)
    return canvas


def _painted(picture: Picture) -> np.ndarray:
    """The image, with half of a colour over the pixels of each mask or class."""
    pixels = picture.image.astype(np.float32)
    for label, mask in zip(picture.labels, picture.masks, strict=False):
        inside = mask > 0
        shade = np.array(colour(label), np.float32)
        pixels[inside] = 0.5 * pixels[inside] + 0.5 * shade
    if picture.classes is not None:
        colours = np.array([colour(label) for label in range(256)], np.float32)
        shown = (picture.classes > 0) & (picture.classes != IGNORED)
        pixels[shown] = 0.5 * pixels[shown] + 0.5 * colours[picture.classes[shown]]
    return pixels.astype(np.uint8)


def _draw_box(
    draw: ImageDraw.ImageDraw, box: Sequence[int], label: int, names: Sequence[str]
) -> None:
    top, left, bottom, right = box
    last_column = max(left, right - 1)
    last_row = max(top, bottom - 1)
    draw.rectangle(
        (left, top, last_column, last_row),
        outline=colour(label),
        width=2,
    )
    draw.text(
        (left + 3, top + 1),
        _name(label, names),
        fill="white",
        stroke_width=1,
        stroke_fill="black",
    )


def _name(label: int, names: Sequence[str]) -> str:
    return printable(names[label], 42) if 0 <= label < len(names) else f"class {label}?"


def page(built: Manifest, image: str, file: epath.Path) -> None:
    """Writes the manifest's figures as one HTML page that needs no other file but the sheet."""
    name = html.escape(built.dataset)
    task = html.escape(built.task)
    examples = {split: content.examples for split, content in built.splits.items()}
    sections = [
        f"<h1>{name}</h1>",
        f"<p>{task}, fingerprint {built.fingerprint}, {len(built.labels)} classes</p>",
        *(f"<p class=warning>{html.escape(warning)}</p>" for warning in built.warnings),
        f"<img src='{html.escape(image)}' alt='contact sheet'>",
        _bars("Examples", examples),
        *(_bars(f"Classes in {split}", counts) for split, counts in built.classes.items()),
        _bars("Size of objects: side of the square of equal area, pixels from", built.box_sizes),
        _bars("Size of images: width x height, pixels from", built.image_sizes),
        _bars("Counts", built.counts),
        _bars(f"Rejected, by reason (each one in {manifest.REJECTS})", built.rejects),
    ]
    head = f"<!doctype html><meta charset=utf-8><title>{name}</title><style>{STYLE}</style>"
    file.write_text(f"{head}{''.join(sections)}\n")


def _bars(title: str, counts: Mapping[str, int]) -> str:
    if not counts:
        return ""
    most = max(counts.values()) or 1
    rows = []
    for name, count in counts.items():
        bar = f"<div class=bar style='width:{round(400 * count / most)}px'></div>"
        shown = html.escape(printable(name))
        rows.append(f"<tr><td>{shown}</td><td align=right>{count}</td><td>{bar}</td></tr>")
    return f"<h2>{html.escape(title)}</h2><table>{''.join(rows)}</table>"
