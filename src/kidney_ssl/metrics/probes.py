"""k nearest neighbours and a linear probe on the features of an encoder."""

from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

NEIGHBOURS = 20


def probe_accuracy(
    features: np.ndarray,
    labels: np.ndarray,
    tested: np.ndarray,
    tested_labels: np.ndarray,
    with_kidney: np.ndarray | None = None,
) -> dict[str, float]:
    """Fit on training slices and measure on validation slices.

    The k = 20 neighbours (or all slices if there are fewer) have the largest cosine similarity and one vote each; a tie
    counts as negative. The linear probe is a logistic regression with L2 penalty (C = 1) on standardised features.
    Both use scikit-learn.

    Features are (N, width) and (M, width) float32, labels (N,) and (M,) 0 or 1. `with_kidney` (M,) bool says which
    validation slices show a kidney; None for all.

    Returns:
        `knn_accuracy` and `linear_accuracy` in [0, 1]; `majority_accuracy`, the accuracy of always predicting the more
        frequent training label; `knn_auroc_against_kidney` and `linear_auroc_against_kidney`, AUROC of tumor slices
        against negatives with a kidney, scored by the share of neighbours with tumor and by the logit. NaN if
        undefined.
    """
    majority = int(2 * labels.sum() > len(labels))
    found = {"majority_accuracy": float((tested_labels == majority).mean())}
    one_class = len(np.unique(labels)) < 2
    ranked = tested_labels.astype(bool) | (True if with_kidney is None else with_kidney)
    for name, probe in _probes(len(labels)).items():
        accuracy = auroc = float("nan")
        if not one_class:
            accuracy = float(probe.fit(features, labels).score(tested, tested_labels))
            if len(np.unique(tested_labels[ranked])) == 2:
                logit = hasattr(probe, "decision_function")
                score = probe.decision_function(tested) if logit else probe.predict_proba(tested)[:, 1]
                auroc = float(roc_auc_score(tested_labels[ranked], score[ranked]))
        found |= {f"{name}_accuracy": accuracy, f"{name}_auroc_against_kidney": auroc}
    return found


def probe_probabilities(features: np.ndarray, labels: np.ndarray, tested: np.ndarray) -> dict[str, np.ndarray | None]:
    """Fit the probes of `probe_accuracy` and predict the probability of tumor for other slices.

    Returns:
        `linear`: (M,) of the logistic regression; `knn`: (M,) share of the neighbours with tumor. None if all training
        slices have one class.
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
