import json
from dataclasses import replace

import numpy as np
import pytest
import report_samples as made

from hasten.records import Trial
from hasten.report.jsonreport import SCHEMA, to_json


@pytest.mark.parametrize("name", ["full_report", "long_names", "none_ok", "one_candidate", "hostile"])
def test_any_parser_reads_it(name):
    text = json.dumps(to_json(getattr(made, name)()), allow_nan=False)
    assert json.loads(text)["schema"] == SCHEMA


def test_trials_come_back_as_they_were():
    report = made.full_report()
    data = json.loads(json.dumps(to_json(report)))
    for entry, trial in zip(data["trials"], report.trials, strict=True):
        if trial.comparison is None or np.isfinite(trial.comparison.max_abs_error):
            assert Trial.from_json(entry) == trial
        assert entry["candidate"]["label"] == trial.candidate.label
        assert entry["candidate"]["key"] == trial.candidate.key


def test_what_is_not_a_number_is_null_beside_its_reason():
    data = to_json(made.full_report())
    broken = next(t for t in data["trials"] if t["candidate"]["label"] == "onnxruntime float16")
    assert broken["comparison"]["max_abs_error"] is None
    assert broken["comparison"]["max_rel_error"] is None
    assert "NaN" in broken["reason"]


def test_numpy_numbers_and_paths_are_plain():
    report = replace(
        made.one_candidate(), settings={"a": np.float32(0.5), "b": np.int64(3), "c": np.array([1.0, np.inf])}
    )
    data = to_json(report)
    assert data["settings"] == {"a": 0.5, "b": 3, "c": [1.0, None]}
    json.dumps(data, allow_nan=False)


def test_samples_stay_in_their_files():
    data = to_json(made.full_report())
    assert "samples" not in data and "logs" not in data
    assert data["trials"][0]["measurement"]["raw"].endswith(".npy")
