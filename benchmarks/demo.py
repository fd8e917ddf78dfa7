"""Trains a small CNN and an LSTM on scikit-learn's digits, optimises both, and shows what that gained.

    make demo        # or: python benchmarks/demo.py [--quick]

Bundles and reports are left in the folder ``demo``.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import hasten
from hasten.api import Settings, study
from hasten.cli.progress import Watch
from hasten.cli.quiet import quiet_libraries
from hasten.report import Report, html, terminal
from hasten.report.units import ratio_text, time_text

_FOLDER = Path("demo")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smaller search")
    options = parser.parse_args(arguments)
    _FOLDER.mkdir(exist_ok=True)
    settings = Settings(quick=True) if options.quick else Settings(budget_s=60)
    begin = time.monotonic()
    with quiet_libraries():
        models = _trained()
    told = [_optimised(name, model, rows, settings) for name, (model, rows) in models.items()]
    print("\n" + "\n\n".join(told))
    print(f"\nBoth models: {time.monotonic() - begin:.0f} s. Open the reports in a browser, or go on with:")
    print(f"  .venv/bin/hasten info {_FOLDER}/cnn.hasten")
    print(f"  .venv/bin/python -c \"import hasten; print(hasten.load('{_FOLDER}/cnn.hasten').info())\"")


def _trained() -> dict[str, tuple[Path, dict[str, Any]]]:
    """Model files, each with its held-out rows and how many of them the original gets right."""
    import keras
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    keras.utils.set_random_seed(0)
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)
    x, x_held, y, y_held = train_test_split(
        images, digits.target, test_size=0.25, random_state=0, stratify=digits.target
    )
    layers = keras.layers
    built = {
        "cnn": keras.Sequential(
            [
                layers.Input((8, 8, 1)),
                layers.Conv2D(16, 3, padding="same"),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.MaxPooling2D(),
                layers.Conv2D(32, 3, padding="same", activation="relu"),
                layers.GlobalAveragePooling2D(),
                layers.Dense(10, activation="softmax"),
            ]
        ),
        # the eight rows of an image are its eight time steps
        "lstm": keras.Sequential([layers.Input((8, 8)), layers.LSTM(48), layers.Dense(10, activation="softmax")]),
    }
    found = {}
    for name, model in built.items():
        shape = model.input_shape[1:]
        print(f"training {name}: {model.count_params():,} parameters, {len(x)} digits", flush=True)
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(x.reshape(-1, *shape), y, epochs=40, batch_size=64, verbose=0)
        held = x_held.reshape(-1, *shape)
        answers = model.predict(held, verbose=0)
        model.save(_FOLDER / f"{name}.keras")
        found[name] = (_FOLDER / f"{name}.keras", {"x": held, "y": y_held, "answers": answers})
    return found


def _optimised(name: str, model: Path, held: dict[str, Any], settings: Settings) -> str:
    """Optimises, prints the table, and returns the summary."""
    from rich.console import Console

    print(f"\nhasten optimize {model} -o {_FOLDER}/{name}.hasten", flush=True)
    bundle, page = _FOLDER / f"{name}.hasten", _FOLDER / f"{name}.html"
    with quiet_libraries(), Watch() as watch:
        outcome = study(model, held["x"][:8], output=bundle, settings=settings, on_event=watch)
    terminal.render(outcome.report, Console())
    html.write(outcome.report, page)
    with quiet_libraries():
        answers = hasten.load(bundle).predict(held["x"])
    before = np.mean(held["answers"].argmax(1) == held["y"])
    after = np.mean(answers.argmax(1) == held["y"])
    return "\n".join(
        [
            f"{name}: {_gain(outcome.report)}",
            f"  accuracy on {len(held['y'])} held-out digits: {before:.2%} before, {after:.2%} after; "
            f"largest difference of a probability {np.abs(answers - held['answers']).max():.1e}",
            f"  bundle {bundle} ({bundle.stat().st_size / 1000:.0f} kB), report {page}",
        ]
    )


def _gain(report: Report) -> str:
    """Latency now, and what it was, by habit and at best."""
    medians = {t.candidate: t.measurement.p50_ns.value for t in report.trials if t.measurement is not None}
    verdict = report.verdict
    assert verdict.winner is not None
    now = medians[verdict.winner]
    text = f"{time_text(now)} a prediction with {verdict.winner.label}"
    if verdict.honest == verdict.today:
        text += "; of your own call paths only one was timed, run it again to go on"
    for who, candidate in (("your call today", verdict.today), ("your best own call", verdict.honest)):
        if candidate in medians and (who == "your call today" or candidate != verdict.today):
            then = medians[candidate]
            text += f"; {ratio_text(then / now)} faster than {who} ({candidate.label}, {time_text(then)})"
    return text


if __name__ == "__main__":
    main(sys.argv[1:])
