"""Files that a program keeps for itself with torch: where it saves and loads, and what of that is its own cache."""

from __future__ import annotations

import ast
import re

from hasten.doctor.code import Code
from hasten.doctor.rule import argument
from hasten.doctor.samples import value_of

__all__ = ["NOWHERE", "ON_DISK", "is_own_cache", "path_of", "saves", "target_of"]

NOWHERE = ast.Constant(None)  # the path of a call that names none
ON_DISK = re.compile(r"exists|isfile|is_file|isdir|listdir|glob|cache")

_OWN_FOLDER = re.compile(r"processed|workspace|work_?dir|cache|te?mp_?(dir|folder|path)", re.IGNORECASE)


def path_of(load: ast.Call) -> ast.expr:
    """What `torch.load` reads from, else `NOWHERE`."""
    return argument(load, 0, "f") or NOWHERE


def target_of(save: ast.Call) -> ast.expr:
    """What `torch.save` writes to, else `NOWHERE`."""
    return argument(save, 1, "f") or NOWHERE


def saves(code: Code) -> list[ast.Call]:
    """The calls of the file that write with torch."""
    found = [c for c in code.calls_named("save") if code.qualified(c.func) == "torch.save"]
    return [s for s in found if target_of(s) is not NOWHERE]


def is_own_cache(node: ast.Call, code: Code) -> bool:
    """True for a path that says cache, where the file itself writes such, and for what is made where it is not there.

    What a program keeps so are objects that it made.
    """
    if path_of(node) is NOWHERE:
        return False
    if _is_made_instead(node, code) or _is_of_own_folder(node, code):
        return True
    if "cache" not in _said(path_of(node), code):
        return _is_kept_cache(node, code)
    if any(
        "save" in code.names.dotted(c.func) and ast.unparse(path_of(node)) in map(ast.unparse, c.args)
        for c in code.calls
    ):
        return True
    writers = ((s, code.function(s)) for s in saves(code))
    return any("cache" in _said(target_of(s), code) or (w is not None and "cache" in w.name) for s, w in writers)


def _is_of_own_folder(node: ast.Call, code: Code) -> bool:
    """True for a file of a folder of prepared data, or of work in hand, in which the file itself saves."""
    folder = _folder(path_of(node))
    if not _OWN_FOLDER.search(folder):
        return False
    targets = (t for s in saves(code) for t in (target_of(s), *_opened(target_of(s), code)))
    return any(_folder(t) == folder for t in targets)


def _folder(path: ast.expr) -> str:
    """The folder of `os.path.join(folder, name)`, `folder / name` and `folder + name`, as it is written."""
    if isinstance(path, ast.Call) and ast.unparse(path.func).endswith("path.join") and path.args:
        return ast.unparse(path.args[0])
    return ast.unparse(path.left) if isinstance(path, ast.BinOp) else ""


def _opened(target: ast.expr, code: Code) -> list[ast.expr]:
    """What `with open(path, "wb") as target` opened."""
    bindings = code.names.find(target.id, target)[1] if isinstance(target, ast.Name) else []
    held = (b.value for b in bindings)
    return [v.args[0] for v in held if isinstance(v, ast.Call) and getattr(v.func, "id", "") == "open" and v.args]


def _is_made_instead(node: ast.Call, code: Code) -> bool:
    """True for `if path.exists(): return load(path)` where what follows hands the same path to whoever saves."""
    path, around = ast.unparse(path_of(node)), code.function(node)
    asked = [a for a in code.ancestors(node) if isinstance(a, ast.If) and ON_DISK.search(ast.unparse(a.test))]
    given = (c for c in code.calls if around is not None and code.function(c) is around)
    keepers = [c for c in given if "save" in code.names.dotted(c.func) and path in map(ast.unparse, c.args)]
    return any(isinstance(a.body[-1], ast.Return) and (a.end_lineno or 0) < c.lineno for a in asked for c in keepers)


def _is_kept_cache(node: ast.Call, code: Code) -> bool:
    """True for `self.cache = torch.load(self.path)` where `torch.save(self.cache, self.path)` stands in the file."""
    statement = code.statement(node)
    names = [ast.unparse(t) for t in statement.targets] if isinstance(statement, ast.Assign) else []
    kept = {n for n in names if "cache" in n.lower() and statement.value is node}  # type: ignore[attr-defined]
    written = ((argument(s, 0, "obj"), ast.unparse(target_of(s))) for s in saves(code))
    return any(o is not None and ast.unparse(o) in kept and at == ast.unparse(path_of(node)) for o, at in written)


def _said(path: ast.expr, code: Code) -> str:
    """The words of a path, and of what a name for it was given."""
    return " ".join(ast.unparse(p) for p in (path, value_of(path, code)) if p is not None).lower()
