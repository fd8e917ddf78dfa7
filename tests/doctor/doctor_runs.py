"""Running the doctor in tests: as a command, or over bytes."""

from __future__ import annotations

from pathlib import Path

import nbformat
from typer.testing import CliRunner

from hasten.cli.app import app
from hasten.doctor.check import Job, check_bytes
from hasten.doctor.settings import Settings

__all__ = ["BAD", "CLEAN", "executed", "fixed", "notebook", "rules", "rules_in", "run", "same", "write"]

BAD = "import torch\nstate = torch.load('w.pt')\n"
CLEAN = "import torch\nstate = torch.load('w.pt', weights_only=True)\n"


def run(*arguments: str, stdin: str | None = None):
    return CliRunner().invoke(app, ["doctor", *arguments], input=stdin)


def rules(data: bytes, name: str = "a.py", **settings: object) -> list[tuple[str, int | None]]:
    result = check_bytes(data, Job(Path(name), name, Settings(**settings)))
    return [(f.rule, f.line) for f in result.findings]


def rules_in(file: Path) -> list[tuple[str, int | None]]:
    result = check_bytes(file.read_bytes(), Job(file, file.name, Settings()))
    return [(f.rule, f.line) for f in result.findings]


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def notebook(*cells: str) -> str:
    made = nbformat.v4.new_notebook()
    made.cells = [nbformat.v4.new_markdown_cell("# text"), *(nbformat.v4.new_code_cell(c) for c in cells)]
    made.metadata["custom"] = {"kept": "ü"}
    return nbformat.writes(made) + "\n"


def fixed(text: str, *, unsafe: bool = False, select: str = "H") -> str:
    job = Job(Path("a.py"), "a.py", Settings(select=(select,)), "unsafe" if unsafe else "safe")
    result = check_bytes(text.encode(), job)
    return (result.fixed or text.encode()).decode()


def executed(text: str) -> dict[str, object]:
    names: dict[str, object] = {}
    exec(compile(text, "case.py", "exec"), names)
    return names


def same(before: object, after: object) -> bool:
    import numpy as np

    return np.allclose(np.asarray(before, dtype="float64"), np.asarray(after, dtype="float64"), atol=1e-5)
