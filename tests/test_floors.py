"""The house's floors: who may import what, read from the source with `ast`."""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.test_statements import offending

ROOT = Path(__file__).parent.parent
FOLDERS = ("pipelines", "tasks", "conf", "benchmarks")
FILES = sorted(
    path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")
)
BANNED = {
    "utils",
    "util",
    "helpers",
    "helper",
    "common",
    "base",
    "manager",
    "handler",
    "factory",
    "wrapper",
    "data2",
}

COMPARING = "benchmarks/compare.py"  # decodes what both tools wrote
PROBING = ("benchmarks/operations.py", "benchmarks/caches.py")  # TensorFlow itself is measured
# Where a library may be imported: a folder or a file.
LIBRARIES = {
    # The second file is what MLflow's own server runs.
    "mlflow": ["pipelines/tracking", "pipelines/shipping/served.py"],
    "apache_beam": ["pipelines/data"],
    "tensorflow_datasets": ["pipelines/data"],
    "fsspec": ["pipelines/data/files.py"],
    "hydra": ["pipelines/config.py", "pipelines/sweeps"],  # Sweeps are written in its grammar.
    "omegaconf": ["pipelines/config.py"],
    "optuna": ["pipelines/sweeps"],
    "orbit": ["pipelines/training"],
    "official": [
        "pipelines/training",
        "pipelines/data/reading",
        "pipelines/shipping",
        COMPARING,
    ],  # Reads records as training will.
    "tensorflow": [
        "pipelines/training",
        "pipelines/data/reading",
        "pipelines/shipping",
        COMPARING,
        *PROBING,
    ],
    "onnx": ["pipelines/shipping"],
    "onnxruntime": ["pipelines/shipping"],
    "tf2onnx": ["pipelines/shipping"],
    "tf_keras": ["pipelines/training", "pipelines/shipping/graphs.py"],
}
SHARED = "pipelines.data.manifest"  # what was built: the one thing that every subject may know of another
# What every floor stands on; each knows those before it, and its own folder.
GROUND = (
    "pipelines.usage",
    "pipelines.outside",
    "pipelines.statistics",
    "pipelines.outcomes",
    "pipelines.system",
    "pipelines.own",
)
GROUND_LIBRARIES = {"psutil", "google_crc32c", "numpy", "scipy"}
# What only one room may say, since every room asks it: copies of it drift apart.
WRITTEN_ONCE = {
    "PYTHONPATH": "pipelines/system/processes.py",
    "sched_getaffinity": "pipelines/system/processes.py",
    "cpu_count": "pipelines/system/processes.py",
    "prctl": "pipelines/system/processes.py",
    "fcntl": "pipelines/system/durable.py",
    "google_crc32c": "pipelines/system/tfrecord.py",
}
ASSEMBLY = Path("pipelines/assembly.py")  # knows every subject; only commands know it
# A command that may run others.
COMMANDS = {"reproduce": {"train", "sweep"}, "finetune": {"train"}}


@functools.cache
def parsed(file: Path) -> ast.Module:
    return ast.parse((ROOT / file).read_text())


@functools.cache
def imports(file: Path) -> list[tuple[str, ast.stmt]]:
    """Every module that `file` imports, with the statement; of `from a import b` both `a` and, where it is one, `a.b`."""
    return list(_imports(file))


def _imports(file: Path) -> Iterator[tuple[str, ast.stmt]]:
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield (inner if is_ours(inner) else node.module or "."), node


def is_ours(module: str) -> bool:
    """Whether `module` is one of our files or folders."""
    path = ROOT / Path(*module.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def allowed(file: Path, module: str) -> bool:
    """Whether the floor of `file` may import `module`, one of ours."""
    first, *rest = module.split(".")
    ground = ".".join(module.split(".")[:2])
    itself = ".".join(file.with_suffix("").parts[:2])
    if itself in GROUND:
        lower = GROUND[: GROUND.index(itself)]
        return ground in lower or (ground == itself and (ROOT / Path(*itself.split("."))).is_dir())
    if ground in GROUND:
        return True
    # A benchmark runs this tool as users do, by its command.
    if file.parts[0] in ("tasks", "conf", "benchmarks"):
        return first == file.parts[0]
    if file.parts[:2] == ("pipelines", "commands"):
        return (
            rest[:1] != ["commands"]
            or rest[1:] == [file.stem]
            or set(rest[1:]) <= COMMANDS.get(file.stem, set())
        )
    if file == ASSEMBLY:
        return rest[:1] != ["commands"]
    if file == Path("pipelines/config.py"):
        return first == "conf"
    own = len(file.parts) > 2 and rest[:1] == [file.parts[1]]
    return first == "pipelines" and (own or rest in ([], ["config"]) or module == SHARED)


def reached(module: str, needs: Mapping[str, set[str]]) -> set[str]:
    """What `module` imports, and what that imports, at the top of a file or later."""
    modules: set[str] = set()
    waiting = [module]
    while waiting:
        new = needs.get(waiting.pop(), set()) - modules
        modules |= new
        waiting += new
    return modules


def is_ground(file: Path) -> bool:
    """Whether every floor stands on `file`."""
    return ".".join(file.with_suffix("").parts[:2]) in GROUND


def is_command(file: Path) -> bool:
    """Whether what the functions of `file` return may become an exit code."""
    return file.parts[:2] == ("pipelines", "commands") or file == Path("pipelines/__main__.py")


def ends_the_process(call: ast.Call) -> bool:
    """Whether this is sys.exit(code) or os._exit(code)."""
    return (
        isinstance(call.func, ast.Attribute)
        and call.func.attr in ("exit", "_exit")
        and bool(call.args)
    )


def names_a_code(value: ast.expr) -> bool:
    """Whether a number above 0 stands there for what it means."""
    choices = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
    return any(
        isinstance(choice, ast.Constant) and type(choice.value) is int and choice.value > 0
        for choice in choices
    )


def from_above(file: Path) -> list[str]:
    ours = {module for module, _ in imports(file) if module.split(".")[0] in FOLDERS}
    return [module for module in sorted(ours) if not allowed(file, module)]


def test_a_file_imports_only_its_own_floor_and_those_below() -> None:
    assert offending(from_above, FILES) == {}


def test_no_room_needs_itself() -> None:
    needs = {}
    for file in FILES:
        module = ".".join(file.with_suffix("").parts).removesuffix(".__init__")
        needs[module] = {name for name, _ in imports(file)} - {module}
    assert [module for module in needs if module in reached(module, needs)] == []


@pytest.mark.parametrize("file", [file for file in FILES if is_ground(file)], ids=str)
def test_the_ground_needs_no_framework(file: Path) -> None:
    packages = {module.split(".")[0] for module, _ in imports(file)} - set(FOLDERS)
    assert packages - sys.stdlib_module_names - GROUND_LIBRARIES == set()


@pytest.mark.parametrize("word", WRITTEN_ONCE)
def test_what_the_ground_does_is_written_there_alone(word: str) -> None:
    rooms = [file for file in FILES if file.parts[0] in ("pipelines", "tasks")]
    writers = [file for file in rooms if word in (ROOT / file).read_text()]
    assert writers == [Path(WRITTEN_ONCE[word])]


def strangers(file: Path) -> list[str]:
    libraries = {module.split(".")[0] for module, _ in imports(file)} & set(LIBRARIES)
    return [name for name in libraries if not any(map(file.is_relative_to, LIBRARIES[name]))]


def test_a_library_belongs_to_one_subject() -> None:
    assert offending(strangers, FILES) == {}


def relative(file: Path) -> list[int]:
    nodes = ast.walk(parsed(file))
    return [node.lineno for node in nodes if isinstance(node, ast.ImportFrom) and node.level]


def test_imports_are_absolute() -> None:
    assert offending(relative, FILES) == {}


def unexplained(file: Path) -> list[int]:
    lines = (ROOT / file).read_text().splitlines()
    inner = sorted(
        {
            (node.lineno, node.end_lineno or node.lineno)
            for _, node in imports(file)
            if node.col_offset
        }
    )
    said: set[int] = set()  # lines after which a comment still speaks: those of a block of imports
    for first, last in inner:
        above = lines[first - 2].strip().startswith("#") or first - 1 in said
        if above or any("#" in line for line in lines[first - 1 : last]):
            said.add(last)
    return [first for first, last in inner if last not in said]


def test_an_import_that_is_not_at_the_top_says_why() -> None:
    assert offending(unexplained, FILES) == {}


@pytest.mark.parametrize("file", [file for file in FILES if is_command(file)], ids=str)
def test_exit_codes_come_from_the_one_table(file: Path) -> None:
    nodes = list(ast.walk(parsed(file)))
    left = [node.args[0] for node in nodes if isinstance(node, ast.Call) and ends_the_process(node)]
    returned = [node.value for node in nodes if isinstance(node, ast.Return) and node.value]
    assert [value.lineno for value in (*left, *returned) if names_a_code(value)] == []


def banned(file: Path) -> list[str]:
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    nodes = ast.walk(parsed(file))
    names = [
        *file.with_suffix("").parts,
        *(node.name for node in nodes if isinstance(node, definitions)),
    ]
    words = {word.lower() for name in names for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+", name)}
    return sorted(words & BANNED)


def test_names_say_the_thing() -> None:
    assert offending(banned, FILES) == {}


@pytest.mark.parametrize(
    "file",
    [
        file
        for file in FILES
        if file.parts[:2] == ("pipelines", "commands") and file.stem != "__init__"
    ],
    ids=str,
)
def test_a_verb_is_one_file_with_a_main_and_says_what_it_does(file: Path) -> None:
    tree = parsed(file)
    assert ast.get_docstring(tree)
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    targets = [
        target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets
    ]
    assert "main" in functions | {target.id for target in targets if isinstance(target, ast.Name)}


def silent(file: Path) -> list[str]:
    text = (ROOT / file).read_text()
    return [] if not text.strip() or ast.get_docstring(parsed(file)) else ["no docstring"]


def test_every_room_says_what_it_is_for() -> None:
    rooms = [file for file in FILES if file.parts[:2] != ("pipelines", "commands")]
    assert offending(silent, rooms) == {}


# What a command imports stays as it is: no hook in the import system, no TensorFlow.
UNTOUCHED = """
import sys
before = list(sys.meta_path)
from pipelines.commands import launch, sweep
assert sys.meta_path == before, sys.meta_path
assert "tensorflow" not in sys.modules and not [name for name in sys.modules if name.startswith("pipelines.training")]
import requests
assert requests.__file__ and type(requests) is type(sys)
"""


def test_importing_a_command_changes_nothing_else() -> None:
    subprocess.run([sys.executable, "-c", UNTOUCHED], check=True, timeout=300)


# What the file of a task in `pipelines/data/reading` has.
READING = {"decode", "parser", "problems", "as_decoded", "as_trained"}


@pytest.mark.parametrize("name", [path.stem for path in (ROOT / "tasks").glob("[!_]*.py")])
def test_a_task_is_two_files_of_one_name(name: str) -> None:
    tree = ast.parse((ROOT / "pipelines" / "data" / "reading" / f"{name}.py").read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert functions >= READING


def test_places_named_here_exist() -> None:
    assert [
        place for places in LIBRARIES.values() for place in places if not (ROOT / place).exists()
    ] == []
