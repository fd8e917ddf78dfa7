"""What users call. ``pipeline`` is the whole way from a model to a bundle, top to bottom; the rest are its steps.

``settings`` what may be asked for · ``prepare`` source → plan · ``ship`` trials → bundle · ``describe`` trials →
report · ``single`` one engine at once.
"""

from hasten.api.explaining import explain
from hasten.api.pipeline import Outcome, benchmark, optimize, study
from hasten.api.settings import Settings
from hasten.api.single import compile
from hasten.runtime import load

__all__ = ["Outcome", "Settings", "benchmark", "compile", "explain", "load", "optimize", "study"]
