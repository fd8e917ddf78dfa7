import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.report.units import ABSENT, bytes_text, error_text, rate_text, ratio_text, share_text, time_text

_SCALE = {"ns": 1.0, "µs": 1e3, "ms": 1e6, "s": 1e9}


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"),
        (18.04, "18.0 ns"),
        (99.94, "99.9 ns"),
        (99.96, "0.100 µs"),
        (310, "0.310 µs"),
        (999.6, "1.00 µs"),
        (9_996, "10.0 µs"),
        (99_960, "100 µs"),
        (999_600, "1.00 ms"),
        (42_400_000, "42.4 ms"),
        (999_600_000, "1.00 s"),
        (4.4e9, "4.40 s"),
        (None, ABSENT),
        (math.nan, ABSENT),
        (math.inf, ABSENT),
    ],
)
def test_time_is_told_in_the_unit_that_suits_it(ns, text):
    assert time_text(ns) == text


@given(st.floats(1e-2, 1e15))
def test_time_text_is_within_half_a_percent_of_the_number(ns):
    number, unit = time_text(ns).split(" ")
    assert float(number.replace(",", "")) * _SCALE[unit] == pytest.approx(ns, rel=0.0051)


@given(st.floats(1e2, 1e14), st.floats(1.02, 1e3))
def test_a_longer_time_never_reads_shorter(ns, factor):
    def told(value):
        number, unit = time_text(value).split(" ")
        return float(number.replace(",", "")) * _SCALE[unit]

    assert told(ns) < told(ns * factor)


def test_other_units():
    assert bytes_text(0) == "0 B"
    assert bytes_text(999) == "999 B"
    assert bytes_text(18_234_000) == "18.2 MB"
    assert bytes_text(3_210_000_000) == "3.21 GB"
    assert bytes_text(None) == ABSENT
    assert rate_text(23.84) == "23.8/s"
    assert rate_text(3_205_128) == "3.21 M/s"
    assert rate_text(2.5e9) == "2.50 G/s"
    assert ratio_text(136_774.2) == "137,000×"
    assert ratio_text(0.874) == "0.874×"
    assert ratio_text(None) == ABSENT
    assert share_text(0.0042) == "0.42 %"
    assert share_text(0) == "0 %"
    assert share_text(-0.31) == "-31 %"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (0.0, "0"), (2.04e-7, "2e-7"), (2.44e-7, "2.4e-7"), (1e-4, "1e-4"), (0.31, "0.31"), (4.2, "4.2"),
        (3.1e12, "3.1e12"), (math.nan, "NaN"), (math.inf, "∞"), (None, ABSENT),
    ],
)  # fmt: skip
def test_errors_name_what_is_not_a_number(error, text):
    assert error_text(error) == text
