"""A candidate's outputs enter beside the source framework's own; a ``Comparison`` leaves, and what fails cannot win."""

from hasten.verify.comparison import MOST_STEPS, Tolerance, compare
from hasten.verify.inputs import edge_inputs, nearby_inputs
from hasten.verify.metrics import METRICS, Metric, accuracy_bound, metric

__all__ = [
    "METRICS", "MOST_STEPS", "Metric", "Tolerance", "accuracy_bound", "compare", "edge_inputs", "metric",
    "nearby_inputs",
]  # fmt: skip
