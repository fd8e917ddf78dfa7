"""What `tensorflow_datasets.load` gives: a dataset, several, or a tuple that has them first, by its arguments."""

from __future__ import annotations

import ast

__all__ = ["LOAD", "gives_batches", "gives_dataset"]

LOAD = "tensorflow_datasets.load"


def gives_dataset(load: ast.Call, path: tuple[int, ...]) -> bool:
    """True where the element at ``path`` of what a `load` gives is a dataset, as the call itself shows."""
    info, split = _given(load, "with_info"), _given(load, "split")
    if isinstance(info, ast.Constant) and info.value:
        if path[:1] != (0,):
            return False
        path = path[1:]
    elif info is not None and not isinstance(info, ast.Constant):
        return False
    if isinstance(split, (ast.List, ast.Tuple)):
        return len(path) == 1
    return not path and (isinstance(split, ast.JoinedStr) or (isinstance(split, ast.Constant) and bool(split.value)))


def gives_batches(load: ast.Call) -> bool:
    """True where its elements are batches already."""
    size = _given(load, "batch_size")
    return size is not None and not (isinstance(size, ast.Constant) and size.value is None)


def _given(load: ast.Call, name: str) -> ast.expr | None:
    return next((k.value for k in load.keywords if k.arg == name), None)
