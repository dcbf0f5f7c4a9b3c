"""Decision curve: net benefit of calling slices by the model, compared with all or none (Vickers and Elkin 2006)."""

import numpy as np

# Threshold probabilities: from 99 accepted false alarms per tumor found (0.01) to one (0.5).
THRESHOLDS = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)


def decision_curve(label: np.ndarray, probability: np.ndarray) -> list[dict[str, float]]:
    """Compute the net benefit at each threshold t, in true positives per slice.

    net benefit = TP / N - FP / N * t / (1 - t), where slices with probability t or more are called. `treat_all` calls
    every slice; calling none has a net benefit of 0. `label` (N,) is 0 or 1, N at least 1.
    """
    positive = label == 1

    def benefit(called: np.ndarray, t: float) -> float:
        return float(np.mean(called & positive) - np.mean(called & ~positive) * (t / (1 - t)))

    every = np.ones_like(positive)
    return [
        {"threshold": t, "net_benefit": benefit(probability >= t, t), "treat_all": benefit(every, t)}
        for t in THRESHOLDS
    ]
