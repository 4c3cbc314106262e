"""Makes random draws a function of (seed, place in the training, which draw): no state that order, threads or a restart could change.

TensorFlow's stateful random kernels keep a counter each: what they give depends on every call before. Model Garden's parsers,
drop-out and samplers use them throughout. While a function is traced inside `Draws`, each such operation is replaced by its
stateless twin, seeded by where it stands. What is made in another way is found afterwards, and refused: `unplaced`.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, TracebackType
from typing import Any

import tensorflow as tf
from tensorflow.python.ops import (
    control_flow_v2_func_graphs,
    gen_image_ops,
    gen_random_ops,
)
from tensorflow.python.ops.parallel_for import control_flow_ops

from pipelines.training import tracing

_active = threading.local()


class Draws:
    """Inside this context, traced random operations draw from (seed, stream, position, number of the draw).

    Args:
        seed: of the run.
        stream: name of what draws, so that equal positions in two streams draw differently.
        position: int64 scalar tensor: the example, or the step.
    """

    def __init__(self, seed: int, stream: str, position: tf.Tensor) -> None:
        digest = hashlib.sha256(f"{seed} {stream}".encode()).digest()
        self._base, self._position = int.from_bytes(digest[:7], "little"), position
        self._graph, self._number, self._outer = tf.compat.v1.get_default_graph(), 0, None
        self._turns: list[tf.Tensor] = []

    def __enter__(self) -> None:
        self._outer = getattr(_active, "draws", None)
        _active.draws = self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _active.draws = self._outer

    def seed(self) -> tf.Tensor:
        """Seed of the next draw: int64 of shape [2]."""
        self._number += 1
        place, graph = self._position, tf.compat.v1.get_default_graph()
        for turn in self._turns:
            place = _within(place, turn)
        while graph is not None and graph is not self._graph:
            if isinstance(graph, control_flow_v2_func_graphs.WhileBodyFuncGraph):
                # A body is traced once; its first input counts the turns.
                place = _within(place, graph.inputs[0])
            graph = getattr(graph, "outer_graph", None)
        return tf.stack([tf.constant(self._base + self._number, tf.int64), place])

    @contextmanager
    def turn(self, number: tf.Tensor) -> Iterator[None]:
        """Inside, draws differ by `number` too: a scalar integer, the turn of a loop whose body is traced once."""
        self._turns.append(number)
        try:
            yield
        finally:
            self._turns.pop()


def _within(place: tf.Tensor, turn: tf.Tensor) -> tf.Tensor:
    return place * 1_000_003 + tf.cast(turn, tf.int64)


def _gamma(seed: tf.Tensor, shape: Any, alpha: Any, **_: Any) -> tf.Tensor:
    return tf.random.stateless_gamma(
        tf.concat([shape, tf.shape(alpha)], 0), seed, alpha, dtype=alpha.dtype
    )


def _crop(
    seed: tf.Tensor, image_size: Any, bounding_boxes: Any, min_object_covered: Any, **options: Any
) -> Any:
    chosen = {
        key: options[key]
        for key in ("aspect_ratio_range", "area_range", "max_attempts")
        if options.get(key) is not None
    }
    whole = options.get("use_image_if_no_bounding_boxes")
    return tf.image.stateless_sample_distorted_bounding_box(
        image_size,
        bounding_boxes,
        seed,
        min_object_covered=min_object_covered,
        use_image_if_no_bounding_boxes=whole,
        **chosen,
    )


# Name of the stateful operation: its arguments before the seeds, and its stateless twin.
_TWINS: dict[tuple[ModuleType, str], tuple[tuple[str, ...], Callable[..., Any]]] = {
    (gen_random_ops, "random_uniform"): (
        ("shape", "dtype"),
        lambda seed, shape, dtype, **_: tf.random.stateless_uniform(shape, seed, dtype=dtype),
    ),
    (gen_random_ops, "random_uniform_int"): (
        ("shape", "minval", "maxval"),
        lambda seed, shape, minval, maxval, **_: tf.random.stateless_uniform(
            shape, seed, minval, maxval, dtype=minval.dtype
        ),
    ),
    (gen_random_ops, "random_standard_normal"): (
        ("shape", "dtype"),
        lambda seed, shape, dtype, **_: tf.random.stateless_normal(shape, seed, dtype=dtype),
    ),
    (gen_random_ops, "truncated_normal"): (
        ("shape", "dtype"),
        lambda seed, shape, dtype, **_: tf.random.stateless_truncated_normal(
            shape, seed, dtype=dtype
        ),
    ),
    (gen_random_ops, "random_shuffle"): (
        ("value",),
        lambda seed, value, **_: tf.random.experimental.stateless_shuffle(value, seed),
    ),
    (gen_random_ops, "multinomial"): (
        ("logits", "num_samples"),
        lambda seed, logits, num_samples, output_dtype=tf.int64, **_: (
            tf.random.stateless_categorical(logits, num_samples, seed, dtype=output_dtype)
        ),
    ),
    (gen_random_ops, "random_gamma"): (("shape", "alpha"), _gamma),
    (gen_image_ops, "sample_distorted_bounding_box_v2"): (
        ("image_size", "bounding_boxes", "min_object_covered"),
        _crop,
    ),
}


def _replace(
    module: ModuleType, name: str, order: tuple[str, ...], twin: Callable[..., Any]
) -> None:
    stateful = getattr(module, name)

    def drawn(*arguments: Any, **options: Any) -> Any:
        draws = getattr(_active, "draws", None)
        if draws is None:
            return stateful(*arguments, **options)
        given = dict(zip(order, arguments, strict=False)) | {
            key: value for key, value in options.items() if key not in ("seed", "seed2")
        }
        return twin(draws.seed(), **given)

    setattr(module, name, tf.autograph.experimental.do_not_convert(drawn))


def _rows_apart() -> None:
    """Gives each row of `tf.vectorized_map` its own draws: its body is traced once, for all rows."""
    official = control_flow_ops.pfor

    def pfor(loop_fn: Callable[..., Any], iters: Any, *arguments: Any, **options: Any) -> Any:
        draws = getattr(_active, "draws", None)
        if draws is None:
            return official(loop_fn, iters, *arguments, **options)

        def row(number: tf.Tensor) -> Any:
            with draws.turn(number):
                return tracing.converted(loop_fn)(number)

        def configured_row(number: tf.Tensor, pfor_config: Any) -> Any:
            with draws.turn(number):
                return tracing.converted(loop_fn)(number, pfor_config=pfor_config)

        # TensorFlow looks at the names of a body's arguments.
        body = configured_row if control_flow_ops._loop_fn_has_config(loop_fn) else row
        return official(tracing.plain(body), iters, *arguments, **options)

    control_flow_ops.pfor = tf.autograph.experimental.do_not_convert(pfor)


for (_module, _name), (_order, _twin) in _TWINS.items():
    _replace(_module, _name, _order, _twin)
_rows_apart()
