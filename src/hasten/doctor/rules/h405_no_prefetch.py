"""A `tf.data` pipeline without `prefetch`.

## What it does
Finds a pipeline with work in it (a `map` that computes, `interleave`, files, a generator) that `fit`, `evaluate`,
`predict` or a loop consumes and that nowhere prefetches. Only pipelines seen from their source on; a loop that runs no
model and takes no step over the bare records of a file, or looks at a few elements, is left alone, and so are a
pipeline that ends in a `map` on several cores and one inside a function that another pipeline maps.

## Why is this bad
Without it preparing the next batch and computing on this one take turns instead of overlapping.

## Cost
Up to half the time, where both take equally long; nothing where tf.data puts a prefetch in by itself. TensorFlow 2.21
does, by its default rewrites: the first line below. The second is a pipeline that has to do without them.

## Example
```python
data = tf.data.Dataset.from_tensor_slices(files).map(read).batch(32)
model.fit(data)
```

## Use instead
```python
data = tf.data.Dataset.from_tensor_slices(files).map(read, num_parallel_calls=tf.data.AUTOTUNE)
data = data.batch(32).prefetch(tf.data.AUTOTUNE)
model.fit(data)
```

## Fix safety
Safe: `.prefetch(tf.data.AUTOTUNE)` is put at the end; same elements, same order.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hasten.doctor.code import Code
from hasten.doctor.pipelines import computes, consumed, is_within_map, looks, only_arranges, pipeline_of, step_of
from hasten.doctor.rule import Edit, Hit, Rule, hit, keyword

_OPENS = frozenset(("interleave", "flat_map"))
_IN_LOOPS = _OPENS | {"batch", "padded_batch", "ragged_batch"}


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Pipelines with work that end without prefetch."""
    data = consumed(node, code)
    if data is None:
        return
    pipeline = pipeline_of(data, code)
    files = any(
        "TFRecord" in s or "TextLine" in s or s.endswith(("list_files", "from_generator")) for s in pipeline.sources
    )
    if not pipeline.is_whole or pipeline.is_single or "prefetch" in pipeline.steps:
        return
    works = any(not only_arranges(m, code) for m in pipeline.maps)
    if not files and not pipeline.steps & _OPENS and not works:
        return
    if isinstance(node, ast.For) and not works and not (pipeline.steps & _IN_LOOPS and computes(node, code)):
        return  # records as they lie in a file
    if isinstance(node, ast.For) and (looks(node, code, took="take" in pipeline.steps) or is_within_map(node, code)):
        return
    if pipeline.last is None or _runs_ahead(pipeline.last):
        return
    if "cache" in pipeline.steps and "shuffle" not in pipeline.steps:
        return
    yield hit(
        step_of(pipeline.last),
        "reading and computing take turns: nothing is prefetched",
        *_edit(pipeline.last, code),
        safe=True,
    )


def _runs_ahead(last: ast.Call) -> bool:
    """True for a last `map` on several cores: it fills a buffer of its own meanwhile."""
    name = last.func.attr if isinstance(last.func, ast.Attribute) else ""
    return name in ("map", "interleave") and keyword(last, "num_parallel_calls") is not None


def _edit(last: ast.Call, code: Code) -> tuple[Edit, ...]:
    name = next((n for n, bs in code.names.module.names.items() if any(b.origin == "tensorflow" for b in bs)), "")
    if not name or not isinstance(last.func, ast.Attribute):
        return ()
    return (Edit("replace", last, f"{code.source(last)}.prefetch({name}.data.AUTOTUNE)"),)


RULE = Rule(
    code="H405",
    name="no-prefetch",
    on=(ast.Call, ast.For),
    words=("data.Dataset", "TFRecordDataset", "TextLineDataset", "Dataset.", "tensorflow_datasets"),
    remedy="End the pipeline with .prefetch(tf.data.AUTOTUNE).",
    check=check,
)
