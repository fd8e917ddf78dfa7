"""A `DataLoader` without workers where a GPU is used.

## What it does
Finds `DataLoader(...)` without `num_workers` in a file that moves things to CUDA, or batches to the device that an
object was told, and where a trainer of another file is handed the loader. Datasets that already are tensors
(`TensorDataset`) or only look up what they hold, iterable datasets, those that a function is handed or another file
makes (a script's own classes aside; in a package, unless their class says that it reads images, audio or a folder's
files), and an explicit `num_workers=0` or `pin_memory=False` are left alone.

## Why is this bad
With no workers every sample is read and transformed in the process that feeds the GPU, which waits meanwhile.

## Cost
The GPU idles for as long as the data takes: often half the time and more.

## Example
```python
loader = DataLoader(dataset, batch_size=64)
```

## Use instead
```python
loader = DataLoader(dataset, batch_size=64, num_workers=4, pin_memory=True, persistent_workers=True)
```

## Fix safety
No fix: how many depends on the machine, and scripts need an `if __name__ == "__main__"` guard on some systems.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hasten.doctor.code import Code
from hasten.doctor.loaders import is_loader, needs_reading
from hasten.doctor.rule import Hit, Rule, argument, hit


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Loaders that work in the main process."""
    assert isinstance(node, ast.Call)
    if not is_loader(node, code) or argument(node, 5, "num_workers") is not None:
        return
    pinned = argument(node, 7, "pin_memory")
    stays = isinstance(pinned, ast.Constant) and pinned.value is False  # said to be for no device
    if not stays and needs_reading(node, code):
        yield hit(node, "without workers the GPU waits while each batch is read")


RULE = Rule(
    code="H401",
    name="loader-without-workers",
    on=(ast.Call,),
    words=("DataLoader",),
    remedy="Give num_workers (start with 2 to 4 a GPU).",
    check=check,
)
