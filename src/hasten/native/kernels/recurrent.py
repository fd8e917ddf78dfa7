"""Recurrent layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LOWER: Mapping[str, Any] = {}
