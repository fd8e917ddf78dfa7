"""The table of rules: code → module. One rule, one file; to add one: the file, a line here, its cases in the tests."""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, Any

from hasten.doctor.rule import Rule

if TYPE_CHECKING:
    from hasten.doctor.graphs import GraphRule

__all__ = ["CODE_RULES", "GRAPH_RULES", "GROUPS", "code_rules", "documentation", "graph_rules", "rule_names"]

GROUPS = {
    "H0": "Calling",
    "H1": "Graphs and sessions",
    "H2": "PyTorch",
    "H3": "Measuring",
    "H4": "Data",
    "H5": "Safety",
    "H6": "Models",
}

CODE_RULES: dict[str, str] = {
    "H001": "h001_predict_in_loop",
    "H002": "h002_predict_one_sample",
    "H003": "h003_predict_on_batch_in_loop",
    "H004": "h004_numpy_to_model_in_loop",
    "H005": "h005_tensor_built_in_loop",
    "H006": "h006_conversion_each_round",
    "H007": "h007_row_by_row",
    "H008": "h008_run_eagerly",
    "H009": "h009_verbose_in_serving",
    "H101": "h101_python_number_to_function",
    "H102": "h102_changing_shape_to_function",
    "H103": "h103_function_made_in_loop",
    "H104": "h104_no_input_signature",
    "H105": "h105_compile_in_loop",
    "H106": "h106_time_distributed_dense",
    "H107": "h107_reshape_before_dense",
    "H108": "h108_allocate_each_call",
    "H109": "h109_session_each_call",
    "H110": "h110_load_each_call",
    "H201": "h201_no_eval",
    "H202": "h202_no_inference_mode",
    "H203": "h203_data_parallel_inference",
    "H204": "h204_retired_quantization",
    "H205": "h205_retired_amp",
    "H206": "h206_torchscript_deployment",
    "H207": "h207_retired_pretrained",
    "H208": "h208_no_calibration",
    "H209": "h209_pruning_masks_kept",
    "H210": "h210_softmax_twice",
    "H301": "h301_one_call_timed",
    "H302": "h302_no_warm_up",
    "H303": "h303_no_synchronize",
    "H304": "h304_mean_only",
    "H305": "h305_timing_includes_loading",
    "H401": "h401_loader_without_workers",
    "H402": "h402_loader_without_pinning",
    "H403": "h403_loader_restarts_workers",
    "H404": "h404_unbounded_cache",
    "H405": "h405_no_prefetch",
    "H406": "h406_serial_map",
    "H407": "h407_no_batch",
    "H408": "h408_copy_in_loop",
    "H501": "h501_unsafe_torch_load",
    "H502": "h502_allow_pickle",
    "H503": "h503_hidden_quantization_failure",
}

GRAPH_RULES: dict[str, str] = {
    "H601": "h601_float64_weights",
    "H602": "h602_noise_at_inference",
    "H603": "h603_unrolled_loop",
    "H604": "h604_removable_transpose",
    "H605": "h605_unfolded_batch_norm",
    "H606": "h606_dynamic_dimensions",
    "H607": "h607_slow_operator",
    "H608": "h608_unused_layer",
    "H609": "h609_constant_subgraph",
    "H610": "h610_unfused_recurrence",
    "H611": "h611_huge_embedding",
}


_ALL = {**CODE_RULES, **GRAPH_RULES}


@cache
def code_rules() -> tuple[Rule, ...]:
    """Every rule over code, in order of codes; imported at the first call."""
    return tuple(_module(code).RULE for code in CODE_RULES)


@cache
def graph_rules() -> tuple[GraphRule, ...]:
    """Every rule over models, in order of codes; imported at the first call."""
    return tuple(_module(code).RULE for code in GRAPH_RULES)


def documentation(code: str) -> str:
    """The rule's documentation: its module's docstring."""
    return str(_module(code).__doc__)


def rule_names() -> dict[str, str]:
    """Code → short name of every rule, without importing any."""
    return {code: module.split("_", 1)[1].replace("_", "-") for code, module in _ALL.items()}


def _module(code: str) -> Any:
    return importlib.import_module(f"hasten.doctor.rules.{_ALL[code]}")
