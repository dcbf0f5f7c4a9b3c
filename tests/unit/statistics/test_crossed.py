"""Cases crossed with seeds: against the two-way analysis of variance, plain loops and known truths."""

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from test_bootstrap import toy

from kidney_ssl.statistics.bootstrap import intervals, resample, resample_cases
from kidney_ssl.statistics.class_drops import class_drops
from kidney_ssl.statistics.comparisons import compare_pairs, planned_comparisons
from kidney_ssl.statistics.crossed import PRIOR, Pool, crossed_errors
from kidney_ssl.statistics.learning_curves import area_shares, area_under_curves

EVERY = np.array([np.bincount(drawn, minlength=4) for drawn in product(range(4), repeat=4)])  # all resamples of 4 cases


def values_of(cells):
    """(P, K, 1 + R) means over 4 cases from one number a case and seed, (P, K, 4), on all 256 resamples."""
    return np.concatenate([cells.mean(axis=-1, keepdims=True), cells @ EVERY.T / 4], axis=-1)


def mean_squares(cells):
    """Mean squares of seeds, cases and their interaction in statsmodels' analysis of variance of (K, C)."""
    rows = [(seed, case, value) for (seed, case), value in np.ndenumerate(cells)]
    table = anova_lm(ols("value ~ C(seed) + C(case)", pd.DataFrame(rows, columns=["seed", "case", "value"])).fit())
    return table.loc[["C(seed)", "C(case)", "Residual"], "mean_sq"].tolist()


@pytest.mark.parametrize("sway", [0.0, 2.0])
def test_the_error_is_that_of_a_balanced_two_way_analysis_of_variance(sway):
    generator = np.random.default_rng(0)
    cells = generator.normal(size=(3, 4)) + 3 * generator.normal(size=4)
    cells += sway * np.array([[-1], [0], [1]]) - 0.9 * cells.mean(axis=1, keepdims=True)
    of_seeds, of_cases, both = mean_squares(cells)
    assert (of_seeds > both) == (sway > 0)  # else seeds differ less than their cases let expect
    # Var(mean) = (MS cases - MS both + MS seeds) / (C K); both parts with Satterthwaite's degrees of freedom.
    parts = (of_cases - both) / 12, max(of_seeds, both) / 12
    found = crossed_errors(values_of(cells[None]), cases=4, freedom=3, pool=Pool())
    assert found.both[0] ** 2 == pytest.approx(sum(parts))
    assert found.freedom[0] == pytest.approx(sum(parts) ** 2 / (parts[0] ** 2 / 3 + parts[1] ** 2 / 2))
    assert found.cases[0] ** 2 == pytest.approx(of_cases / 12)
    assert found.seeds[0] ** 2 == pytest.approx(max(of_seeds - both, 0) / 12)


def test_a_table_worked_out_by_hand():
    # Two seeds, four cases: means of seeds 1 and 3, of cases 0, 0, 4, 4, and no interaction.
    cells = np.array([[[-1.0, -1.0, 3.0, 3.0], [1.0, 1.0, 5.0, 5.0]]])
    found = crossed_errors(values_of(cells), cases=4, freedom=3, pool=Pool())
    # Cases: variance 16 / 3 over 4. Seeds: variance 2 over 2, of which cases explain nothing.
    assert found.both[0] ** 2 == pytest.approx(4 / 3 + 1)
    assert found.freedom[0] == pytest.approx((7 / 3) ** 2 / ((4 / 3) ** 2 / 3 + 1))
    # Two degrees of freedom of a pool with a spread of 5 beside the one of its own spread of 2.
    pooled = crossed_errors(values_of(cells), cases=4, freedom=3, pool=Pool(5.0, 2))
    assert pooled.both[0] ** 2 == pytest.approx(4 / 3 + (2 + 2 * 5) / 3 / 2)
    assert pooled.freedom[0] == pytest.approx((10 / 3) ** 2 / ((4 / 3) ** 2 / 3 + 2**2 / 3))


def test_over_many_studies_the_squared_error_is_the_variance_of_the_mean():
    generator = np.random.default_rng(1)
    studies, seeds, cases = 3000, 2, 4
    cells = generator.normal(size=(studies, seeds, cases)) + generator.normal(size=(studies, 1, cases))
    cells += 1.5 * generator.normal(size=(studies, seeds, 1))
    found = crossed_errors(values_of(cells), cases=cases, freedom=3, pool=Pool())
    truth = 1 / cases + (1.5**2 + 1 / cases) / seeds
    assert np.var(cells.mean(axis=(1, 2))) == pytest.approx(truth, rel=0.08)
    # Never less than cases explain, so a little more on average.
    assert 0.95 * truth < np.mean(found.both**2) < 1.1 * truth
    assert np.mean(found.cases**2) == pytest.approx(1 / cases + 1 / cases / seeds, rel=0.08)


def test_one_seed_has_the_error_of_cases_and_says_so():
    drawn = resample(toy(cases=40, slices=400, seeds=1), count=200, seed=0, metrics=["auroc"])
    found = crossed_errors(
        drawn.values["auroc"], cases=40, freedom=17.5, pool=Pool.of(drawn.values["auroc"], pairs=False)
    )
    np.testing.assert_array_equal(found.both, found.cases)
    np.testing.assert_array_equal(found.freedom, [17.5, 17.5])
    (one,) = planned_comparisons(drawn, baseline="arm0", swaps=10, seed=0)
    assert one.seeds == one.row()["seeds"] == 1


def test_the_pools_are_mean_variances_of_all_arms_and_of_all_pairs():
    values = np.random.default_rng(0).normal(size=(4, 3, 1))
    arms = [np.var(one, ddof=1) for one in values[..., 0]]
    pairs = [np.var(one - other, ddof=1) for one, other in combinations(values[..., 0], 2)]
    assert Pool.of(values, pairs=False) == Pool(pytest.approx(np.mean(arms)), PRIOR)
    assert Pool.of(values, pairs=True) == Pool(pytest.approx(np.mean(pairs)), PRIOR)
    # Two arms have one pair, whose own spread it is; one seed shows none.
    assert Pool.of(values[:2], pairs=True) == Pool.of(values[:, :1], pairs=False) == Pool()
    assert Pool.of(values[:3, :2], pairs=True).freedom == Pool.of(values[:2, :2], pairs=False).freedom == 1


def plain_aurocs(predictions, weights):
    """Scikit-learn's AUROC of each arm and seed under each row of weights, (A, K, R)."""
    arms, seeds, _ = predictions.probabilities.shape
    found = np.empty((arms, seeds, len(weights)))
    for arm, seed, row in np.ndindex(found.shape):
        weight = weights[row][predictions.cases]
        found[arm, seed, row] = roc_auc_score(
            predictions.labels, predictions.probabilities[arm, seed], sample_weight=weight
        )
    return found


def test_differences_of_three_arms_are_those_of_plain_loops():
    predictions = toy(cases=12, slices=150, arms=3, seeds=3)
    count, metric = 60, "auroc"
    points = plain_aurocs(predictions, np.ones((1, 12)))[..., 0]
    draws = plain_aurocs(predictions, resample_cases(12, count, 5))
    residual = points - points.mean(axis=0) - points.mean(axis=1, keepdims=True) + points.mean()
    pooled = 2 * np.sum(residual**2) / (2 * 2)
    drawn = resample(predictions, count=count, seed=5, metrics=[metric])
    found = planned_comparisons(drawn, baseline="arm0", swaps=10, seed=0)
    tumors, others = (
        np.bincount(predictions.cases[kind], minlength=12) for kind in (predictions.labels, ~predictions.labels)
    )
    freedom = min(one.sum() ** 2 / np.sum(one**2) for one in (tumors, others)) - 1
    for arm, one in zip((1, 2), found, strict=True):
        apart, moved = points[arm] - points[0], draws[arm] - draws[0]
        total = np.var(moved.mean(axis=0)) * 12 / 11
        chance = 0.0
        for seed in range(3):
            chance += np.var(moved[seed] - moved.mean(axis=0)) * 12 / 11 / 2
        spread = (2 * np.var(apart, ddof=1) + PRIOR * pooled) / (2 + PRIOR)
        cases, seeds = max(total - chance / 3, 0), max(spread, chance) / 3
        of_both = (cases + seeds) ** 2 / (cases**2 / freedom + seeds**2 / (2 + PRIOR))
        half = stats.t.ppf(0.975, of_both) * np.sqrt(cases + seeds)
        assert one.difference.value == pytest.approx(apart.mean(), abs=1e-12)
        assert (one.difference.low, one.difference.high) == pytest.approx((apart.mean() - half, apart.mean() + half))
        narrow = stats.t.ppf(0.95, of_both) * np.sqrt(cases + seeds)
        assert one.equivalence.high - one.difference.value == pytest.approx(narrow)


def swaying(sway, *, arms=3, seeds=3, cases=40, common=0.0):
    """Arms whose tumor slices each training lifts by its own amount, and each seed by one that all arms share."""
    predictions = toy(cases=cases, slices=10 * cases, arms=arms, seeds=seeds, steps=10**6)
    generator = np.random.default_rng(7)
    lifts = sway * generator.normal(size=(arms, seeds, 1)) + common * generator.normal(size=(seeds, 1))
    odds = predictions.probabilities / (1 - predictions.probabilities) * np.exp(lifts * predictions.labels)
    return replace(predictions, probabilities=odds / (1 + odds))


def widths(predictions):
    drawn = resample(predictions, count=300, seed=0, metrics=["auroc"])
    singles = intervals(drawn)["arm0"]["auroc"]
    (pair, _) = compare_pairs(drawn, "auroc", [("arm1", "arm0"), ("arm2", "arm0")])
    return [one.high - one.low for one in (singles, pair.difference, pair.simultaneous)]


def test_trainings_that_differ_widen_every_interval():
    for calm, swayed in zip(widths(swaying(0.0)), widths(swaying(1.5)), strict=True):
        assert swayed > 1.3 * calm


def test_what_a_seed_does_to_all_arms_widens_single_intervals_and_no_difference():
    calm, shared = widths(swaying(0.0)), widths(swaying(0.0, common=1.0))
    assert shared[0] > 1.3 * calm[0]
    assert shared[1] < 1.2 * calm[1]


def test_noise_of_trainings_in_simultaneous_intervals_is_that_of_arms_in_common():
    # Cases say next to nothing: five differences with the baseline's noise in each of them, as in Dunnett's test.
    predictions = swaying(2.0, arms=6, seeds=40, cases=200)
    drawn = resample(predictions, count=4000, seed=0, metrics=["auroc"])
    found = compare_pairs(drawn, "auroc", [(f"arm{number}", "arm0") for number in range(1, 6)])
    errors = [(one.difference.high - one.difference.value) / stats.t.ppf(0.975, 41) for one in found]
    at_once = [(one.simultaneous.high - one.difference.value) / error for one, error in zip(found, errors, strict=True)]
    draws = np.random.default_rng(0).normal(size=(6, 200_000))
    dunnett = np.quantile(np.abs((draws[1:] - draws[0]) / np.sqrt(2)).max(axis=0), 0.95)
    expected = stats.t.ppf(stats.norm.cdf(dunnett), 41)
    np.testing.assert_allclose(at_once, expected, rtol=0.06)
    # The same difference both ways round is one: its noise is the same, with its sign turned.
    for one in compare_pairs(drawn, "auroc", [("arm1", "arm0"), ("arm0", "arm1")]):
        assert one.simultaneous.high == pytest.approx(one.difference.high, abs=0.003)


def budgets(seeds):
    predictions = {percent: swaying(1.0, seeds=count) for percent, count in seeds.items()}
    return {percent: resample(one, count=300, seed=0, metrics=["auroc"]) for percent, one in predictions.items()}


def test_an_area_pairs_its_seeds_over_budgets():
    drawn = budgets({10: 3, 100: 3})
    shares = area_shares([10, 100])
    found = area_under_curves(drawn, metrics=["auroc"])
    plain = sum(share * one.values["auroc"] for share, one in zip(shares, drawn.values(), strict=True))
    np.testing.assert_allclose(found.values["auroc"], plain, atol=1e-12)
    assert found.seeds == 3


def test_budgets_of_unequal_seeds_each_add_the_error_of_their_own_mean():
    drawn = budgets({10: 2, 30: 8, 100: 1})
    found = area_under_curves(drawn, metrics=["auroc"])
    assert found.values["auroc"].shape[1] == 2
    assert found.seeds == 1  # of one budget nothing is known
    shares = area_shares([10, 30, 100])
    means = sum(share * one.points["auroc"] for share, one in zip(shares, drawn.values(), strict=True))
    np.testing.assert_allclose(found.points["auroc"], means, atol=1e-12)
    first, second = (one.values["auroc"][..., 0] for one in (drawn[10], drawn[30]))
    # Half of the difference of two seeds; of eight seeds' mean the variance is a quarter of that of two.
    halves = shares[0] * (first[:, 0] - first[:, 1]) + shares[1] * (second[:, 0] - second[:, 1]) / 2
    spread = found.values["auroc"][:, 0, 0] - found.values["auroc"][:, 1, 0]
    np.testing.assert_allclose(spread, halves, atol=1e-12)


def test_drops_of_classes_are_paired_by_seed():
    predictions = swaying(0.0, arms=2)
    calm = class_drops(predictions, "arm1", "arm0", count=300, seed=0)[1]
    swayed = class_drops(swaying(2.0, arms=2), "arm1", "arm0", count=300, seed=0)[1]
    for before, after in zip(calm[:2], swayed[:2], strict=True):  # tumor slices against both others
        assert after.difference.high is None or after.difference.high - after.difference.low > 1.3 * (
            before.difference.high - before.difference.low
        )
