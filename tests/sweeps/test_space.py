"""Search spaces: how they are written, what the command line adds, which overrides a point becomes."""

import shlex

import pytest

from pipelines import config
from pipelines.sweeps import commandline, proposals, space
from pipelines.usage import UsageError, make_command

EMBEDDED = [name for name in config.options("experiment") if "/" not in name]


def searched(*overrides: str) -> space.Space:
    request = commandline.read(overrides)
    return space.read(
        config.compose([*request.fixed, *request.own]).sweep, request.lists, request.ranges
    )


def test_the_command_line_is_read_in_hydras_grammar():
    request = commandline.read(
        ["experiment=resnet", "seed=1,2", "epochs=range(1,4)", "dataset=glob(digit_*)", "name='a,b'", "jobs=2",
         "task.model.input_size=[32,32,3],[64,64,3]", "trainer.a=choice(x,'y z')", "trainer.b=tag(log,interval(0.01,1))",
         "trainer.c=int(interval(1,9))"]
    )  # fmt: skip
    assert request.fixed == ["experiment=resnet", "name='a,b'"] and request.own == ["jobs=2"]
    assert request.lists == {
        "seed": [1, 2],
        "epochs": [1, 2, 3],
        "dataset": ["digit_masks", "digit_scenes", "digit_volumes"],
        "task.model.input_size": [[32, 32, 3], [64, 64, 3]],
        "trainer.a": ["x", "y z"],
    }
    assert request.ranges["trainer.b"] == {"low": 0.01, "high": 1, "log": True}
    assert space.parameter("c", request.ranges["trainer.c"]).whole


@pytest.mark.parametrize("name", config.options("sweep"))
def test_every_space_composes_with_an_experiment_of_every_task(name):
    for experiment in ("resnet", "maskrcnn", "deeplabv3plus"):
        cfg = config.compose([f"experiment={experiment}", f"sweep={name}"])
        found = space.read(cfg.sweep, {}, {})
        points = (
            [proposals.suggest(found, [], [])] if found.method == "tpe" else proposals.fixed(found)
        )
        for point in points:
            overrides = space.settle(point, cfg)[1]
        config.compose([f"experiment={experiment}", *overrides])


@pytest.mark.parametrize("experiment", EMBEDDED)
def test_learning_rate_means_the_right_key_in_every_short_experiment(experiment):
    cfg = config.compose([f"experiment={experiment}"])
    schedule = cfg.trainer["optimizer_config"]["learning_rate"]
    own = schedule[schedule["type"]]["initial_learning_rate"]
    settings, overrides = space.settle({"learning_rate": {"times": 0.5}}, cfg)
    after = config.compose([f"experiment={experiment}", *overrides]).trainer["optimizer_config"][
        "learning_rate"
    ]
    assert (
        after[schedule["type"]]["initial_learning_rate"]
        == settings["learning_rate"]
        == pytest.approx(own / 2)
    )


def test_a_multiple_of_a_list_multiplies_each_of_it():
    schedule = "trainer.optimizer_config.learning_rate={type:stepwise,stepwise:{values:[0.3,0.03]}}"
    cfg = config.compose(["experiment=resnet", schedule])
    assert space.settle({"learning_rate": {"times": 2}}, cfg)[0] == {"learning_rate": [0.6, 0.06]}


def test_a_list_on_the_command_line_is_a_grid_around_the_space_and_replaces_what_the_file_says():
    found = searched("experiment=resnet", "sweep=learning_rate", "seed=1,2")
    assert len(proposals.fixed(found)) == 5 and proposals.combinations(found.around) == [
        {"seed": 1},
        {"seed": 2},
    ]
    found = searched("experiment=resnet", "sweep=learning_rate", "learning_rate=0.1,0.2")
    assert proposals.fixed(found) == [{}] if found.parameters == () else False


def test_a_logarithmic_grid_is_even_on_its_scale():
    assert space.parameter("x", {"low": 0.01, "high": 1.0, "log": True, "count": 3}).every() == [
        0.01,
        0.1,
        1.0,
    ]
    assert space.parameter("x", {"low": 0.1, "high": 0.5, "step": 0.2}).every() == [0.1, 0.3, 0.5]
    assert space.parameter("x", {"low": 1, "high": 9, "step": 4}).every() == [1, 5, 9]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["experiment=resnet"], "nothing varies"),
        (["experiment=resnet", "seed=interval(0,1)"], "SWEEP=random"),
        (["experiment=resnet", "sweep=seeds", "epochs=interval(1,2)"], "random and tpe can"),
        (["experiment=resnet", "sweep=seeds", "sweep.method=tpo"], "did you mean tpe"),
        (["experiment=resnet", "sweep=random", "sweep.trials=0"], "sweep.trials"),
        (["experiment=resnet", "sweep=random", "jobs=1,2"], "one value"),
        (["experiment=resnet", "seed=choice("], "seed=choice("),
        (
            ["experiment=resnet", "sweep=seeds", "+sweep.parameters.x={low:1,hihg:2}"],
            "x: write a list",
        ),
        (
            ["experiment=resnet", "sweep=seeds", "+sweep.parameters.x={low:0,high:2,log:true}"],
            "begins above 0",
        ),
    ],
)
def test_a_space_that_cannot_be_searched_says_what_to_write(overrides, said):
    with pytest.raises(UsageError) as error:
        searched(*overrides)
    assert said in str(error.value)


def test_a_short_name_without_meaning_names_the_key_to_use():
    with pytest.raises(UsageError, match="name the key: trainer.optimizer_config.learning_rate"):
        space.settle({"learning_rate": 0.1}, config.compose([]))
    with pytest.raises(UsageError, match="give values instead"):
        space.settle({"task.model.unheard_of": {"times": 2}}, config.compose(["experiment=resnet"]))


def test_identity_is_of_what_changes_the_result_and_not_of_places():
    one = config.compose(["experiment=resnet"])
    moved = config.compose(
        ["experiment=resnet", "runs_dir=/x", "data_dir=/y", "jobs=2", "parent=/z"]
    )
    assert space.identity(one, "f") == space.identity(moved, "f")
    changes = ("seed=1", "epochs=3", "task.model.x=1", "threads.intra_op=3")
    others = [config.compose(["experiment=resnet", text]) for text in changes]
    assert (
        len({space.identity(cfg, "f") for cfg in [one, *others]} | {space.identity(one, "g")}) == 6
    )


def test_random_points_depend_on_the_seed_and_their_number_alone():
    found = searched(
        "experiment=resnet", "sweep=random", "epochs=int(interval(1,9))", "sweep.trials=6"
    )
    points = proposals.fixed(found)
    assert points == proposals.fixed(found) and len({repr(point) for point in points}) == 6
    fewer = searched(
        "experiment=resnet", "sweep=random", "epochs=int(interval(1,9))", "sweep.trials=3"
    )
    assert proposals.fixed(fewer) == points[:3]
    assert (
        proposals.fixed(searched("experiment=resnet", "sweep=random", "sweep.seed=1"))[0]
        != points[0]
    )
    for point in points:
        assert 0.1 <= point["learning_rate"]["times"] <= 10 and point["epochs"] in range(1, 10)


def test_tpe_suggests_the_same_for_the_same_past_and_learns_from_it():
    found = space.read(
        config.Sweep(
            method="tpe",
            trials=30,
            parameters={
                "x": {"low": 0.0, "high": 1.0},
                "y": {"times": [0.5, 1]},
                "z": [[1, 2], None],
                "n": {"low": 1, "high": 4},
            },
        ),
        {},
        {},
    )

    def search(found: space.Space) -> list:
        past = []
        for _ in range(20):
            point = proposals.suggest(found, past, [])
            past.append((point, None if len(past) == 2 else -abs(point["x"] - 0.7)))
        return past

    past = search(found)
    assert past == search(found)
    assert proposals.suggest(found, past[:6], [past[6][0]]) == proposals.suggest(
        found, past[:6], [past[6][0]]
    )
    for point, _ in past:
        assert point["z"] in ([1, 2], None)
        assert point["y"] in ({"times": 0.5}, {"times": 1})
    past = search(space.Space("tpe", found.parameters[:1]))
    distances = [abs(point["x"] - 0.7) for point, _ in past]
    assert sum(distances[-5:]) < sum(distances[:5])


def test_the_command_to_train_again_survives_the_shell():
    made = make_command(
        "train", ["experiment=resnet", "task.model.input_size=[32,32,3]", "name='a b'", "seed=1"]
    )
    words = shlex.split(made)
    assert words[:3] == ["make", "train", "EXP=resnet"]
    assert shlex.split(words[3].removeprefix("ARGS=")) == [
        "task.model.input_size=[32,32,3]",
        "name='a b'",
        "seed=1",
    ]
