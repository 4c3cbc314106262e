"""The wire format of `tf.train.Example`, without TensorFlow.

Three messages under a package name of our own: TensorFlow's descriptors would collide with a copy of theirs.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
_LISTS = {
    "bytes_list": ("BytesList", _FIELD.TYPE_BYTES),
    "float_list": ("FloatList", _FIELD.TYPE_FLOAT),
    "int64_list": ("Int64List", _FIELD.TYPE_INT64),
}


def _describe() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="trellis/example.proto", package="trellis", syntax="proto3"
    )
    for name, kind in _LISTS.values():
        file.message_type.add(name=name).field.add(
            name="value", number=1, type=kind, label=_FIELD.LABEL_REPEATED
        )
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (field, (name, _)) in enumerate(_LISTS.items(), start=1):
        feature.field.add(
            name=field,
            number=number,
            type=_FIELD.TYPE_MESSAGE,
            type_name=f".trellis.{name}",
            label=_FIELD.LABEL_OPTIONAL,
            oneof_index=0,
        )
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_OPTIONAL)
    entry.field.add(
        name="value",
        number=2,
        type=_FIELD.TYPE_MESSAGE,
        type_name=".trellis.Feature",
        label=_FIELD.LABEL_OPTIONAL,
    )
    features.field.add(
        name="feature",
        number=1,
        type=_FIELD.TYPE_MESSAGE,
        type_name=".trellis.Features.FeatureEntry",
        label=_FIELD.LABEL_REPEATED,
    )
    file.message_type.add(name="Example").field.add(
        name="features",
        number=1,
        type=_FIELD.TYPE_MESSAGE,
        type_name=".trellis.Features",
        label=_FIELD.LABEL_OPTIONAL,
    )
    return file


_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_describe())
_Example: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("trellis.Example"))


def serialize(features: Mapping[str, Iterable[bytes] | Iterable[int] | Iterable[float]]) -> bytes:
    """A serialized `tf.train.Example`; the type of a feature's first value decides its list, an empty one stays away."""
    example = _Example()
    for name, values in features.items():
        values = list(values)
        if values:
            field = (
                "bytes_list"
                if isinstance(values[0], bytes)
                else "int64_list"
                if isinstance(values[0], int)
                else "float_list"
            )
            getattr(example.features.feature[name], field).value.extend(values)
    return example.SerializeToString(deterministic=True)


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
    features = example.features.feature
    return {
        name: list(getattr(features[name], features[name].WhichOneof("kind") or "bytes_list").value)
        for name in features
    }


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
    return features[name][0].decode("utf-8", "replace") if features.get(name) else ""


def head(features: Mapping[str, list[Any]]) -> dict[str, Any]:
    """What the records of all tasks have in them; only the image is certain."""
    sizes = {name: (features.get(f"image/{name}") or [0])[0] for name in ("height", "width")}
    names = {
        "file": text(features, "image/filename"),
        "id": text(features, "image/source_id"),
        "format": text(features, "image/format"),
    }
    return {
        **names,
        **sizes,
        "image": features["image/encoded"][0],
        "sha256": text(features, "image/key/sha256"),
    }
