import io
from dataclasses import replace

import pytest
import report_samples as made
from rich.console import Console

from hasten.records import Interval, Trial
from hasten.report import OpTime, Report, Verdict
from hasten.report.facts import answered, gain, headline, left_out
from hasten.report.html import page
from hasten.report.operators import rewrites_line, saved_text, shortened, whole_limit
from hasten.report.terminal import render


def shown(report: Report, width: int = 170, colour: bool = False) -> str:
    out = io.StringIO()
    render(report, Console(file=out, width=width, force_terminal=colour, color_system="standard" if colour else None))
    return out.getvalue()


def test_the_sentence_on_top_tells_both_baselines():
    assert headline(made.full_report()) == (
        "model.keras answers in 0.310 µs (p50) with native instead of 41.9 ms: 135,000× faster than keras predict, "
        "117× faster than your best own call (keras tf.function xla); largest error 2.4e-7"
    )


def test_a_baseline_that_won_is_not_called_beaten():
    report = made.one_candidate()
    assert headline(report) == "tiny.onnx answers in 42.9 ms (p50) with keras predict: nothing beats it for certain"


def test_where_the_original_stays_its_own_time_is_told_first():
    report = made.full_report()
    stays = replace(report, verdict=replace(report.verdict, outcome="original"))
    assert headline(stays) == (
        "model.keras answers in 36.2 µs (p50) with keras tf.function xla: nothing beats it for certain; "
        "of those to ship, native takes 0.310 µs"
    )


@pytest.mark.parametrize(("objective", "column"), [("memory", "resident"), ("size", "size"), ("throughput", "rate")])
def test_what_decided_is_shown_in_a_narrow_terminal_too(objective: str, column: str):
    report = made.full_report()
    narrow = shown(replace(report, verdict=replace(report.verdict, objective=objective)), width=80)
    assert column in narrow
    assert column not in shown(report, width=80)


def test_slower_is_said_and_the_objective_does_not_mix_in():
    report = made.full_report()
    xla_won = replace(report.verdict, winner=made.HONEST, honest=made.NATIVE, over_honest=Interval(3.0, 2.0, 4.0))
    assert "117× slower than your best own call (native)" in headline(replace(report, verdict=xla_won))


def test_a_baseline_whose_faster_paths_were_not_timed_is_said_to_be_one():
    report = made.full_report()
    skipped = Trial(made.candidate("keras", "jit"), "skipped", "no time left")
    only_predict = replace(report, verdict=replace(report.verdict, honest=made.TODAY))
    assert "were not timed" not in headline(only_predict)
    assert "than keras predict (its other call paths were not timed);" in headline(
        replace(only_predict, trials=(*report.trials, skipped))
    )
    assert "were not timed" not in headline(replace(report, trials=(*report.trials, skipped)))


def test_the_page_calls_nothing_the_best_that_was_alone():
    report = made.full_report()
    only_predict = replace(report, verdict=replace(report.verdict, honest=made.TODAY))
    assert "faster than your call today, your best own call" in page(only_predict)
    skipped = Trial(made.candidate("keras", "jit"), "skipped", "no time left")
    alone = page(replace(only_predict, trials=(*report.trials, skipped)))
    assert "faster than your call today, the only one timed" in alone


def test_a_gain_holds_both_intervals():
    ratio = gain(made.full_report(), made.TODAY)
    assert ratio.low < ratio.value < ratio.high
    assert ratio.high / ratio.low == pytest.approx((1.006 / 0.995) ** 2)
    assert gain(made.one_candidate(), made.TODAY) is None


def test_a_tie_is_called_one():
    report = made.full_report()
    assert headline(replace(report, verdict=replace(report.verdict, outcome="tie"))).endswith(
        "a tie: the simpler of equals was taken"
    )


def test_without_a_winner_the_sentence_says_so():
    report = made.full_report()
    compared = headline(replace(report, verdict=Verdict("compared")))
    assert compared == "model.keras: fastest of 14 ways to call it is native, 0.310 µs (p50)"
    assert "nothing was chosen; fastest" in headline(replace(report, verdict=Verdict("none")))
    assert headline(made.none_ok()).endswith("no candidate gave the source's answers; keep your own call")


def test_fastest_first_and_wrong_answers_last():
    rows = answered(made.full_report())
    good = [t.measurement.p50_ns.value for t in rows if t.status == "ok"]
    assert good == sorted(good)
    assert [t.status for t in rows][-1] == "wrong"
    assert {t.status for t in rows[:-1]} == {"ok"}
    assert rows[-1].measurement.p50_ns.value < rows[1].measurement.p50_ns.value


def test_equal_reasons_are_told_once():
    groups = left_out(made.full_report())
    missing = [g for g in groups if "hasten[openvino]" in g.reason]
    assert [len(g.labels) for g in missing] == [2]
    assert [g.status for g in groups] == ["wrong", "wrong", "failed", "skipped", "skipped"]


def test_rows_are_marked_by_sign_not_by_colour_alone():
    lines = shown(made.full_report()).splitlines()
    assert [line.split()[:2] for line in lines if line.lstrip().startswith("★ ") and "µs" in line] == [["★", "native"]]
    assert any(line.lstrip().startswith("▸  keras predict") for line in lines)
    assert any(line.lstrip().startswith("▹  keras tf.function xla") for line in lines)


def test_too_few_samples_leave_a_dash():
    line = next(x for x in shown(made.full_report()).splitlines() if "▸  keras predict" in x)
    assert line.split("±0.6%")[1].split()[:2] == ["—", "—"]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 170, 250])
@pytest.mark.parametrize("name", ["full_report", "long_names", "none_ok", "one_candidate", "hostile"])
def test_no_line_is_wider_than_the_terminal(name, width):
    report = replace(getattr(made, name)(), bundle=None)  # a path is never broken: it is there to be copied
    assert max(map(len, shown(report, width).splitlines())) <= width


def test_columns_give_way_and_the_median_stays():
    wide, narrow = shown(made.full_report(), 170), shown(made.full_report(), 80)
    assert "cold start" in wide and "cold start" not in narrow
    for head in ("p50", "p99", "max error"):
        assert head in narrow
    assert "wrong" in narrow


def test_colour_only_where_it_is_seen():
    assert "\x1b[" not in shown(made.full_report())
    assert "\x1b[" in shown(made.full_report(), colour=True)


def test_markup_in_names_is_text():
    report = replace(made.one_candidate(), model="[bold red]x[/] [link=http://a]", notes=("[/]",))
    assert "[bold red]x[/] [link=http://a]" in shown(report)


def test_the_graph_in_one_line():
    report = made.full_report()
    assert rewrites_line(report) == (
        "2,053 → 6 nodes: drop identities ×31, fold batch norm ×2, re-roll time loops ×1,000, cancel transposes ×14, "
        "fuse activations ×2"
    )
    assert rewrites_line(replace(report, rewrites=())) == ""


def test_operators_are_shown_slowest_first_and_the_rest_summed():
    ops = tuple(OpTime(f"op{i}", "Add", 10.0 + i, 0.05) for i in range(20))
    lines = shown(replace(made.full_report(), op_times=ops)).splitlines()
    names = [
        line.split()[0] for line in lines if line.split()[:1] and line.split()[0].startswith("op") and "ns" in line
    ]
    assert names == [f"op{i}" for i in range(19, 3, -1)]
    assert any("and 4 more: 46.0 ns, 20 %" in line for line in lines)
    assert any("129 GMAC/s; L1 517 GB/s" in line for line in lines)


def test_whose_operators_they_are_is_said_where_it_is_known():
    assert "Where the time goes\n" in shown(made.full_report()).replace(" \n", "\n")
    report = replace(made.full_report(), op_times_of=made.HONEST)
    assert "Where the time goes in keras tf.function xla" in shown(report)
    assert "Where the time goes in keras tf.function xla</h2>" in page(report)


def test_the_limit_is_told_only_where_every_operator_has_one():
    ops = (OpTime("a", "Add", 100.0, 0.5, limit_ns=25.0), OpTime("b", "Add", 100.0, 0.5, limit_ns=75.0))
    assert whole_limit(replace(made.full_report(), op_times=ops)) == 0.5
    assert whole_limit(replace(made.full_report(), op_times=(*ops, OpTime("c", "Add", 1.0, 0.0)))) is None
    assert whole_limit(made.one_candidate()) is None
    at_it = (OpTime("a", "Gemm", 100.0, 1.0, limit_ns=106.0),)
    assert whole_limit(replace(made.full_report(), op_times=at_it)) == 1.0, "above it by the noise of both"


def test_the_part_that_all_operators_names_share_is_left_out():
    ops = (OpTime("net/a/MatMul, net/a/Relu", "Dense", 10.0, 0.5), OpTime("net/b", "Dense", 10.0, 0.5))
    text = shown(replace(made.full_report(), op_times=ops))
    assert "a/MatMul, Relu" in text and "net/" not in text


def test_long_names_of_fused_operators_fit_their_column():
    """As TensorFlow Lite joins them; a name without a folder hides no folder that the others share."""
    long = "net/stage_{}_depthwise_separable_projection_convolution_1"
    fused = [f"{long.format(i)}/Relu6;{long.format(i)}/convolution, Relu6__{i}" for i in (5, 7)]
    first, second, third = shortened([*fused, "dense;net/Mean"])
    assert first == "stage_5_depthwi…olution_1/Relu6; convolution, Relu6__5"
    assert second == first.replace("_5", "_7")
    assert third == "dense; Mean"
    text = shown(replace(made.full_report(), op_times=tuple(OpTime(name, "Conv", 10.0, 0.5) for name in fused)), 80)
    assert "stage_5_depthwi…olution_1/Relu6;" in text and "convolution, Relu6__7" in text


def test_what_a_rewrite_saved():
    saved = {rewrite.name: saved_text(rewrite) for rewrite in made.full_report().rewrites}
    assert saved["fold batch norm"] == "−1,200 MACs, +64 B of weights, −8.19 kB written"
    assert saved["drop identities"] == ""
