"""What backs the numbers in the docs: ``python -m benchmarks`` lists it, ``python -m benchmarks all`` runs it.

A benchmark is a file here with ``main(arguments)``; the first line of its docstring says what it shows. What follows
the first option goes to it.
"""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

_HOME = Path(__file__).parent
_APART = {"demo"}  # a show, not a measurement: `make demo`


def main() -> None:
    found = {path.stem: line for path in sorted(_HOME.glob("*.py")) if (line := _first_line(path))}
    at = next((i for i, argument in enumerate(sys.argv) if i and argument.startswith("-")), len(sys.argv))
    names, rest = sys.argv[1:at], sys.argv[at:]
    unknown = [name for name in names if name not in (*found, "all")]
    if not names or unknown:
        for name in unknown:
            print(f"no benchmark called '{name}'\n", file=sys.stderr)
        print("python -m benchmarks all | NAME ... [--options of that benchmark]\n")
        for name, line in found.items():
            print(f"  {name:16s} {line}")
        sys.exit(2 if unknown else 0)
    chosen = [name for name in found if name not in _APART] if "all" in names else names
    for name in chosen:
        print(f"== {name}: {found[name]}", flush=True)
        importlib.import_module(f"benchmarks.{name}").main(rest)


def _first_line(path: Path) -> str:
    """What a benchmark shows; nothing for a file without ``main(arguments)``."""
    tree = ast.parse(path.read_text())
    mains = [f for f in tree.body if isinstance(f, ast.FunctionDef) and f.name == "main" and f.args.args]
    return (ast.get_docstring(tree) or "").split("\n")[0] if mains else ""


if __name__ == "__main__":
    main()
