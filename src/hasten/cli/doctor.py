"""``hasten doctor``: the slow habits in code that calls models, and in models themselves; mended on request."""

from __future__ import annotations

import json as json_module  # the option has taken its name
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hasten.cli import options as o
from hasten.errors import (
    HastenError,
    NondeterministicError,
    OpenShapeError,
    SettingsError,
    SourceError,
    TrustError,
)

if TYPE_CHECKING:
    from hasten.doctor.check import Result
    from hasten.doctor.settings import Settings
    from hasten.records import Finding
    from hasten.sources import Source, SourceRequest

__all__ = ["doctor"]

_CODE = (".py", ".pyw", ".ipynb", ".pyi")


def doctor(
    paths: Annotated[
        list[str] | None, typer.Argument(help="Files, folders, notebooks, models, or - for stdin.")
    ] = None,
    fix: Annotated[bool, typer.Option("--fix", help="Rewrite what can be rewritten safely.")] = False,
    unsafe_fixes: Annotated[bool, typer.Option("--unsafe-fixes", help="Rewrite also what may change results.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show what --fix would change, and change nothing.")] = False,
    select: Annotated[list[str] | None, typer.Option(help="Rules to use: [bold]H0,H201[/]; default all.")] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Rules to leave out.")] = None,
    output: Annotated[str, typer.Option("--format", help="text, json, github or sarif.")] = "text",
    statistics: Annotated[bool, typer.Option("--statistics", help="Count the findings of each rule.")] = False,
    explain: Annotated[str | None, typer.Option(metavar="CODE", help="Show a rule's documentation.")] = None,
    stdin_filename: Annotated[str, typer.Option(help="What to call the code that comes from stdin.")] = "<stdin>",
    trust: Annotated[
        bool, typer.Option("--trust", help="Open models that can run code (for model files only).")
    ] = False,
    shape: o.Shapes = None,
    json: o.AsJson = False,
) -> None:
    """Find slow habits in code that calls models, and in models; exit with 1 if there are any.

    It never imports or runs the code it reads.
    """
    from hasten.doctor import output as out  # noqa: PLC0415  (the rules: not for --help)

    if explain is not None:
        print(_explained(explain, as_json=json))
        return
    output = "json" if json else output
    if output not in out.FORMATS:
        raise SettingsError(f"unknown --format '{output}': expected one of {', '.join(out.FORMATS)}")
    if diff and output != "text":
        raise SettingsError(f"--diff prints a diff alone: expected no other format, received {output}; leave one out")
    code, models = _sorted_out(paths or ["."])
    settings = _settings(code or ["."], select, ignore)
    how = "unsafe" if unsafe_fixes else "safe" if fix or diff else ""
    results = _examine(code, settings, how, write=not diff, stdin_filename=stdin_filename)
    alone = not code and len(models) == 1
    results += _of_models(models, settings, _Opening(trust, o.shapes_of(shape), alone))
    if diff:
        print("".join(r.diff for r in results), end="")
        raise typer.Exit(1 if any(r.diff for r in results) else 0)
    _print(results, output, statistics, to_stderr=bool(how) and "-" in code)
    raise typer.Exit(1 if out.findings_of(results) else 0)


def _examine(code: list[str], settings: Settings, how: str, *, write: bool, stdin_filename: str) -> list[Result]:
    from hasten.doctor.run import examine, examine_bytes  # noqa: PLC0415

    results: list[Result] = []
    if "-" in code:
        data = sys.stdin.buffer.read()
        result = examine_bytes(data, settings, name=stdin_filename, fix=how)
        if how and write:  # as formatters do: the mended text to standard output
            sys.stdout.buffer.write(result.fixed if result.fixed is not None else data)
            sys.stdout.flush()
        results.append(result)
    files = [Path(p) for p in code if p != "-"]
    return results + (examine(files, settings, fix=how, write=write) if files else [])


def _print(results: Sequence[Result], output: str, statistics: bool, *, to_stderr: bool) -> None:
    from importlib.metadata import version  # noqa: PLC0415

    from hasten.doctor import output as out  # noqa: PLC0415

    if statistics and output == "text":
        text = out.statistics(results)
    elif output == "json":
        text = out.as_json(results)
    elif output == "sarif":
        text = out.as_sarif(results, version("hasten"), _home_page())
    else:
        text = out.as_github(results) if output == "github" else out.as_text(results)
    if text:
        stream = sys.stderr if to_stderr else sys.stdout
        # A file's name may hold bytes that are no text: shown as escapes, never a crash.
        encoding = getattr(stream, "encoding", None) or "utf-8"
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream)


def _home_page() -> str:
    """The first address that the installed package names as its own; '' where it names none."""
    from importlib.metadata import metadata  # noqa: PLC0415

    named = metadata("hasten").get_all("Project-URL") or []
    return next((url.partition(",")[2].strip() for url in named), "")


def _sorted_out(paths: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Code (files, folders, stdin) and models, each in order."""
    code: list[str] = []
    models: list[Path] = []
    for name in paths:
        path = Path(name)
        if name == "-" or not path.exists() or path.suffix in _CODE or _is_plain_folder(path) or _is_script(path):
            code.append(name)
        else:
            models.append(path)
    return code, models


def _is_plain_folder(path: Path) -> bool:
    return path.is_dir() and not (path / "saved_model.pb").exists()


def _is_script(path: Path) -> bool:
    if path.is_dir():
        return False
    with path.open("rb") as file:
        head = file.read(64)
    return head.startswith(b"#!") and b"python" in head


def _settings(paths: Sequence[str], select: list[str] | None, ignore: list[str] | None) -> Settings:
    from hasten.doctor.rules import rule_names  # noqa: PLC0415
    from hasten.doctor.settings import find_settings  # noqa: PLC0415

    first = next((Path(p) for p in paths if p != "-" and Path(p).exists()), Path())
    settings = find_settings(first)
    chosen, refused = _codes(select), _codes(ignore)
    known = (*rule_names(), "H000")
    for given in (*chosen, *refused):
        if given != "ALL" and not any(code.startswith(given) for code in known):
            raise SettingsError(f"unknown rule '{given}': expected a code such as H001 or its beginning; see --explain")
    return replace(settings, select=chosen or settings.select, ignore=(*settings.ignore, *refused))


def _codes(given: list[str] | None) -> tuple[str, ...]:
    return tuple(code.strip().upper() for text in given or () for code in text.split(",") if code.strip())


def _explained(code: str, *, as_json: bool) -> str:
    from hasten.doctor.rules import documentation, rule_names  # noqa: PLC0415

    names = rule_names()
    wanted = code.upper()
    if wanted not in names:
        raise SettingsError(f"unknown rule '{code}': expected one of {', '.join(names)}")
    text = documentation(wanted).strip()
    if as_json:
        return json_module.dumps({"code": wanted, "name": names[wanted], "documentation": text}, indent=1)
    return f"# {wanted} {names[wanted]}\n\n{text}"


@dataclass(frozen=True)
class _Opening:
    """How models are opened. ``alone``: one that cannot be is an error, and no finding beside those of others."""

    trust: bool
    shapes: Mapping[str, tuple[int, ...]]
    alone: bool


def _of_models(paths: Sequence[Path], settings: Settings, opening: _Opening) -> list[Result]:
    return [(_model if opening.alone else _model_of_many)(path, settings, opening) for path in paths]


def _model_of_many(path: Path, settings: Settings, opening: _Opening) -> Result:
    """A model's result; one that cannot be opened is a finding, and costs the others nothing."""
    from hasten.doctor.check import UNREADABLE, Result  # noqa: PLC0415
    from hasten.records import Finding  # noqa: PLC0415

    try:
        return _model(path, settings, opening)
    except HastenError as error:
        remedy = "Mend the file, or name it no longer."
        return Result(str(path), (Finding(UNREADABLE, str(error), remedy, str(path)),))


def _model(path: Path, settings: Settings, opening: _Opening) -> Result:
    from tempfile import TemporaryDirectory  # noqa: PLC0415  (not for --help)

    from hasten.doctor.check import Result  # noqa: PLC0415
    from hasten.doctor.graphs import examine_model, graph_of_file, notes_of  # noqa: PLC0415  (onnx)
    from hasten.sources import SourceRequest  # noqa: PLC0415
    from hasten.sources.detect import open_source  # noqa: PLC0415

    with TemporaryDirectory(prefix="hasten-") as work:  # an importer may leave a copy of the model there
        request = SourceRequest(trust=opening.trust, shapes=opening.shapes, work=Path(work))
        asked: dict[str, tuple[int, ...]] = {}  # what is free, and a number that would do for each
        while True:
            try:
                source = open_source(path, request)
            except TrustError:
                raise
            except OpenShapeError as error:
                if error.shapes.keys() <= request.shapes.keys():
                    return _unopened(path, settings, error)
                request = replace(request, shapes={**request.shapes, **error.shapes})
                asked |= error.shapes
            except SourceError as error:
                return _unopened(path, settings, error)
            else:
                break
        findings = examine_model(source.model, path, settings)
        if source.model is None:
            findings += _answers_alike(source, request, path, settings)
        if asked:  # what is free is told of the file as it stands
            as_it_stands = examine_model(graph_of_file(path), path, settings)
            free = () if any(f.rule == "H606" for f in as_it_stands) else _free(asked, path, settings)
            findings = tuple(dict.fromkeys((*as_it_stands, *free, *findings)))
        return Result(str(path), findings, skipped=notes_of(source.model, source.notes))


def _unopened(path: Path, settings: Settings, error: SourceError) -> Result:
    """What can be said of a model that no engine takes as it is: that may be the very fault to report.

    Raises:  SourceError: nothing can
    """
    from hasten.doctor.check import Result  # noqa: PLC0415
    from hasten.doctor.graphs import examine_model, graph_of_file  # noqa: PLC0415  (onnx)

    if isinstance(error, NondeterministicError):
        random = _noise(error, path, settings)
        return Result(str(path), random, skipped="" if random else str(error))
    graph = graph_of_file(path)
    findings = examine_model(graph, path, settings)
    if not findings:
        raise error
    return Result(str(path), findings, skipped=f"beyond what the file itself shows: {error}")


def _free(shapes: Mapping[str, tuple[int, ...]], path: Path, settings: Settings) -> tuple[Finding, ...]:
    """A finding for each input of a file whose free dimensions its importer alone knows of."""
    from hasten.doctor.rules import graph_rules  # noqa: PLC0415
    from hasten.records import Finding  # noqa: PLC0415

    rule = next(r for r in graph_rules() if r.code == "H606")
    if not settings.wants(rule.code):
        return ()
    texts = {name: f"input '{name}': has free dimensions; examined as {shape}" for name, shape in shapes.items()}
    return tuple(Finding(rule.code, text, rule.remedy, str(path)) for text in texts.values())


def _answers_alike(source: Source, request: SourceRequest, path: Path, settings: Settings) -> tuple[Finding, ...]:
    """The finding that a model without a graph gives one input two answers, where it does."""
    from hasten.sources.determinism import check_deterministic  # noqa: PLC0415
    from hasten.sources.samples import samples  # noqa: PLC0415

    try:
        check_deterministic(source, samples(source, request, 0, 2))
    except NondeterministicError as error:
        return _noise(error, path, settings)
    except Exception:  # of its own framework, on inputs drawn at random: then that is not known
        return ()
    return ()


def _noise(error: NondeterministicError, path: Path, settings: Settings) -> tuple[Finding, ...]:
    from hasten.records import Finding  # noqa: PLC0415

    remedy = "Export the model in inference mode, and with what it remembers as inputs and outputs."
    return (Finding("H602", str(error), remedy, str(path)),) if settings.wants("H602") else ()
