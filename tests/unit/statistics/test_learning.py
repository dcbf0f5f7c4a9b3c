"""Learning curves over label budgets: against plain loops with scikit-learn, hand-computed cases and known truths."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import accuracy_score, roc_auc_score

from kidney_ssl.errors import InputError
from kidney_ssl.statistics.arms import ArmPredictions, arms_of_tables
from kidney_ssl.statistics.bootstrap import intervals, resample, resample_cases
from kidney_ssl.statistics.comparisons import planned_comparisons
from kidney_ssl.statistics.learning_curves import (
    area_shares,
    area_under_curves,
    equal_percents,
    isotonic,
    label_equivalences,
)
from kidney_ssl.statistics.resampling import effective_cases
from kidney_ssl.statistics.result import Estimate
from kidney_ssl.statistics.swaps import swap_differences

CLASSES = np.array(["tumor", "kidney", "background"])
PERCENTS = (5, 10, 25, 100)
METRICS = ("auroc", "accuracy")


def noise_of(cases, slices, seed):
    """Cases, kinds, and the errors that all arms and budgets share: what makes slices easy or hard."""
    generator = np.random.default_rng(seed)
    of_case = np.sort(np.append(np.arange(cases), generator.integers(cases, size=slices - cases)))
    kinds = np.append([0, 1, 2], generator.integers(3, size=slices - 3))
    return of_case, kinds, generator.normal(size=slices) + 0.5 * generator.normal(size=cases)[of_case]


def predicted(skills, *, cases=12, slices=150, seeds=2, seed=0, own=0.3):
    """Arms of given skill on the same slices: the distance of tumor slices from the others, in standard deviations."""
    of_case, kinds, shared = noise_of(cases, slices, seed)
    generator = np.random.default_rng(seed + 1)
    scores = [
        [shared + own * generator.normal(size=slices) + skill * (2.0 * (kinds == 0) - 1) for _ in range(seeds)]
        for skill in skills.values()
    ]
    return ArmPredictions(
        arms=tuple(skills),
        names=tuple(f"case_{number:05d}" for number in range(cases)),
        cases=of_case,
        labels=kinds == 0,
        classes=CLASSES[kinds],
        probabilities=expit(np.array(scores)).round(6),
    )


def drawn_at(budgets, *, count=60, metrics=METRICS):
    return {percent: resample(one, count=count, seed=3, metrics=metrics) for percent, one in budgets.items()}


def rising(seeds=None, **changes):
    """A baseline that gains with each budget, another arm ahead of it; as many seeds as it happens to be."""
    return {
        percent: predicted(
            {"random": 0.2 * number, "other": 0.2 * number + 0.15}, seeds=seeds or 1 + number % 3, **changes
        )
        for number, percent in enumerate(PERCENTS)
    }


def plain_figure(metric, predictions, arm, seed, weights):
    weight = weights[predictions.cases]
    labels, probabilities = predictions.labels, predictions.probabilities[arm, seed]
    if metric == "auroc":
        return roc_auc_score(labels, probabilities, sample_weight=weight)
    return accuracy_score(labels, probabilities >= 0.5, sample_weight=weight)


def plain_curve(metric, budgets, arm, weights):
    return [
        np.mean([plain_figure(metric, one, arm, seed, weights) for seed in range(one.probabilities.shape[1])])
        for one in budgets.values()
    ]


def plain_area(curve):
    """Of percents 5, 10, 25 and 100, by trapezoids over the logarithm."""
    logs = [np.log(percent) for percent in PERCENTS]
    sides = zip(logs, logs[1:], curve, curve[1:], strict=False)
    return sum((right - left) * (a + b) / 2 for left, right, a, b in sides) / (logs[-1] - logs[0])


def plain_equal(ours, theirs, place):
    """Where scikit-learn's isotonic curve of `theirs` reaches that of `ours`, among 200,001 percents."""
    logs = np.log(PERCENTS)
    ours, theirs = (IsotonicRegression().fit_transform(logs, one) for one in (ours, theirs))
    grid = np.linspace(logs[0], logs[-1], 200_001)
    if ours[place] < theirs[0] - 1e-12:
        return -np.inf
    if ours[place] > theirs[-1] + 1e-12:
        return np.inf
    away = np.abs(np.interp(grid, logs, theirs) - ours[place])
    best = grid[away <= away.min() + 1e-7]
    return float(np.exp(best[np.argmin(np.abs(best - logs[place]))]))


def test_areas_and_their_resamples_are_those_of_plain_loops():
    budgets = rising()
    found = area_under_curves(drawn_at(budgets), metrics=METRICS)
    weights = resample_cases(12, 60, 3)
    for metric in METRICS:
        for arm in range(2):
            curve = plain_curve(metric, budgets, arm, np.ones(12))
            assert found.points[metric][arm] == pytest.approx(plain_area(curve), abs=1e-12)
            draws = [plain_area(plain_curve(metric, budgets, arm, row)) for row in weights]
            np.testing.assert_allclose(found.draws[metric][arm], draws, rtol=0, atol=1e-12)


def test_an_areas_interval_is_students_t_on_the_logit_scale():
    drawn = area_under_curves(drawn_at(rising(seeds=1)), metrics=METRICS)
    found = intervals(drawn)["other"]["auroc"]
    point, draws = drawn.points["auroc"][1], drawn.draws["auroc"][1]
    half = stats.t.ppf(0.975, effective_cases(drawn.predictions, "auroc") - 1) * np.std(draws) * np.sqrt(12 / 11)
    middle, half = np.log(point / (1 - point)), half / (point * (1 - point))
    assert (found.low, found.high) == pytest.approx((expit(middle - half), expit(middle + half)))
    assert found.low < found.value < found.high


@pytest.mark.parametrize("metric", METRICS)
def test_p_of_two_areas_swaps_a_case_at_all_budgets_at_once(metric):
    budgets = rising()
    together = area_under_curves(drawn_at(budgets), metrics=METRICS).predictions
    swapped = np.random.default_rng(0).integers(2, size=(20, 12))
    ours = swap_differences(together, ("other", "random"), metric, swapped)
    for row, found in zip(swapped, ours, strict=True):
        exchanged = {}
        for percent, one in budgets.items():
            swappable = one.probabilities
            if metric == "auroc":  # ranks within each arm and seed
                swappable = stats.rankdata(swappable, axis=-1) / swappable.shape[-1]
            random, other = swappable
            swap = row[one.cases] == 1
            mixed = np.array([np.where(swap, other, random), np.where(swap, random, other)])
            exchanged[percent] = replace(one, probabilities=mixed)
        first, second = (plain_area(plain_curve(metric, exchanged, arm, np.ones(12))) for arm in (0, 1))
        assert found == pytest.approx(second - first, abs=1e-12)


@given(st.lists(st.integers(1, 100), min_size=2, max_size=7, unique=True))
@settings(deadline=None)
def test_area_shares_sum_to_one_and_give_a_straight_line_its_middle(percents):
    percents = sorted(percents)
    shares = area_shares(percents)
    assert shares.sum() == pytest.approx(1)
    assert (shares > 0).all()
    line = np.log(percents)
    assert shares @ line == pytest.approx((line[0] + line[-1]) / 2)


@given(st.lists(st.lists(st.integers(0, 20), min_size=5, max_size=5), min_size=1, max_size=4))
@settings(deadline=None)
def test_monotone_curves_are_scikit_learns(rows):
    curves = np.array(rows) / 20
    plain = [IsotonicRegression().fit_transform(np.arange(5), row) for row in curves]
    np.testing.assert_allclose(isotonic(curves), plain, rtol=0, atol=1e-12)


def test_label_equivalence_of_a_case_worked_out_by_hand():
    percents = (1, 10, 100)
    # Made monotone the baseline is 0.6, 0.7, 0.7: from 10 to 100 % it stands still.
    theirs = np.array([[0.6, 0.75, 0.65]])

    def at_10(value):
        return equal_percents(np.array([[0.0, value, 1.0]]), theirs, percents)[0, 1]

    assert at_10(0.65) == pytest.approx(10**0.5)  # halfway between 1 and 10 % on the log scale
    assert at_10(0.60) == pytest.approx(1)
    assert at_10(0.70) == pytest.approx(10)  # anything from 10 to 100 would do: the nearest to its own 10
    assert at_10(0.59) == -np.inf
    assert at_10(0.71) == np.inf
    # The arm is made monotone as well: 0.7, 0.6 with its first two budgets is 0.65 with both.
    ours = np.array([[0.7, 0.6, 0.7]])
    assert equal_percents(ours, theirs, percents)[0] == pytest.approx([10**0.5, 10**0.5, 100])


curves = st.lists(st.integers(0, 12), min_size=4, max_size=4).map(lambda row: np.array([row]) / 12)


@given(curves, curves)
@settings(deadline=None)
def test_label_equivalences_are_those_of_a_fine_grid(ours, theirs):
    found = equal_percents(ours, theirs, PERCENTS)[0]
    for place, value in enumerate(found):
        plain = plain_equal(ours[0], theirs[0], place)
        assert value == plain if np.isinf(plain) else value == pytest.approx(plain, rel=1e-4)


@given(curves)
@settings(deadline=None)
def test_a_curve_is_equivalent_to_itself_at_each_budget(curve):
    np.testing.assert_allclose(equal_percents(curve, curve, PERCENTS), [PERCENTS], rtol=1e-12)


def test_an_arm_equal_to_the_baseline_needs_as_many_labels_and_has_no_difference():
    budgets = {
        percent: predicted({"random": skill}, seeds=2)
        for percent, skill in zip(PERCENTS, (0.3, 0.1, 0.4, 0.2), strict=True)
    }
    twins = {
        percent: replace(one, arms=("random", "twin"), probabilities=np.repeat(one.probabilities, 2, axis=0))
        for percent, one in budgets.items()
    }
    drawn = drawn_at(twins)
    for (_, _, percent), one in label_equivalences(drawn, baseline="random", metrics=METRICS).items():
        assert (one.value, one.low, one.high) == pytest.approx((percent,) * 3)
        assert one.reason is None
    for one in planned_comparisons(area_under_curves(drawn, metrics=METRICS), baseline="random", swaps=100, seed=0):
        assert (one.difference, one.p) == (Estimate(0, 0, 0), 1)


def test_intervals_of_label_equivalence_are_quantiles_of_the_resampled_curves():
    budgets = rising(seeds=1)
    count = 200
    found = label_equivalences(drawn_at(budgets, count=count), baseline="random", metrics=METRICS)
    weights = resample_cases(12, count, 3)
    for metric in METRICS:
        ours, theirs = ([plain_curve(metric, budgets, arm, row) for row in weights] for arm in (1, 0))
        quantile = stats.t.ppf(0.975, effective_cases(budgets[5], metric) - 1)
        cut = int(stats.norm.cdf(-quantile * np.sqrt(12 / 11)) * count)
        for place, percent in enumerate(PERCENTS):
            one = found[metric, "other", percent]
            point = plain_equal(*(plain_curve(metric, budgets, arm, np.ones(12)) for arm in (1, 0)), place)
            draws = sorted(plain_equal(a, b, place) for a, b in zip(ours, theirs, strict=True))
            assert (one.value, one.low, one.high) == pytest.approx((point, draws[cut], draws[-1 - cut]), rel=1e-4)
            assert one.reason is None
    beyond = [np.isinf(one.high) for one in found.values()]
    assert any(beyond)
    assert not all(beyond)


def test_seeds_that_differ_widen_the_interval_of_a_label_equivalence():
    # The baseline rises far beyond the arm, so that no interval leaves its range.
    budgets = {
        percent: predicted({"random": 0.4 * number, "other": 0.7}, seeds=3, cases=60, slices=900)
        for number, percent in enumerate(PERCENTS)
    }
    swayed = {percent: replace(one, probabilities=one.probabilities.copy()) for percent, one in budgets.items()}
    for one in swayed.values():
        lifts = np.array([[-0.03, 0.0, 0.03], [0.03, 0.0, -0.03]])[..., None] * (2 * one.labels - 1)
        odds = one.probabilities / (1 - one.probabilities) * np.exp(lifts)
        one.probabilities[:] = odds / (1 + odds)
    calm, found = (
        label_equivalences(drawn_at(one, count=400, metrics=("auroc",)), baseline="random", metrics=("auroc",))
        for one in (budgets, swayed)
    )
    for percent in (10, 25):
        before, after = (one["auroc", "other", percent] for one in (calm, found))
        assert before.low >= after.low
        assert before.high <= after.high
        assert 1.5 * np.log(before.high / before.low) < np.log(after.high / after.low) < np.inf


def test_an_arm_as_good_as_the_baseline_with_twice_the_labels_is_found_to_be_so():
    # Skill 0.25 log(percent): the truth is twice the arm's own percent, a budget too, so that no curve is bridged.
    budgets = {
        percent: predicted(
            {"random": 0.25 * np.log(percent), "other": 0.25 * np.log(2 * percent)},
            **{"cases": 200, "slices": 6000, "seeds": 3, "seed": 1},
        )
        for percent in (5, 10, 20, 40, 80)
    }
    drawn = drawn_at(budgets, count=400, metrics=("auroc",))
    found = label_equivalences(drawn, baseline="random", metrics=("auroc",))
    for percent in (5, 10, 20, 40):
        one = found["auroc", "other", percent]
        assert one.value == pytest.approx(2 * percent, rel=0.1)
        assert one.low < 2 * percent < one.high
    assert found["auroc", "other", 80].value == np.inf


def test_the_order_of_rows_and_budgets_changes_nothing():
    budgets = rising()

    def tables(predictions, seed):
        rows = {
            "part": "test",
            "case": np.array(predictions.names)[predictions.cases],
            "slice": np.arange(len(predictions.labels)),
            "class": predictions.classes,
            "label": predictions.labels.astype(int),
        }
        columns = predictions.probabilities
        found = {
            arm: [pd.DataFrame(rows | {"probability": one}) for one in of_arm]
            for arm, of_arm in zip(predictions.arms, columns, strict=True)
        }
        if seed is None:
            return arms_of_tables(found)
        return arms_of_tables({arm: [one.sample(frac=1, random_state=seed) for one in of] for arm, of in found.items()})

    sorted_rows = drawn_at({percent: tables(one, None) for percent, one in budgets.items()})
    shuffled = drawn_at({percent: tables(one, percent) for percent, one in reversed(budgets.items())})
    assert label_equivalences(sorted_rows, baseline="random", metrics=METRICS) == label_equivalences(
        shuffled, baseline="random", metrics=METRICS
    )
    assert intervals(area_under_curves(sorted_rows, metrics=METRICS)) == intervals(
        area_under_curves(shuffled, metrics=METRICS)
    )


def test_constant_predictions_rank_nothing_and_say_so():
    budgets = {percent: predicted({"random": 0.1, "other": 0.2}) for percent in (10, 100)}
    budgets = {
        percent: replace(one, probabilities=np.full_like(one.probabilities, 0.7)) for percent, one in budgets.items()
    }
    drawn = drawn_at(budgets)
    assert intervals(area_under_curves(drawn, metrics=("auroc",)))["other"]["auroc"].value == 0.5
    for (_, _, percent), one in label_equivalences(drawn, baseline="random", metrics=("auroc",)).items():
        assert one.value == pytest.approx(percent)


def test_a_class_that_is_missing_leaves_no_area_and_no_equivalence_but_the_reason():
    budgets = {percent: predicted({"random": 0.1, "other": 0.2}) for percent in (10, 100)}
    budgets = {
        percent: replace(one, labels=np.zeros_like(one.labels), classes=np.full_like(one.classes, "kidney"))
        for percent, one in budgets.items()
    }
    drawn = drawn_at(budgets)
    reason = "no tumor slice in the test part"
    assert intervals(area_under_curves(drawn, metrics=METRICS))["other"]["auroc"] == Estimate(reason=reason)
    found = label_equivalences(drawn, baseline="random", metrics=METRICS)
    assert {one for (metric, _, _), one in found.items() if metric == "auroc"} == {Estimate(reason=reason)}
    assert all(one.value is not None for (metric, _, _), one in found.items() if metric == "accuracy")


def test_one_case_gives_a_point_and_no_interval():
    budgets = {percent: predicted({"random": 0.1, "other": 0.1 + percent / 1e4}, cases=1) for percent in (10, 100)}
    for one in label_equivalences(drawn_at(budgets), baseline="random", metrics=("accuracy",)).values():
        assert one.value is not None
        assert (one.low, one.high, one.reason) == (None, None, "one case in the test part: no interval")


def test_budgets_that_were_not_tested_alike_are_refused():
    alike = rising()
    with pytest.raises(InputError, match="at least two label budgets"):
        area_under_curves(drawn_at({10: alike[10]}), metrics=METRICS)
    with pytest.raises(InputError, match="budgets 10 % and 100 % do not have the same arms, test slices"):
        area_under_curves(
            drawn_at({10: predicted({"random": 0, "other": 0}, seed=1), 100: alike[100]}), metrics=METRICS
        )
    with pytest.raises(InputError, match="do not have the same arms"):
        label_equivalences(
            drawn_at({10: predicted({"random": 0, "cpc": 0}), 100: alike[100]}), baseline="random", metrics=METRICS
        )
    with pytest.raises(InputError, match="no predictions of arm imagenet; there are random, other"):
        label_equivalences(drawn_at(alike), baseline="imagenet", metrics=METRICS)
