"""All passes in the order they run. To add one: its file, and its line here.

``TIDY`` gives each graph one form, whatever wrote it; ``OPTIMISE`` makes it cheaper. Each phase is run until it changes
nothing.
"""

from __future__ import annotations

from hasten.passes import Pass
from hasten.passes.contributed import contributed_operators
from hasten.passes.contributed_rounding import contributed_rounding
from hasten.passes.count_turns import count_turns
from hasten.passes.drop_noops import drop_noops
from hasten.passes.fold_affine import fold_affine_after, fold_affine_before
from hasten.passes.fold_constants import fold_constants
from hasten.passes.fourier import fourier_as_product
from hasten.passes.fuse_linear import fuse_bias
from hasten.passes.fuse_padding import fuse_padding
from hasten.passes.learned import learned_operators
from hasten.passes.loop_invariants import loop_invariants
from hasten.passes.merge_clips import merge_clips
from hasten.passes.opset import raise_opset
from hasten.passes.quantised import views_as_integers
from hasten.passes.quantised_moves import moves_of_integers
from hasten.passes.recognise import recognise_activations
from hasten.passes.recognise_normalisation import recognise_normalisation
from hasten.passes.recognise_recurrence import recognise_recurrence
from hasten.passes.recognise_unrolled import recognise_unrolled
from hasten.passes.reroll import reroll
from hasten.passes.simplify_recurrence import simplify_recurrence
from hasten.passes.sink_views import sink_views
from hasten.passes.spread_over_concat import spread_over_concat
from hasten.passes.standard import (
    dead_nodes,
    inline_functions,
    lift_constants,
    merge_equal_nodes,
    merge_equal_weights,
    name_everything,
    overridable_weights,
    sort_nodes,
)
from hasten.passes.transposes import cancel_transposes
from hasten.passes.views import merge_views
from hasten.passes.views_into_weights import views_into_weights

__all__ = ["OPTIMISE", "TIDY"]

TIDY: tuple[Pass, ...] = (
    inline_functions,
    overridable_weights,
    name_everything,
    sort_nodes,
    raise_opset,
    lift_constants,
    contributed_operators,
    contributed_rounding,
    learned_operators,
    dead_nodes,
    fold_constants,
    drop_noops,
    loop_invariants,
    count_turns,
    reroll,
    recognise_recurrence,
    recognise_unrolled,
    fourier_as_product,
)

OPTIMISE: tuple[Pass, ...] = (
    fold_constants,
    drop_noops,
    reroll,
    recognise_normalisation,
    recognise_activations,
    merge_clips,
    merge_views,
    views_as_integers,
    moves_of_integers,
    cancel_transposes,
    fuse_padding,
    spread_over_concat,
    fold_affine_after,
    fold_affine_before,
    views_into_weights,
    sink_views,
    simplify_recurrence,
    fuse_bias,
    merge_equal_weights,
    merge_equal_nodes,
    dead_nodes,
    sort_nodes,
)
