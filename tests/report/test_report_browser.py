"""The page in a real browser, headless: it draws, it says nothing on the console, it keeps quiet on the network."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import report_samples as made

from hasten.report import Peaks
from hasten.report.html import write

pytestmark = pytest.mark.browser
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--virtual-time-budget=4000",
)  # fmt: skip


@dataclass(frozen=True)
class Seen:
    dom: str
    console: list[str]

    def part(self, name: str) -> str:
        """The DOM from the element of this id to the end of its figure or section."""
        start = self.dom.index(f'id="{name}"')
        return self.dom[start : self.dom.index("</section>", start)]


def browse(folder: Path, name: str, *options: str, view: str = "", width: int = 1200) -> Seen:
    path = folder / f"{name}.html"
    write(getattr(made, name)(), path)
    return visit(path, *options, view=view, width=width)


def visit(path: Path, *options: str, view: str = "", width: int = 1200) -> Seen:
    if BROWSER is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    profile = f"--user-data-dir={path.parent / 'profile'}"
    size = f"--window-size={width},900"
    command = [BROWSER, *QUIET, profile, size, "--enable-logging=stderr", *options, f"{path.as_uri()}#{view}"]
    run = subprocess.run(command, capture_output=True, timeout=120, check=True)
    console = [line for line in run.stderr.decode(errors="replace").splitlines() if "CONSOLE" in line]
    return Seen(run.stdout.decode(), console)


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Seen:
    return browse(tmp_path_factory.mktemp("full"), "full_report", "--dump-dom")


def test_the_console_stays_silent(full):
    assert full.console == []


def test_the_console_would_tell(tmp_path):
    broken = tmp_path / "broken.html"
    write(made.one_candidate(), broken)
    text = broken.read_text(encoding="utf-8")
    broken.write_text(
        text.replace("</body>", "<script>alert(1)</script><img src='http://127.0.0.1:9/x'></body>"), encoding="utf-8"
    )
    complaints = " ".join(visit(broken, "--dump-dom").console)
    assert "inline script" in complaints and "127.0.0.1" in complaints  # the policy stopped both


def test_every_plot_has_its_marks(full):
    matrix = full.part("plot-matrix")
    assert matrix.count("<circle") >= 14 * 2  # a p50 and a slowest call for each; the wrong one is a cross
    assert ">★ native<" in matrix and ">▸ keras predict<" in matrix
    assert full.part("plot-curves").count('aria-label="line"') == 6  # the leaders: two roles of keras and four engines
    assert full.part("plot-time").count("<figure") == full.part("plot-time").count("<svg") == 14
    assert full.part("plot-time").count('aria-label="area"') == 14
    assert full.part("plot-error").count("<circle") >= 14 * 2
    assert "absolute ≤ 1e-5" in full.part("plot-error")
    assert full.part("plot-ops").count("<rect") >= 5
    assert full.part("plot-roofline").count("<circle") == 3
    assert "peak 129 GMAC/s" in full.part("plot-roofline")


def test_axes_are_labelled_in_human_units(full):
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", full.part("plot-matrix"))
    assert {"1 µs", "10 µs", "100 µs", "1 ms", "10 ms"} <= set(texts)


@pytest.mark.parametrize(("width", "side"), [(1200, "start"), (400, "end")])
def test_words_beside_a_bound_go_where_there_is_room(tmp_path, width, side):
    path = tmp_path / "bounds.html"
    write(replace(made.one_candidate(), tolerance={"absolute": 1e-5, "relative": 1e-4}), path)
    before = visit(path, "--dump-dom", width=width).part("plot-error").partition("relative ≤ 1e-4")[0]
    assert re.findall(r'text-anchor="(start|end)"', before)[-1] == side


def test_memory_levels_too_close_for_a_name_between_share_one(tmp_path):
    report = made.full_report()
    peaks = Peaks(60.0, {"L1d": 190.0, "L2": 113.0, "L3": 97.0, "memory": 32.0}, "a test")
    path = tmp_path / "levels.html"
    write(replace(report, peaks=peaks), path)
    drawn = visit(path, "--dump-dom").part("plot-roofline")
    assert [t for t in re.findall(r"<text[^>]*>([^<]*)</text>", drawn) if t[0] in "Lm" and "add" not in t] == [
        "L1d", "L2, L3", "memory",
    ]  # fmt: skip


def test_no_mark_is_drawn_nowhere(full):
    drawn = re.sub(r"<script.*?</script>", "", full.dom, flags=re.DOTALL)
    assert not re.search(r'(?:d|transform|cx|cy|x|y|width|height|x1|x2|y1|y2)="[^"]*(?:NaN|undefined|Infinity)', drawn)


def test_plots_speak_to_a_screen_reader(full):
    roles = re.findall(r'<svg[^>]*role="img"[^>]*>', full.dom)
    assert len(roles) == 19
    assert all("aria-label=" in tag for tag in roles)


@pytest.mark.parametrize("name", ["hostile", "none_ok", "one_candidate", "long_names"])
def test_odd_reports_draw_without_an_error(tmp_path, name):
    seen = browse(tmp_path, name, "--dump-dom", view="theme=dark&curve=ecdf", width=480)
    assert seen.console == []
    assert 'data-theme="dark"' in seen.dom
    assert "<img" not in seen.dom and "<script>alert" not in seen.dom


def test_the_screenshot_shows_colour_in_the_plots(tmp_path):
    shot = tmp_path / "shot.png"
    seen = browse(tmp_path, "full_report", f"--screenshot={shot}")
    assert seen.console == []
    image = pytest.importorskip("PIL.Image").open(shot).convert("RGB")
    assert image.size == (1200, 900)
    colours = {colour for count, colour in image.getcolors(1 << 20) if count > 20}
    assert (10, 122, 85) in colours  # the winner's green, in its tile
    assert len(colours) > 40
