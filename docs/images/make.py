"""Takes the picture of a report that README and guide show: ``python docs/images/make.py REPORT.html [HEIGHT]``.

Needs Chromium. Use the report of a real run on a quiet machine (``make demo`` leaves some).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_TARGET = Path(__file__).with_name("report.png")
_WIDTH, _HEIGHT = 1240, 1000


def main(report: Path, height: int = _HEIGHT) -> None:
    """Writes ``report.png`` beside this file, at one and a half times the size for sharp text."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("cannot take the picture: expected Chromium on PATH; install it (apt-get install chromium)")
    with tempfile.TemporaryDirectory() as profile:
        quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic", "--disable-sync"]
        quiet += ["--disable-background-networking", "--disable-component-update", "--hide-scrollbars"]
        size = [f"--window-size={_WIDTH},{height}", "--force-device-scale-factor=1.5", "--virtual-time-budget=4000"]
        place = [f"--user-data-dir={profile}", f"--screenshot={_TARGET}", f"{report.resolve().as_uri()}#theme=light"]
        subprocess.run([browser, *quiet, *size, *place], check=True, capture_output=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:3]))
