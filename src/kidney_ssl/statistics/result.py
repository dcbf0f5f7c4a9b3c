"""The one form of a result: a value, its interval, or the reason why there is none; and how results are written."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

DIGITS = 6  # decimals of every result in a file: finer than a slice of the largest test part
# Settings and thresholds that are not rounded; a rounded threshold would call other slices.
EXACT = ("learning_rate", "threshold", "strength")


@dataclass(frozen=True)
class Estimate:
    """A statistic with its interval, of 95 % unless stated otherwise."""

    value: float | None = None  # the statistic; None where it cannot be computed
    low: float | None = None  # lower end of the interval; None without one
    high: float | None = None  # upper end
    reason: str | None = None  # why the value, or else the interval, is None


def unless(possible: bool | np.bool, reason: str) -> Estimate | None:
    """An estimate without a value but with a reason, unless the statistic can be computed: `unless(...) or value`."""
    return None if possible else Estimate(reason=reason)


def as_json(content: Any, name: str = "") -> Any:
    """Make nested mappings and lists of numbers, words and estimates ready for JSON.

    Numbers are rounded, except those whose key `name` is in `EXACT`. An estimate is replaced by its value; the reasons
    of missing values are in the same mapping under `reasons`.
    """
    if isinstance(content, Mapping):
        reasons = {key: one.reason for key, one in content.items() if isinstance(one, Estimate) and one.value is None}
        return {key: as_json(one, key) for key, one in content.items()} | ({"reasons": reasons} if reasons else {})
    if isinstance(content, (list, tuple)):
        return [as_json(one, name) for one in content]
    if isinstance(content, Estimate):
        return as_json(content.value, name)
    if isinstance(content, (float, np.floating)):
        return float(content) if name in EXACT else round(float(content), DIGITS)
    return int(content) if isinstance(content, np.integer) else content
