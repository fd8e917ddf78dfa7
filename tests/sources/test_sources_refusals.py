"""What ONNX Runtime raises is told in one line, without its own codes and C++."""

from __future__ import annotations

import pytest

from hasten.sources.refusals import refusal

HOME = "/onnxruntime_src/onnxruntime/core"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "[ONNXRuntimeError] : 1 : FAIL : Exception during initialization: "
            f"{HOME}/providers/cpu/text/string_normalizer.cc:235 onnxruntime::StringNormalizer::Locale::Locale("
            "const std::string&)::<lambda()> Failed to construct locale with name:en_US.UTF-8:"
            "locale::facet::_S_create_c_locale name not valid:Please, install necessary language-pack-XX",
            "it needs the locale 'en_US.UTF-8', which this machine lacks; install it (locale-gen en_US.UTF-8)",
        ),
        (
            f"[ONNXRuntimeError] : 1 : FAIL : Load model from m.onnx failed:{HOME}/graph/model.cc:149 "
            "onnxruntime::Model::Model(onnx::ModelProto&&, const onnxruntime::ModelOptions&) "
            "ModelProto does not have a graph.",
            "ONNX Runtime refuses it: ModelProto does not have a graph.",
        ),
        (
            "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Add node. "
            f"Name:'a' Status Message: {HOME}/framework/op_kernel.cc:83 virtual onnxruntime::OrtValue* "
            "onnxruntime::OpKernelContext::OutputMLValue(int, std::function<void(int)>) const status.IsOK() was false.",
            "ONNX Runtime refuses it: Non-zero status code returned while running Add node. Name:'a' Status Message: "
            "status.IsOK() was false.",
        ),
        ("[ONNXRuntimeError] : 1 : FAIL : No Op registered for Foo", "unknown operator: No Op registered for Foo"),
        ("", "ONNX Runtime refuses it: RuntimeError"),
    ],
    ids=["locale", "loading", "running", "unknown", "nothing"],
)
def test_codes_and_places_are_left_out(text: str, told: str) -> None:
    assert refusal(RuntimeError(text)) == told


def test_a_long_text_is_cut_between_words_and_says_where_all_of_it_is() -> None:
    told = refusal(RuntimeError("every word counts\n" * 100))
    assert len(told) < 300
    assert told.endswith("… (the whole of it: hasten --debug)")
    assert "\n" not in told
