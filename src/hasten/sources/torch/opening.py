"""A PyTorch file or object enters; a callable module leaves, and the file that a candidate's process opens again.

Pickles and TorchScript can run code when they are opened: only with ``trust``. A module that the user already holds in
memory is saved by us, as ``module.cloudpickle``, and that file is trusted.
"""

from __future__ import annotations

import contextlib
import copy
import pickle
import sys
import sysconfig
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hasten.errors import NondeterministicError, SourceError, TrustError
from hasten.quiet import unlogged
from hasten.records import digest
from hasten.sources import SourceRequest
from hasten.sources.onnx import work_folder

__all__ = ["Opened", "evaluating", "keeps_cache", "open_file", "open_object", "save_module"]


@dataclass(frozen=True)
class Opened:
    """A module as PyTorch sees it."""

    module: Any
    kind: str
    """module, script or program."""
    path: Path
    names: tuple[str, ...]
    """Names of the positional inputs, as many as the module will take."""
    required: int
    trusted: bool
    content: str
    """Digest of what was saved."""
    program: Any = None
    """The exported program, where that is what was handed in."""
    keywords: frozenset[str] | None = frozenset()
    """What ``forward`` takes by name alone; None: anything."""
    outputs: tuple[str, ...] = ()
    """Names for its answers, where it names them."""


def open_file(path: Path, request: SourceRequest) -> Opened:
    """The module of a ``.pt2``, TorchScript or pickled file.

    Raises:  SourceError: damaged, or weights without a model; TrustError: opening it would run code
    """
    kind = _kind(path)
    if kind == "program":
        return _open_program(path)
    if kind == "script":
        if not request.trust:
            raise TrustError(_distrust(path, "TorchScript"))
        return _open_script(path)
    return _open_pickle(path, request)


def open_object(model: Any, request: SourceRequest) -> Opened:
    """The module itself, saved so that candidates' processes can open it.

    Raises:  SourceError: it cannot be saved; cloudpickle is not installed
    """
    import torch  # noqa: PLC0415 - heavy and optional

    folder = work_folder(request)
    if isinstance(model, torch.export.ExportedProgram):
        path = folder / "program.pt2"
        torch.export.save(model, path)
        return _open_program(path)
    if isinstance(model, torch.jit.ScriptModule):
        path = folder / "script.pt"
        refuse_written_state(model)
        torch.jit.save(model, path)
        names, required = _schema_names(model)
        return Opened(model, "script", path, names, required, True, digest(path.read_bytes()))
    return save_module(_without_parametrizations(model), folder)


def save_module(model: Any, folder: Path) -> Opened:
    """The module with a copy of it in ``folder`` that candidates' processes open.

    Raises:  SourceError: it cannot be saved; cloudpickle is not installed
    """
    path = folder / "module.cloudpickle"
    try:
        import cloudpickle  # noqa: PLC0415 - optional library
    except ImportError as error:
        raise SourceError("cannot save this module for its candidates: install hasten[torch] (cloudpickle)") from error
    try:
        with evaluating(model):
            data = _whole(model, cloudpickle)
    except Exception as error:
        raise SourceError(f"cannot save this module for its candidates: {_line(error)}; make it picklable") from error
    path.write_bytes(data)
    return _module(model, path, digest(data))


def _whole(model: Any, cloudpickle: Any) -> bytes:
    """The pickled module with the code of classes that are not installed: other processes may not find their files."""
    own = {type(part).__module__ for part in model.modules()} - cloudpickle.list_registry_pickle_by_value()
    added = [module for name in own if (module := sys.modules.get(name)) is not None and not _is_installed(module)]
    try:
        for module in added:
            cloudpickle.register_pickle_by_value(module)
        data: bytes = cloudpickle.dumps(model)
        return data
    except Exception:  # something beside those classes that cannot be pickled: then they must be found
        for module in added:
            cloudpickle.unregister_pickle_by_value(module)
        added.clear()
        data = cloudpickle.dumps(model)
        return data
    finally:
        for module in added:
            cloudpickle.unregister_pickle_by_value(module)


def _is_installed(module: Any) -> bool:
    file = getattr(module, "__file__", None)
    places = [sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")]
    return file is None or any(Path(file).is_relative_to(place) for place in places)


def _module(model: Any, path: Path, content: str) -> Opened:
    names, required = _signature_names(model.forward)
    return Opened(model, "module", path, names, required, True, content, keywords=_keywords(model.forward))


def _without_parametrizations(model: Any) -> Any:
    """The module itself, or a copy in which weights that are computed (``weight_norm`` and the like) are plain ones.

    A parametrised module cannot be pickled, and would compute its weights again in every call.
    """
    import torch.nn.utils.parametrize as parametrize  # noqa: PLC0415 - heavy and optional

    if not any(parametrize.is_parametrized(part) for part in model.modules()):
        return model
    with evaluating(model):
        plain = copy.deepcopy(model)
        for part in [part for part in plain.modules() if parametrize.is_parametrized(part)]:
            # A copy shares the class that torch made for the original, from which removing takes the weight away.
            kind = type(part)
            own = {name: held for name, held in vars(kind).items() if name not in ("__dict__", "__weakref__")}
            part.__class__ = type(kind.__name__, kind.__bases__, own)
            for name in list(part.parametrizations):
                parametrize.remove_parametrizations(part, name, leave_parametrized=True)
    return plain


@contextlib.contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """Sets evaluation mode for a while; every submodule then gets the mode back that it had, whatever a tracer set.

    Language models of ``transformers`` would also return a cache of keys and values, an object: that is turned off.
    """
    modes = [(part, part.training) for part in module.modules()] if hasattr(module, "modules") else []
    config: Any = getattr(module, "config", None)
    caches = keeps_cache(module)
    for part, training in modes:
        if training:
            part.training = False
    if caches:
        config.use_cache = False
    try:
        yield
    finally:
        for part, training in modes:
            if part.training != training:
                part.training = training
        if caches:
            config.use_cache = True


def keeps_cache(module: Any) -> bool:
    """True for a module that would return a cache beside its answers."""
    return getattr(getattr(module, "config", None), "use_cache", False) is True


def _kind(path: Path) -> str:
    if not zipfile.is_zipfile(path):
        return "pickle"
    with zipfile.ZipFile(path) as archive:
        inner = {name.split("/", 1)[-1] for name in archive.namelist()}
    if inner & {"archive_format", "serialized_exported_program.json"}:
        return "program"
    return "script" if "constants.pkl" in inner or any(name.startswith("code/") for name in inner) else "pickle"


def _open_program(path: Path) -> Opened:
    import torch  # noqa: PLC0415 - heavy and optional

    try:
        # By its name torch would refuse every ending but .pt2; of each loader that it tries it logs a traceback.
        with path.open("rb") as file, unlogged("torch.export"):
            program = torch.export.load(file)
        module = program.module()
    except Exception as error:
        raise SourceError(f"cannot open exported program '{path}': {_line(error)}") from error
    names = tuple(str(name) for name in program.graph_signature.user_inputs)
    return Opened(module, "program", path, names, len(names), False, digest(path.read_bytes()), program)


def _open_script(path: Path) -> Opened:
    import torch  # noqa: PLC0415 - heavy and optional

    try:
        module = torch.jit.load(str(path), map_location="cpu").eval()
    except Exception as error:
        raise SourceError(f"cannot open TorchScript file '{path}': {_line(error)}") from error
    refuse_written_state(module)
    names, required = _schema_names(module)
    return Opened(module, "script", path, names, required, True, digest(path.read_bytes()))


def refuse_written_state(script: Any) -> None:
    """Raises NondeterministicError where TorchScript code writes to the module's own attributes.

    Seen in the code, so that it is said before the user is asked for input shapes.
    """
    for node in script.inlined_graph.nodes():
        kind = node.kind()
        written = kind == "prim::SetAttr" or (kind.startswith("aten::") and kind.endswith("_"))
        name = _attribute(next(iter(node.inputs()))) if written else None
        if name is not None or kind == "prim::SetAttr":
            name = name or node.s("name")
            raise NondeterministicError(
                f"the model answers the same input in different ways (state kept inside: it writes '{name}'): "
                "expected the same answer twice; export it with its state as an input and an output"
            )


def _attribute(value: Any) -> str | None:
    """The name of the module's attribute that this value is, or is a view of."""
    views = ("aten::slice", "aten::select", "aten::view", "aten::detach", "aten::narrow", "aten::squeeze")
    node = value.node()
    while node.kind() in views:
        node = next(iter(node.inputs())).node()
    return str(node.s("name")) if node.kind() == "prim::GetAttr" else None


def _open_pickle(path: Path, request: SourceRequest) -> Opened:
    import torch  # noqa: PLC0415 - heavy and optional

    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not request.trust:
            raise TrustError(_distrust(path, "a pickled module")) from error
        held = _unpickled(path)
    except Exception as error:
        raise SourceError(
            f"cannot open '{path}': expected a PyTorch file, received a damaged one ({_line(error)})"
        ) from error
    if isinstance(held, torch.nn.Module):
        return _module(held, path, digest(path.read_bytes()))
    if isinstance(held, dict):
        raise SourceError(
            f"cannot open '{path}': it holds weights without a model (a state_dict of {len(held)} entries); load them "
            "into your module and hand that in, or save it with torch.export.save"
        )
    raise SourceError(f"cannot open '{path}': expected a module, received a pickled {type(held).__name__}")


def _unpickled(path: Path) -> Any:
    import torch  # noqa: PLC0415 - heavy and optional

    try:
        # Reached with trust=True alone: the user vouches for the file.
        return torch.load(path, map_location="cpu", weights_only=False)  # hasten: ignore[H501]
    except (AttributeError, ModuleNotFoundError) as error:
        raise SourceError(
            f"cannot open '{path}': its classes are not importable here ({_line(error)}); run where they are, or save "
            "the model with torch.export.save"
        ) from error
    except Exception as error:
        raise SourceError(f"cannot open '{path}': {_line(error)}") from error


def _distrust(path: Path, what: str) -> str:
    return (
        f"cannot open '{path}': {what} can run code when it is opened; "
        "if you trust its origin, pass trust=True (--trust)"
    )


def _signature_names(forward: Any) -> tuple[tuple[str, ...], int]:
    import inspect  # noqa: PLC0415 - needed here alone

    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(forward).parameters.values()
    taken = [p for p in parameters if p.kind in kinds]
    names = [p.name for p in taken]
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        names += [f"input_{i}" for i in range(len(names), 16)]
    return tuple(names), sum(p.default is inspect.Parameter.empty for p in taken)


def _keywords(forward: Any) -> frozenset[str] | None:
    import inspect  # noqa: PLC0415 - needed here alone

    parameters = inspect.signature(forward).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return None
    return frozenset(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)


def _schema_names(module: Any) -> tuple[tuple[str, ...], int]:
    # The first one is the module itself, whatever its author calls it.
    arguments = module.forward.schema.arguments[1:]
    return tuple(a.name for a in arguments), sum(not a.has_default_value() for a in arguments)


def _line(error: Exception) -> str:
    lines: Sequence[str] = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
