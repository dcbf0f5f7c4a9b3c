"""Decision curve: what calling slices by the model is worth, beside calling all or none (Vickers and Elkin 2006)."""

import numpy as np

# Probabilities at which a reader would look at a slice: from 99 false alarms for a tumor found, to one.
THRESHOLDS = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)


def decision_curve(label: np.ndarray, probability: np.ndarray) -> list[dict[str, float]]:
    """Compute the net benefit at each threshold t, in true positives a slice.

    net benefit = TP / N - FP / N * t / (1 - t), with slices called from probability t on; `treat_all` calls every
    slice, treat none is 0 at every threshold. `label` (N,) is 0 or 1, N at least 1.
    """
    positive = label == 1

    def benefit(called: np.ndarray, t: float) -> float:
        return float(np.mean(called & positive) - np.mean(called & ~positive) * (t / (1 - t)))

    every = np.ones_like(positive)
    return [
        {"threshold": t, "net_benefit": benefit(probability >= t, t), "treat_all": benefit(every, t)}
        for t in THRESHOLDS
    ]
