"""A program enters; the same with every step's way to compute it settled leaves: register tiles, minimal filtering."""

from __future__ import annotations

from dataclasses import replace

from hasten.native.isa import Isa
from hasten.native.program import Program

__all__ = ["by_model"]


def by_model(program: Program, isa: Isa) -> Program:
    """Every step as a model of the machine prefers it: the same for the same program, on whatever machine."""
    return replace(program, steps=[step.preferred(isa) for step in program.steps])
