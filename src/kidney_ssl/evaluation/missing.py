"""Figures that cannot be computed: None in the JSON, with the reason beside them, never 0 or NaN."""

from dataclasses import dataclass
from typing import Any

import numpy as np

DIGITS = 6  # decimals of every figure: finer than a slice of the largest test part, coarser than rounding noise
# What a run was given, and the probability from which slices are called: rounded, they would call other slices.
EXACT = ("learning_rate", "threshold")


@dataclass(frozen=True)
class Missing:
    """Stands where a figure cannot be computed."""

    reason: str


def difference(value: Any, other: Any) -> Any:
    """Subtract two figures; what is missing stays missing, with its reason."""
    return next((figure for figure in (value, other) if isinstance(figure, Missing)), None) or value - other


def plain(figures: dict[str, Any]) -> dict[str, Any]:
    """Make figures ready for JSON: rounded, None for what is missing, its reasons beside it under `reasons`."""
    reasons = {name: value.reason for name, value in figures.items() if isinstance(value, Missing)}
    found = {name: _plain_value(name, value) for name, value in figures.items()}
    return found | ({"reasons": reasons} if reasons else {})


def _plain_value(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return plain(value)
    if isinstance(value, list):
        return [_plain_value(name, one) for one in value]
    if isinstance(value, Missing):
        return None
    if isinstance(value, (float, np.floating)):
        return float(value) if name in EXACT else round(float(value), DIGITS)
    return int(value) if isinstance(value, np.integer) else value
