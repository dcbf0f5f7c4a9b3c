"""Intervals over test cases for an arm's metrics at natural prevalence and in subgroups, averaged over seeds.

The method is that of `statistics.bootstrap`. At a limit of false positives, each resample has its own threshold.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from kidney_ssl.metrics.natural_prevalence import FALSE_POSITIVES
from kidney_ssl.metrics.subgroups import subgroup_slices
from kidney_ssl.schema import KIDNEY, SMALL, TUMOR
from kidney_ssl.statistics.arms import ArmPredictions
from kidney_ssl.statistics.bootstrap import Resampled, intervals, resample, sample_and_resamples
from kidney_ssl.statistics.result import Estimate

RESAMPLES, SEED = 1000, 0  # enough for interval ends with two digits
POOLED = ("auroc", "average_precision", "brier", "sensitivity", "specificity")
OF_SUBGROUPS = {"size": ("sensitivity",), "negatives": ("specificity", "auroc")}
OF_OTHERS = ("accuracy", "auroc", "sensitivity", "specificity", "auroc_against_kidney")


def subgroup_intervals(test: pd.DataFrame, train: pd.DataFrame, probabilities: np.ndarray) -> dict[str, Any]:
    """Compute intervals of the metrics of `subgroups.subgroup_metrics`, in the same structure.

    Args:
        test: N slices, see `subgroups.join_slices`.
        train: see `subgroups.subgroup_metrics`.
        probabilities: (K, N) of K seeds.

    Returns:
        In place of each value: low, high, and the reason if it has no interval.
    """
    slices = subgroup_slices(test, train)
    slices["negatives"] = {name: kept | (test["class"] == TUMOR) for name, kept in slices["negatives"].items()}
    return {
        kind: {
            name: _over_cases(test[kept], probabilities[:, kept], OF_SUBGROUPS.get(kind, OF_OTHERS))
            for name, kept in subgroups.items()
        }
        for kind, subgroups in slices.items()
    }


def natural_intervals(rows: pd.DataFrame, probabilities: np.ndarray) -> dict[str, Any]:
    """Compute intervals of the metrics of `natural_prevalence.natural_metrics`, in the same structure.

    Args:
        rows: N slices, see `natural_prevalence.read_natural`, sorted by case.
        probabilities: (K, N) of K seeds.

    Returns:
        See `subgroup_intervals`; calibration has no intervals.
    """
    tumor, small = ((rows["class"] == name).to_numpy() for name in (TUMOR, SMALL))
    any_tumor = rows.assign(label=tumor | small, **{"class": rows["class"].replace(SMALL, TUMOR)})
    by_case = any_tumor.assign(label=any_tumor.groupby("case")["label"].transform("any")).drop_duplicates("case")
    highest = pd.DataFrame(probabilities.T).groupby(rows["case"].to_numpy()).max().to_numpy().T
    by_case["class"] = np.where(by_case["label"], TUMOR, KIDNEY)
    return {
        TUMOR: _over_cases(any_tumor[~small], probabilities[:, ~small], (*POOLED, "auroc_against_kidney")),
        "any_tumor": _over_cases(any_tumor, probabilities, POOLED),
        SMALL: _over_cases(any_tumor[small], probabilities[:, small], ("sensitivity",)),
        "by_case": {"auroc_of_maximum": _over_cases(by_case, highest, ("auroc",)).get("auroc")},
        "false_positives": _operating_points(any_tumor, probabilities, tumor, small),
    }


def _over_cases(rows: pd.DataFrame, probabilities: np.ndarray, metrics: Sequence[str]) -> dict[str, Any]:
    """Intervals by resampling the cases of some slices; empty without slices, where the metric gives the reason."""
    if rows.empty:
        return {}
    predictions = ArmPredictions.of_slices([""], rows, probabilities[None])
    found = intervals(resample(predictions, count=RESAMPLES, seed=SEED, metrics=metrics))[""]
    return {name: _ends(one) for name, one in found.items()}


def _ends(one: Estimate) -> dict[str, Any]:
    return {"low": one.low, "high": one.high, "reason": one.reason}


def _operating_points(
    rows: pd.DataFrame, probabilities: np.ndarray, tumor: np.ndarray, small: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Limit of false positives per case -> shares of tumor slices, of `small` slices and of cases that are called."""
    negative = ~(tumor | small)
    if not negative.any():
        return {}
    predictions = ArmPredictions.of_slices([""], rows, probabilities[None])
    first = ~rows["case"].duplicated().to_numpy()
    weights = sample_and_resamples(len(predictions.names), RESAMPLES, SEED)
    allowed = np.multiply.outer(FALSE_POSITIVES, weights @ np.bincount(predictions.cases[first])).astype(int)
    called = np.full((3, len(FALSE_POSITIVES), len(probabilities), len(weights)), np.nan)
    for seed, probability in enumerate(probabilities):
        order = np.argsort(-probability, kind="stable")
        last = np.searchsorted(-probability[order], -probability[order], side="right") - 1  # ties together
        highest = tumor[order] & ~rows["case"].where(tumor).iloc[order].duplicated().to_numpy()
        kinds = np.array([tumor[order], small[order], highest], float)
        for number, weight in enumerate(weights[:, predictions.cases[order]]):
            within = np.cumsum(weight * negative[order])[last] <= allowed[:, [number]]
            with np.errstate(invalid="ignore"):  # no such slice in this resample
                called[..., seed, number] = (kinds * weight @ within.T) / (kinds @ weight)[:, None]
    found: dict[str, dict[str, Any]] = {f"{limit:g}": {} for limit in FALSE_POSITIVES}
    with_tumor = tumor & ~rows["case"].where(tumor).duplicated().to_numpy()
    shares = {"sensitivity": tumor, "small_sensitivity": small, "cases_found": with_tumor}
    for (name, kind), of_kind in zip(shares.items(), called, strict=True):
        of = replace(predictions, labels=kind, classes=np.where(kind, TUMOR, KIDNEY))
        for limit, values in zip(found, of_kind, strict=True) if kind.any() else ():
            defined = values[None, :, ~np.isnan(values[0])]
            drawn = Resampled(of, {"sensitivity": defined}, {}, len(probabilities), noise=np.empty(0))
            found[limit][name] = _ends(intervals(drawn)[""]["sensitivity"])
    return found
