"""Whatever is typed as overrides: a configuration that survives its own record, or a message; never a traceback, never for long."""

import contextlib
import dataclasses
import io
import itertools
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipelines import __main__ as console
from pipelines import assembly, config
from pipelines.sweeps import commandline, proposals, space
from pipelines.usage import UsageError
from tests.fuzzing import examples

SECONDS = 2  # of one composition; a tenth of a second is usual
BASES = [[], ["experiment=resnet"], ["experiment=retinanet"], ["dataset=voc", "sweep=tpe"]]


def keys_of(node: Any, above: str = "") -> list[str]:
    """Every key of nested mappings, as an override names it."""
    if not isinstance(node, dict):
        return [above] if above else []
    inner = itertools.chain.from_iterable(
        keys_of(value, f"{above}.{key}" if above else str(key)) for key, value in node.items()
    )
    return [*([above] if above else []), *inner]


def known_keys() -> list[str]:
    keys = {
        f"{name}.{inner}" for name, owner in OWNERS.items() for inner in owner.__dataclass_fields__
    }
    for base in BASES:
        keys.update(keys_of(vars(config.compose(base))))
    return sorted(keys)


OWNERS = {
    "dataset": config.Dataset,
    "figure": config.Figure,
    "sweep": config.Sweep,
    "threads": config.Threads,
}
KEYS = known_keys()
CHOICES = [f"{group}={name}" for group in config.GROUPS for name in config.options(group)]
ODD_KEYS = [
    "",
    "dataset@x",
    "experiment@task",
    "dataset@_global_",
    "runtime@trainer",
    "dataset@a:b",
    "dataset/coco",
    "hydra",
    "hydra.run.dir",
    "hydra/job_logging",
    "defaults",
]
MARKS = [*"[]{}'\"\\,:=$()@~+-*./ \t\n\r#%&;|<>?!^", "\x1b", "\u202e", "\udcff", "日", *"az09_ü"]
WORDS = [
    "off",
    "yes",
    "???",
    "1e3",
    "0x1f",
    "null",
    "nan",
    "a b",
    "2017-01-01",
    "1:2",
    "~",
    "1_000",
    "${x}",
]
INTERPOLATIONS = [
    "${name}",
    "${task}",
    "${sweep}",
    "${dataset}",
    "${threads}",
    "${seed}",
    "${run_dir}",
    "${dataset.name}",
    "${trainer.train_steps}",
    "${.x}",
    "${...x}",
    "${${name}}",
    "${",
    "${}",
    "$",
    "${oc.env:HOME}",
    "${oc.env:NOT_SET}",
    "${oc.env:X,1}",
    "${oc.decode:'[1'}",
    "${oc.create:{a:1}}",
    "${oc.select:x}",
    "${oc.deprecated:seed}",
    "${oc.dict.keys:task}",
    "${now:%Y}",
    "${now:%}",
    "${now:}",
    "${hydra:runtime.cwd}",
    "${unknown:1}",
    "\\${name}",
]
SWEEPS = [
    "1,2",
    "1,",
    ",1",
    "a,,b",
    "range(1,4)",
    "range(3)",
    "range(1,0)",
    "range(0,1,0)",
    "range(a)",
    "range(0,1e9,1)",
    "choice(a,b)",
    "choice()",
    "choice([1],{a:1})",
    "glob(*)",
    "glob([a*,b*],exclude=c)",
    "interval(0,1)",
    "interval(1)",
    "interval(b,a)",
    "interval(2,1)",
    "interval(0,inf)",
    "interval(nan,1)",
    "tag(log,interval(1,2))",
    "tag(log,interval(-1,2))",
    "tag(a,b)",
    "tag()",
    "int(interval(1,9))",
    "int(3)",
    "int(x)",
    "int({a:x})",
    "float([1,2])",
    "float(null)",
    "str([1])",
    "bool(7)",
    "json_str({a:1})",
    "sort(3,1)",
    "sort(1,a)",
    "shuffle(1,2)",
    "unknown(1)",
]


def altered(text: str, changes: list[tuple[str, int, str]]) -> str:
    """`text` with single characters inserted, replaced, removed."""
    for kind, place, mark in changes:
        at = place % (len(text) + 1)
        text = text[:at] + ("" if kind == "remove" else mark) + text[at + (kind != "insert") :]
    return text


def misspelt(right: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    change = st.tuples(
        st.sampled_from(["insert", "replace", "remove"]), st.integers(0, 60), st.sampled_from(MARKS)
    )
    return st.builds(altered, right, st.lists(change, min_size=1, max_size=2))


odd_text = st.text(st.sampled_from(MARKS), max_size=10)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(WORDS),
    odd_text,
    st.text(max_size=5),
)
inner_keys = st.one_of(
    st.text("abc_", min_size=1, max_size=4), st.sampled_from(["a.b", "a b", "A-1", "True1"])
)
plain_values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(inner_keys, inner, max_size=3)
    ),
    max_leaves=8,
)
spelled = plain_values.map(config.override_value)
interpolations = st.one_of(
    st.sampled_from(INTERPOLATIONS), st.text("${}:.,a'\"[]", max_size=8).map("${".__add__)
)
values = st.one_of(
    spelled,
    misspelt(spelled),
    odd_text,
    interpolations,
    st.sampled_from(SWEEPS),
    st.sampled_from([choice.partition("=")[2] for choice in CHOICES]),
)
keys = st.one_of(
    st.sampled_from(KEYS),
    st.sampled_from([*config.GROUPS, *ODD_KEYS]),
    misspelt(st.sampled_from(KEYS)),
)
signs = st.sampled_from(["", "", "", "+", "++", "~", "-", "--", "@"])
overrides = st.one_of(
    st.builds(
        "{}{}{}{}".format, signs, keys, st.sampled_from(["=", "=", "=", "", "==", " = "]), values
    ),
    misspelt(st.sampled_from(CHOICES)),
    odd_text,
)
command_lines = st.builds(
    lambda base, more: [*base, *more], st.sampled_from(BASES), st.lists(overrides, max_size=2)
)


@contextlib.contextmanager
def bounded() -> Any:
    began = time.process_time()
    yield
    assert time.process_time() - began < SECONDS


def same(one: Any, other: Any) -> bool:
    """Whether two plain values are equal, NaN being equal to itself, and 1 not to True."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [*one] == [*other] and same([*one.values()], [*other.values()])
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return type(one) is type(other) and one == other


def plain(cfg: config.Config) -> dict[str, Any]:
    return dataclasses.asdict(cfg)


@examples(60)
@given(words=command_lines)
@example(words=["dataset.source=coco"]).via("nothing is chosen that the key could be set in")
@example(words=["experiment=resnet", "figure.examples.train=[]"])
@example(words=["sweep=[0.0]"]).via("a group's choice that is no name")
@example(words=["dataset=[[]]"])
@example(words=["~=[]"])
@example(words=["experiment=resnet", "@against=null"])
@example(words=["experiment=retinanet", "+dataset@x=${sweep}"])
@example(words=["sweep=tpe", "trainer.x=${sweep}"]).via(
    "a node of ours within Model Garden's did not survive the record"
)
@example(words=["figure=${name}"]).via("a word in the place of a node could not be recorded")
@example(words=["name=\\${name}"]).via(
    "an interpolation left over was recorded, and the record refused"
)
def test_overrides_compose_into_what_survives_its_record_or_get_a_message(words: list[str]) -> None:
    try:
        with bounded():
            cfg = config.compose(words)
    except UsageError as error:
        assert str(error).strip()
        return
    text = config.to_yaml(cfg)
    assert text.isascii()
    assert same(plain(config.from_yaml(text)), plain(cfg))
    assert config.anchored(cfg).run_dir


def typed(verb: str, words: list[str]) -> tuple[int, str]:
    """What the console makes of a command line: its exit code, and what it prints, in UTF-8."""
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    before, sys.argv = sys.argv, ["trellis", verb, *words]
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()) as said:
            console.main()
        code = 0
    except SystemExit as left:
        code = left.code or 0
    finally:
        sys.argv = before
    printed.flush()
    return code, printed.buffer.getvalue().decode() + said.getvalue()


@examples(12)
@given(verb=st.sampled_from(["show", "list"]), words=command_lines)
@example(verb="show", words=["@/"]).via("a folder in the place of a file")
@example(verb="show", words=["@"])
@example(verb="show", words=["@" + "x" * 300])
@example(verb="sho", words=["seed=1"])
@example(verb="show", words=["--help", "x"])
def test_show_and_list_print_or_say_why_not(verb: str, words: list[str]) -> None:
    code, printed = typed(verb, words)
    assert code == 0 or (code == 2 and printed.startswith("trellis: "))
    assert printed.strip()


def stays_below(folder: Path, cfg: config.Config) -> bool:
    """Whether a look at the data keeps to a folder: no other disk is searched, no network asked."""
    dataset = dataclasses.asdict(cfg)["dataset"] or {}
    places = [
        str(value)
        for name, value in dataset.items()
        if name in ("root", "images", "annotations", "masks", "lists", "builder") and value
    ]
    names = [cfg.data_dir, *places]
    return (
        not any("/" in name or ".." in name or "~" in name for name in names)
        and Path.cwd() == folder
    )


@examples(40)
@given(
    words=st.builds(
        lambda more: [
            "experiment=resnet",
            "dataset=image_folder",
            "data_dir=data",
            "dataset.images=pictures",
            *more,
        ],
        st.lists(overrides, max_size=2),
    )
)
def test_check_finds_the_data_or_says_why_not_before_tensorflow_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str]
) -> None:
    (tmp_path / "pictures" / "cat").mkdir(parents=True, exist_ok=True)
    (tmp_path / "pictures" / "cat" / "1.jpg").write_bytes(b"\xff\xd8")
    monkeypatch.chdir(tmp_path)
    try:
        cfg = config.compose(words)
        if stays_below(tmp_path, cfg):
            assert assembly.as_built(cfg)[2] is None
    except UsageError as error:
        assert str(error).strip()
    assert {entry.name for entry in os.scandir(tmp_path)} <= {"pictures", "data"}


@examples(150)
@given(value=plain_values.filter(lambda value: "${" not in repr(value)))
@example(value={"a b": 1})
@example(value=1e22)
@example(value="\\\n")
def test_any_value_survives_being_spelled_as_an_override(value: Any) -> None:
    text = config.override_value(value)
    override = commandline._parse(f"task.key={text}")
    assert override is not None and not override.is_sweep_override()
    assert same(override.value(), value)


@pytest.mark.parametrize("key", ["", "true", "Null", "1", "a:b", "a  b", "ü", "a'"])
def test_a_key_that_cannot_be_spelled_says_so(key: str) -> None:
    with pytest.raises(UsageError, match="cannot be written in an override"):
        config.override_value([{key: 1}])


def test_a_record_with_a_hole_says_so() -> None:
    with pytest.raises(UsageError):
        config.from_yaml("task: {x: '???'}")


recorded_values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@examples(40)
@given(
    node=st.dictionaries(st.text(max_size=5), recorded_values, max_size=4).filter(
        lambda node: not any(mark in repr(node) for mark in ("${", "???"))
    ),
    word=st.text("a0-.e$ :'", max_size=8).filter(lambda word: "${" not in word),
)
@example(node={"x": ["1e3", "-.5E+7", "1_0.e9", "1e", "0.1"]}, word="1e3").via(
    "text became a number in the record"
)
def test_any_configuration_survives_its_record(node: dict[str, Any], word: str) -> None:
    cfg = config.Config(
        name="some", against=word, data_dir="d", runs_dir="r", run_dir="x", task=node
    )
    assert same(plain(config.from_yaml(config.to_yaml(cfg))), plain(cfg))


@examples(60)
@given(
    text=st.one_of(
        st.text(max_size=40),
        st.binary(max_size=40).map(lambda raw: raw.decode("utf-8", "replace")),
        misspelt(
            st.just(
                "name: x\nseed: 1\ntask: {a: [1, {b: 2}]}\ndataset: {name: a, task: detection}\n"
            )
        ),
    ),
    words=st.lists(overrides, max_size=1),
)
def test_a_file_in_the_place_of_a_record_is_read_or_refused(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8", errors="surrogateescape")
    try:
        config.to_yaml(config.compose([f"@{tmp_path}/config.yaml", *words]))
    except UsageError as error:
        assert str(error).strip()


parameters = st.one_of(
    st.fixed_dictionaries({}, optional={name: st.one_of(scalars, st.integers(-2, 9), st.floats(0, 3)) for name in ("low", "high", "log", "step", "count", "times")}),
    st.fixed_dictionaries({"times": st.one_of(plain_values, st.lists(st.integers(0, 4), max_size=3), st.fixed_dictionaries({"low": st.floats(0, 1), "high": st.floats(1, 9)}))}),
    plain_values,
)  # fmt: skip
searched_names = st.one_of(
    st.sampled_from(
        ["learning_rate", "batch_size", "weight_decay", "seed", "epochs", "dataset", "x"]
    ),
    st.sampled_from(KEYS),
)
searches = st.builds(
    config.Sweep,
    method=st.sampled_from(["grid", "list", "random", "tpe", "tpo", ""]),
    parameters=st.dictionaries(searched_names, parameters, max_size=3),
    points=st.lists(st.dictionaries(searched_names, plain_values, max_size=2), max_size=3),
    trials=st.integers(-1, 5),
    goal=st.sampled_from(["maximize", "minimize", "", "max"]),
)


def first_points(found: space.Space) -> list[space.Point]:
    """A few of the points, as the schedule would visit them."""
    points = (
        [proposals.suggest(found, [], [])]
        if found.method == "tpe"
        else list(itertools.islice(proposals.fixed(found), 3))
    )
    return [
        {**point, **around}
        for point in points
        for around in list(itertools.islice(proposals.combinations(found.around), 2)) or [{}]
    ]


@examples(120)
@given(
    sweep=st.one_of(st.none(), searches),
    words=st.lists(
        st.builds(
            "{}={}".format,
            searched_names,
            st.one_of(st.sampled_from(SWEEPS), misspelt(st.sampled_from(SWEEPS)), spelled),
        ),
        max_size=2,
    ),
)
def test_a_search_is_laid_out_or_gets_a_message(
    sweep: config.Sweep | None, words: list[str]
) -> None:
    try:
        with bounded():
            request = commandline.read(words)
            found = space.read(sweep, request.lists, request.ranges)
            settled = [space.settle(point, COMPOSED) for point in first_points(found)]
    except UsageError as error:
        assert str(error).strip()
        return
    for _, made in settled:
        assert all(commandline._parse(text) is not None for text in made)


COMPOSED = config.compose(["experiment=resnet"])
