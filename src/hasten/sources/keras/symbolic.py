"""Lets model code write ``self.scale * x`` while it is traced: variables meet symbolic tensors by ``keras.ops``.

Keras sends the operators of its variables straight to the backend, which knows no ``KerasTensor``. For the time of one
trace they go through ``keras.ops`` where the other side is symbolic, and as before where it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["symbolic_variables"]

_OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "floordiv": "floor_divide",
    "mod": "mod", "pow": "power", "matmul": "matmul",
}  # fmt: skip
_COMPARISONS = {"lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}


@contextmanager
def symbolic_variables() -> Iterator[None]:
    """Inside, ``variable * keras_tensor`` is recorded like any operation."""
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

    try:
        for stem, op in _OPERATORS.items():
            replace(f"__{stem}__", getattr(keras.ops, op), swapped=False)
            replace(f"__r{stem}__", getattr(keras.ops, op), swapped=True)
        for stem, op in _COMPARISONS.items():
            replace(f"__{stem}__", getattr(keras.ops, op), swapped=False)
        yield
    finally:
        for name, plain in replaced.items():
            setattr(Variable, name, plain)
