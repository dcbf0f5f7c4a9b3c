"""Is an arm's loss of accuracy relative to another arm the same in all classes of slices?"""

from dataclasses import replace
from itertools import combinations

import numpy as np

from kidney_ssl.schema import CLASSES
from kidney_ssl.statistics.arms import ArmPredictions
from kidney_ssl.statistics.bootstrap import sample_and_resamples
from kidney_ssl.statistics.comparisons import Comparison, with_intervals
from kidney_ssl.statistics.resampling import cases_with, effective_cases, values_of_seeds
from kidney_ssl.statistics.result import Estimate


def class_drops(
    predictions: ArmPredictions, arm: str, against: str, *, count: int, seed: int
) -> tuple[dict[str, float], list[Comparison]]:
    """Compare an arm's loss of accuracy between the classes of slices.

    The drop of a class is its accuracy in `against` minus that in `arm`. Accuracy on tumor slices is the sensitivity,
    on the others the specificity in that class.

    Returns:
        Class -> drop, and the difference of drops of each pair of classes, without a value if a class is missing.
    """
    both = predictions.probabilities[[predictions.arms.index(one) for one in (arm, against)]]
    pair = replace(predictions, arms=(arm, against), probabilities=both)
    weights = sample_and_resamples(len(pair.names), count, seed)
    of_class = {name: pair.subset(pair.classes == name) for name in CLASSES}
    drops = {
        name: np.subtract(*values_of_seeds(one, "accuracy", weights)[::-1])  # (K, 1 + R)
        for name, one in of_class.items()
        if len(one.labels)
    }
    pairs, points = list(combinations(CLASSES, 2)), {name: float(values[:, 0].mean()) for name, values in drops.items()}
    absent, named = [name for name in CLASSES if name not in drops], f"drop of {arm}"
    if absent:
        none = Estimate(reason=f"no {absent[0]} slice in the test part")
        return points, [Comparison(*classes, named, none, none, none, 0) for classes in pairs]
    of_seeds = np.array([drops[one] - drops[other] for one, other in pairs])
    of_seeds = of_seeds[..., ~np.isnan(of_seeds).any(axis=(0, 1))]
    noise = dict(zip(CLASSES, np.random.default_rng(seed).normal(size=(len(CLASSES), len(weights))), strict=True))
    # The class with the fewest effective cases gives the degrees of freedom.
    scarcest = min(of_class.values(), key=lambda one: effective_cases(one, "accuracy"))
    identical = np.full(len(pairs), np.array_equal(*both))
    found = with_intervals(
        scarcest,
        "accuracy",
        pairs,
        of_seeds,
        noise=np.array([noise[one] - noise[other] for one, other in pairs]),
        identical=identical,
        named=named,
        bound=2.0,
    )
    fewest = min(cases_with(one, "accuracy") for one in of_class.values())
    return points, [replace(one, cases=fewest) for one in found]
