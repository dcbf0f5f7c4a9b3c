"""How much of the labels a frozen encoder's features tell: k nearest neighbours and a linear probe."""

from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

NEIGHBOURS = 20


def probe_accuracy(
    features: np.ndarray, labels: np.ndarray, tested: np.ndarray, tested_labels: np.ndarray
) -> dict[str, float]:
    """Fit on training slices and measure on validation slices.

    The neighbours are those of the largest cosine similarity (k = 20, or all slices if there are fewer), each with
    one vote, a tie counting as negative. The linear probe is a logistic regression with L2 (C = 1) on standardised
    features. Both use scikit-learn.

    Args:
        features: (N, width) float32 of training slices.
        labels: (N,) 0 or 1.
        tested: (M, width) of validation slices.
        tested_labels: (M,) 0 or 1.

    Returns:
        `knn_accuracy` and `linear_accuracy` in [0, 1], and `majority_accuracy`, that of always giving the more
        frequent training label.
    """
    majority = int(2 * labels.sum() > len(labels))
    found = {"majority_accuracy": float((tested_labels == majority).mean())}
    if len(np.unique(labels)) < 2:
        return found | {"knn_accuracy": float("nan"), "linear_accuracy": float("nan")}
    for name, probe in _probes(len(labels)).items():
        found[f"{name}_accuracy"] = float(probe.fit(features, labels).score(tested, tested_labels))
    return found


def probe_probabilities(features: np.ndarray, labels: np.ndarray, tested: np.ndarray) -> dict[str, np.ndarray | None]:
    """Fit the probes of `probe_accuracy` and give the probability of tumor of other slices.

    Args:
        features: (N, width) float32 of training slices.
        labels: (N,) 0 or 1.
        tested: (M, width).

    Returns:
        `linear`: (M,) of the logistic regression; `knn`: (M,) share of the neighbours with tumour. None where the
        training slices are of one class.
    """
    probes = _probes(len(labels))
    if len(np.unique(labels)) < 2:
        return dict.fromkeys(probes)
    return {name: probe.fit(features, labels).predict_proba(tested)[:, 1] for name, probe in probes.items()}


def _probes(count: int) -> dict[str, Any]:
    return {
        "knn": KNeighborsClassifier(min(NEIGHBOURS, count), metric="cosine"),
        "linear": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    }
