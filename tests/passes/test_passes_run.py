"""How phases are run: on a copy, checked after each change, a bad pass undone and named."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graph_text import lines, model_of, ops, probe_of

from hasten.errors import PassError
from hasten.graph import check, reference, shapes
from hasten.passes import Pass
from hasten.passes.drop_noops import drop_noops
from hasten.passes.fix_shapes import fix_shapes
from hasten.passes.phases import OPTIMISE, TIDY
from hasten.passes.run import LastAnswers, run_phases
from hasten.passes.standard import dead_nodes
from hasten.types import Array

MODEL = "(float[2,4] x) => (float[2,4] y) { a = Identity (x) b = Relu (a) c = Identity (b) y = Neg (c) }"


def _replace_relu(op: str) -> Pass:
    def apply(model: ir.Model) -> int:
        for node in list(model.graph):
            if node.op_type == "Relu":
                node.op_type = op
                return 1
        return 0

    return Pass(f"relu to {op}", apply)


def _raises(model: ir.Model) -> int:
    raise KeyError("no such thing")


SQUARE = """
(float[2,4] x) => (float[2,4] y) {
  w = Constant <value = float[4,4] {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}> ()
  a = MatMul (x, w)
  y = Relu (a)
}
"""


def _without_product(model: ir.Model) -> int:
    found = next((node for node in model.graph if node.op_type == "MatMul"), None)
    if found is None:
        return 0
    ir.convenience.replace_all_uses_with(found.outputs[0], found.inputs[0])
    model.graph.remove(found, safe=True)
    return 1


def test_a_rewrite_tells_what_it_saved():
    """Multiply-adds, what nodes write, and weights that nobody reads any more."""
    product = Pass("drop a product with the unit matrix", _without_product)
    _, rewrites = run_phases(model_of(SQUARE), ((*TIDY, product, dead_nodes),), strict=True)
    by_name = {r.name: r for r in rewrites}
    made = by_name[product.name]
    assert (made.macs_saved, made.written_bytes_saved, made.weight_bytes_saved) == (2 * 4 * 4, 2 * 4 * 4, 4 * 4 * 4)
    assert by_name[dead_nodes.name].macs_saved == 0


def test_what_shapes_do_not_tell_counts_as_nothing_saved():
    """A free batch: shapes that become known are no arithmetic gained or lost."""
    free = SQUARE.replace("float[2,4]", "float[n,4]")
    product = Pass("drop a product with the unit matrix", _without_product)
    _, rewrites = run_phases(model_of(free), ((*TIDY, product),), strict=True)
    (made,) = (r for r in rewrites if r.name == product.name)
    assert (made.changes, made.macs_saved, made.written_bytes_saved, made.weight_bytes_saved) == (1, 0, 0, 64)
    _, rewrites = run_phases(model_of(free), ((fix_shapes({"n": 8}),),), strict=True)
    assert rewrites[0].changes and rewrites[0].macs_saved == 0


def _renames_output(model: ir.Model) -> int:
    model.graph.outputs[0].name = "z"
    return 1


WRONG = _replace_relu("Abs")
INVALID = _replace_relu("NoSuchOperator")
BROKEN = Pass("broken", _raises)
RENAMES = Pass("renames", _renames_output)


def test_the_model_handed_in_is_left_alone() -> None:
    model = model_of(MODEL)
    before = lines(model)
    result, rewrites = run_phases(model, (TIDY, OPTIMISE), strict=True)
    assert lines(model) == before
    assert result.graph.num_nodes() == 2
    dropped = next(r for r in rewrites if r.name == drop_noops.name)
    assert (dropped.changes, dropped.nodes_before, dropped.nodes_after) == (2, 4, 2)


def test_a_pass_is_credited_with_the_nodes_that_it_took_away_itself() -> None:
    result, rewrites = run_phases(model_of(MODEL), ((_replace_relu("Identity"), drop_noops),))
    assert ops(result) == {"Neg": 1}
    assert [(r.changes, r.nodes_before, r.nodes_after) for r in rewrites] == [(1, 4, 4), (3, 4, 1)]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (WRONG, "output 0"),
        (INVALID, "NoSuchOperator"),
        (BROKEN, "no such thing"),
        (RENAMES, "inputs or outputs changed"),
    ],
    ids=lambda value: value.name if isinstance(value, Pass) else "",
)
def test_a_bad_pass_is_undone_named_and_costs_itself_alone(bad: Pass, reason: str) -> None:
    model = model_of(MODEL)
    result, rewrites = run_phases(model, ((bad, drop_noops),), probe=lambda: probe_of(model))
    assert ops(result) == {"Relu": 1, "Neg": 1}
    assert result.graph.outputs[0].name == "y"
    by_name = {r.name: r for r in rewrites}
    assert by_name[bad.name].detail.startswith("left out: ") and reason in by_name[bad.name].detail
    assert by_name[drop_noops.name].detail == "" and by_name[drop_noops.name].changes == 2


@pytest.mark.parametrize("bad", [WRONG, INVALID, BROKEN, RENAMES], ids=lambda value: value.name)
def test_strict_raises_and_names_the_pass(bad: Pass) -> None:
    model = model_of(MODEL)
    with pytest.raises(PassError, match=f"'{bad.name}'"):
        run_phases(model, ((drop_noops, bad),), probe=probe_of(model), strict=True)


def test_the_guilty_one_among_many_is_found() -> None:
    """Each step is fine but one, and the answers differ only at the end of the phase."""
    model = model_of(
        "(float[2,4] x) => (float[2,4] y) { "
        + "".join(f"a{i} = Identity ({'x' if i == 0 else f'a{i - 1}'}) " for i in range(6))
        + "r = Relu (a5) y = Neg (r) }"
    )

    def drop_one(model: ir.Model) -> int:
        for node in list(model.graph):
            if node.op_type == "Identity":
                node.outputs[0].replace_all_uses_with(node.inputs[0])
                model.graph.remove(node, safe=True)
                return 1
        return 0

    innocent = [Pass(f"drop {i}", drop_one) for i in range(5)]
    _, rewrites = run_phases(model, ((*innocent[:3], WRONG, *innocent[3:]),), probe=probe_of(model))
    assert [r.name for r in rewrites if r.detail] == [WRONG.name]


def test_what_was_odd_before_is_no_pass_fault() -> None:
    """ONNX's own inference refuses this model, though it runs; passes that are right still apply."""
    model = model_of(
        "(float[2,3,4,4] x) => (float[2,3,4,4] y) { a = Identity (x) y = MeanVarianceNormalization (a) }", 9
    )
    result, rewrites = run_phases(model, ((drop_noops,),), probe=probe_of(model), strict=True)
    assert result.graph.num_nodes() == 1 and rewrites[0].changes == 1


def test_without_a_probe_only_the_form_is_checked() -> None:
    result, _ = run_phases(model_of(MODEL), ((WRONG,),), strict=True)
    assert ops(result)["Abs"] == 1


def test_a_nan_that_was_not_there_is_a_difference() -> None:
    model = model_of("(float[2] x) => (float[2] y) { a = Relu (x) y = Neg (a) }")
    with pytest.raises(PassError, match="NaN"):
        run_phases(model, ((_replace_relu("Log"),),), probe=[np.array([-1.0, 1.0], np.float32)], strict=True)


def test_a_graph_is_described_once_for_a_check_and_for_each_start_that_none_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[ir.Model] = []
    plain = shapes.skeleton

    def counted(model: ir.Model) -> onnx.ModelProto:
        made.append(model)
        return plain(model)

    model = model_of(MODEL)
    monkeypatch.setattr(shapes, "skeleton", counted)
    monkeypatch.setattr(check, "skeleton", counted)
    run_phases(model, ([_replace_relu("Exp")], [drop_noops], ()), strict=True)
    # The start of the first phase, the change in it, and the one in the second: never a start that was checked before.
    assert len(made) == 3


def test_a_pass_is_asked_again_only_of_a_graph_that_changed_since() -> None:
    asked: list[str] = []

    def noted(name: str, most: int) -> Pass:
        """Changes something the first ``most`` times."""

        def apply(model: ir.Model) -> int:
            asked.append(name)
            if asked.count(name) > most:
                return 0
            model.graph[0].name = f"{name}{asked.count(name)}"
            return 1

        return Pass(name, apply)

    run_phases(model_of(MODEL), ((noted("never", 0), noted("twice", 2), noted("last", 0)),), strict=True)
    # What found nothing is asked once for each change since: not once more at the end.
    assert asked == ["never", "twice", "last", "never", "twice", "last", "never", "twice"]


def test_answers_of_one_run_are_handed_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    run: list[ir.Model] = []
    plain = reference.run

    def counted(model: ir.Model, arrays: Sequence[Array]) -> tuple[Array, ...]:
        run.append(model)
        return plain(model, arrays)

    monkeypatch.setattr(reference, "run", counted)
    last, x = LastAnswers(), np.float32([[1, -2, 3, -4], [0, 1, 2, 3]])
    first, _ = run_phases(model_of(MODEL), ([drop_noops],), probe=[x], last=last)
    second, _ = run_phases(first, ([dead_nodes],), probe=[x.copy()], last=last)
    assert [run.count(m) for m in (first, second)] == [1, 1] and len(run) == 3
    run_phases(second, ([dead_nodes],), probe=[-x], last=last)
    assert run.count(second) == 2, "other arrays have other answers"
    with pytest.raises(PassError, match="difference"):
        run_phases(
            first, ([_replace_relu("Abs")],), probe=[x], strict=True, last=LastAnswers(first, (x,), plain(first, [x]))
        )
