from __future__ import annotations

import os
import subprocess
import sys

import pytest

_CODE = """
import sys
from hasten.cli.light import start_light
start_light()
import keras
print(sorted({"matplotlib", "sklearn"} & set(sys.modules)))
import matplotlib, sklearn
print(sorted({"matplotlib", "sklearn"} & set(sys.modules)))
"""


def _printed(backend: str) -> list[str]:
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run([sys.executable, "-c", _CODE], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.frameworks
@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_keras_starts_without_what_it_tries_and_others_still_find_it(backend: str) -> None:
    for name in ("keras", "matplotlib", "sklearn", backend):
        pytest.importorskip(name)
    assert _printed(backend) == ["[]", "['matplotlib', 'sklearn']"]
