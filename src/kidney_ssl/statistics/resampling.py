"""Metrics of many resamples at once: each case has a whole-number weight, each metric is a matrix product.

A resample of cases repeats or leaves out whole cases, so it is a vector of C weights, and what a metric needs from the
slices can be summed within cases once, before the first resample:

- accuracy, F1, sensitivity, specificity and Brier are quotients of sums over slices: (R, C) @ (C, arms);
- AUROC counts pairs of slices. Pairs won by a tumor slice of case c against another slice of case d make a (C, C)
  table M (a tie is half a pair), and the pairs won in a resample are w' M w;
- average precision is summed threshold by threshold, with all resamples at a time.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.sparse import csr_array

from kidney_ssl.schema import KIDNEY, THRESHOLD, TUMOR
from kidney_ssl.statistics.arms import ArmPredictions

AGAINST_KIDNEY = "_against_kidney"
# metric -> whether it needs tumor slices, and whether it needs others.
NEEDS = {
    "accuracy": (False, False),
    "f1": (True, False),
    "sensitivity": (True, False),
    "specificity": (False, True),
    "auroc": (True, True),
    "auroc_against_kidney": (True, True),
    "accuracy_against_kidney": (True, True),
    "average_precision": (True, True),
    "brier": (False, False),
    "accuracy_over_cases": (False, False),
}
METRICS = tuple(NEEDS)
LOWER_IS_BETTER = ("brier",)

_BLOCK_BYTES = 2**23  # fits a processor's cache; four times as much is half as fast
# Weights (B, C) float64 -> (B, A, K).
_Values = Callable[[np.ndarray], np.ndarray]


def metric_values(predictions: ArmPredictions, metric: str, weights: np.ndarray) -> np.ndarray:
    """Compute one metric of each arm under each row of weights, averaged over the seeds by their shares.

    Returns:
        (A, R) float64, else as `values_of_seeds`.
    """
    return np.asarray(np.average(values_of_seeds(predictions, metric, weights), axis=1, weights=predictions.shares))


def values_of_seeds(predictions: ArmPredictions, metric: str, weights: np.ndarray) -> np.ndarray:
    """Compute one metric of each arm and seed under each row of weights.

    Args:
        predictions: A arms, K seeds, C cases.
        metric: one of `METRICS`, as in `metrics.classification`.
        weights: (R, C), how often each case counts: integers from 0.

    Returns:
        (A, K, R) float64, NaN where the weights leave no slice that the metric needs.
    """
    members, labels, probabilities = slices_of(predictions, metric)
    arms, seeds, _ = probabilities.shape
    tumors, others = members @ labels.astype(float), members @ (~labels).astype(float)
    name = metric.removesuffix(AGAINST_KIDNEY)
    # What a metric needs is summed within cases here, once.
    kinds = {"auroc": _auroc, "average_precision": _average_precision}
    values_of = kinds.get(name, partial(_quotient, name))(members, labels, probabilities)
    values = np.empty((arms, seeds, len(weights)))
    step = max(1, _BLOCK_BYTES // (8 * max(len(predictions.names), arms * seeds, 1)))
    need_tumor, need_others = NEEDS[metric]
    for start in range(0, len(weights), step):
        block = weights[start : start + step].astype(np.float64)
        defined = block @ (tumors + others) > 0
        defined &= (not need_tumor) | (block @ tumors > 0)
        defined &= (not need_others) | (block @ others > 0)
        found = np.full((arms, seeds, len(block)), np.nan)
        if defined.any():
            found[..., defined] = np.moveaxis(values_of(block[defined]), 0, 2)
        values[..., start : start + step] = found
    return values


def why_undefined(predictions: ArmPredictions, metric: str) -> str | None:
    """Say why a metric is not defined on the test part, or None if it is."""
    present = set(predictions.classes.tolist())
    need_tumor, need_others = NEEDS[metric]
    if need_tumor and TUMOR not in present:
        return "no tumor slice in the test part"
    if metric.endswith(AGAINST_KIDNEY) and KIDNEY not in present:
        return "no kidney slice in the test part"
    if need_others and present == {TUMOR}:
        return "only tumor slices in the test part"
    return None


def effective_cases(predictions: ArmPredictions, metric: str) -> float:
    """Effective number of cases of a metric: the effective sample size of their slices, the smaller of both classes.

    A pooled metric weights a case by its slices, and few cases of KiTS23 have most tumor slices. A mean over cases
    weights all cases equally, so there it is the number of cases.
    """
    if metric == "accuracy_over_cases":
        return float(len(predictions.names))
    others = predictions.classes == KIDNEY if metric.endswith(AGAINST_KIDNEY) else ~predictions.labels
    kinds = {"sensitivity": [predictions.labels], "specificity": [others]}.get(metric, [predictions.labels, others])
    counts = [np.bincount(predictions.cases[kind]).astype(float) for kind in kinds if kind.any()]
    return min(map(effective_sample_size, counts))


def cases_with(predictions: ArmPredictions, metric: str) -> int:
    """Number of cases with the slices that a metric needs: tumor slices or negatives, whichever are in fewer cases."""
    need_tumor, need_others = NEEDS[metric]
    others = predictions.classes == KIDNEY if metric.endswith(AGAINST_KIDNEY) else ~predictions.labels
    kinds = [kind for kind, needed in ((predictions.labels, need_tumor), (others, need_others)) if needed]
    return min(len(np.unique(predictions.cases[kind])) for kind in kinds or [np.ones_like(others)])


def effective_sample_size(counts: np.ndarray) -> float:
    """(sum n)^2 / sum n^2: how many cases of equal size would carry as much as cases with n slices each (Kish)."""
    return float(np.sum(counts) ** 2 / np.sum(np.square(counts)))


def slices_of(predictions: ArmPredictions, metric: str) -> tuple[csr_array, np.ndarray, np.ndarray]:
    """Take the slices that a metric counts: their cases as (C, N) ones, labels (N,), probabilities (A, K, N)."""
    cases, labels, probabilities = predictions.cases, predictions.labels, predictions.probabilities
    if metric.endswith(AGAINST_KIDNEY):
        kept = np.isin(predictions.classes, (TUMOR, KIDNEY))
        cases, labels, probabilities = cases[kept], labels[kept], probabilities[..., kept]
    ones = (np.ones(len(cases)), (cases, np.arange(len(cases))))
    return csr_array(ones, shape=(len(predictions.names), len(cases))), labels, probabilities


def _quotient(metric: str, members: csr_array, labels: np.ndarray, probabilities: np.ndarray) -> _Values:
    called = probabilities >= THRESHOLD
    right, every = called == labels, np.ones_like(called)
    over, under = {
        "accuracy": (right, every),
        "accuracy_over_cases": (right, every),
        "f1": (2.0 * (called & labels), called.astype(float) + labels),
        "sensitivity": (called & labels, every & labels),
        "specificity": (~called & ~labels, every & ~labels),
        "brier": (np.square(probabilities - labels), every),
    }[metric]
    over, under = _within_cases(members, over), _within_cases(members, under)
    if metric == "accuracy_over_cases":
        over, under = over / under, np.ones_like(under)
    shape = probabilities.shape[:2]
    return lambda weights: ((weights @ over) / (weights @ under)).reshape(len(weights), *shape)


def _within_cases(members: csr_array, values: np.ndarray) -> np.ndarray:
    """Sum (A, K, N) values over the slices of each case: (C, A * K)."""
    return np.asarray(members @ values.reshape(-1, values.shape[-1]).T.astype(np.float64))


def _auroc(members: csr_array, labels: np.ndarray, probabilities: np.ndarray) -> _Values:
    arms, seeds, _ = probabilities.shape
    won = [_pairs_won(members, labels, one) for one in probabilities.reshape(arms * seeds, -1)]
    tumors, others = members @ labels.astype(float), members @ (~labels).astype(float)

    def values(weights: np.ndarray) -> np.ndarray:
        pairs = (weights @ tumors) * (weights @ others)
        each = [np.einsum("bc,bc->b", weights @ table, weights) / pairs for table in won]
        return np.stack(each, axis=1).reshape(len(weights), arms, seeds)

    return values


def _pairs_won(members: csr_array, labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Count the pairs that tumor slices of one case win against other slices of another, ties by half: (C, C)."""
    values, rank = np.unique(probabilities, return_inverse=True)
    cases = members.shape[0]
    place = rank * cases + members.tocsc().indices
    others = np.bincount(place[~labels], minlength=len(values) * cases).reshape(-1, cases).astype(np.float64)
    beaten = np.cumsum(others, axis=0) - others / 2
    return np.asarray(members[:, labels] @ beaten[rank[labels]])


def _average_precision(members: csr_array, labels: np.ndarray, probabilities: np.ndarray) -> _Values:
    """AP = sum over thresholds of (recall gained) * precision; thresholds without a tumor slice gain nothing."""
    arms, seeds, slices = probabilities.shape
    cases = members.tocsc().indices
    steps = [_thresholds(cases, labels, one) for one in probabilities.reshape(arms * seeds, slices)]

    def values(weights: np.ndarray) -> np.ndarray:
        of_case = np.ascontiguousarray(weights.T)
        found = np.empty((len(weights), arms * seeds))
        for number, thresholds in enumerate(steps):
            # Down the thresholds, all resamples at a time. 1e-300 avoids 0 / 0 where a resample has no
            # slice above a threshold, and vanishes once a count is added.
            calls, hits, gain = np.full(len(weights), 1e-300), np.zeros(len(weights)), np.zeros(len(weights))
            for others, tumors in thresholds:
                gained = of_case[tumors[0]] if len(tumors) == 1 else of_case[tumors].sum(axis=0)
                for case in others:
                    calls += of_case[case]
                calls += gained
                hits += gained
                precision = hits / calls
                precision *= gained
                gain += precision
            found[:, number] = gain / hits
        return found.reshape(len(weights), arms, seeds)

    return values


def _thresholds(cases: np.ndarray, labels: np.ndarray, probabilities: np.ndarray) -> list[tuple[list[int], list[int]]]:
    """List the thresholds that call further tumor slices, from above: cases of other slices called by then, of tumor.

    A case is listed once for each slice; other slices since the threshold before count with the one that follows.
    """
    order = np.argsort(-probabilities, kind="stable")
    cases, labels, values = cases[order], labels[order], probabilities[order]
    gains = np.unique(values[labels])[::-1]
    place = np.searchsorted(-gains, -values)  # of the first threshold that calls the slice
    bounds = np.arange(len(gains) + 1)
    others, tumors = (
        (cases[kind].tolist(), np.searchsorted(place[kind], bounds).tolist()) for kind in (~labels, labels)
    )
    return [
        (others[0][others[1][number] : others[1][number + 1]], tumors[0][tumors[1][number] : tumors[1][number + 1]])
        for number in range(len(gains))
    ]
