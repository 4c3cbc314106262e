"""Clips in one folder per class, each a folder of frames or an animated picture: waving/0001/0001.jpg, waving/0002.gif.

Frames follow each other by the numbers in their names. Files of video (mp4, avi, …) are rejected with the command that
makes a folder of frames of them.
"""

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from pipelines.config import Dataset
from pipelines.data import frames, images, keys, lookup
from pipelines.data.example import Example, Folder, Loaded, Reason, Reject, Rejected
from pipelines.data.images import EXTENSIONS, NOT_AN_IMAGE, Image
from pipelines.data.listing import Facts, Listing, Request, Tally
from pipelines.outside import printable
from pipelines.usage import UsageError

FACTS = Facts(
    tasks=("video_classification",),
    required=("images",),
    animations=True,
)
VIDEOS = (".mp4", ".m4v", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp")
LONGEST = 200  # characters of a path in a command
UNKNOWN = (
    "unknown_class",
    "move it into the folder of its class, or name the class in dataset.labels",
)


@dataclass
class Clip:
    """What lies in the folder of a clip, or the one file that it is."""

    name: str
    files: list[str] = field(default_factory=list)  # in the order of the frames
    refusal: Reason | None = None  # of the first file that cannot be a frame

    @property
    def is_file(self) -> bool:
        return self.files == [self.name]


def listing(request: Request) -> Listing:
    """Every clip; the classes are the folders' names, sorted, unless `dataset.labels` names them."""
    tally = Tally()
    folders = {given: request.folder("images", given) for given in request.places["images"]}
    clips = {given: _clips(folder, tally) for given, folder in folders.items()}
    for found in clips.values():
        tally.examples += len(found)
    labels = request.dataset.labels or _classes(clips.values())
    if not labels:
        paths = ", ".join(request.places["images"].values())
        expected = "<class>/<clip>/<frame>.jpg or <class>/<clip>.gif"
        raise UsageError(f"dataset.images: no class folders in {paths}; expected {expected}")
    names = tuple(str(label) for label in labels)
    items = _items(
        request.dataset,
        folders,
        clips,
        names,
    )
    return Listing(
        names,
        False,
        items,
        tally=tally,
    )


def _clips(folder: Folder, tally: Tally) -> list[Clip]:
    """The clips of a folder, sorted by name."""
    clips: dict[str, Clip] = {}
    names = lookup.without_ballast({**folder.digests, **folder.unfit}, tally)
    for name in frames.in_order(names):
        place = _clip_of(name)
        clip = clips.setdefault(place, Clip(place))
        clip.files.append(name)
        clip.refusal = clip.refusal or folder.unfit.get(name) or _refusal(name)
    return [clips[place] for place in sorted(clips)]


def _clip_of(name: str) -> str:
    """The folder that a frame is in; a file that lies right in the folder of a class is a clip by itself."""
    parts = name.split("/")
    return name if len(parts) < 3 else "/".join(parts[:-1])


def _refusal(name: str) -> Reason | None:
    """Why a file is no frame, by its name."""
    if name.lower().endswith(VIDEOS):
        stem = name.rpartition(".")[0]
        folder = _word(stem)
        file = _word(name)
        pattern = _word(f"{stem}/%05d.jpg")
        command = f"mkdir -p {folder} && ffmpeg -i {file} -q:v 2 {pattern}"
        return "video_file", f"make a folder of its frames, then remove it: {command}"
    return None if name.lower().endswith(EXTENSIONS) else NOT_AN_IMAGE


def _word(path: str) -> str:
    """A path as one word of a command."""
    return shlex.quote(printable(path, LONGEST))


def _classes(found: Iterable[Iterable[Clip]]) -> list[str]:
    classes: set[str] = set()
    for clips in found:
        classes.update(map(_class_of, clips))
    return sorted(classes - {""})


def _class_of(clip: Clip) -> str:
    """The first folder on the way to a clip; empty where there is none."""
    return clip.name.split("/")[0] if "/" in clip.name else ""


def _items(
    dataset: Dataset,
    folders: Mapping[str, Folder],
    clips: Mapping[str, Iterable[Clip]],
    labels: tuple[str, ...],
) -> Iterator[Example | Reject]:
    for given, found in clips.items():
        for clip in found:
            split = keys.chosen_split(given, clip.name, dataset)
            label = _class_of(clip)
            refusal = clip.refusal
            if label not in labels:
                refusal = refusal or UNKNOWN
            if refusal:
                yield Reject(
                    split,
                    clip.name,
                    clip.name,
                    *refusal,
                )
                continue
            yield _example(
                split,
                clip,
                folders[given],
                labels.index(label),
                label,
            )


def _example(
    split: str,
    clip: Clip,
    folder: Folder,
    number: int,
    label: str,
) -> Example:
    digests = {f"{folder.path}/{name}": folder.digests[name] for name in clip.files}
    own = {"label": number, "text": label, "is_file": clip.is_file}
    return Example(
        split,
        key=clip.name,
        file=next(iter(digests)),
        name=clip.name,
        content=keys.joint_digest(*digests.values(), label),
        own=own,
        files=digests,
    )


def content(example: Example, request: Request) -> bytes:
    """The first frame."""
    encoded = _read(example, example.file)
    return frames.first_of(encoded) if example.own["is_file"] else encoded


def load(example: Example, image: Image, request: Request) -> Loaded:
    """The label of a clip, and all of its frames."""
    if example.own["is_file"]:
        clip = frames.all_of(_read(example, example.file))
    else:
        clip = [image]
        _, *others = example.files
        for file in others:
            encoded = _read(example, file)
            frame = images.read(encoded, request.dataset.convert)
            clip.append(frame)
    frames.check_count(clip)
    frames.check(clip)
    record = {"label": example.own["label"], "text": example.own["text"]}
    return Loaded(record, frames=clip)


def _read(example: Example, file: str) -> bytes:
    try:
        return lookup.read(example, file)
    except OSError as error:
        says = f"the file cannot be opened: {error.strerror or error}"
        advice = f"{says}; bring it back, or remove its clip"
        raise Rejected("frame_missing", advice) from None
