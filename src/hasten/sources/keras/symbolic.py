"""Mends, for the time of one trace, two places where Keras' own symbolic tensors fall short.

Keras sends the operators of its variables (``self.scale * x``) straight to the backend, which knows no
``KerasTensor``: they go through ``keras.ops`` where the other side is symbolic, and as before where it is not.
``EinsumDense`` forgets known lengths of its input: they are carried over by the letters of its equation.
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
        yield
    finally:
        keras.layers.EinsumDense.compute_output_shape = plain_shape
        for name, plain in replaced.items():
            setattr(Variable, name, plain)


def _carried(equation: str, given: Any, shape: Any) -> tuple[int | None, ...]:
    """``shape`` with its unknown lengths from those of ``given`` that have the same letter."""
    left, target = equation.replace(" ", "").split("->")
    source = left.split(",")[0]
    spare = "ABCDEFGH"[: len(given) - len(source) + 3] if "..." in source else ""
    source, target = source.replace("...", spare), target.replace("...", spare)
    lengths = dict(zip(source, given, strict=False))
    return tuple(lengths.get(c) if d is None else d for d, c in zip(shape, target, strict=False))
