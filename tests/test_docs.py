"""What the pages say can be typed and followed: links, anchors, commands, names, counts."""

import re
import tomllib
from pathlib import Path

import pytest

from pipelines import config

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
TARGET = re.compile(r"\bmake ([a-z]+(?:-[a-z]+)*)\b")
VERB = re.compile(r"\btrellis ([a-z]+)\b(?= [a-z@+-]|`)")
CHOICE = re.compile(r"\b(EXP|DATA|RUNTIME|SWEEP)=([a-z][\w/]*)")
GROUPS = {"EXP": "experiment", "DATA": "dataset", "RUNTIME": "runtime", "SWEEP": "sweep"}


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


def written_as_code(page: Path) -> str:
    """What stands between backticks or indented by four blanks: what a reader copies."""
    text = page.read_text()
    indented = re.findall(r"^ {4}.*$|^```\n(?:.*\n)*?```$", text, re.MULTILINE)
    return "\n".join([*re.findall(r"`([^`\n]+)`", text), *indented])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    lost = []
    for link in LINK.findall(page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    assert lost == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    verbs = {file.stem for file in (ROOT / "pipelines" / "commands").glob("[!_]*.py")}
    code = written_as_code(page)
    assert set(TARGET.findall(code)) <= targets
    assert set(VERB.findall(code)) <= verbs


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_can_be_chosen(page: Path) -> None:
    unknown = []
    # What a page writes for the reader's own project can be chosen there.
    own = re.findall(r"^# settings/\w+/(\w+)\.yaml$", page.read_text(), re.MULTILINE)
    for variable, name in CHOICE.findall(written_as_code(page)):
        choices = list(config.options(GROUPS[variable]))
        official = [choice.removeprefix("catalogue/") for choice in choices]
        if name not in [*choices, *official, *own]:
            unknown.append(f"{variable}={name}")
    assert unknown == []


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = {page.name for page in ROOT.glob("docs/*.md")} - {"README.md"}
    assert {page for page in pages if f"({page})" not in index} == set()


def test_every_verb_has_a_target() -> None:
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    verbs = {file.stem for file in (ROOT / "pipelines" / "commands").glob("[!_]*.py")}
    assert verbs <= set(targets)


def test_the_readme_states_the_python_that_is_required() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = re.search(r"3\.\d+", project["requires-python"])
    assert version and f"Python {version[0]}" in (ROOT / "README.md").read_text()
