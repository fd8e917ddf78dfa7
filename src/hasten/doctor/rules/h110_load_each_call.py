"""A model loaded at every call.

## What it does
Finds `load_model`, `torch.load`, `from_pretrained` (of models, tokenizers and processors), `torch.hub.load`,
`tf.saved_model.load` and `pipeline(...)` in a loop, a request handler, a function that `map` or pandas runs on each
row, the own lines of a Streamlit script (they run again at each click), or a function that loads a fixed file, runs it
on its argument and throws it away.

## Why is this bad
Loading reads the file, rebuilds every layer and compiles again at the first call after it.

## Cost
A tenth of a second to a minute a call, where the prediction takes milliseconds.

## Example
```python
@app.post("/score")
def score():
    model = keras.models.load_model("model.keras")
    return model(batch()).numpy().tolist()
```

## Use instead
```python
model = keras.models.load_model("model.keras")

@app.post("/score")
def score():
    return model(batch()).numpy().tolist()
```

## Fix safety
Unsafe, and only in loops: the line moves before the loop, and so runs even if the loop has no round.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from hasten.doctor.code import Code
from hasten.doctor.makers import made_by_class
from hasten.doctor.percall import hoist, repeats_needlessly
from hasten.doctor.rule import Hit, Rule, hit
from hasten.doctor.samples import is_buffer
from hasten.doctor.words import words

_NAMES = words(
    "keras.models.load_model keras.saving.load_model torch.load torch.jit.load torch.hub.load "
    "tensorflow.saved_model.load tensorflow_hub.load tensorflow_hub.KerasLayer transformers.pipeline "
    "sentence_transformers.SentenceTransformer whisper.load_model spacy.load timm.create_model"
)

_BEFORE_MODELS = {
    "Tokenizer": "tokenizer",
    "TokenizerFast": "tokenizer",
    "Processor": "processor",
    "FeatureExtractor": "feature extractor",
}


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Models loaded where the line runs many times."""
    assert isinstance(node, ast.Call)
    name = code.qualified(node.func)
    pretrained = _pretrained(name) if name.endswith(".from_pretrained") else ""
    if name not in _NAMES and not pretrained:
        return
    if node.args and is_buffer(node.args[0], code):
        return  # a buffer just filled is a copy being made, not a model being loaded
    if _is_next_of_file(node, code) or _is_deployed(node, code):
        return
    reason = repeats_needlessly(node, code)
    if reason:
        yield hit(node, f"the same {pretrained or 'model'} is loaded again, {reason}", *hoist(node, code))


def _is_next_of_file(node: ast.Call, code: Code) -> bool:
    """True where a loop reads on in a file that was opened before it: each round loads another thing."""
    file, loop = node.args[0] if node.args else None, code.loop(node)
    if not isinstance(file, ast.Name) or loop is None or code.bound_in(file, loop):
        return False
    opened = [b.value for b in code.names.find(file.id, file)[1]]
    return any(isinstance(v, ast.Call) and getattr(v.func, "attr", getattr(v.func, "id", "")) == "open" for v in opened)


def _is_deployed(node: ast.Call, code: Code) -> bool:
    """True where a handler puts a model in place for the requests that follow, and asks it nothing itself."""
    function, statement = code.handler(node), code.statement(node)
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    if function is None or len(targets) != 1 or not isinstance(targets[0], (ast.Attribute, ast.Name)):
        return False
    if isinstance(targets[0], ast.Name) and targets[0].id not in code.names.own_scope(function).outer:
        return False
    kept = code.names.dotted(targets[0])
    called = (code.names.dotted(n.func) for n in ast.walk(function) if isinstance(n, ast.Call))
    return not any(name == kept or name.startswith(f"{kept}.") for name in called)


def _pretrained(name: str) -> str:
    """What a class of transformers loads: a model, or what goes before one; '' for configurations, which are small."""
    made = name.rpartition(".")[0]
    if not made.startswith("transformers."):
        return ""
    if made_by_class(made):
        return "model"
    return next((said for ending, said in _BEFORE_MODELS.items() if made.endswith(ending)), "")


RULE = Rule(
    code="H110",
    name="load-each-call",
    on=(ast.Call,),
    words=("load", "from_pretrained", "pipeline", "SentenceTransformer", "KerasLayer", "create_model"),
    remedy="Load it once (at start, or in a function with functools.cache) and keep it.",
    check=check,
)
