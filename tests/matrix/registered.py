"""The vision experiments that the installed Model Garden holds, whether or not they can be imported: read from its files."""

import re
from importlib.util import find_spec
from pathlib import Path

from pipelines.training import projects

REGISTRATION = re.compile(r"register_config_factory\(\s*['\"]([^'\"]+)['\"]")


def experiments() -> dict[str, str]:
    """The project of each experiment, by name; `core` for those outside of projects."""
    spec = find_spec("official")
    assert spec and spec.submodule_search_locations
    root = Path(next(iter(spec.submodule_search_locations)))
    found = _in(root / "vision" / "configs", "core")
    for project in projects.REGISTERING:
        found |= _in(root / "projects" / project, project)
    return dict(sorted(found.items()))


def _in(folder: Path, project: str) -> dict[str, str]:
    found = {}
    for file in sorted(folder.rglob("*.py")):
        if "nlp" in file.parts:
            continue
        for name in REGISTRATION.findall(file.read_text()):
            found[name] = project
    return found
