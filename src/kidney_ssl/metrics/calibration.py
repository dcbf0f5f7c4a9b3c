"""Calibration: does a share p of the slices with probability p show a tumor?

Bins have equal mass: their edges are the deciles of the probabilities. Equal probabilities share a bin and empty bins
are left out, as in scikit-learn's `calibration_curve(strategy="quantile")`. Logistic recalibration fits
logit P(tumor) = intercept + slope * logit(p). A calibrated model has intercept 0 and slope 1; a slope below 1 means
that probabilities are too extreme. `in_the_large` is the intercept with the slope fixed at 1; above 0, tumor is more
frequent than predicted.
"""

import warnings
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from kidney_ssl.statistics.result import Estimate, unless

BINS = 10
CALIBRATION = ("bins", "ece", "intercept", "slope", "in_the_large")
CLIP = 1e-6  # probabilities are clipped to [CLIP, 1 - CLIP], since 0 and 1 have no finite logit


def calibration(label: np.ndarray, probability: np.ndarray, where: str, weight: np.ndarray | None = None) -> Any:
    """Compare probabilities (N,) with labels (N,) 0 or 1; `where` names the slices in the reasons.

    `weight` (N,) is the number of slices that each slice represents, 1 by default. It does not change the bins, so that
    weighted and unweighted calibration use the same bins.

    Returns:
        bins (weighted mean_probability, weighted observed share of label 1, number of slices), ece = sum over bins of
        share of the weight x |observed - mean_probability|, intercept, slope and in_the_large.
    """
    if empty := unless(len(label) > 0, f"no slice in {where}"):
        return dict.fromkeys(CALIBRATION, empty)
    weight = np.ones(len(label)) if weight is None else weight
    edges = np.quantile(probability, np.linspace(0, 1, BINS + 1))
    place = np.searchsorted(edges[1:-1], probability)
    mass, predicted, observed = (
        np.bincount(place, weight * values) for values in (np.ones(len(label)), probability, label)
    )
    counts = np.bincount(place)
    bins = [
        {"mean_probability": predicted[b] / mass[b], "observed": observed[b] / mass[b], "slices": counts[b]}
        for b in np.flatnonzero(counts)
    ]
    return {
        "bins": bins,
        "ece": float(np.abs(observed - predicted).sum() / weight.sum()),
        **_recalibration(label, logit(np.clip(probability, CLIP, 1 - CLIP)), weight, where),
    }


def _recalibration(label: np.ndarray, logits: np.ndarray, weight: np.ndarray, where: str) -> dict[str, Any]:
    """Fit intercept and slope by maximum likelihood, if the maximum exists."""
    if label.min() == label.max():
        one_class = Estimate(reason=f"{'only tumor' if label.all() else 'no tumor'} slices in {where}")
        return dict.fromkeys(("intercept", "slope", "in_the_large"), one_class)
    found: dict[str, Any] = {}
    positive, negative = logits[label == 1], logits[label == 0]
    if logits.min() == logits.max():
        found |= dict.fromkeys(("intercept", "slope"), Estimate(reason=f"all probabilities are equal in {where}"))
    elif positive.min() >= negative.max() or negative.min() >= positive.max():
        parted = Estimate(reason=f"the probabilities part both classes in {where}: the likelihood has no maximum")
        found |= dict.fromkeys(("intercept", "slope"), parted)
    else:
        fit = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10, max_iter=1000)
        centre, scale = logits.mean(), logits.std()  # the fit converges whatever the logits' size
        with warnings.catch_warnings():
            # The line search warns if the fit starts at the maximum.
            warnings.filterwarnings("ignore", "Line search of Newton solver", ConvergenceWarning)
            fit.fit((logits[:, None] - centre) / scale, label, sample_weight=weight)
        slope = float(fit.coef_[0, 0]) / scale
        found |= {"intercept": float(fit.intercept_[0]) - slope * centre, "slope": slope}
    observed = np.average(label, weights=weight)

    def excess(shift: float) -> float:
        return float(np.average(expit(logits + shift), weights=weight) - observed)

    # These shifts move every logit below, or above, that of the observed share, so they bracket the root.
    ends = logit(observed) - logits.max() - 1, logit(observed) - logits.min() + 1
    found["in_the_large"] = float(brentq(excess, *ends, xtol=1e-12))
    return found
