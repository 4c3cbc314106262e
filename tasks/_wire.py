"""The wire format of `tf.train.Example` and `tf.train.SequenceExample`, without TensorFlow.

Their messages under a package name of our own: TensorFlow's descriptors would collide with a copy of theirs.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_Message = descriptor_pb2.DescriptorProto
_LISTS = {
    "bytes_list": ("BytesList", _Field.TYPE_BYTES),
    "float_list": ("FloatList", _Field.TYPE_FLOAT),
    "int64_list": ("Int64List", _Field.TYPE_INT64),
}


def _describe() -> descriptor_pb2.FileDescriptorProto:
    """What a .proto file would say:

    message BytesList { repeated bytes value = 1; }
    message FloatList { repeated float value = 1; }
    message Int64List { repeated int64 value = 1; }
    message Feature {
      oneof kind { BytesList bytes_list = 1; FloatList float_list = 2; Int64List int64_list = 3; }
    }
    message Features { map<string, Feature> feature = 1; }
    message Example { Features features = 1; }
    message FeatureList { repeated Feature feature = 1; }
    message FeatureLists { map<string, FeatureList> feature_list = 1; }
    message SequenceExample { Features context = 1; FeatureLists feature_lists = 2; }
    """
    file = descriptor_pb2.FileDescriptorProto(
        name="trellis/example.proto",
        package="trellis",
        syntax="proto3",
    )
    for name, kind in _LISTS.values():
        values = file.message_type.add(name=name)
        values.field.add(name="value", number=1, type=kind, label=_Field.LABEL_REPEATED)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (field, (name, _)) in enumerate(_LISTS.items(), start=1):
        _add_message(feature, field, number, name, oneof_index=0)
    _add_map(file.message_type.add(name="Features"), "feature", "FeatureEntry", "Feature")
    example = file.message_type.add(name="Example")
    _add_message(example, "features", 1, "Features")
    steps = file.message_type.add(name="FeatureList")
    _add_message(steps, "feature", 1, "Feature", label=_Field.LABEL_REPEATED)
    lists = file.message_type.add(name="FeatureLists")
    _add_map(lists, "feature_list", "FeatureListEntry", "FeatureList")
    sequence = file.message_type.add(name="SequenceExample")
    _add_message(sequence, "context", 1, "Features")
    _add_message(sequence, "feature_lists", 2, "FeatureLists")
    return file


def _add_map(owner: _Message, name: str, entry_name: str, message: str) -> None:
    """A field that maps names to messages."""
    entry = owner.nested_type.add(name=entry_name)
    entry.options.map_entry = True
    entry.field.add(
        name="key",
        number=1,
        type=_Field.TYPE_STRING,
        label=_Field.LABEL_OPTIONAL,
    )
    _add_message(entry, "value", 2, message)
    entries = f"{owner.name}.{entry_name}"
    _add_message(owner, name, 1, entries, label=_Field.LABEL_REPEATED)


def _add_message(owner: _Message, name: str, number: int, message: str, **more: Any) -> None:
    """A field that holds another message."""
    options = {"label": _Field.LABEL_OPTIONAL, **more}
    owner.field.add(
        name=name,
        number=number,
        type=_Field.TYPE_MESSAGE,
        type_name=f".trellis.{message}",
        **options,
    )


_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_describe())


def _class_of(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"trellis.{name}"))


_Example = _class_of("Example")
_SequenceExample = _class_of("SequenceExample")

Values = Iterable[bytes] | Iterable[int] | Iterable[float]


def serialize(features: Mapping[str, Values]) -> bytes:
    """A serialized `tf.train.Example`; the type of a feature's first value decides its list, an empty one stays away."""
    example = _Example()
    _fill(example.features, features)
    return example.SerializeToString(deterministic=True)


def serialize_sequence(
    context: Mapping[str, Values], lists: Mapping[str, Sequence[bytes]]
) -> bytes:
    """A serialized `tf.train.SequenceExample`: features of the whole, and lists with one value a step."""
    example = _SequenceExample()
    _fill(example.context, context)
    for name, steps in lists.items():
        for value in steps:
            example.feature_lists.feature_list[name].feature.add().bytes_list.value.append(value)
    return example.SerializeToString(deterministic=True)


def _fill(features: Any, columns: Mapping[str, Values]) -> None:
    for name, column in columns.items():
        values: list[Any] = list(column)
        if values:
            feature = features.feature[name]
            getattr(feature, _list_of(values[0])).value.extend(values)


def _list_of(value: Any) -> str:
    """The list that holds values of this type."""
    if isinstance(value, bytes):
        return "bytes_list"
    return "int64_list" if isinstance(value, int) else "float_list"


def image(record: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The features of the image itself, which every task's record has; `head` reads them back."""
    return {
        "image/encoded": [record["image"]],
        "image/format": [record["format"].encode()],
        "image/filename": [record["file"].encode()],
        "image/source_id": [str(record["id"]).encode()],
        "image/key/sha256": [record["sha256"].encode()],
        "image/height": [record["height"]],
        "image/width": [record["width"]],
    }


def parse(serialized: bytes) -> dict[str, list[Any]]:
    """The features of a serialized `tf.train.Example`, each a list.

    Raises:
        ValueError: the bytes are something else.
    """
    try:
        example = _Example.FromString(serialized)
    except Exception as error:
        raise ValueError(f"not a tf.train.Example: {error}") from None
    return {name: _values(feature) for name, feature in example.features.feature.items()}


def parse_sequence(serialized: bytes) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Features and lists of a serialized `tf.train.SequenceExample`; of each step its first value.

    Raises:
        ValueError: the bytes are something else, or a step is empty.
    """
    try:
        example = _SequenceExample.FromString(serialized)
    except Exception as error:
        raise ValueError(f"not a tf.train.SequenceExample: {error}") from None
    context = {name: _values(feature) for name, feature in example.context.feature.items()}
    lists: dict[str, list[Any]] = {}
    for name, steps in example.feature_lists.feature_list.items():
        values = [_values(feature) for feature in steps.feature]
        if not all(values):
            raise ValueError(f"a step of {name} is empty")
        lists[name] = [value[0] for value in values]
    return context, lists


def _values(feature: Any) -> list[Any]:
    kind = feature.WhichOneof("kind")
    return list(getattr(feature, kind).value) if kind else []


def require(serialized: bytes, *names: str) -> dict[str, list[Any]]:
    """The features of an example that must have some of them.

    Raises:
        ValueError: the bytes are no example, or a feature is missing or empty.
    """
    features = parse(serialized)
    missing = [name for name in names if not features.get(name)]
    if missing:
        raise ValueError(f"no feature {', '.join(missing)}")
    return features


def text(features: Mapping[str, list[Any]], name: str) -> str:
    """The first value of a feature as text; empty where there is none."""
    values = features.get(name)
    return values[0].decode("utf-8", "replace") if values else ""


def head(features: Mapping[str, list[Any]]) -> dict[str, Any]:
    """What the records of all tasks have in them; only the image is certain."""
    return {
        "file": text(features, "image/filename"),
        "id": text(features, "image/source_id"),
        "format": text(features, "image/format"),
        "height": size(features, "image/height"),
        "width": size(features, "image/width"),
        "image": features["image/encoded"][0],
        "sha256": text(features, "image/key/sha256"),
    }


def size(features: Mapping[str, list[Any]], name: str) -> int:
    """The first value of a feature that is a number; 0 where there is none."""
    values = features.get(name)
    return values[0] if values else 0
