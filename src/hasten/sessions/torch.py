"""A copy of the user's PyTorch model enters; one way to call it leaves, numpy in and numpy out.

What each path includes, every time: arrays become tensors (``fed numpy``: by ``torch.from_numpy``, no copy; ``fed
tensor``: copied into tensors that are ready), the call in its grad mode, answers as arrays. Such an artefact needs the
whole framework and is never shipped: ``details["framework"]`` says so.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hasten.errors import EngineError, MissingLibraryError
from hasten.records import Artefact
from hasten.types import TensorSpec

__all__ = ["flat_module", "flatten", "load_module", "open_session"]

Tensors = Callable[..., tuple[Any, ...]]


@dataclass
class _TorchSession:
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    call: Callable[..., Any]
    thread_safe: bool = False

    def close(self) -> None:
        self.call = _closed


def open_session(artefact: Artefact) -> _TorchSession:
    """The artefact's model with its call path built and called once.

    Raises:  MissingLibraryError: no PyTorch; EngineError: PyTorch refuses the file or the path
    """
    path = str(artefact.candidate.option("path"))
    # What Inductor compiles belongs to this trial, not to a cache of the user's that outlives it.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(artefact.folder / "inductor")
    try:
        import torch  # noqa: PLC0415 - a framework, in its own adapter
    except ImportError as error:
        raise MissingLibraryError("torch: PyTorch is not installed: install hasten[torch]") from error
    torch.set_num_threads(artefact.candidate.threads)
    try:
        model = _model(artefact, path)
        return _TorchSession(artefact.inputs, artefact.outputs, _call(artefact, model, path))
    except EngineError:
        raise
    except Exception as error:
        raise EngineError(f"torch {path}: cannot open the model: {_line(error)}") from error


def load_module(path: Path, *, trust: bool) -> Any:
    """The module of a ``.pt2``, TorchScript, pickled or ``.cloudpickle`` file, in evaluation mode.

    Raises:  EngineError: opening it would run code and ``trust`` is not set
    """
    import torch  # noqa: PLC0415 - a framework, in its own adapter

    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    if not trust:
        raise EngineError(f"torch: '{path.name}' can run code when it is opened: expected trust=True (--trust)")
    if path.suffix == ".cloudpickle":
        return pickle.loads(path.read_bytes()).eval()
    try:
        return torch.jit.load(str(path), map_location="cpu").eval()
    except RuntimeError:
        # Reached with trust=True alone: the user vouches for the file.
        return torch.load(path, map_location="cpu", weights_only=False).eval()  # hasten: ignore[H501]


def flatten(answer: Any) -> tuple[Any, ...]:
    """Every tensor of a nested answer, in order; None is left out.

    Raises:  TypeError: it holds something else, or nothing
    """
    import torch  # noqa: PLC0415 - a framework, in its own adapter

    if isinstance(answer, torch.Tensor):
        return (answer,)
    leaves = tuple(leaf for leaf in torch.utils._pytree.tree_leaves(answer) if leaf is not None)
    other = next((leaf for leaf in leaves if not isinstance(leaf, torch.Tensor)), None)
    if other is not None or not leaves:
        what = "nothing" if other is None else f"a {type(other).__name__}"
        raise TypeError(f"the module returns {what}: expected tensors, alone or in tuples, lists and dicts")
    return leaves


def flat_module(module: Any) -> Any:
    """A module that returns ``module``'s tensors as a flat tuple, for tracers and exporters."""
    import torch  # noqa: PLC0415 - a framework, in its own adapter

    class Flat(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *tensors: Any) -> tuple[Any, ...]:
            return flatten(self.module(*tensors))

        def train(self, mode: bool = True) -> Any:
            try:
                return super().train(mode)
            except NotImplementedError:  # an exported program's: it keeps the mode that it was exported in
                self.training = mode
                return self

    return Flat()


def _model(artefact: Artefact, path: str) -> Any:
    import torch  # noqa: PLC0415 - a framework, in its own adapter

    file = artefact.folder / str(artefact.details["file"])
    if path == "aot_inductor":
        return torch._inductor.aoti_load_package(str(file))
    if path == "scripted_frozen":
        return torch.jit.load(str(file), map_location="cpu")
    module = load_module(file, trust=bool(artefact.details.get("trust")))
    return torch.compile(module, dynamic=False) if path == "compile" else module


def _call(artefact: Artefact, model: Any, path: str) -> Callable[..., Any]:
    import torch  # noqa: PLC0415 - a framework, in its own adapter

    feed = _feed_ready if artefact.candidate.option("fed") == "tensor" else _feed_numpy
    mode = torch.no_grad if path == "no_grad" else None if path == "eager" else torch.inference_mode
    specs = artefact.inputs
    tensors = [torch.zeros(spec.static_shape, dtype=getattr(torch, spec.dtype)) for spec in specs]
    with torch.no_grad():
        answer = model(*tensors)
    answers = flatten(answer)
    if len(answers) != len(artefact.outputs):
        raise EngineError(f"torch {path}: expected {len(artefact.outputs)} outputs, received {len(answers)}")
    plain = answer if isinstance(answer, torch.Tensor) else None
    shared = _shares(answers, tensors, model)
    run = _one(model, shared) if plain is not None else _several(model, shared)
    return feed(_in_mode(run, mode), tensors)


def _one(model: Any, shared: bool) -> Callable[..., Any]:
    if shared:
        return lambda *tensors: model(*tensors).detach().clone().numpy()
    return lambda *tensors: model(*tensors).detach().numpy()


def _several(model: Any, shared: bool) -> Callable[..., Any]:
    def run(*tensors: Any) -> Any:
        answers = [t.detach().clone().numpy() if shared else t.detach().numpy() for t in flatten(model(*tensors))]
        return answers[0] if len(answers) == 1 else tuple(answers)

    return run


def _in_mode(run: Callable[..., Any], mode: Any) -> Callable[..., Any]:
    if mode is None:
        return run

    def call(*tensors: Any) -> Any:
        with mode():
            return run(*tensors)

    return call


def _feed_numpy(run: Callable[..., Any], _: Sequence[Any]) -> Callable[..., Any]:
    import torch  # noqa: PLC0415 - a framework, in its own adapter

    make = torch.from_numpy
    return lambda *arrays: run(*[make(array) for array in arrays])


def _feed_ready(run: Callable[..., Any], tensors: Sequence[Any]) -> Callable[..., Any]:
    ready = [tensor.clone() for tensor in tensors]
    views = [tensor.numpy() for tensor in ready]

    def call(*arrays: Any) -> Any:
        for view, array in zip(views, arrays):  # noqa: B905 - the runtime has checked the count
            np.copyto(view, array)
        return run(*ready)

    return call


def _shares(answers: Sequence[Any], tensors: Sequence[Any], model: Any) -> bool:
    """True where an answer lies in memory that another call will write: an input, or the module's own buffer."""
    held = [*tensors]
    for name in ("parameters", "buffers"):
        held += list(getattr(model, name)()) if hasattr(model, name) else []
    kept = {tensor.untyped_storage().data_ptr() for tensor in held}
    return any(answer.untyped_storage().data_ptr() in kept for answer in answers)


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def _closed(*_: Any) -> Any:
    raise EngineError("torch: this session is closed")
