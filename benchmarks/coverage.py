"""How often 95 % intervals hold the truth when slices of a case resemble each other.

`python -m benchmarks.coverage [seed]` simulates studies whose cases have KiTS23's numbers of selected slices
(a 2:1:1 draw over all 489 cases, from the slice areas in ../shared/kits23), prints the table of `docs/coverage.md`.
"""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from scipy.sparse import csr_array
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from kidney_ssl.statistics.arms import ArmPredictions
from kidney_ssl.statistics.bootstrap import Resampled, intervals, logit_interval, resample
from kidney_ssl.statistics.comparisons import planned_comparisons
from kidney_ssl.statistics.crossed import standard_error
from kidney_ssl.statistics.resampling import metric_values

STUDIES = {10: 1000, 20: 1000, 50: 600, 100: 600, 400: 200}  # cases of a study -> studies
DRAWS = 1000
TRUTH_CASES = 200_000
METHODS = ("slices", "percentile", "BCa", "t", "logit t", "default")
METRICS = ("accuracy", "accuracy_over_cases", "auroc", "auroc_against_kidney")
CLASSES = np.array(["tumor", "kidney", "background"])
# Logit of the probability: mean of each class, deviation between cases (all slices; tumor slices besides) and slices.
MEANS = np.array([1.7, -1.4, -3.0])
CASE_SD, TUMOR_SD, SLICE_SD = 0.8, 1.0, 1.0
EASIER = 0.25  # a case of e times as many tumor slices has a larger tumor: this much is added to its tumor slices
SHARED = 0.7  # correlation between two arms, of every effect
AREAS = Path("../shared/kits23/slice_areas.csv.gz")  # case, slice and areas in pixels of every slice of KiTS23
TUMOR_PX = 1000


@cache
def kits23_profiles() -> np.ndarray:
    """Numbers of tumor, kidney and background slices of each case in a 2:1:1 draw, (489, 3)."""
    if not AREAS.exists():
        raise SystemExit(f"{AREAS}: absent; this benchmark needs the sizes of KiTS23's cases")
    areas = pd.read_csv(AREAS)
    drawn = np.random.default_rng(0)
    tumor, kidney = areas["tumor_px"].to_numpy(), areas["kidney_px"].to_numpy()
    chosen = [np.flatnonzero(tumor >= TUMOR_PX)]
    for candidates in (np.flatnonzero((tumor == 0) & (kidney > 0)), np.flatnonzero((tumor == 0) & (kidney == 0))):
        chosen.append(drawn.choice(candidates, len(chosen[0]) // 2, replace=False))
    codes, names = pd.factorize(areas["case"])
    return np.stack([np.bincount(codes[rows], minlength=len(names)) for rows in chosen], 1)


def simulate(cases: int, generator: np.random.Generator) -> ArmPredictions:
    """Draw cases and two arms that are equally good, with correlated errors."""
    known = kits23_profiles()
    profiles = known[generator.integers(len(known), size=cases)]
    kinds = np.repeat(np.tile(np.arange(3), cases), profiles.ravel())
    of_case = np.repeat(np.arange(cases), profiles.sum(axis=1))

    def effects(count: int, deviation: float) -> np.ndarray:
        common, own = generator.normal(size=(1, count)), generator.normal(size=(2, count))
        return deviation * (np.sqrt(SHARED) * common + np.sqrt(1 - SHARED) * own)

    easier = EASIER * np.log((1 + profiles[:, 0]) / 8)
    scores = MEANS[kinds] + effects(cases, CASE_SD)[:, of_case] + effects(len(kinds), SLICE_SD)
    scores += (kinds == 0) * (effects(cases, TUMOR_SD) + easier)[:, of_case]
    return ArmPredictions(
        arms=("one", "other"),
        names=tuple(map(str, range(cases))),
        cases=of_case,
        labels=kinds == 0,
        classes=CLASSES[kinds],
        probabilities=expit(scores)[:, None],
    )


def truth(generator: np.random.Generator) -> dict[str, float]:
    """Figures of an arm over so many cases that a study has no part in them."""
    large = simulate(TRUTH_CASES, generator)
    score, labels = large.probabilities[0, 0], large.labels
    right = (score >= 0.5) == labels
    kept = large.classes != "background"
    return {
        "accuracy": float(right.mean()),
        "accuracy_over_cases": float((np.bincount(large.cases, right) / np.bincount(large.cases)).mean()),
        "auroc": float(roc_auc_score(labels, score)),
        "auroc_against_kidney": float(roc_auc_score(labels[kept], score[kept])),
    }


def main() -> None:
    """Print share of studies in % whose interval holds the truth, and mean widths in points."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    true = truth(np.random.default_rng(seed))
    print("truth: " + ", ".join(f"{metric} {value:.4f}" for metric, value in true.items()) + "\n")
    print("| figure | cases | " + " | ".join(METHODS) + " | width of percentile | of default | no interval |")
    print("|---|---:|" + "---:|" * (len(METHODS) + 3))
    for cases, studies in STUDIES.items():
        generator = np.random.default_rng([seed, cases])
        found: dict[str, list[np.ndarray | None]] = {}
        for _ in range(studies):
            for name, ends in study(cases, generator).items():
                found.setdefault(name, []).append(ends)
        for name, several in found.items():
            ends = np.array([one for one in several if one is not None])  # (studies, methods, 2)
            value = true.get(name, 0.0)  # the arms are equally good: their differences are 0
            held = 100 * ((ends[..., 0] <= value) & (value <= ends[..., 1])).mean(axis=0)
            widths = 100 * (ends[..., 1] - ends[..., 0]).mean(axis=0)
            left_out = 100 * (1 - len(ends) / studies)
            shares = " | ".join(f"{share:.1f}" for share in held)
            print(
                f"| {name} | {cases} | {shares} | {widths[1]:.1f} | {widths[-1]:.1f} | {left_out:.1f} % |", flush=True
            )


def study(cases: int, generator: np.random.Generator) -> dict[str, np.ndarray | None]:
    """Simulate one study: figure of an arm, or difference of both -> (methods, 2), None if the default gives none."""
    predictions = simulate(cases, generator)
    drawn = resample(predictions, count=DRAWS, seed=generator, metrics=METRICS)
    by_slices = resample_slices(predictions, generator)
    ours = intervals(drawn)["one"]
    against = {one.metric: one for one in planned_comparisons(drawn, baseline="other", swaps=1, seed=generator)}
    found: dict[str, np.ndarray | None] = {}
    for metric in METRICS:
        left_out = metric_values(predictions, metric, 1 - np.eye(cases, dtype=np.int16))
        difference = f"difference in {metric}"
        found[metric] = found[difference] = None
        interval, paired = ours[metric], against[metric].difference
        if interval.low is not None and interval.high is not None:
            draws = (by_slices[metric][0], drawn.draws[metric][0])
            found[metric] = _ends(drawn, draws, float(interval.value or 0), left_out[0], (interval.low, interval.high))
        if paired.low is not None and paired.high is not None:
            draws = (np.subtract(*by_slices[metric]), np.subtract(*drawn.draws[metric]))
            default = (paired.low, paired.high)
            found[difference] = _ends(
                drawn, draws, float(paired.value or 0), np.subtract(*left_out), default, bounded=False
            )
    return found


def _ends(
    drawn: Resampled,
    draws: tuple[np.ndarray, np.ndarray],
    point: float,
    left_out: np.ndarray,
    default: tuple[float, float],
    *,
    bounded: bool = True,
) -> np.ndarray:
    """Both ends by each of `METHODS`, from resamples of slices and of cases."""
    of_slices, of_cases = draws
    deviation = float(standard_error(of_cases, len(drawn.predictions.names)))
    quantile = float(stats.t.ppf(0.975, len(drawn.predictions.names) - 1))
    plain = (point - quantile * deviation, point + quantile * deviation)
    return np.array(
        [
            np.quantile(of_slices, [0.025, 0.975]),
            np.quantile(of_cases, [0.025, 0.975]),
            accelerated(point, of_cases, left_out),
            plain,
            logit_interval(point, quantile * deviation) if bounded else plain,
            default,
        ]
    )


def accelerated(point: float, draws: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """BCa interval (Efron 1987); a draw equal to the figure counts half, acceleration from leaving out each case."""
    below = np.mean(draws < point) + np.mean(draws == point) / 2
    bias = stats.norm.ppf(np.clip(below, 1 / DRAWS, 1 - 1 / DRAWS))
    influence = np.nanmean(left_out) - left_out[~np.isnan(left_out)]
    scale = np.sum(influence**2) ** 1.5
    acceleration = np.sum(influence**3) / (6 * scale) if scale else 0.0
    normal = bias + stats.norm.ppf([0.025, 0.975])
    return np.quantile(draws, stats.norm.cdf(bias + normal / (1 - acceleration * normal)))


def resample_slices(predictions: ArmPredictions, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Figures of both arms, (2, DRAWS), when slices are drawn as if they were independent."""
    count = len(predictions.labels)
    blocks = []
    for _ in range(DRAWS // 100):
        drawn = generator.integers(count, size=(100, count)) + count * np.arange(100)[:, None]
        times = np.bincount(drawn.ravel(), minlength=100 * count).reshape(100, count).astype(np.float64)
        blocks.append([_slice_figures(predictions, arm, times) for arm in range(2)])
    return {metric: np.concatenate([[arm[metric] for arm in block] for block in blocks], axis=1) for metric in METRICS}


def _slice_figures(predictions: ArmPredictions, arm: int, times: np.ndarray) -> dict[str, np.ndarray]:
    score = predictions.probabilities[arm, 0]
    right = (score >= 0.5) == predictions.labels
    count = len(right)
    members = csr_array((np.ones(count), (np.arange(count), predictions.cases)))
    slices = times @ members
    over_cases = np.divide((times * right) @ members, slices, out=np.full_like(slices, np.nan), where=slices > 0)
    figures = {"accuracy": times @ right / count, "accuracy_over_cases": np.nanmean(over_cases, axis=1)}
    for metric, kept in (("auroc", score >= 0), ("auroc_against_kidney", predictions.classes != "background")):
        order = np.argsort(score)  # no ties: the scores are continuous
        order = order[kept[order]]
        labels, ordered = predictions.labels[order], times[:, order]
        others = np.cumsum(ordered * ~labels, axis=1)
        tumors = ordered * labels
        figures[metric] = np.einsum("rn,rn->r", tumors, others) / (tumors.sum(axis=1) * others[:, -1])
    return figures


if __name__ == "__main__":
    main()
