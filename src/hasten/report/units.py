"""Numbers enter; what people read leaves: ``1.08 µs``, ``18.2 MB``, ``137,000×``, ``2e-7``. Three digits."""

from __future__ import annotations

import math
import re

__all__ = ["ABSENT", "bytes_text", "error_text", "rate_text", "ratio_text", "share_text", "time_text"]

ABSENT = "—"
"""Stands where nothing was measured, or where there were too few samples."""


def time_text(ns: float | None) -> str:
    """A duration in the unit that keeps it between 0.1 and 1,000.

    Units:   ns: nanoseconds
    Example:
        >>> time_text(312), time_text(42_400_000)
        ('0.312 µs', '42.4 ms')
    """
    if ns is None or not math.isfinite(ns):
        return ABSENT
    for limit, scale, unit in ((99.95, 1.0, "ns"), (999_500.0, 1e3, "µs"), (999.5e6, 1e6, "ms")):
        if abs(ns) < limit:
            return f"{_digits(ns / scale)} {unit}"
    return f"{_digits(ns / 1e9)} s"


def bytes_text(count: float | None) -> str:
    """A size in decimal units.

    Example:
        >>> bytes_text(18_234_000)
        '18.2 MB'
    """
    if count is None or not math.isfinite(count):
        return ABSENT
    if abs(count) < 999.5:
        return f"{count:.0f} B"
    for scale, unit in ((1e3, "kB"), (1e6, "MB")):
        if abs(count) < 999.5 * scale:
            return f"{_digits(count / scale)} {unit}"
    return f"{_digits(count / 1e9)} GB"


def rate_text(per_s: float | None) -> str:
    """Calls per second.

    Example:
        >>> rate_text(3_205_128)
        '3.21 M/s'
    """
    if per_s is None or not math.isfinite(per_s):
        return ABSENT
    for limit, scale, unit in ((999.5, 1.0, "/s"), (999_500.0, 1e3, " k/s"), (999.5e6, 1e6, " M/s")):
        if abs(per_s) < limit:
            return f"{_digits(per_s / scale)}{unit}"
    return f"{_digits(per_s / 1e9)} G/s"


def ratio_text(ratio: float | None) -> str:
    """How many times faster, never with more digits than are meant.

    Example:
        >>> ratio_text(136_774.2), ratio_text(1.984)
        ('137,000×', '1.98×')
    """
    if ratio is None or not math.isfinite(ratio):
        return ABSENT
    return f"{_digits(ratio)}×"


def error_text(error: float | None) -> str:
    """A numeric error: ``0`` when exact, two digits otherwise; NaN and infinity are named.

    Example:
        >>> error_text(2.04e-7), error_text(0.0), error_text(float("nan"))
        ('2e-7', '0', 'NaN')
    """
    if error is None:
        return ABSENT
    if math.isnan(error):
        return "NaN"
    if math.isinf(error):
        return "∞"
    text = f"{error:.2g}" if abs(error) >= 1e-3 or error == 0 else f"{error:.1e}".replace(".0e", "e")
    return re.sub(r"e([+-])0*", lambda found: "e-" if found[1] == "-" else "e", text)


def share_text(share: float | None) -> str:
    """A part of a whole in percent.

    Example:
        >>> share_text(0.0042), share_text(0.31)
        ('0.42 %', '31 %')
    """
    if share is None or not math.isfinite(share):
        return ABSENT
    percent = share * 100
    return f"{percent:.0f} %" if abs(percent) >= 9.95 or percent == 0 else f"{percent:.2g} %"


def _digits(value: float) -> str:
    """Three significant digits, thousands grouped, never an exponent."""
    if value == 0:
        return "0"
    places = 2 - math.floor(math.log10(abs(value)))
    rounded = round(value, places)
    if abs(rounded) >= 99.95:
        return f"{rounded:,.0f}"
    # Rounding can carry into one digit more (9.996 → 10.0).
    return f"{rounded:.{max(0, 2 - math.floor(math.log10(abs(rounded))))}f}"
