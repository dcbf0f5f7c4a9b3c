"""Figures of many resamples at once: each case has a whole-number weight, each figure is a matrix product.

A resample of cases repeats or leaves out whole cases, so it is a vector of C weights, and what a figure needs from the
slices can be summed within cases once, before the first resample:

- accuracy, F1, sensitivity, specificity and Brier are quotients of sums over slices: (R, C) @ (C, arms);
- AUROC counts pairs of slices. Pairs won by a tumor slice of case c against another slice of case d make a (C, C)
  table M (a tie is half a pair), and the pairs won in a resample are w' M w;
- average precision is summed threshold by threshold, with all resamples at a time.
"""

from collections.abc import Callable

import numpy as np
from scipy.sparse import csr_array

from kidney_ssl.evaluation.arms import ArmPredictions
from kidney_ssl.evaluation.metrics import KIDNEY, THRESHOLD, TUMOR

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

_BLOCK_BYTES = 2**23  # what a processor's cache holds: twice as fast as four times as much
# Weights (B, C) float64 -> (B, A, K).
_Figure = Callable[[np.ndarray], np.ndarray]


def weighted_figure(predictions: ArmPredictions, metric: str, weights: np.ndarray) -> np.ndarray:
    """Compute one figure of each arm under each row of weights, averaged over the seeds by their shares.

    Args:
        predictions: A arms, C cases.
        metric: one of `METRICS`, defined as in `evaluation.metrics`.
        weights: (R, C), how often each case counts: whole numbers from 0.

    Returns:
        (A, R) float64, NaN where the weights leave no slice that the figure needs.
    """
    members, labels, probabilities = _slices_of(predictions, metric)
    arms, seeds, _ = probabilities.shape
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
            found[:, ~missing] = np.average(figure(block[~missing]), axis=2, weights=predictions.shares).T
        values[:, start : start + step] = found
    return values


def swap_differences(
    predictions: ArmPredictions, pair: tuple[str, str], metric: str, swapped: np.ndarray
) -> np.ndarray:
    """Compute how far two arms are apart after swaps of their predictions within cases, all seeds of a case together.

    Args:
        predictions: both arms among others, C cases.
        pair: the arm, and the one that is subtracted.
        metric: the figure, defined on the test part.
        swapped: (R, C) 0 or 1, the cases that change arms.

    Returns:
        (R,) float64.
    """
    if metric.removesuffix(AGAINST_KIDNEY) == "auroc":
        return _swapped_aurocs(predictions, pair, metric, swapped)
    both = predictions.pair_by_case(*pair)
    ours = weighted_figure(both, metric, np.concatenate([1 - swapped, swapped], axis=1))[0]
    theirs = weighted_figure(both, metric, np.concatenate([swapped, 1 - swapped], axis=1))[0]
    return np.asarray(ours - theirs)


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
    """Count the cases that carry a figure: `kish` of their slices, the smaller of both classes.

    A pooled figure weighs a case by its slices, and few cases of KiTS23 hold most tumor slices. A mean over cases
    weighs all alike, so there it is the number of cases.
    """
    if metric == "accuracy_over_cases":
        return float(len(predictions.names))
    others = predictions.classes == KIDNEY if metric.endswith(AGAINST_KIDNEY) else ~predictions.labels
    kinds = {"sensitivity": [predictions.labels], "specificity": [others]}.get(metric, [predictions.labels, others])
    counts = [np.bincount(predictions.cases[kind]).astype(float) for kind in kinds if kind.any()]
    return min(map(kish, counts))


def kish(counts: np.ndarray) -> float:
    """(sum n)^2 / sum n^2: how many cases of equal size would carry as much as cases with n slices each (Kish)."""
    return float(np.sum(counts) ** 2 / np.sum(np.square(counts)))


def _slices_of(predictions: ArmPredictions, metric: str) -> tuple[csr_array, np.ndarray, np.ndarray]:
    """Take the slices that a figure counts: their cases as (C, N) ones, labels (N,), probabilities (A, K, N)."""
    cases, labels, probabilities = predictions.cases, predictions.labels, predictions.probabilities
    if metric.endswith(AGAINST_KIDNEY):
        kept = np.isin(predictions.classes, (TUMOR, KIDNEY))
        cases, labels, probabilities = cases[kept], labels[kept], probabilities[..., kept]
    ones = (np.ones(len(cases)), (cases, np.arange(len(cases))))
    return csr_array(ones, shape=(len(predictions.names), len(cases))), labels, probabilities


def _prepare(metric: str, members: csr_array, labels: np.ndarray, probabilities: np.ndarray) -> tuple[_Figure, int]:
    """Sum within cases what the figure needs; the figure, and how many numbers it holds for one row of weights."""
    cases = members.shape[0]
    if metric == "auroc":
        return _auroc(members, labels, probabilities), cases
    if metric == "average_precision":
        return _average_precision(members, labels, probabilities), cases
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


def _swapped_aurocs(predictions: ArmPredictions, pair: tuple[str, str], metric: str, swapped: np.ndarray) -> np.ndarray:
    """Subtract the AUROCs of two arms after swaps: with every case in either arm, the difference is linear in them.

    With M of the pairs won (see the module) by tumor slices of one arm against other slices of the same or the other
    arm, AA, AB, BA and BB, the one arm wins (1-s)'AA(1-s) + (1-s)'AB s + s'BA(1-s) + s'BB s pairs and the other the
    same with s and 1-s exchanged. In the difference every product of s with s cancels, and sums of M are left.
    """
    members, labels, probabilities = _slices_of(predictions, metric)
    cases, count = members.tocsc().indices, members.shape[0]
    shares = predictions.shares
    slope, constant = np.zeros(count), 0.0
    arms = [predictions.arms.index(name) for name in pair]
    # Sign of M's sums by the case of the tumor slice, of the other slice, and of its whole sum.
    for one, other, by_tumor, by_other, whole in (
        (0, 0, -1, -1, 1),
        (0, 1, -1, 1, 0),
        (1, 0, 1, -1, 0),
        (1, 1, 1, 1, -1),
    ):
        won = [
            _wins(ours[labels], theirs[~labels])
            for ours, theirs in zip(probabilities[arms[one]], probabilities[arms[other]], strict=True)
        ]
        of_tumors, of_others = (np.average(side, axis=0, weights=shares) for side in zip(*won, strict=True))
        slope += by_tumor * np.bincount(cases[labels], weights=of_tumors, minlength=count)
        slope += by_other * np.bincount(cases[~labels], weights=of_others, minlength=count)
        constant += whole * of_tumors.sum()
    return np.asarray((constant + swapped @ slope) / (labels.sum() * (~labels).sum()))


def _wins(tumors: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count pairs won, ties by half: by each tumor slice against all others, and against each other slice."""

    def under(values: np.ndarray, of: np.ndarray) -> np.ndarray:
        below, to = (np.searchsorted(np.sort(of), values, side=side) for side in ("left", "right"))
        return np.asarray((below + to) / 2)

    return under(tumors, others), len(tumors) - under(others, tumors)


def _average_precision(members: csr_array, labels: np.ndarray, probabilities: np.ndarray) -> _Figure:
    """AP = sum over thresholds of (recall gained) * precision; thresholds without a tumor slice gain nothing."""
    arms, seeds, slices = probabilities.shape
    cases = members.tocsc().indices
    steps = [_thresholds(cases, labels, one) for one in probabilities.reshape(arms * seeds, slices)]

    def figure(weights: np.ndarray) -> np.ndarray:
        of_case = np.ascontiguousarray(weights.T)
        found = np.empty((len(weights), arms * seeds))
        for number, thresholds in enumerate(steps):
            # Down the thresholds, all resamples at a time. Instead of 0 / 0, where a resample has no slice above a
            # threshold, the precision is 0; the first whole number swallows what stands for 0.
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

    return figure


def _thresholds(cases: np.ndarray, labels: np.ndarray, probabilities: np.ndarray) -> list[tuple[list[int], list[int]]]:
    """List the thresholds that call further tumor slices, from above: cases of other slices called by then, of tumor.

    A case stands there once for each slice; other slices since the threshold before count with the one that follows.
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
