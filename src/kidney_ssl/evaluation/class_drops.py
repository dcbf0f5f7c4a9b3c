"""Is what an arm loses against another spread evenly over the classes of slices?"""

from dataclasses import replace
from itertools import combinations

import numpy as np

from kidney_ssl.data.selection import CLASSES
from kidney_ssl.evaluation.arms import ArmPredictions
from kidney_ssl.evaluation.bootstrap import Resampled, no_interval, resamples
from kidney_ssl.evaluation.differences import half_widths
from kidney_ssl.evaluation.paired import Paired, with_widths
from kidney_ssl.evaluation.weighted import effective_cases, weighted_figure


def class_drops(
    predictions: ArmPredictions, arm: str, against: str, *, count: int, seed: int
) -> tuple[dict[str, float], list[Paired]]:
    """Compare how much accuracy an arm loses on the slices of each class.

    The drop of a class is its accuracy in `against` minus that in `arm`; a class that loses as much as another has a
    difference of drops of 0. Accuracy on tumor slices is the sensitivity, on the others the specificity there.

    Args:
        predictions: both arms among others.
        arm: the arm that loses.
        against: what it is compared with.
        count: resamples of the cases.
        seed: decides them.

    Returns:
        Class -> drop, and the difference of drops of each pair of classes with its intervals, which are None with
        the reason where a class is missing.
    """
    both = replace(
        predictions,
        arms=(arm, against),
        probabilities=predictions.probabilities[[predictions.arms.index(one) for one in (arm, against)]],
    )
    cases = len(both.names)
    weights = np.concatenate([np.ones((1, cases), np.int16), resamples(cases, count, seed)])
    of_class = {name: both.only(both.classes == name) for name in CLASSES}
    values = {name: np.subtract(*_accuracies(of_class[name], weights)[::-1]) for name in CLASSES}
    drops = {name: float(one[0]) for name, one in values.items() if not np.isnan(one[0])}
    pairs = list(combinations(CLASSES, 2))
    missing = [name for name in CLASSES if name not in drops]
    if missing:
        return drops, [
            Paired(*pair, f"drop of {arm}", None, reason=f"no {missing[0]} slice in the test part") for pair in pairs
        ]
    differences = np.array([values[one] - values[other] for one, other in pairs])
    defined = ~np.isnan(differences[:, 1:]).any(axis=0)
    points, draws = differences[:, 0], differences[:, 1:][:, defined]
    # The class that the fewest cases carry decides how far to trust the resamples.
    scarcest = min(of_class.values(), key=lambda one: effective_cases(one, "accuracy"))
    drawn = Resampled(scarcest, {}, {"accuracy": draws}, {})
    identical = np.full(len(pairs), np.array_equal(*both.probabilities))
    widths = no_interval(drawn, "accuracy") or half_widths(drawn, "accuracy", points, draws, identical=identical)
    return drops, with_widths(pairs, f"drop of {arm}", points, widths)


def _accuracies(predictions: ArmPredictions, weights: np.ndarray) -> np.ndarray:
    """Accuracy of both arms on the slices of one class: (2, R), NaN where there is none."""
    if not len(predictions.labels):
        return np.full((2, len(weights)), np.nan)
    return weighted_figure(predictions, "accuracy", weights)
