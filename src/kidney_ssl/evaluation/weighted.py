"""Figures of many resamples at once: each case has a whole-number weight, each figure is a matrix product.

A resample of cases repeats or leaves out whole cases, so it is a vector of C weights, and what a figure needs from the
slices can be summed within cases once, before the first resample:

- accuracy, F1, sensitivity, specificity and Brier are quotients of sums over slices: (R, C) @ (C, arms);
- AUROC counts pairs of slices. Pairs won by a tumor slice of case c against another slice of case d make a (C, C)
  table M (a tie is half a pair), and the pairs won in a resample are w' M w;
- average precision needs, at each threshold, the slices called in each case: (R, C) @ (C, thresholds).
"""

from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array

from kidney_ssl.data.selection import CLASSES
from kidney_ssl.evaluation.arms import ArmPredictions
from kidney_ssl.evaluation.metrics import THRESHOLD

TUMOR, KIDNEY, _ = CLASSES
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

_BLOCK_BYTES = 2**25
# Weights (B, C) float64 -> (B, A, K).
_Figure = Callable[[np.ndarray], np.ndarray]


def weighted_figure(predictions: ArmPredictions, metric: str, weights: np.ndarray) -> np.ndarray:
    """Compute one figure of each arm under each row of weights, averaged over the seeds.

    Args:
        predictions: A arms, C cases.
        metric: one of `METRICS`, defined as in `evaluation.metrics`.
        weights: (R, C), how often each case counts: whole numbers from 0.

    Returns:
        (A, R) float64, NaN where the weights leave no slice that the figure needs.
    """
    cases, labels, probabilities = predictions.cases, predictions.labels, predictions.probabilities
    if metric.endswith(AGAINST_KIDNEY):
        kept = np.isin(predictions.classes, (TUMOR, KIDNEY))
        cases, labels, probabilities = cases[kept], labels[kept], probabilities[..., kept]
    arms, seeds, slices = probabilities.shape
    members = csr_array((np.ones(slices), (cases, np.arange(slices))), shape=(len(predictions.names), slices))
    tumors, others = members @ labels.astype(float), members @ (~labels).astype(float)
    figure, width = _prepare(metric.removesuffix(AGAINST_KIDNEY), members, labels, probabilities)
    values = np.empty((arms, len(weights)))
    step = max(1, _BLOCK_BYTES // (8 * max(width, arms * seeds, 1)))
    need_tumor, need_others = NEEDS[metric]
    for start in range(0, len(weights), step):
        block = weights[start : start + step].astype(np.float64)
        missing = block @ (tumors + others) == 0
        missing |= need_tumor & (block @ tumors == 0)
        missing |= need_others & (block @ others == 0)
        found = np.full((arms, len(block)), np.nan)
        if not missing.all():
            found[:, ~missing] = figure(block[~missing]).mean(axis=2).T
        values[:, start : start + step] = found
    return values


def absent(predictions: ArmPredictions, metric: str) -> str | None:
    """Say why a figure cannot be computed at all, or None if it can; the words are those of `evaluation.metrics`."""
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
    """Count the cases that carry a figure: (sum n)^2 / sum n^2 of their slices n (Kish), the smaller of both classes.

    A pooled figure weighs a case by its slices, and few cases of KiTS23 hold most tumor slices. A mean over cases
    weighs all alike, so there it is the number of cases.
    """
    if metric == "accuracy_over_cases":
        return float(len(predictions.names))
    others = predictions.classes == KIDNEY if metric.endswith(AGAINST_KIDNEY) else ~predictions.labels
    kinds = {"sensitivity": [predictions.labels], "specificity": [others]}.get(metric, [predictions.labels, others])
    counts = [np.bincount(predictions.cases[kind]).astype(float) for kind in kinds if kind.any()]
    return float(min(np.sum(count) ** 2 / np.sum(count**2) for count in counts))


def _prepare(metric: str, members: csr_array, labels: np.ndarray, probabilities: np.ndarray) -> tuple[_Figure, int]:
    """Sum within cases what the figure needs; the figure, and how many numbers it holds for one row of weights."""
    cases = members.shape[0]
    if metric == "auroc":
        return _auroc(members, labels, probabilities), cases
    if metric == "average_precision":
        return _average_precision(members, labels, probabilities), 3 * int(labels.sum())
    return _quotient(metric, members, labels, probabilities), cases


def _quotient(metric: str, members: csr_array, labels: np.ndarray, probabilities: np.ndarray) -> _Figure:
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


def _auroc(members: csr_array, labels: np.ndarray, probabilities: np.ndarray) -> _Figure:
    arms, seeds, _ = probabilities.shape
    won = [_pairs_won(members, labels, one) for one in probabilities.reshape(arms * seeds, -1)]
    tumors, others = members @ labels.astype(float), members @ (~labels).astype(float)

    def figure(weights: np.ndarray) -> np.ndarray:
        pairs = (weights @ tumors) * (weights @ others)
        each = [np.einsum("bc,bc->b", weights @ table, weights) / pairs for table in won]
        return np.stack(each, axis=1).reshape(len(weights), arms, seeds)

    return figure


def _pairs_won(members: csr_array, labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Count the pairs that tumor slices of one case win against other slices of another, ties by half: (C, C)."""
    values, rank = np.unique(probabilities, return_inverse=True)
    cases = members.shape[0]
    place = rank * cases + members.tocsc().indices
    others = np.bincount(place[~labels], minlength=len(values) * cases).reshape(-1, cases).astype(np.float64)
    beaten = np.cumsum(others, axis=0) - others / 2
    return np.asarray(members[:, labels] @ beaten[rank[labels]])


def _average_precision(members: csr_array, labels: np.ndarray, probabilities: np.ndarray) -> _Figure:
    """AP = sum over thresholds of (recall gained) * precision; thresholds without a tumor slice gain nothing."""
    arms, seeds, slices = probabilities.shape
    tables = []
    for one in probabilities.reshape(arms * seeds, slices):
        order = np.argsort(-one, kind="stable")
        ends = np.flatnonzero(np.append(np.diff(one[order]) != 0, True))
        ordered = members[:, order].toarray()
        # float32 holds whole numbers below 2^24 exactly: 5,000 times the slices of KiTS23's test part.
        called = np.cumsum(ordered, axis=1, dtype=np.float32)[:, ends]
        true = np.cumsum(ordered * labels[order], axis=1, dtype=np.float32)[:, ends]
        gains = np.diff(true.sum(axis=0), prepend=0) > 0
        tables.append((true[:, gains], called[:, gains]))

    def figure(weights: np.ndarray) -> np.ndarray:
        small = weights.astype(np.float32)
        found = np.empty((len(weights), arms * seeds))
        for number, (true, called) in enumerate(tables):
            hits, calls = small @ true, small @ called
            # A resample may leave out every slice above a threshold: nothing is gained there.
            precision = np.divide(hits, np.maximum(calls, 1), dtype=np.float64)
            gained = np.diff(hits, axis=1, prepend=np.float32(0))
            found[:, number] = np.einsum("bt,bt->b", precision, gained) / hits[:, -1]
        return found.reshape(len(weights), arms, seeds)

    return figure
