"""A PyTorch module, exported program, TorchScript or pickled file enters; a ``Source`` leaves, answered by eager torch.

``opening`` reads the file or saves the object, ``export`` makes it ONNX.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hasten.errors import HastenError, SourceError
from hasten.graph import reference as graph_reference
from hasten.records import digest
from hasten.sessions.torch import flatten
from hasten.sources import Reference, Source, SourceRequest
from hasten.sources.determinism import REPEATS, check_calls
from hasten.sources.dims import rows_independent, rows_mix
from hasten.sources.onnx import Settled, settle
from hasten.sources.structure import mapped, unlike
from hasten.sources.torch.export import Ports, export
from hasten.sources.torch.nested import Given, flattened, readings, refusal, stored
from hasten.sources.torch.observed import drawn_in, operators
from hasten.sources.torch.opening import Opened, evaluating, keeps_cache, open_file, open_object
from hasten.types import Array, TensorSpec

__all__ = ["open_torch"]


def open_torch(model: object, request: SourceRequest) -> Source:
    """The source of a ``torch.nn.Module``, ``ExportedProgram``, ScriptModule, ``.pt2``, TorchScript or pickled file.

    Raises:  SourceError: it cannot be read, or its inputs are not known; TrustError: opening it would run code;
             NondeterministicError: it is random or keeps state inside
    """
    opened = open_file(Path(model), request) if isinstance(model, (str, Path)) else open_object(model, request)
    opened, sample, names = _sample(opened, request)
    call = _reference(opened)
    _refuse_unsteady(opened, call, sample)
    batched, mix = _batched(sample, call)
    inputs = tuple(
        TensorSpec(name, a.dtype.name, ("batch", *a.shape[1:]) if b else tuple(a.shape))
        for name, a, b in zip(names, sample, batched, strict=True)
    )
    answers = call(sample)
    outputs = tuple(
        TensorSpec(name, a.dtype.name, ("batch", *a.shape[1:]) if any(batched) else a.shape)
        for name, a in zip(_output_names(opened, len(answers), names), answers, strict=True)
    )
    graph, notes = _graph(opened, request, call, (sample, inputs, outputs))
    if keeps_cache(opened.module):
        notes = (*notes, "use_cache is turned off: the cache of keys and values is no output")
    return Source(
        framework="torch",
        path=opened.path,
        model=None if graph is None else graph.model,
        inputs=inputs if graph is None else graph.inputs,
        outputs=outputs if graph is None else graph.outputs,
        reference=call,
        notes=notes if graph is None else (*notes, *graph.notes),
        trusted=opened.trusted,
        fingerprint=digest([opened.content, [spec.to_json() for spec in inputs]]),
        rows_mix=mix,
        sample=tuple(sample) if request.example is not None or request.sample is not None else None,
    )


def _reference(opened: Opened) -> Reference:
    import torch  # noqa: PLC0415 - heavy and optional

    def call(arrays: Sequence[Array]) -> tuple[Array, ...]:
        tensors = [torch.from_numpy(np.array(a)) for a in arrays]
        try:
            with evaluating(opened.module), torch.no_grad():
                # Copied: a module may hand out its own buffer, which the next call overwrites.
                return tuple(t.detach().cpu().numpy().copy() for t in flatten(opened.module(*tensors)))
        except HastenError:
            raise
        except Exception as error:
            raise refusal(error) from error

    return call


def _refuse_unsteady(opened: Opened, call: Reference, sample: Sequence[Array]) -> None:
    """Before anything is exported: an exporter's words on hidden state or randomness would help nobody."""
    import torch  # noqa: PLC0415 - heavy and optional

    draws = False

    def seeded(arrays: Sequence[Array]) -> tuple[Array, ...]:
        nonlocal draws
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            before = torch.get_rng_state()
            answers = call(arrays)
            draws = draws or not torch.equal(before, torch.get_rng_state())
        return answers

    other = [np.flip(a).copy() if a.ndim and np.issubdtype(a.dtype, np.floating) else a for a in sample]
    # With the same seed only state can make a difference; whatever is left without a seed is randomness.
    check_calls(seeded, sample, other, random=False, where=lambda: _changed_buffer(opened.module, call, sample))
    where = partial(drawn_in, opened.module, partial(call, sample))
    check_calls(call, sample, other, random=True, where=where, repeats=REPEATS if draws else 0)


def _changed_buffer(module: Any, call: Reference, sample: Sequence[Array]) -> str | None:
    before = {name: held.detach().clone() for name, held in module.named_buffers()}
    call(sample)
    for name, held in module.named_buffers():
        if name not in before or before[name].shape != held.shape or not bool((before[name] == held).all()):
            return f"buffer '{name}'"
    return None


def _sample(opened: Opened, request: SourceRequest) -> tuple[Opened, list[Array], tuple[str, ...]]:
    """One input to export with: the user's, the one stored with the program, or a random one of the shapes given.

    The module comes with it as it takes that input: one array after the other.
    """
    example = request.sample if request.example is None else request.example
    if example is not None:
        return _as_given(opened, _meanings(opened, example), request)
    kept = stored(opened.program)
    if kept is not None and not request.shapes:
        return _as_given(opened, [kept], request)
    sample, names = _shaped_sample(opened, request, _reference(opened))
    return _as_given(opened, [Given(tuple(sample), {})], request)[0], sample, names


def _meanings(opened: Opened, example: Any) -> Iterator[Given]:
    """What the sample may mean; as it is first, then with its real numbers in the dtype of the module's own."""
    yield from readings(opened, example)
    held = [*opened.module.parameters(), *opened.module.buffers()]
    dtypes = {str(tensor.dtype).removeprefix("torch.") for tensor in held if tensor.is_floating_point()}
    if len(dtypes) == 1 and (own := dtypes.pop()) in ("float16", "float32", "float64"):
        yield from readings(opened, mapped(lambda a: a.astype(own) if a.dtype.kind == "f" else a, example))


def _as_given(
    opened: Opened, meanings: Iterable[Given], request: SourceRequest
) -> tuple[Opened, list[Array], tuple[str, ...]]:
    """The first meaning that the module takes.

    Raises:  SourceError: none; the message is about the likeliest
    """
    first: SourceError | None = None
    for given in meanings:
        try:
            made = flattened(opened, given, request)
            return made, given.arrays(), made.names[: len(given.arrays())]
        except SourceError as error:
            first = first or error
    raise first or SourceError("the sample is empty: expected one array per input")


def _shaped_sample(opened: Opened, request: SourceRequest, call: Reference) -> tuple[list[Array], tuple[str, ...]]:
    unknown = [name for name in request.shapes if name not in opened.names]
    if unknown:
        raise SourceError(f"shape given for unknown input '{unknown[0]}': expected one of {', '.join(opened.names)}")
    names = opened.names[: max(opened.required, len(request.shapes), 1)]
    missing = [name for name in names if name not in request.shapes]
    if missing:
        ask = " ".join(f"--shape {name}=1,100" for name in missing)
        raise SourceError(
            f"a torch model does not say what shape its input '{missing[0]}' has: pass a sample, or say it, "
            f"for example {ask}"
        )
    rng = np.random.default_rng(0)
    floats = [rng.standard_normal(request.shapes[name]).astype(np.float32) for name in names]
    try:
        call(floats)
    except SourceError:
        # Token indices are the other common input; zeros are inside every table.
        integers = [np.zeros(request.shapes[name], np.int64) for name in names]
        call(integers)
        return list(integers), names
    return list(floats), names


def _batched(sample: Sequence[Array], call: Reference) -> tuple[list[bool], bool]:
    """Which inputs have a batch along dimension 0: all that are equally long there, if rows prove independent.

    And whether they prove the contrary.
    """
    lengths = {a.shape[0] if a.ndim else 0 for a in sample}
    if len(lengths) != 1 or lengths == {0}:
        return [False] * len(sample), False
    rng = np.random.default_rng(0)
    rows = [_three_rows(a, rng) for a in sample]
    independent = rows_independent(call, rows)
    return [independent] * len(sample), not independent and rows_mix(call, rows)


def _three_rows(array: Array, rng: np.random.Generator) -> Array:
    stacked = np.concatenate([array[:1]] * 3)
    if np.issubdtype(array.dtype, np.floating):
        return (stacked + rng.standard_normal(stacked.shape)).astype(array.dtype)
    # Integers may be indices: reorder what is known to be safe instead of inventing new ones.
    return np.stack([rng.permutation(row.reshape(-1)).reshape(row.shape) for row in stacked])


def _output_names(opened: Opened, count: int, inputs: Sequence[str]) -> list[str]:
    """As the module's own dict or data class calls them; else numbered."""
    if count != len(opened.outputs) or opened.outputs in (("",), ("0",)):
        return ["output"] if count == 1 else [f"output_{i}" for i in range(count)]
    names = [f"output_{name}" if name[:1].isdigit() else name for name in opened.outputs]
    return unlike([f"{name}_out" if name in inputs else name for name in names])


def _graph(
    opened: Opened,
    request: SourceRequest,
    call: Reference,
    known: tuple[Sequence[Array], tuple[TensorSpec, ...], tuple[TensorSpec, ...]],
) -> tuple[Settled | None, tuple[str, ...]]:
    """The exported graph with a free batch, else at batch 1, else none; and why, the last note whole in itself."""
    sample, inputs, outputs = known
    free = tuple(spec.is_batched for spec in inputs)
    notes: list[str] = []
    reason = ""
    for batched in dict.fromkeys([free, (False,) * len(free)]):
        ports = Ports(tuple(s.name for s in inputs), tuple(s.name for s in outputs), batched)
        # An example of one row would let the exporter take the batch for a constant.
        rows = [
            np.concatenate([a[:1]] * 2) if b else (a[:1] if f else a)
            for a, b, f in zip(sample, batched, free, strict=True)
        ]
        specs = [s if b else s.fixed({"batch": 1}) for s, b in zip(inputs, batched, strict=True)]
        try:
            model = export(opened, _tensors(rows), ports)
            settled = settle(model, _without_shapes(request, rows, batched), call, specs)
            _check(settled, rows, call)
            if any(batched):
                # What a trace takes for a constant fits the batch it was traced with, and no other.
                _check(settled, _lengthened(rows, batched), call)
            return settled, tuple(notes)
        except HastenError as error:
            reason = str(error)
            if any(batched):
                notes.append(f"not exported with a free batch: {reason}")
    return None, (*notes, f"not imported as a graph ({reason}); only torch runs this model")


def _lengthened(rows: Sequence[Array], batched: Sequence[bool]) -> list[Array]:
    return [np.concatenate([a, a[:1]]) if b else a for a, b in zip(rows, batched, strict=True)]


def _tensors(rows: Sequence[Array]) -> list[Any]:
    import torch  # noqa: PLC0415 - heavy and optional

    return [torch.from_numpy(np.array(a)) for a in rows]


def _without_shapes(request: SourceRequest, rows: Sequence[Array], batched: Sequence[bool]) -> SourceRequest:
    sample = tuple(a[:1] if b else a for a, b in zip(rows, batched, strict=True))
    return SourceRequest(trust=request.trust, sample=sample, work=request.work)


def _check(settled: Settled, rows: Sequence[Array], call: Reference) -> None:
    """Raises HastenError where the exported graph's answers are not the module's."""
    for mine, theirs in zip(graph_reference.run(settled.model, rows), call(rows), strict=True):
        close = mine.shape == theirs.shape and np.allclose(mine, theirs, rtol=1e-2, atol=1e-3, equal_nan=True)
        if not close or mine.dtype != theirs.dtype:
            raise SourceError(f"the exported graph's answers are not the module's{_hint(call, rows)}")


def _hint(call: Reference, rows: Sequence[Array]) -> str:
    """What is known to make an exported graph's answers others, where the module runs it."""
    if "_nested_tensor_from_mask" in operators(lambda: call(rows)):
        return (
            "; nested tensors answer zeros at padding: build its nn.TransformerEncoder with enable_nested_tensor=False"
        )
    return ""
