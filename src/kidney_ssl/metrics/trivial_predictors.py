"""Metrics of a pretext task beside those of its trivial predictors, by the names that pretraining gives them."""

from collections.abc import Mapping

PREFIX = "validation_"
Pairs = dict[str, dict[str, float | None]]


def beside_trivial(figures: Mapping[str, float | None]) -> list[tuple[str, float | None, dict[str, float | None]]]:
    """Pair metrics with trivial predictors: `validation_mse_copy` is `validation_mse` of one called copy.

    Args:
        figures: metrics of the last epoch.

    Returns:
        Name, value and predictor -> value of each metric that has predictors; of the loss if none has.
    """
    measured = {key.removeprefix(PREFIX): value for key, value in figures.items() if key.startswith(PREFIX)}
    pairs: Pairs = {
        key: {other.removeprefix(f"{key}_"): value for other, value in measured.items() if other.startswith(f"{key}_")}
        for key in measured
    }
    told = [key for key in pairs if pairs[key] and key != "loss"] or ["loss"]
    return [(key, measured.get(key), pairs.get(key, {})) for key in told]
