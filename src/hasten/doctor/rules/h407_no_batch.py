"""A `tf.data` pipeline without `batch`.

## What it does
Finds a pipeline over single examples (`from_tensor_slices`, `tfds.load`, record or text files) that `fit`, `evaluate`
or `predict` consumes and that nowhere batches.

## Why is this bad
Keras takes each element for a batch: either the shapes clash, or the model runs one row at a time.

## Cost
Ten to a hundred times; each row pays what a batch pays.

## Example
```python
model.predict(tf.data.Dataset.from_tensor_slices(rows[:, None]))
```

## Use instead
```python
model.predict(tf.data.Dataset.from_tensor_slices(rows).batch(64))
```

## Fix safety
No fix: whether the elements are rows or batches is yours to say.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hasten.doctor import makers, tfds
from hasten.doctor.code import Code
from hasten.doctor.pipelines import consumed, pipeline_of
from hasten.doctor.rule import Hit, Rule, hit
from hasten.doctor.words import words

_BATCHING = words(
    "batch padded_batch ragged_batch dense_to_ragged_batch bucket_by_sequence_length window flat_map map_and_batch"
)
_ROWS = (
    *("from_tensor_slices", "TFRecordDataset", "TextLineDataset", "FixedLengthRecordDataset", "list_files", "range"),
    tfds.LOAD,
)


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Consumers of pipelines that hand over row after row."""
    assert isinstance(node, ast.Call)
    data = consumed(node, code)
    if data is None or not isinstance(node.func, ast.Attribute) or not code.is_a(node.func.value, makers.KERAS_MODEL):
        return
    pipeline = pipeline_of(data, code)
    rows = all(s.endswith(_ROWS) for s in pipeline.sources)
    if not pipeline.is_whole or not rows or pipeline.steps & _BATCHING or _maps_batch(pipeline.steps, code):
        return
    yield hit(node, f"`{node.func.attr}` takes each element for a batch: the model runs row by row")


def _maps_batch(steps: frozenset[str], code: Code) -> bool:
    """A function of the map may add the batch axis, or batch by other means."""
    return "interleave" in steps or ("map" in steps and code.mentions("batch("))


RULE = Rule(
    code="H407",
    name="no-batch",
    on=(ast.Call,),
    words=("data.Dataset", "TFRecordDataset", "Dataset.", "tensorflow_datasets"),
    remedy="Add .batch(n) before the pipeline ends.",
    check=check,
)
