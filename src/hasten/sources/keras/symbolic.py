"""Mends, for the time of one trace, places where Keras' own symbolic tensors fall short.

Keras sends the operators of its variables (``self.scale * x``) straight to the backend, which knows no
``KerasTensor``: they go through ``keras.ops`` where the other side is symbolic, and as before where it is not.
``EinsumDense`` forgets known lengths of its input: they are carried over by the letters of its equation.
``keras.ops.cond`` forgets what is inside its two ways, ``fori_loop`` its steps: both are written out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["tracing"]

_OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "floordiv": "floor_divide",
    "mod": "mod", "pow": "power", "matmul": "matmul",
}  # fmt: skip
_MOST_STEPS = 100
"""A loop of more would make a graph that takes longer to read than it is worth."""
_COMPARISONS = {"lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}


@contextmanager
def tracing() -> Iterator[None]:
    """Inside, ``variable * keras_tensor`` is recorded like any operation, and shapes are as exact as can be."""
    import keras  # noqa: PLC0415
    from keras.src.backend.common.variables import Variable  # noqa: PLC0415

    replaced: dict[str, Any] = {}

    def replace(name: str, operation: Callable[..., Any], *, swapped: bool) -> None:
        plain = vars(Variable).get(name)
        if plain is None:
            return

        def either(self: Any, other: Any) -> Any:
            if isinstance(other, keras.KerasTensor):
                return operation(other, self) if swapped else operation(self, other)
            return plain(self, other)

        replaced[name] = plain
        setattr(Variable, name, either)

    plain_shape = keras.layers.EinsumDense.compute_output_shape

    def exact_shape(self: Any, input_shape: Any) -> Any:
        return _carried(self.equation, input_shape, plain_shape(self, input_shape))

    try:
        keras.layers.EinsumDense.compute_output_shape = exact_shape
        for stem, op in _OPERATORS.items():
            replace(f"__{stem}__", getattr(keras.ops, op), swapped=False)
            replace(f"__r{stem}__", getattr(keras.ops, op), swapped=True)
        for stem, op in _COMPARISONS.items():
            replace(f"__{stem}__", getattr(keras.ops, op), swapped=False)
        with _written_out():
            yield
    finally:
        keras.layers.EinsumDense.compute_output_shape = plain_shape
        for name, plain in replaced.items():
            setattr(Variable, name, plain)


@contextmanager
def _written_out() -> Iterator[None]:
    """Inside, what Keras records as one node around functions is recorded as what the functions do.

    A loop of a number of turns that is not known stays one, but may start from plain numbers.
    """
    import keras  # noqa: PLC0415
    from keras.src.ops.core import Cond, ForiLoop, WhileLoop  # noqa: PLC0415

    def steps(self: Any, init_val: Any) -> Any:
        numbers = (self.lower, self.upper)
        if not all(isinstance(n, int) for n in numbers) or self.upper - self.lower > _MOST_STEPS:
            return plain_steps(self, init_val)
        for step in range(*numbers):
            init_val = self.body_fun(step, init_val)
        return init_val

    def turns(self: Any, loop_vars: Any) -> Any:
        return plain_turns(self, keras.tree.map_structure(_tensor, loop_vars))

    plain_steps, plain_turns = ForiLoop.symbolic_call, WhileLoop.symbolic_call
    before = {cls: vars(cls).get("symbolic_call") for cls in (Cond, ForiLoop, WhileLoop)}
    try:
        Cond.symbolic_call, ForiLoop.symbolic_call, WhileLoop.symbolic_call = _either_way, steps, turns
        yield
    finally:
        for cls, own in before.items():
            del cls.symbolic_call  # inherited, but inside another trace
            if own is not None:
                cls.symbolic_call = own


def _either_way(self: Any, pred: Any, true_fn: Callable[[], Any], false_fn: Callable[[], Any]) -> Any:
    """Both ways, and of their results those of the way that holds.

    Raises:  ValueError: the ways give different shapes or dtypes
    """
    import keras  # noqa: PLC0415

    with keras.StatelessScope():  # a variable that only one way sets must stay as it is
        yes, no = true_fn(), false_fn()
    keras.tree.assert_same_structure(yes, no)
    holds = keras.ops.cast(keras.ops.reshape(pred, ()), "bool")

    def choose(a: Any, b: Any) -> Any:
        if a is None and b is None:
            return None
        of_a, of_b = (f"{keras.backend.standardize_dtype(x.dtype)}{list(x.shape)}" for x in map(_tensor, (a, b)))
        if of_a != of_b:
            raise ValueError(f"the two ways of cond give {of_a} and {of_b}")
        return keras.ops.where(holds, a, b)

    return keras.tree.map_structure(choose, yes, no)


def _tensor(value: Any) -> Any:
    import keras  # noqa: PLC0415

    return value if hasattr(value, "shape") else keras.ops.convert_to_tensor(value)


def _carried(equation: str, given: Any, shape: Any) -> tuple[int | None, ...]:
    """``shape`` with its unknown lengths from those of ``given`` that have the same letter."""
    left, target = equation.replace(" ", "").split("->")
    source = left.split(",")[0]
    spare = "ABCDEFGH"[: len(given) - len(source) + 3] if "..." in source else ""
    source, target = source.replace("...", spare), target.replace("...", spare)
    lengths = dict(zip(source, given, strict=False))
    return tuple(lengths.get(c) if d is None else d for d, c in zip(shape, target, strict=False))
