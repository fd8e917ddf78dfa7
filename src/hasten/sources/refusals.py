"""What ONNX Runtime raises enters; one line that a reader of models understands leaves."""

from __future__ import annotations

import re

__all__ = ["refusal"]

_UNKNOWN = ("No Op registered for", "is not a registered function/op", "No opset import for domain")
_LONGEST = 220
_CODES = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_STEPS = re.compile(r"^(Exception during initialization|Load model from \S+ failed): ?")
# A file of its own sources with the line, and the signature of the C++ function there.
_PLACE = re.compile(r"\S+\.(?:cc|cpp|h|hpp):\d+ [^()]*\((?:[^()]|\([^()]*\))*\)(?: const)?(?:::<lambda\([^()]*\)>)? ?")


def refusal(error: Exception) -> str:
    """Why ONNX Runtime does not run a model, without the codes and C++ places in front, cut where it is long."""
    text = str(error)
    unknown = next((line for line in text.splitlines() if any(u in line for u in _UNKNOWN)), None)
    if unknown is not None:
        return f"unknown operator: {unknown.split(' : ')[-1].strip()}"
    locale = re.search(r"construct locale with name:(\S+?):", text)
    if locale:
        return f"it needs the locale '{locale[1]}', which this machine lacks; install it (locale-gen {locale[1]})"
    plain = _PLACE.sub("", _STEPS.sub("", _CODES.sub("", " ".join(text.split())))) or type(error).__name__
    if len(plain) > _LONGEST:
        plain = plain[:_LONGEST].rsplit(" ", 1)[0] + " … (the whole of it: hasten --debug)"
    return f"ONNX Runtime refuses it: {plain}"
