"""Makes random draws a function of (seed, place in the training, which draw): no state that order, threads or a restart could change.

TensorFlow's stateful random kernels keep a counter each: what they give depends on every call before. Model Garden's parsers,
drop-out and samplers use them throughout. After `install`, each such operation is replaced by its stateless twin, seeded by
where it stands, while a function is traced inside `Draws`. What is made in another way is found afterwards, and refused:
`leftovers`.
"""

import functools
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import tensorflow as tf

from pipelines.training import upstream

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
        self._base = int.from_bytes(digest[:7], "little")
        self._position = position
        self._graph = tf.compat.v1.get_default_graph()
        self._number = 0
        self._turns: list[tf.Tensor] = []
        self._outer: Draws | None = None

    def __enter__(self) -> None:
        self._outer = _current()
        _active.draws = self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _active.draws = self._outer

    def seed(self) -> tf.Tensor:
        """Seed of the next draw: int64 of shape [2]."""
        self._number += 1
        position = self._position
        for turn in self._turns:
            position = _within(position, turn)
        for turn in upstream.loop_turns(tf.compat.v1.get_default_graph(), self._graph):
            position = _within(position, turn)
        draw = tf.constant(self._base + self._number, tf.int64)
        return tf.stack([draw, position])

    @contextmanager
    def turn(self, number: tf.Tensor) -> Iterator[None]:
        """Inside, draws differ by `number` too: a scalar integer, the turn of a loop whose body is traced once."""
        self._turns.append(number)
        try:
            yield
        finally:
            self._turns.pop()


def _current() -> Draws | None:
    """The draws that this thread is inside of."""
    return getattr(_active, "draws", None)


@contextmanager
def untied() -> Iterator[None]:
    """Inside, operations draw as TensorFlow's own do: for what is traced to be looked at, not to be run."""
    outer = _current()
    _active.draws = None
    try:
        yield
    finally:
        _active.draws = outer


def _within(position: tf.Tensor, turn: tf.Tensor) -> tf.Tensor:
    return position * 1_000_003 + tf.cast(turn, tf.int64)


# Stateless twins: each takes the seed, then what the stateful operation of its name takes.


def _uniform(seed: tf.Tensor, shape: Any, dtype: Any, **_: Any) -> tf.Tensor:
    return tf.random.stateless_uniform(shape, seed, dtype=dtype)


def _uniform_int(seed: tf.Tensor, shape: Any, minval: Any, maxval: Any, **_: Any) -> tf.Tensor:
    return tf.random.stateless_uniform(shape, seed, minval, maxval, dtype=minval.dtype)


def _normal(seed: tf.Tensor, shape: Any, dtype: Any, **_: Any) -> tf.Tensor:
    return tf.random.stateless_normal(shape, seed, dtype=dtype)


def _truncated_normal(seed: tf.Tensor, shape: Any, dtype: Any, **_: Any) -> tf.Tensor:
    return tf.random.stateless_truncated_normal(shape, seed, dtype=dtype)


def _shuffle(seed: tf.Tensor, value: Any, **_: Any) -> tf.Tensor:
    return tf.random.experimental.stateless_shuffle(value, seed)


def _categorical(
    seed: tf.Tensor, logits: Any, num_samples: Any, output_dtype: Any = tf.int64, **_: Any
) -> tf.Tensor:
    return tf.random.stateless_categorical(logits, num_samples, seed, dtype=output_dtype)


def _gamma(seed: tf.Tensor, shape: Any, alpha: Any, **_: Any) -> tf.Tensor:
    whole = tf.concat([shape, tf.shape(alpha)], 0)
    return tf.random.stateless_gamma(whole, seed, alpha, dtype=alpha.dtype)


def _crop(
    seed: tf.Tensor, image_size: Any, bounding_boxes: Any, min_object_covered: Any, **options: Any
) -> Any:
    names = ("aspect_ratio_range", "area_range", "max_attempts")
    chosen = {}
    for name in names:
        if options.get(name) is not None:
            chosen[name] = options[name]
    return tf.image.stateless_sample_distorted_bounding_box(
        image_size,
        bounding_boxes,
        seed,
        min_object_covered=min_object_covered,
        use_image_if_no_bounding_boxes=options.get("use_image_if_no_bounding_boxes"),
        **chosen,
    )


# For each stateful operation its arguments before the seeds, in order, and its stateless twin.
TWINS: dict[str, tuple[tuple[str, ...], Callable[..., Any]]] = {
    "random_uniform": (("shape", "dtype"), _uniform),
    "random_uniform_int": (("shape", "minval", "maxval"), _uniform_int),
    "random_standard_normal": (("shape", "dtype"), _normal),
    "truncated_normal": (("shape", "dtype"), _truncated_normal),
    "random_shuffle": (("value",), _shuffle),
    "multinomial": (("logits", "num_samples"), _categorical),
    "random_gamma": (("shape", "alpha"), _gamma),
    "sample_distorted_bounding_box_v2": (
        ("image_size", "bounding_boxes", "min_object_covered"),
        _crop,
    ),
}


@functools.cache  # Once in a process: a replacement is not to be replaced.
def install() -> None:
    """Replaces TensorFlow's random operations in this process; outside `Draws` they still do what they did."""
    for name, (arguments, twin) in TWINS.items():
        upstream.replace_operation(name, functools.partial(_tied, arguments, twin))
    upstream.replace_vectorized_loop(_with_rows_apart)


def _tied(
    names: tuple[str, ...], twin: Callable[..., Any], stateful: Callable[..., Any]
) -> Callable[..., Any]:
    """An operation that draws from its twin inside `Draws`."""

    def drawn(*arguments: Any, **options: Any) -> Any:
        draws = _current()
        if draws is None:
            return stateful(*arguments, **options)
        named = dict(zip(names, arguments, strict=False))
        for name, value in options.items():
            if name not in ("seed", "seed2"):
                named[name] = value
        return twin(draws.seed(), **named)

    return tf.autograph.experimental.do_not_convert(drawn)


def _with_rows_apart(official: Callable[..., Any]) -> Callable[..., Any]:
    """Gives each row of `tf.vectorized_map` its own draws: its body is traced once, for all rows."""

    def pfor(loop_fn: Callable[..., Any], iters: Any, *arguments: Any, **options: Any) -> Any:
        draws = _current()
        if draws is None:
            return official(loop_fn, iters, *arguments, **options)

        def row(number: tf.Tensor) -> Any:
            with draws.turn(number):
                return upstream.converted(loop_fn)(number)

        def configured_row(number: tf.Tensor, pfor_config: Any) -> Any:
            with draws.turn(number):
                return upstream.converted(loop_fn)(number, pfor_config=pfor_config)

        # TensorFlow looks at the names of a body's arguments.
        body = configured_row if upstream.takes_loop_config(loop_fn) else row
        return official(upstream.plain(body), iters, *arguments, **options)

    return tf.autograph.experimental.do_not_convert(pfor)
