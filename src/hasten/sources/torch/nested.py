"""A module that takes dicts, lists or tuples of tensors, or takes them by name, becomes one that takes tensors alone.

So every session, exporter and compiler sees flat inputs. Names come from the keys and places in the user's sample.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hasten.errors import SourceError
from hasten.records import digest
from hasten.sessions.torch import flat_module
from hasten.sources import SourceRequest
from hasten.sources.onnx import work_folder
from hasten.sources.structure import entries, leaves, mapped, unlike
from hasten.sources.torch.opening import Opened, evaluating, save_module
from hasten.types import Array

__all__ = ["Given", "flattened", "stored"]


@dataclass(frozen=True)
class Given:
    """One call of a module: what it is given by place and by name, arrays at the ends."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def is_flat(self) -> bool:
        """Whether a call with arrays in a row is the same."""
        return not self.kwargs and all(isinstance(a, np.ndarray) for a in self.args)

    def arrays(self) -> list[Array]:
        """The ends, in the order of ``torch``'s own flattening."""
        return [leaf for _, leaf in leaves((self.args, dict(self.kwargs)))]

    def names(self, parameters: Sequence[str]) -> tuple[str, ...]:
        """A name for each end; a dict that is all the module takes gives its keys alone."""
        whole = [*zip(parameters, self.args, strict=False), *self.kwargs.items()]
        alone = len(whole) == 1 and isinstance(whole[0][1], Mapping)
        paths = [(*(() if alone else (name,)), *path) for name, value in whole for path, _ in leaves(value)]
        return tuple(unlike(["_".join(map(str, path)) for path in paths]))


def readings(opened: Opened, example: Any) -> Iterator[Given]:
    """What the user's sample may mean as a call, the likeliest first.

    Raises:  SourceError: nothing; the message says what the module takes
    """
    most, known = len(opened.names), isinstance(example, Mapping)
    if known:
        fits = opened.keywords is None or set(example) <= {*opened.names, *opened.keywords}
    else:
        fits = opened.required <= len(example) <= most
    if fits:
        yield _by_name(opened.names, example) if known else Given(tuple(example), {})
    single = opened.required <= 1 <= most
    if single and (known or len(example) != 1):
        yield Given((example,), {})
    if not fits and not (known and single):
        expected = opened.names[: max(opened.required, 1)]
        received = f"arrays named {', '.join(example)}" if known else f"{len(example)} arrays"
        raise SourceError(f"sample has {received}: the model takes {len(expected)}: {', '.join(expected)}")


def _by_name(parameters: Sequence[str], example: Mapping[str, Any]) -> Given:
    """By place as far as the parameters go without a gap: then nothing has to be wrapped."""
    count = next((k for k, name in enumerate(parameters) if name not in example), len(parameters))
    placed = parameters[:count]
    return Given(tuple(example[n] for n in placed), {n: v for n, v in example.items() if n not in placed})


def stored(program: Any) -> Given | None:
    """The example that was exported with a program."""
    held = None if program is None else program.example_inputs
    if held is None:
        return None
    args, kwargs = mapped(lambda tensor: tensor.detach().cpu().numpy(), held)
    return Given(tuple(args), kwargs)


def flattened(opened: Opened, given: Given, request: SourceRequest) -> Opened:
    """The module as it takes ``given``'s ends in a row and answers in structures that torch knows.

    Raises:  SourceError: it does not take them, or cannot be saved
    """
    answer = _called(opened.module, given)
    outputs = unlike(["_".join(map(str, path)) for path, _ in leaves(answer)])
    plain = not _holds_data_class(answer) if opened.kind != "script" else _is_plain_script(opened.module, answer)
    if given.is_flat and plain:
        return replace(opened, outputs=tuple(outputs))
    names = given.names(opened.names)
    made = _saved(opened, _packed(opened.module, given), given, work_folder(request))
    content = digest([opened.content, names, list(given.kwargs)])
    return replace(made, names=names, required=len(names), content=content, outputs=tuple(outputs))


def _called(module: Any, given: Given) -> Any:
    import torch  # noqa: PLC0415 - heavy and optional

    args, kwargs = mapped(lambda array: torch.from_numpy(np.array(array)), (given.args, given.kwargs))
    try:
        with evaluating(module), torch.no_grad():
            return module(*args, **kwargs)
    except Exception as error:
        raise refusal(error) from error


def refusal(error: Exception) -> SourceError:
    """Why a module did not take its inputs, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    wanted = next((line for line in lines if "Error" in line), lines[0])
    if isinstance(error, KeyError):
        wanted = f"it looks up {wanted}, which the sample lacks"
    return SourceError(f"cannot run the torch model: {wanted[:300]}; check the sample's shapes and dtypes")


def _holds_data_class(value: Any) -> bool:
    if dataclasses.is_dataclass(value) and not isinstance(value, Mapping):
        return True
    return any(_holds_data_class(part) for _, part in entries(value) or ())


def _is_plain_script(script: Any, answer: Any) -> bool:
    """Whether it takes and gives tensors alone: optional inputs and dicts of answers have no form in ONNX."""
    import torch  # noqa: PLC0415 - heavy and optional

    answers = answer if isinstance(answer, tuple) else (answer,)
    taken = {str(argument.type) for argument in script.forward.schema.arguments[1:]}
    return taken <= {"Tensor"} and all(isinstance(part, torch.Tensor) for part in answers)


def _packed(module: Any, given: Given) -> Any:
    """A module that takes tensors in a row and calls ``module`` as ``given`` does.

    Its class is made here, so that a pickle holds it whole and is opened where hasten's importers are not.
    """
    import dataclasses  # noqa: PLC0415 - by reference in the pickle

    import torch  # noqa: PLC0415 - heavy and optional

    tree = torch.utils._pytree
    _, spec = tree.tree_flatten((given.args, dict(given.kwargs)))
    holes = [leaf is not None for leaf in tree.tree_leaves((given.args, dict(given.kwargs)))]

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(part) for key, part in value.items()}
        if dataclasses.is_dataclass(value):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return [plain(part) for part in value] if isinstance(value, (list, tuple)) else value

    class Packed(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
        def __init__(self) -> None:
            super().__init__()
            self.module = module
            self.config = getattr(module, "config", None)

        def forward(self, *tensors: Any) -> Any:
            rest = iter(tensors)
            args, kwargs = tree.tree_unflatten([next(rest) if full else None for full in holes], spec)
            return plain(self.module(*args, **kwargs))

    packed = Packed()
    packed.training = module.training
    return packed


def _saved(opened: Opened, packed: Any, given: Given, folder: Path) -> Opened:
    import torch  # noqa: PLC0415 - heavy and optional

    if opened.kind == "module":
        return save_module(packed, folder)
    tensors = tuple(torch.from_numpy(np.array(a)) for a in given.arrays())
    path = folder / ("program.pt2" if opened.kind == "program" else "script.pt")
    try:
        with torch.no_grad():
            if opened.kind == "script":
                module = torch.jit.trace(flat_module(packed).eval(), tensors, check_trace=False, strict=False)
                torch.jit.save(module, str(path))
                return replace(opened, module=module, path=path)
            program = torch.export.export(packed, tensors)
            torch.export.save(program, path)
            return replace(opened, module=program.module(), path=path, program=program)
    except Exception as error:
        raise SourceError(
            f"cannot flatten the inputs of this {opened.kind}: {refusal(error)}; hand in the module itself"
        ) from error
