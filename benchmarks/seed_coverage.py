"""How often 95 % intervals hold the truth over cases and seeds, when trainings differ by their seed.

`python -m benchmarks.seed_coverage SCENARIO [seed]` prints rows of the second table of `docs/coverage.md`. Cases and
slices are those of `benchmarks.coverage`; a training lifts all tumor slices by a normal effect of its own.
"""

import sys
from dataclasses import replace

import numpy as np
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from benchmarks.coverage import CASE_SD, CLASSES, EASIER, MEANS, SHARED, SLICE_SD, TUMOR_SD, kits23_profiles
from kidney_ssl.statistics.arms import ArmPredictions
from kidney_ssl.statistics.bootstrap import Resampled, intervals, resample
from kidney_ssl.statistics.comparisons import compare_pairs
from kidney_ssl.statistics.result import Estimate
from kidney_ssl.statistics.swaps import swap_p

# Standard deviation over seeds of a training's effect, in logits: of the baseline, and of all other arms.
SCENARIOS = {"none": (0.0, 0.0), "some": (0.15, 0.15), "much": (0.4, 0.4), "baseline": (0.3, 0.15)}
STUDIES, DRAWS, SWAPS = 300, 400, 199
CASES, ARMS, SEEDS = 50, (2, 6), (1, 2, 3, 5)
OF_ARM = 0.85  # correlation between two seeds of an arm, of every effect of cases and slices; of two arms: SHARED
METRIC = "auroc_against_kidney"
NODES = 9  # of Gauss-Hermite, for the mean over seeds


def simulate(
    cases: int, deviations: np.ndarray, seeds: int, generator: np.random.Generator, lifts: np.ndarray | None = None
) -> ArmPredictions:
    """Draw cases, and arms of K trainings each; `deviations` over seeds of each arm, (A,), or the effects, (A, K)."""
    profiles = kits23_profiles()[:, :2]
    profiles = profiles[generator.integers(len(profiles), size=cases)]
    kinds = np.repeat(np.tile(np.arange(2), cases), profiles.ravel())
    of_case = np.repeat(np.arange(cases), profiles.sum(axis=1))
    arms = len(deviations)

    def effects(count: int, deviation: float) -> np.ndarray:
        shapes = (1, 1, count), (arms, 1, count), (arms, seeds, count)
        weights = np.sqrt([SHARED, OF_ARM - SHARED, 1 - OF_ARM])
        parts = [weight * generator.normal(size=shape) for weight, shape in zip(weights, shapes, strict=True)]
        return deviation * (parts[0] + parts[1] + parts[2])

    if lifts is None:
        lifts = deviations[:, None] * generator.normal(size=(arms, seeds))
    easier = EASIER * np.log((1 + profiles[:, 0]) / 8)
    scores = MEANS[kinds] + effects(cases, CASE_SD)[..., of_case] + effects(len(kinds), SLICE_SD)
    scores += (kinds == 0) * ((effects(cases, TUMOR_SD) + easier)[..., of_case] + lifts[..., None])
    return ArmPredictions(
        arms=tuple(f"arm{number}" for number in range(arms)),
        names=tuple(map(str, range(cases))),
        cases=of_case,
        labels=kinds == 0,
        classes=CLASSES[kinds],
        probabilities=expit(scores),
    )


def truth(deviation: float, generator: np.random.Generator) -> float:
    """Mean over seeds of an arm's AUROC over so many cases that a study has no part in it."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    large = simulate(20_000, np.zeros(1), 1, generator)
    scores, labels = large.probabilities[0, 0], large.labels
    logits = np.log(scores / (1 - scores))
    found = [roc_auc_score(labels, logits + deviation * node * labels) for node in nodes]
    return float(np.average(found, weights=weights))


def study(predictions: ArmPredictions, generator: np.random.Generator) -> tuple[Resampled, list[list[Estimate]], float]:
    """Single intervals, differences and simultaneous ones by cases alone, then by cases and seeds; and p."""
    drawn = resample(predictions, count=DRAWS, seed=generator, metrics=[METRIC])
    values = {METRIC: drawn.values[METRIC].mean(axis=1, keepdims=True)}
    pairs = [(arm, predictions.arms[0]) for arm in predictions.arms[1:]]
    found = []
    for one in (replace(drawn, values=values), drawn):
        compared = compare_pairs(one, METRIC, pairs)
        singles = [of_arm[METRIC] for of_arm in intervals(one).values()]
        found += [singles, [pair.difference for pair in compared], [pair.simultaneous for pair in compared]]
    swapped = generator.integers(2, size=(SWAPS, len(predictions.names)))
    return drawn, found, swap_p(predictions, pairs[0], METRIC, swapped)


def main() -> None:
    """Print the share of intervals in % that hold the truth, and their width over the right one."""
    scenario, seed = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0
    base, other = SCENARIOS[scenario]
    true = np.array([truth(one, np.random.default_rng(seed)) for one in (base, other)])
    for arms in ARMS:
        wanted = true[[0] + [1] * (arms - 1)]
        for seeds in SEEDS:
            generator = np.random.default_rng([seed, arms, seeds])
            deviations = np.array([base] + [other] * (arms - 1))
            points, found, p = [], [], []
            for _ in range(STUDIES):
                drawn, estimates, one = study(simulate(CASES, deviations, seeds, generator), generator)
                points.append(drawn.points[METRIC])
                found.append(estimates)
                p.append(one)
            differences = np.subtract(points, np.array(points)[:, :1])[:, 1:]
            # Of an interval whose width is known: from the figures of all studies.
            right = [1.96 * np.std(points, axis=0).mean(), 1.96 * np.std(differences, axis=0).mean()]
            away = np.abs(differences - differences.mean(axis=0)) / np.std(differences, axis=0)
            right.append(right[1] * np.quantile(away.max(axis=1), 0.95) / 1.96)
            cells = []
            for kind in (0, 1, 2):
                aims = wanted if kind == 0 else wanted[1:] - wanted[0]
                for way in (kind, kind + 3):
                    ends = np.array([[(one.low, one.high) for one in several[way]] for several in found], np.float64)
                    held = (ends[..., 0] <= aims) & (aims <= ends[..., 1]) | np.isnan(ends[..., 0])
                    share = held.all(axis=1) if kind == 2 else held
                    cells.append(f"{100 * share.mean():.1f}")
                cells.append(f"{np.nanmean(ends[..., 1] - ends[..., 0]) / right[kind] / 2:.2f}")
            shown = " | ".join(cells)
            print(f"| {scenario} | {arms} | {seeds} | {shown} | {100 * np.mean(np.array(p) <= 0.05):.1f} |", flush=True)


if __name__ == "__main__":
    main()
