"""A mean latency reported without percentiles.

## What it does
Finds times of model runs averaged (`np.mean(times)`, `sum(times) / len(times)`, `(stop - start) / n` printed) where no
percentile, median, minimum, maximum or spread stands near. A whole pass over data divided by its length, and a mean of
fewer than ten rounds, are left alone.

## Why is this bad
Latency is never symmetric: a few long pauses move the mean, and a mean hides them. Users feel the p99; the p50 says
what the code costs.

## Cost
Pauses of ten times the mean and more go unseen.

## Example
```python
print(np.mean(times))
```

## Use instead
```python
print(np.percentile(times, [50, 99]), max(times))
```

## Fix safety
No fix: the single times must be kept first, and where is yours to say.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from hasten.doctor.clocks import Region, is_clock, networks, regions
from hasten.doctor.code import Code
from hasten.doctor.names import Scope
from hasten.doctor.read import without_comments
from hasten.doctor.rule import Hit, Rule, hit
from hasten.doctor.samples import value_of
from hasten.doctor.vicinity import called_by_callers, vicinity

_SPREAD = re.compile(
    r"percentile|quantile|median|\bp(50|90|95|99)\b|\.std\(|stdev|\.min\(|\bmin\(|pyperf|timeit\.repeat|sorted\("
)

# A time over another time is a factor, such as that of speech made to the time taken.
_SPAN = re.compile(r"duration|second|(^|_)secs?($|_)|audio|elapsed")

# How busy a kernel keeps the machine: work over time, which a mean is right for.
_RATES = re.compile(r"flops?\b|bandwidth|gb/s", re.IGNORECASE)

# Training steps; `auto_configure_optimizers=False` is none.
_LESSONS = re.compile(r"\.backward\(|\boptimizer|_optimizer\b")

_HANDFUL = 10  # of fewer readings no tail can be told


def check(node: ast.AST, code: Code) -> Iterator[Hit]:
    """Averages of measured model times."""
    assert isinstance(node, (ast.Call, ast.BinOp))
    averaged = _averaged(node, code)
    if (
        averaged
        and _is_time(averaged, node, code)
        and not _shows_spread(node, averaged, code)
        and not _is_progress(node, code)
        and not (isinstance(node, ast.BinOp) and _is_ratio(node, code))
        and not _RATES.search(vicinity(node, code))
        and not _is_said_before(node, averaged, code)
    ):
        yield hit(node, "a mean alone hides the tail that users wait for")


def _is_said_before(node: ast.AST, averaged: str, code: Code) -> bool:
    """True for a second mean of the same total, a few lines on: `total / calls`, then `total / rows`."""
    own = code.statement(node)
    block = code.block(own)
    for earlier in reversed(block[: next((i for i, s in enumerate(block) if s is own), 0)]):
        if isinstance(earlier, (ast.For, ast.While, ast.With)):
            return False
        if any(isinstance(n, (ast.Call, ast.BinOp)) and _averaged(n, code) == averaged for n in ast.walk(earlier)):
            return True
    return False


def _is_time(averaged: str, node: ast.AST, code: Code) -> bool:
    """True for a name that holds times where it is read: a local one counts in its own function alone."""
    own = averaged.removeprefix("-")
    return any(name == averaged and ("." in own or _scope(own, place, code) is _scope(own, node, code))
               for name, place in code.fact(_times))  # fmt: skip


def _is_ratio(node: ast.BinOp, code: Code) -> bool:
    """True for one time, or rate, over another: how many times faster one of two is."""
    divisor = code.names.dotted(node.right)
    return bool(divisor) and _is_time(divisor, node, code)


def _is_progress(node: ast.AST, code: Code) -> bool:
    """True near training steps: what a round takes there tells how far the job is."""
    return _LESSONS.search(vicinity(node, code)) is not None


def _scope(name: str, node: ast.AST, code: Code) -> Scope | None:
    return code.names.find(name, node)[0]


def _shows_spread(node: ast.AST, averaged: str, code: Code) -> bool:
    """True where the tail is shown beside the mean, here or by whoever is given the times."""
    function = code.function(node)
    returned = code.definitions.returns(function) if function is not None else []
    handed_on = any(code.names.dotted(n) == averaged for r in returned if r is not None for n in ast.walk(r))
    text = vicinity(node, code) + (called_by_callers(node, code) if handed_on else "")
    longest = rf"\bmax\({re.escape(averaged)}\b|\b{re.escape(averaged)}\.max\("
    return _SPREAD.search(without_comments(text)) is not None or re.search(longest, text) is not None


def _averaged(node: ast.Call | ast.BinOp, code: Code) -> str:
    """The name of what is averaged."""
    if isinstance(node, ast.Call):
        name = code.qualified(node.func)
        if name in ("numpy.mean", "numpy.average", "statistics.mean", "statistics.fmean") and node.args:
            return code.names.dotted(node.args[0])
        return ""
    if not isinstance(node.op, ast.Div):
        return ""
    total = node.left  # `1000 * sum(times) / len(times)`: milliseconds
    if isinstance(total, ast.BinOp) and isinstance(total.op, ast.Mult):
        total = total.right if isinstance(total.left, ast.Constant) else total.left
    if isinstance(total, ast.Call) and getattr(total.func, "id", "") == "sum" and total.args:
        return code.names.dotted(total.args[0])
    divisor = _rounds(node.right)
    if not isinstance(divisor, (ast.Name, ast.Constant)) or _SPAN.search(getattr(divisor, "id", "").lower()):
        return ""
    count = getattr(divisor, "value", None)
    if count in (1000, 1_000_000, 1_000_000_000, 60) and not code.mentions(f"range({count})"):
        return ""  # seconds to milliseconds is no average
    if isinstance(node.left, ast.BinOp) and isinstance(node.left.op, ast.Sub):
        return f"-{code.names.dotted(node.left.right)}"
    if not isinstance(total, ast.Name) or _is_shared_out(total, code):
        return ""
    return total.id


def _rounds(divisor: ast.expr) -> ast.expr:
    """The number that a sum is divided by, without the rounds that a warm-up takes off it: `total / (n - 1)`."""
    less = isinstance(divisor, ast.BinOp) and isinstance(divisor.op, ast.Sub)
    return divisor.left if less and isinstance(divisor.right, ast.Constant) else divisor  # type: ignore[attr-defined]


def _is_shared_out(total: ast.Name, code: Code) -> bool:
    """True for what a division has made: a mean already, shared out once more over what one call works on."""
    value = value_of(total, code)
    while isinstance(value, ast.BinOp) and isinstance(value.op, ast.Mult):  # milliseconds
        value = value.left
    return isinstance(value, ast.BinOp) and isinstance(value.op, ast.Div)


def _times(code: Code) -> set[tuple[str, ast.AST]]:
    """The names that hold times of model runs, each with a place where: lists of them, or one total over a loop."""
    names: set[tuple[str, ast.AST]] = set()
    for statement in code.names.nodes:
        for region in regions(statement, code):
            runs = networks(region.body, code)
            if not runs or any(
                isinstance(n, ast.Attribute) and n.attr == "backward" for s in region.body for n in ast.walk(s)
            ):
                continue
            outer = set(code.loops(region.start))
            if any(_is_handful(loop, code) for loop in outer):
                continue
            if not all(_repeats_often(loop, code) for r in runs for loop in code.loops(r) if loop not in outer):
                continue
            whole = any(loop not in outer for r in runs for loop in code.loops(r))
            if whole or outer:
                names |= {(name, region.stop) for name in _kept(region, code, whole=whole)}
            if any(True for r in runs for _ in code.loops(r)):
                names.add(
                    (f"-{region.name}", region.stop)
                )  # `(clock() - start) / n`, over a loop that was timed as a whole
    return names


def _repeats_often(loop: ast.AST, code: Code) -> bool:
    """True for a loop that counts its rounds: a pass over data is a job, and of a handful there is no percentile."""
    if isinstance(loop, ast.While):
        return True
    around = loop.iter if isinstance(loop, ast.For) else loop.generators[0].iter  # type: ignore[attr-defined]
    if not isinstance(around, ast.Call) or getattr(around.func, "id", "") not in ("range", "trange"):
        wrapped = around.args[0] if isinstance(around, ast.Call) and around.args else None
        if not isinstance(wrapped, ast.Call) or getattr(wrapped.func, "id", "") != "range":
            return False
        around = wrapped
    return not _is_few(around, code)


def _is_handful(loop: ast.AST, code: Code) -> bool:
    """True for rounds of which a parameter says, by its default, that they are few."""
    around = loop.iter if isinstance(loop, ast.For) else None
    if not isinstance(around, ast.Call) or getattr(around.func, "id", "") != "range" or not around.args:
        return False
    return isinstance(around.args[0], ast.Name) and _is_few(around, code)


def _is_few(around: ast.Call, code: Code) -> bool:
    """True for a `range` of less than a handful, as it says itself or as its parameter's default does."""
    count = around.args[0] if len(around.args) == 1 else None
    count = _default(count, code) or count
    return isinstance(count, ast.Constant) and isinstance(count.value, int) and count.value < _HANDFUL


def _default(count: ast.expr | None, code: Code) -> ast.expr | None:
    """What a number of rounds is unless a caller says another: the default of the parameter that it is."""
    around = code.function(count) if isinstance(count, ast.Name) else None
    if around is None or not isinstance(count, ast.Name):
        return None
    places = [*around.args.posonlyargs, *around.args.args]
    given = dict(zip((a.arg for a in reversed(places)), reversed(around.args.defaults), strict=False))
    given |= {a.arg: d for a, d in zip(around.args.kwonlyargs, around.args.kw_defaults, strict=True) if d is not None}
    return given.get(count.id)


def _kept(region: Region, code: Code, *, whole: bool) -> set[str]:
    """Where the difference goes: assigned, appended, or added up; one name further on too.

    ``whole``: the region holds the loop. The time of a single call, in a loop around it, is no mean by itself.
    """
    names: set[str] = set()
    wanted = {region.name}
    for statement in _unfolded(_following(region.stop, code)):
        if _starts_anew(statement, region, code):
            break
        read = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        clock = any(is_clock(n, code) for n in ast.walk(statement))
        if not read & (wanted | names) and not clock:
            continue
        if isinstance(statement, (ast.Assign, ast.AugAssign)):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            fresh = {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
            names |= fresh if whole or isinstance(statement, ast.AugAssign) or fresh & read else set()
            wanted |= fresh
        for call in ast.walk(statement):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "append":
                names.add(code.names.dotted(call.func.value))
    return names - {""}


def _unfolded(statements: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements, and those beneath an `if`: what the first rounds took is often left out."""
    for statement in statements:
        if isinstance(statement, ast.If):
            yield from _unfolded(statement.body)
        else:
            yield statement


def _starts_anew(statement: ast.stmt, region: Region, code: Code) -> bool:
    """True for the next ``start = clock()``: what follows is the time of something else."""
    return (
        statement is not region.stop
        and isinstance(statement, ast.Assign)
        and is_clock(statement.value, code)
        and any(code.names.dotted(t) == region.name for t in statement.targets)
    )


def _following(stop: ast.stmt, code: Code) -> Iterator[ast.stmt]:
    """The statements after this one: of its block, and of the blocks that a ``with`` around it stands in."""
    block = code.block(stop)
    first = next(i for i, s in enumerate(block) if s is stop)
    yield from block[first:]
    around = code.parent(stop)
    if isinstance(around, (ast.With, ast.AsyncWith)):
        outer = code.block(around)
        yield from outer[next(i for i, s in enumerate(outer) if s is around) + 1 :]


RULE = Rule(
    code="H304",
    name="mean-only",
    on=(ast.Call, ast.BinOp),
    words=("time",),
    remedy="Report p50 and p99 (and the maximum) of the single calls.",
    check=check,
)
