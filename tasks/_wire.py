"""The wire format of `tf.train.Example`, without TensorFlow.

Three messages under a package name of our own: TensorFlow's descriptors would collide with a copy of theirs.
"""

from collections.abc import Iterable, Mapping
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
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(
        name="key",
        number=1,
        type=_Field.TYPE_STRING,
        label=_Field.LABEL_OPTIONAL,
    )
    _add_message(entry, "value", 2, "Feature")
    _add_message(features, "feature", 1, "Features.FeatureEntry", label=_Field.LABEL_REPEATED)
    example = file.message_type.add(name="Example")
    _add_message(example, "features", 1, "Features")
    return file


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
_Example: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("trellis.Example"))


def serialize(features: Mapping[str, Iterable[bytes] | Iterable[int] | Iterable[float]]) -> bytes:
    """A serialized `tf.train.Example`; the type of a feature's first value decides its list, an empty one stays away."""
    example = _Example()
    for name, column in features.items():
        values: list[Any] = list(column)
        if values:
            feature = example.features.feature[name]
            getattr(feature, _list_of(values[0])).value.extend(values)
    return example.SerializeToString(deterministic=True)


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
        "height": _size(features, "image/height"),
        "width": _size(features, "image/width"),
        "image": features["image/encoded"][0],
        "sha256": text(features, "image/key/sha256"),
    }


def _size(features: Mapping[str, list[Any]], name: str) -> int:
    values = features.get(name)
    return values[0] if values else 0
