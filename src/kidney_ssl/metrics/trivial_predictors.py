"""Metrics of a pretext task with those of its trivial predictors, matched by their names."""

from collections.abc import Mapping

PREFIX = "validation_"
Pairs = dict[str, dict[str, float | None]]


def beside_trivial(figures: Mapping[str, float | None]) -> list[tuple[str, float | None, dict[str, float | None]]]:
    """Pair metrics with trivial predictors: `validation_mse_copy` is `validation_mse` of the predictor `copy`.

    Args:
        figures: metrics of the last epoch.

    Returns:
        For each metric with trivial predictors: name, value, and predictor -> value. If there is none, the loss.
    """
    measured = {key.removeprefix(PREFIX): value for key, value in figures.items() if key.startswith(PREFIX)}
    pairs: Pairs = {
        key: {other.removeprefix(f"{key}_"): value for other, value in measured.items() if other.startswith(f"{key}_")}
        for key in measured
    }
    told = [key for key in pairs if pairs[key] and key != "loss"] or ["loss"]
    return [(key, measured.get(key), pairs.get(key, {})) for key in told]
