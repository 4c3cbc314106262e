"""Statements that a reader can take in: how much stands on a line, counted in the nodes of the syntax tree."""

import ast
import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def files_in(*folders: str) -> list[Path]:
    """All Python files below these folders of the repository."""
    return sorted(
        path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py")
    )


FILES = files_in("pipelines", "tasks")
BESIDE = files_in("tests", "benchmarks")  # held to the same, but for the average
DENSEST = 40  # nodes a line of one statement
ON_AVERAGE = 8.0  # nodes a line of code, over all files
LONGEST = 40  # lines of a function, its docstring left out; one in a hundred may be longer
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITIONS = (*FUNCTIONS, ast.ClassDef)


@functools.cache
def tree_of(file: Path) -> ast.Module:
    """The syntax tree of a file without its annotations."""
    tree = ast.parse((ROOT / file).read_text())
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS):
            node.returns = None
        elif isinstance(node, ast.arg | ast.AnnAssign):
            node.annotation = None
    return tree


def weight(node: ast.AST) -> int:
    """How many nodes there are from this one on."""
    return sum(1 for _ in ast.walk(node))


def head(statement: ast.stmt) -> tuple[int, int]:
    """Nodes and lines of a statement, of a compound one without its body."""
    if not hasattr(statement, "body"):
        return weight(statement), statement.end_lineno - statement.lineno + 1
    nodes = 1
    for name, value in ast.iter_fields(statement):
        if name not in ("body", "orelse", "finalbody", "handlers", "cases"):
            parts = value if isinstance(value, list) else [value]
            nodes += sum(weight(part) for part in parts if isinstance(part, ast.AST))
    return nodes, max(1, statement.body[0].lineno - statement.lineno)


def docstrings(tree: ast.Module) -> set[int]:
    """Numbers of the lines that docstrings stand on."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, *DEFINITIONS)) and ast.get_docstring(node) is not None:
            lines.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return lines


def lines_of_code(file: Path, tree: ast.Module) -> int:
    """Lines that are neither empty nor a comment nor a docstring."""
    skipped = docstrings(tree)
    lines = enumerate((ROOT / file).read_text().splitlines(), start=1)
    texts = (line.strip() for number, line in lines if number not in skipped)
    return sum(1 for text in texts if text and not text.startswith("#"))


def functions(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Names of functions, and their lines without docstrings."""
    skipped = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS):
            lines = set(range(node.lineno, node.end_lineno + 1)) - skipped
            yield node.name, len(lines)


def offending(problems: Callable[[Path], list[Any]], files: Iterable[Path]) -> dict[str, list[Any]]:
    """What is wrong with some files, by their names; thousands of tests of one file each would take half a minute."""
    found = {str(file): problems(file) for file in files}
    return {name: lines for name, lines in found.items() if lines}


def packed(file: Path) -> list[str]:
    packed = []
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.stmt) and not isinstance(node, DEFINITIONS):
            nodes, lines = head(node)
            if nodes > DENSEST * lines:
                packed.append(f"line {node.lineno}: {nodes} nodes on {lines} lines")
    return packed


def test_no_statement_is_packed() -> None:
    assert offending(packed, [*FILES, *BESIDE]) == {}


def nested(file: Path) -> list[int]:
    nested = []
    for node in ast.walk(tree_of(file)):
        if isinstance(node, COMPREHENSIONS):
            inner = [below for below in ast.walk(node) if isinstance(below, COMPREHENSIONS)]
            nested += [below.lineno for below in inner if below is not node]
    return nested


def test_no_comprehension_stands_in_another() -> None:
    assert offending(nested, [*FILES, *BESIDE]) == {}


def test_lines_hold_little_on_average() -> None:
    nodes = lines = 0
    for file in FILES:
        tree = tree_of(file)
        nodes += weight(tree)
        lines += lines_of_code(file, tree)
    assert nodes / lines <= ON_AVERAGE


def test_few_functions_are_long() -> None:
    lengths = {}
    for file in FILES:
        lengths.update({(file, name, lines): lines for name, lines in functions(tree_of(file))})
    long = [key for key, lines in lengths.items() if lines > LONGEST]
    assert len(long) <= len(lengths) / 100, long
