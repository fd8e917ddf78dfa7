"""What is known of a torch `DataLoader` call: whether a GPU waits for it, whether its data need reading."""

from __future__ import annotations

import ast
import re

from hasten.doctor import makers
from hasten.doctor.code import Code
from hasten.doctor.package import is_in_package
from hasten.doctor.rule import argument
from hasten.doctor.samples import value_of
from hasten.doctor.words import words

__all__ = ["has_workers", "is_given_each_epoch", "is_loader", "needs_reading"]

_IN_MEMORY = ("torch.utils.data.TensorDataset", "list", "range", "zip")
_PARTS = ("torch.utils.data.random_split", "torch.utils.data.Subset", "torch.utils.data.dataset.random_split")
_JOINED = ("torch.utils.data.ConcatDataset", "torch.utils.data.dataset.ConcatDataset")
_HELD = ("cache", "memory", "buffer", "tensor")  # what a name says to be at hand already
_METHODS = 2  # functions of the file followed from `__getitem__`
_LOOKUPS = words(
    "tensor as_tensor from_numpy FloatTensor LongTensor len int float str bool dict tuple items get is_tensor to long "
    "array asarray astype float32 float64 int32 int64 squeeze unsqueeze copy clone ValueError IndexError "
    "keys values zip"
)
# What the name or the arguments of a class of another file say where each item lies in a file of its own.
_READS = re.compile(
    r"image|img|photo|video|frame|audio|wav|speech|files|paths|folder|dir\b|dir_|dirs\b|root\b|transform|coco|\bvoc"
)
# Texts, or one file of rows: what the class reads once, and holds.
_TABLE = re.compile(
    r"sentence|corpus|\btexts?\b|csv|tsv|json|parquet|xlsx?\b|\.txt|\.np[yz]|\.pkl|pickle|series|tabular"
)
_MEDIA = re.compile(r"image|img|photo|video|audio|wav|speech|folder|transform")
# What the calls of `__getitem__` say where reading or preparing an item takes time.
_PREPARES = re.compile(
    r"open|read|load|fetch|decode|parse|transform|augment|process|prepare|resiz|crop|flip|rotat|warp|tokeni|encode"
    r"|librosa|soundfile|resampl|mel|stft|spec|noise|image|img|frame|video|audio|wav|photo|cv2|pil|pickle|h5py|sql"
)

_GIVES_LOADERS = ("train_dataloader", "val_dataloader")
_RUNS_EPOCHS = words("fit train validate test predict")
_CPU = re.compile(r"['\"]cpu['\"]|gpus=0|use_cpu|no_cuda=True")
_DTYPES = re.compile(r"^([a-z]+\.)?(float|half|int|long|bool|double|bfloat|complex|uint)\w*$|dtype$")
_SENDS = re.compile(r"^_?(send|move|put|transfer|copy)_(\w+_)?to_(\w+_)?device$")
_NO_BATCH = re.compile(r"model|net|param|weight|module|optim|loss|state")


def is_loader(node: ast.Call, code: Code) -> bool:
    """True for a torch DataLoader, its options in sight, in a file that uses CUDA or gives it to a trainer."""
    if code.qualified(node.func) != "torch.utils.data.DataLoader":
        return False
    known = (code.uses_gpu or code.fact(_is_told_device)) and code.fact(_moves)
    if not known and not _is_for_trainer(node, code):
        return False
    if any(k.arg is None for k in node.keywords) or any(isinstance(a, ast.Starred) for a in node.args):
        return False
    return not _gives_device_tensors(node, code) and not _feeds_no_gpu(node, code)


def _is_told_device(code: Code) -> bool:
    """True where batches go to a device that is asked for or told, and nothing says that it is the processor."""
    if any(isinstance(n, ast.Constant) and n.value == "cpu" for n in code.names.nodes):
        return False
    if _sends_batches(code) and code.mentions("cuda", "CUDA"):
        return True
    moves = [*_device_moves(code), *code.calls_named("to_device")]
    told = "device" if code.mentions("torch.cuda") else "self.device"
    return any(told in _given(c) and any(True for _ in code.loops(c)) for c in moves)


def is_given_each_epoch(node: ast.Call, code: Code) -> bool:
    """True for what Lightning asks a module for once, and goes through in each epoch: ``train_dataloader`` returns it.

    (Lightning takes a GPU where one is, unless the file tells it not to.)
    """
    function, owner = code.function(node), code.klass(node)
    if function is None or owner is None or function.name not in _GIVES_LOADERS or code.finds(_CPU):
        return False
    if not any(code.names.dotted(b).endswith(("LightningModule", "LightningDataModule")) for b in owner.bases):
        return False
    return isinstance(code.parent(node), ast.Return)


def _is_for_trainer(node: ast.Call, code: Code) -> bool:
    """True for a loader that a trainer of another file is handed: it takes a GPU where one is, unless told not to."""
    if is_given_each_epoch(node, code):
        return True
    for taken in (node, *code.uses_of(node)):
        call = code.parent(taken)
        if isinstance(call, ast.keyword):
            call = code.parent(call)
        method = call.func if isinstance(call, ast.Call) else None
        if not isinstance(method, ast.Attribute) or method.attr not in _RUNS_EPOCHS:
            continue
        made = value_of(method.value, code)
        if not isinstance(made, ast.Call) or code.definitions.class_named(made.func) is not None:
            continue
        if code.names.dotted(made.func).lower().endswith("trainer") and not _CPU.search(code.source(made)):
            return True
    return False


def _feeds_no_gpu(node: ast.Call, code: Code) -> bool:
    """True where all that takes batches is in sight: loops that move them to "cpu" and nowhere else, or one batch."""
    statement = code.statement(node)
    target = statement.targets[0] if isinstance(statement, ast.Assign) and statement.value is node else None
    if not isinstance(target, ast.Name):
        return False
    scope = code.names.find(target.id, target)[0]
    named = (n for n in code.names.nodes if isinstance(n, ast.Name) and n.id == target.id)
    reads = [n for n in named if isinstance(n.ctx, ast.Load) and code.names.find(n.id, n)[0] is scope]
    takers = [t for read in reads for t in _takers(read, code)]
    return bool(takers) and all(_is_drawn_once(t, code) or _is_for_processor(t) for t in takers)


def _takers(read: ast.Name, code: Code, depth: int = 1) -> list[ast.AST | None]:
    """The loops that take batches from a loader that is read, here or in a function of the file; else what reads it."""
    around = code.parent(read)
    while isinstance(around, ast.Call) and getattr(around.func, "id", "") in ("enumerate", "tqdm", "iter"):
        around = code.parent(around)
    if isinstance(around, ast.Attribute) or (isinstance(around, ast.Call) and getattr(around.func, "id", "") == "len"):
        return []  # `loader.dataset`, `len(loader)`
    function = code.function_run(around) if isinstance(around, ast.Call) and depth else None
    if function is None:
        return [around]
    parameters = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    taken = {p.arg for p in parameters if any(a is read for a in code.kinds.calls.arguments(function, p.arg))}
    inner = [n for n in ast.walk(function) if isinstance(n, ast.Name) and n.id in taken and isinstance(n.ctx, ast.Load)]
    return [t for n in inner for t in _takers(n, code, depth - 1)] or [around]


def _is_drawn_once(taker: ast.AST | None, code: Code) -> bool:
    """True for `next(iter(loader))` outside loops: one batch, read once."""
    return isinstance(taker, ast.Call) and getattr(taker.func, "id", "") == "next" and code.hot(taker) is None


def _is_for_processor(loop: ast.AST | None) -> bool:
    if not isinstance(loop, ast.For):
        return False
    moves = [n for s in loop.body for n in ast.walk(s) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    places = [ast.unparse(m.args[0]) if m.args else "" for m in moves if m.func.attr in ("to", "cuda")]  # type: ignore[attr-defined]
    return bool(places) and all(p in ("'cpu'", "torch.device('cpu')") for p in places)


def _gives_device_tensors(node: ast.Call, code: Code) -> bool:
    """True where `__getitem__` puts items on the device: they can't be pinned, nor cross from a forked worker."""
    data = argument(node, 0, "dataset")
    kind = code.kind(data) if data is not None else None
    made = value_of(data, code)
    if isinstance(made, ast.Call) and (kind is None or kind.local is None):  # of another file: it is told the place
        told = [*made.args, *(k.value for k in made.keywords)]
        if any(re.search(r"device$|^torch\.device\(", ast.unparse(t)) for t in told):
            return True
    lookup = code.definitions.method(kind.local, "__getitem__") if kind is not None and kind.local is not None else None
    return lookup is not None and any(_is_move(n) for n in ast.walk(lookup))


def _is_move(node: ast.AST) -> bool:
    """True for `.cuda()` and `.to("cuda")`, `.to(self.device)`."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    places = " ".join(ast.unparse(a) for a in node.args)
    return node.func.attr == "cuda" or (node.func.attr == "to" and re.search("cuda|device", places) is not None)


def _moves(code: Code) -> bool:
    """True when the file takes batches to a device: a model alone, or a device for another library, is none."""
    if any(not code.is_a(c.func.value, makers.TORCH_MODULE) for c in _device_moves(code)):  # type: ignore[attr-defined]
        return True
    trained = code.imports("lightning", "pytorch_lightning", "transformers") and code.calls_named("fit", "train")
    sent = code.calls_named("to_device", "to_cuda") or _sends_batches(code)
    return bool(sent or trained or _is_accelerated(code))


def _sends_batches(code: Code) -> bool:
    """True for a method that says so: `self._send_data_to_given_device(batch)`, of a class of another file maybe."""
    named = (c.func.attr for c in code.calls if isinstance(c.func, ast.Attribute) and c.args)
    return any(_SENDS.search(name) is not None and _NO_BATCH.search(name) is None for name in named)


def _is_accelerated(code: Code) -> bool:
    return code.imports("accelerate") and bool(code.calls_named("prepare"))


def _device_moves(code: Code) -> list[ast.Call]:
    """The calls of `.cuda()`, and of `.to(…)` with more than a dtype."""
    moves = [c for c in code.calls_named("cuda", "to") if isinstance(c.func, ast.Attribute)]
    return [c for c in moves if c.func.attr == "cuda" or not _DTYPES.search(_given(c))]  # type: ignore[attr-defined]


def _given(call: ast.Call) -> str:
    return " ".join(ast.unparse(a) for a in (*call.args, *(k.value for k in call.keywords)))


def has_workers(node: ast.Call, *, literal: bool = False) -> bool:
    """True when `num_workers` is given and is not zero (``literal``: is a number above zero)."""
    value = argument(node, 5, "num_workers")
    if isinstance(value, ast.Constant):
        return isinstance(value.value, int) and value.value > 0
    return value is not None and not literal


def needs_reading(node: ast.Call, code: Code) -> bool:
    """False for data at hand, for iterable datasets, which workers would repeat, and for what is made out of sight."""
    data = argument(node, 0, "dataset")
    value, whole = value_of(data, code), _whole(data, code)
    made = value_of(whole, code)
    if whole is not data and isinstance(made, ast.Call) and not _builds(made, (), code):
        return False
    if any(word in code.names.dotted(data).lower() for word in _HELD) if data is not None else False:
        return False
    if isinstance(value, (ast.List, ast.ListComp, ast.Tuple)):
        return False
    if isinstance(value, ast.Call) and code.qualified(value.func) in _IN_MEMORY:
        return False
    if isinstance(value, ast.Call) and getattr(value.func, "id", "") in _IN_MEMORY:
        return False
    kind = code.kind(data)
    if kind is None:
        return data is not None and not _is_out_of_sight(data, code)
    if kind.made is not None and code.qualified(kind.made.func) == "torch.utils.data.TensorDataset":
        return False
    if kind.made is not None and code.qualified(kind.made.func) in _JOINED and not _builds(kind.made, (), code):
        return False
    if kind.made is None and kind.local is None and data is not None and _is_out_of_sight(data, code):
        return False
    if kind.local is not None:
        streams = any(code.qualified(b).endswith("IterableDataset") for b in kind.local.bases)
        return not streams and not _hands_out(kind.local, code)
    return kind.name != makers.TORCH_TENSOR


def _whole(data: ast.expr | None, code: Code, depth: int = 3) -> ast.expr | None:
    """What `random_split` and `Subset` take parts of: a part is read as the whole is."""
    bindings = code.names.find(data.id, data)[1] if isinstance(data, ast.Name) else []
    earlier = [b.value for b in bindings if getattr(b.node, "lineno", 0) <= getattr(data, "lineno", 0)]
    cut = earlier[-1] if earlier else data
    if depth and isinstance(cut, ast.Call) and code.qualified(cut.func) in _PARTS and cut.args:
        return _whole(cut.args[0], code, depth - 1)
    return data


def _is_out_of_sight(data: ast.expr, code: Code) -> bool:
    """True for what a method is handed, or a function gives: a list prepared once as well as a dataset that reads."""
    owner = code.names.class_of_self(data.value) if isinstance(data, ast.Attribute) else None
    if owner is not None and isinstance(data, ast.Attribute):
        kept = code.names.attributes.get(owner, {}).get(data.attr, [])
        return not all(isinstance(b.value, ast.Call) and _builds(b.value, b.path, code) for b in kept)
    if isinstance(data, ast.Attribute) and owner is None:
        return not code.qualified(data)  # what another object holds; a module's own is in its name
    if isinstance(
        data, ast.Subscript
    ):  # `splits["train"]`: of a dictionary that is written out, or of what a call gave
        given = value_of(data.value, code)
        return isinstance(given, ast.Call) and not _builds(given, (), code)
    if not isinstance(data, ast.Name):
        return isinstance(data, ast.Call) and not _builds(data, (), code)
    bindings = code.names.find(data.id, data)[1]
    around = code.function(data)
    if around is not None and any(b.function is around for b in bindings):
        return True
    held = [(b.value, b.path) for b in bindings if b.role == "value"]
    if any(isinstance(v, ast.Call) and not _builds(v, path, code) for v, path in held):
        return True
    if any(not isinstance(v, (ast.Call, ast.Name, ast.Constant)) for v, _ in held):
        return True
    aliases = [v for v, _ in held if isinstance(v, ast.Name) and v.id != data.id]
    return any(_is_out_of_sight(a, code) for a in aliases)


def _builds(made: ast.Call, path: tuple[int, ...], code: Code, depth: int = 3) -> bool:
    """True where the file shows that a call builds a dataset that reads, itself or in the function that it runs."""
    name = code.qualified(made.func)
    if name in _IN_MEMORY:
        return False
    if name in _JOINED and made.args:
        joined = [p for p in _joined(made.args[0], code) if isinstance(p, ast.Call)]
        return not (joined and depth) or any(_builds(p, (), code, depth - 1) for p in joined)
    if name.startswith(("torch.", "torchvision.")):
        return True
    written = code.names.dotted(made.func).rsplit(".", 1)[-1]
    if written[:1].isupper():
        kind = code.kind(made)
        if kind is not None and kind.local is not None:
            return not _hands_out(kind.local, code)
        given = " ".join([written, *(f"{k.arg or ''} {code.source(k.value)}" for k in made.keywords)])
        said = " ".join([given, *(code.source(a) for a in made.args)]).lower()
        if _TABLE.search(said) and not _MEDIA.search(said):
            return False
        return _READS.search(said) is not None or not _is_of_package(name, code)
    function = code.function_run(made) if depth else None
    if function is None:
        return False
    returned = [_part(r, path) for r in code.definitions.returns(function)]
    built = [value_of(r, code) for r in returned if r is not None]
    return bool(built) and all(isinstance(b, ast.Call) and _builds(b, (), code, depth - 1) for b in built)


def _joined(parts: ast.expr, code: Code) -> list[ast.expr]:
    """The data sets of a list, written out or appended to it."""
    written = value_of(parts, code)
    found = list(written.elts) if isinstance(written, (ast.List, ast.Tuple)) else []
    name = code.names.dotted(parts)
    for call in code.calls_named("append"):
        to = call.func.value if isinstance(call.func, ast.Attribute) else None
        if name and to is not None and call.args and code.names.dotted(to) == name:
            found += [call.args[0]] if code.function(call) is code.function(parts) else []
    return [v for v in (value_of(p, code) for p in found) if v is not None]


def _is_of_package(name: str, code: Code) -> bool:
    """True for a class that a package keeps for itself: its datasets may hold what they were given."""
    folder = code.file.parent.name if code.file is not None else ""
    return is_in_package(code.file) or name.startswith(".") or name.partition(".")[0] == folder


def _part(returned: ast.expr | None, path: tuple[int, ...]) -> ast.expr | None:
    """What an unpacked place of ``return data, labels`` holds."""
    if not path or not isinstance(returned, ast.Tuple):
        return returned
    return returned.elts[path[0]] if -len(returned.elts) <= path[0] < len(returned.elts) else None


def _hands_out(dataset: ast.ClassDef, code: Code) -> bool:
    """True where `__getitem__` shows no work: nothing is left for workers to do."""
    lookup = code.definitions.method(dataset, "__getitem__")
    return lookup is not None and not _shows_work(lookup, code, _METHODS)


def _shows_work(function: ast.AST, code: Code, depth: int) -> bool:
    """True where a call reads or prepares by its name, or runs a function of the file that does."""
    for call in (n for n in ast.walk(function) if isinstance(n, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if name in _LOOKUPS:
            continue
        if _PREPARES.search(f"{name} {code.qualified(call.func)}".lower()):
            return True
        ran = code.function_run(call) if depth else None
        if ran is not None and _shows_work(ran, code, depth - 1):
            return True
    return False
