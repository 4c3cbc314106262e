"""Files that annotations name, found in the folders of a source and read as they were listed."""

import hashlib
import posixpath
from collections.abc import Iterable, Sequence

from pipelines.data import files
from pipelines.data.example import Example, Folder, Rejected
from pipelines.data.keys import ALL, NOT_TEXT, is_text
from pipelines.data.listing import Request, Tally
from pipelines.usage import UsageError

ESCAPES = (
    "path_escapes",
    "a path is taken inside its folder; write it without ../ and not from the root",
)
CHANGED = "it has changed since it was listed"
HIDDEN = "files whose name starts with a dot are left out; rename the file and its entry"
NAMELESS = "(no file_name)"
# Endings and names of files that lie beside images and are none. Whatever else is no image is
# rejected by name.
_BESIDE = (
    ".txt .md .rst .htm .html .pdf .doc .docx .rtf .csv .tsv .xls .xlsx .json .jsonl .xml .yaml .yml "
    ".toml .ini .cfg .log .py .sh .ipynb .db .lnk .url .md5 .sha256"
)
BALLAST = tuple(_BESIDE.split())
BALLAST_NAMES = (
    "readme",
    "license",
    "licence",
    "copying",
    "authors",
    "changelog",
    "makefile",
    "checksums",
)


def is_ballast(name: str) -> bool:
    """Whether a file is no image by its name, such as README.txt or Thumbs.db."""
    last = name.rsplit("/", 1)[-1].lower()
    return last.endswith(BALLAST) or last in BALLAST_NAMES


def without_ballast(names: Iterable[str], tally: Tally) -> list[str]:
    """Returns the names that are to be images; notes the others."""
    images: list[str] = []
    for name in names:
        if is_ballast(name):
            tally.ballast.append(name)
        else:
            images.append(name)
    return images


def folder_of(request: Request, field: str, given: str) -> Folder:
    """The folder of a field for a split of another field.

    Raises:
        UsageError: the two name different splits.
    """
    return folders_of(request, field, given)[0]


def folders_of(request: Request, field: str, given: str) -> list[Folder]:
    """The folders of a field for a split of another field, in their order.

    Raises:
        UsageError: the two name different splits.
    """
    splits = request.places[field]
    split = given if given in splits else ALL
    if split not in splits:
        raise UsageError(
            f"dataset.{field} has {', '.join(splits)}, "
            f"other locations have {given or 'one path'}; "
            "give all of them the same splits"
        )
    folders: list[Folder] = []
    for name, by_split in request.places.items():
        # The second folder of a field is listed under the name `images 2`.
        if name.split()[0] == field and split in by_split:
            folders.append(request.folder(name, split))
    return folders


def files_of(request: Request, field: str) -> dict[str, str]:
    """Digests of a field's files, by the split that each is for.

    Raises:
        UsageError: one is a folder.
    """
    digests: dict[str, str] = {}
    for given, listed in request.digests[field].items():
        if "" not in listed:
            path = request.places[field][given]
            raise UsageError(f"dataset.{field}: {path} is a folder; give the file in it")
        digests[given] = listed[""]
    return digests


def find(
    name: str,
    folders: Sequence[Folder],
    kind: str = "image",
) -> tuple[str, str]:
    """Path and digest of a file that an annotation names, in the first folder that has it.

    The verdict depends on the name and on what lies in the folders, not on where they lie.

    Raises:
        Rejected: no folder has it, it leads outside, or two folders have different files of that name.
    """
    if not is_text(name):
        raise Rejected(*NOT_TEXT)
    plain = posixpath.normpath(name)
    if plain.startswith(("/", "../")) or plain == "..":
        raise Rejected(*ESCAPES)
    digests: dict[str, str] = {}
    for folder in folders:
        if plain in folder.digests:
            digests[f"{folder.path}/{plain}"] = folder.digests[plain]
    if not digests or not name:
        raise _missing(plain if name else "", folders, kind)
    if len(set(digests.values())) > 1:
        advice = f"different files have this name: {' and '.join(digests)}; rename or remove one"
        raise Rejected(f"{kind}_ambiguous", advice)
    return next(iter(digests.items()))


def _missing(
    name: str,
    folders: Sequence[Folder],
    kind: str,
) -> Rejected:
    for folder in folders:
        if refusal := folder.refusal(name):
            return Rejected(*refusal)
    for part in name.split("/"):
        if part.startswith(".") and part != ".":
            return Rejected(f"{kind}_missing", HIDDEN)
    where = "in none of the folders" if len(folders) > 1 else "not there"
    return Rejected(f"{kind}_missing", f"the file is {where}; add it or remove its entry")


def read(example: Example, file: str) -> bytes:
    """The bytes of a file that an example is made from, as they were when it was listed.

    Raises:
        OSError: the file is not there, or cannot be read.
        UsageError: it holds something else by now, under a fingerprint that was taken before.
    """
    content = files.read(file)
    listed = example.files.get(file)
    if listed is not None and listed != hashlib.sha256(content).hexdigest():
        advice = "run the same command again when nothing writes to it any more"
        raise UsageError(f"{file}: {CHANGED}; {advice}")
    return content
