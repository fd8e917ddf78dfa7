"""The model that users call: numpy in, numpy out, same dtypes and shapes as the original."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hasten.errors import EngineError, InputError
from hasten.records import Artefact
from hasten.runtime.arrays import by_name, check_shape, convert, in_place, per_input, rows_of, strict
from hasten.runtime.lanes import Lane
from hasten.runtime.rows import layout
from hasten.types import Array, TensorSpec

if TYPE_CHECKING:
    from hasten._call_fallback import Call, fast
else:
    try:
        from hasten._call import Call, fast
    except ImportError:  # installed without a C compiler
        from hasten._call_fallback import Call, fast

__all__ = ["Model", "Opened"]


@dataclass(frozen=True)
class Opened:
    """What a model is made of.

    Shapes:  inputs, outputs: as the source had them; lanes: ascending batch size, the first one already open
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    lanes: tuple[Lane, ...]
    describe: Callable[[Artefact], dict[str, Any]]
    save: Callable[[Path], object]
    release: Callable[[], None]
    """Called once by ``close``: removes what was made for this model alone."""
    rows_mix: bool = False
    """A row's answer depends on the rows beside it."""


@fast
class Model(Call):
    """A compiled model. Safe from many threads at once; a context manager.

    Calling it with arrays that match exactly adds nothing to the engine's own call but the check; anything else is
    either taken (another batch size, another memory layout) or refused in one line that says what was expected.

    Example:
        >>> model = hasten.load("model.hasten")                 # doctest: +SKIP
        >>> y = model(x)                                        # doctest: +SKIP
        >>> model.predict(X); model.predict_single([0.1, 0.2])  # doctest: +SKIP
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __init__(self, opened: Opened):
        self.inputs, self.outputs = opened.inputs, opened.outputs
        self._opened = opened
        self._layout = layout(opened.inputs, opened.outputs, opened.rows_mix)
        runner = opened.lanes[0].runner
        self._exact = tuple((s.static_shape, np.dtype(s.dtype)) for s in runner.artefact.inputs)
        adopt = getattr(runner.session, "adopt", None)
        if adopt is not None:
            adopt(self, self._call_slowly)
        else:
            specs = tuple((dtype.num, shape) for shape, dtype in self._exact)
            self._set_target(runner.call, specs, self._call_slowly)

    def predict(self, X: Any, batch_size: int | None = None) -> Any:
        """The outputs for any number of rows, none included; lists and numbers of the same kind are converted.

        Shapes:  X: rows on dimension 0; for several inputs a list, tuple or dict of such; returns rows on dimension 0
        Raises:  InputError: wrong count, shape or kind, or inputs of unlike batch
        """
        if batch_size is None and type(X) is np.ndarray and self._exact == ((X.shape, X.dtype),):
            return self(X)  # nothing to convert, which takes longer than many a model
        arrays = [convert(spec, value) for spec, value in zip(self.inputs, per_input(self.inputs, X), strict=True)]
        if not self._layout.splits:
            for spec, array in zip(self.inputs, arrays, strict=True):
                check_shape(spec, array)
            return self._unpacked(self._first(arrays))
        arrays = [_empty(spec, array) for spec, array in zip(self._layout.inputs, arrays, strict=True)]
        return self._unpacked(self._rows(arrays, self._lanes(batch_size)))

    def predict_single(self, record: Any) -> Any:
        """The output for one record, without the batch dimension.

        Shapes:  record: one input's shape without dimension 0; for several inputs a list, tuple or dict of such
        Raises:  InputError: wrong count, shape or kind
        """
        values = per_input(self.inputs, record)
        if not self._layout.splits:
            return self.predict(record)
        arrays = []
        for spec, value in zip(self._layout.inputs, values, strict=True):
            one = TensorSpec(spec.name, spec.dtype, spec.shape[1:] if spec.is_batched else spec.shape)
            array = convert(one, value)
            check_shape(one, array)
            arrays.append(array[None] if spec.is_batched else array)
        found = self._rows(arrays, self._opened.lanes)
        return self._unpacked(
            tuple(y[0] if s.is_batched else y for y, s in zip(found, self._layout.outputs, strict=True))
        )

    def bind(self, x: Any, y: Any) -> Callable[[], None]:
        """A function without arguments that reads ``x`` and writes ``y``: checked here once, then never again.

        Nothing is allocated per call where the engine can do without. The arrays must stay as they are: the same
        memory is read and written each time.

        Raises:  InputError: an array is not exactly of the model's dtype and shape, contiguous, and (``y``) writable
        """
        inputs = tuple(
            in_place(spec, a, "input") for spec, a in zip(self.inputs, per_input(self.inputs, x), strict=True)
        )
        rows = rows_of(self.inputs, inputs)
        targets = tuple(spec.fixed({} if rows is None else {"batch": rows}) for spec in self.outputs)
        outputs = tuple(in_place(spec, a, "output") for spec, a in zip(targets, per_input(targets, y), strict=True))
        for spec, array in zip(targets, outputs, strict=True):
            if not array.flags.writeable or any(np.may_share_memory(array, other) for other in inputs):
                raise InputError(f"cannot bind output '{spec.name}': expected writable memory apart from the inputs'")
        lane = next((n for n in self._opened.lanes if rows in (None, n.batch) and n.usable()), None)
        if lane is not None:
            runner = lane.runner
            session = runner.session if runner.session.thread_safe else runner.another()
            bind = getattr(session, "bind", None)
            bound: Callable[[], None] | None = bind(inputs, outputs) if bind is not None else None
            if bound is not None:
                return bound
        return self._copying(inputs, outputs)

    def warmup(self, calls: int = 10) -> None:
        """Opens every batch size and calls it a few times, so that the first real answer is as fast as the rest."""
        for lane in self._opened.lanes:
            if lane.usable():
                zeros = [np.zeros(s.static_shape, s.dtype) for s in lane.runner.artefact.inputs]
                for _ in range(calls):
                    lane.runner.call(*zeros)

    def info(self) -> dict[str, Any]:
        """What runs here, as plain data: engine, candidate, sizes, whether the host is the one it was made on,
        verdict, versions."""
        return self._opened.describe(self._opened.lanes[0].runner.artefact)

    def save(self, path: str | Path) -> Path:
        """The bundle, written to ``path`` whole or not at all.

        Raises:  BundleError: not writable, full, or the bundle it was loaded from is gone
        """
        self._opened.save(Path(path))
        return Path(path)

    def close(self) -> None:
        """Frees what the engine holds; calling the model afterwards raises."""
        self._set_target(_closed, (), _closed)
        for lane in self._opened.lanes:
            lane.close()
        self._opened.release()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        candidate = self._opened.lanes[0].runner.artefact.candidate.label
        inputs, outputs = ", ".join(map(str, self.inputs)), ", ".join(map(str, self.outputs))
        return f"<hasten.Model {candidate}: ({inputs}) -> ({outputs})>"

    def _call_slowly(self, *args: Any, **kwargs: Any) -> Any:
        """What does not match exactly ends here: taken if it means the same, refused with the reason otherwise."""
        arrays = [strict(spec, value) for spec, value in zip(self.inputs, self._arguments(args, kwargs), strict=True)]
        rows = rows_of(self.inputs, arrays)
        return self._unpacked(self._first(arrays) if rows is None else self._rows(arrays, self._opened.lanes))

    def _arguments(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Sequence[Any]:
        if kwargs and not args:
            return by_name(self.inputs, kwargs)
        if len(args) == 1 and isinstance(args[0], Mapping) and not kwargs:
            return by_name(self.inputs, args[0])
        if len(args) != len(self.inputs) or kwargs:
            raise InputError(
                f"wrong number of inputs: expected {len(self.inputs)} ({', '.join(map(str, self.inputs))}), "
                f"received {len(args) + len(kwargs)}"
            )
        return args

    def _first(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        found = self._opened.lanes[0].runner.call(*arrays)
        return found if isinstance(found, tuple) else (found,)

    def _rows(self, arrays: Sequence[Array], lanes: Sequence[Lane]) -> tuple[Array, ...]:
        for spec, array in zip(self._layout.inputs, arrays, strict=True):
            check_shape(spec, array)
        rows = rows_of(self._layout.inputs, arrays)
        return self._layout.run(lanes, arrays, rows or 0)

    def _lanes(self, batch_size: int | None) -> Sequence[Lane]:
        if batch_size is None:
            return self._opened.lanes
        if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise InputError(f"wrong batch_size: expected a whole number of at least 1, received {batch_size!r}")
        return [lane for lane in self._opened.lanes if lane.batch <= batch_size] or self._opened.lanes[:1]

    def _copying(self, inputs: tuple[Array, ...], outputs: tuple[Array, ...]) -> Callable[[], None]:
        def call() -> None:
            found = self(*inputs)
            for target, value in zip(outputs, found if isinstance(found, tuple) else (found,), strict=True):
                np.copyto(target, value)

        return call

    def _unpacked(self, found: tuple[Array, ...]) -> Any:
        return found[0] if len(self.outputs) == 1 else found


def _empty(spec: TensorSpec, array: Array) -> Array:
    """``[]`` stands for no rows of any shape."""
    if array.shape == (0,) and spec.is_batched:
        return array.reshape(0, *(d if isinstance(d, int) else 0 for d in spec.shape[1:]))
    return array


def _closed(*_: Any, **__: Any) -> Any:
    raise EngineError("this model is closed: load it again to call it")
