"""Resampling of cases: against plain loops over repeated slices, scikit-learn, closed forms and full enumeration."""

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit, logit
from sklearn import metrics as sk

from kidney_ssl.errors import InputError
from kidney_ssl.statistics.arms import ArmPredictions, arms_of_tables
from kidney_ssl.statistics.bootstrap import intervals, resample, resample_cases, symmetric
from kidney_ssl.statistics.comparisons import compare_pairs, max_t, planned_comparisons
from kidney_ssl.statistics.resampling import METRICS, effective_cases, metric_values
from kidney_ssl.statistics.result import Estimate
from kidney_ssl.statistics.swaps import swap_differences, swap_p

CLASSES = np.array(["tumor", "kidney", "background"])
NEED_TUMOR = set(METRICS) - {"accuracy", "specificity", "brier", "accuracy_over_cases"}
RANKING = ("auroc", "auroc_against_kidney", "average_precision")
NO_KIDNEY = "no kidney slice in the test part"


def toy(cases=8, slices=60, *, arms=2, seeds=2, steps=10, seed=0):
    """Predictions on a grid of `steps` probabilities, so that there are ties; 0.5 is among them."""
    generator = np.random.default_rng(seed)
    of_case = np.sort(np.append(np.arange(cases), generator.integers(cases, size=slices - cases)))
    kinds = np.append([0, 1, 2], generator.integers(3, size=slices - 3))
    scores = generator.normal(size=(arms, seeds, slices)) + (kinds == 0) + generator.normal(size=cases)[of_case]
    return ArmPredictions(
        arms=tuple(f"arm{number}" for number in range(arms)),
        names=tuple(f"case_{number:05d}" for number in range(cases)),
        cases=of_case,
        labels=kinds == 0,
        classes=CLASSES[kinds],
        probabilities=np.round(expit(scores) * steps) / steps,
    )


def plain_metric(metric, predictions, arm, seed, weights):
    """The figure by scikit-learn with the weight of its case on each slice."""
    keep = np.ones(len(predictions.labels), bool)
    if metric.endswith("_against_kidney"):
        keep = predictions.classes != "background"
        metric = metric.removesuffix("_against_kidney")
    labels, cases = predictions.labels[keep].astype(int), predictions.cases[keep]
    probabilities = predictions.probabilities[arm, seed, keep]
    called, weight = (probabilities >= 0.5).astype(int), weights[cases]
    if metric == "accuracy_over_cases":
        total = 0.0
        for case, times in enumerate(weights):
            mine = cases == case
            total += times * np.mean(called[mine] == labels[mine])
        return total / weights.sum()
    return {
        "accuracy": lambda: sk.accuracy_score(labels, called, sample_weight=weight),
        "f1": lambda: sk.f1_score(labels, called, sample_weight=weight),
        "sensitivity": lambda: sk.recall_score(labels, called, sample_weight=weight),
        "specificity": lambda: sk.recall_score(labels, called, pos_label=0, sample_weight=weight),
        "auroc": lambda: sk.roc_auc_score(labels, probabilities, sample_weight=weight),
        "average_precision": lambda: sk.average_precision_score(labels, probabilities, sample_weight=weight),
        "brier": lambda: sk.brier_score_loss(labels, probabilities, sample_weight=weight),
    }[metric]()


def table_of(predictions, arm=0, seed=0):
    return pd.DataFrame(
        {
            "part": "test",
            "case": np.array(predictions.names)[predictions.cases],
            "slice": np.arange(len(predictions.labels)),
            "class": predictions.classes,
            "label": predictions.labels.astype(int),
            "probability": predictions.probabilities[arm, seed],
        }
    )


@pytest.mark.parametrize("metric", METRICS)
def test_each_metric_is_scikit_learns_mean_over_seeds(metric):
    predictions = toy()
    weights = resample_cases(8, 40, 1)
    ours = metric_values(predictions, metric, weights)
    for arm in range(2):
        for number, row in enumerate(weights):
            plain = np.mean([plain_metric(metric, predictions, arm, seed, row) for seed in range(2)])
            assert ours[arm, number] == pytest.approx(plain, abs=1e-12)


@pytest.mark.parametrize("metric", ["auroc", "average_precision", "f1"])
def test_a_weight_is_the_same_as_repeating_the_slices(metric):
    predictions = toy(seeds=1)
    weights = resample_cases(8, 1, 5)[0]
    repeated = predictions.subset(np.repeat(np.arange(60), weights[predictions.cases]))
    expected = plain_metric(metric, repeated, 0, 0, np.ones(8, int))
    assert metric_values(predictions, metric, weights[None])[0, 0] == pytest.approx(expected, abs=1e-12)


def test_auroc_counts_a_tie_as_half_a_pair():
    predictions = toy(steps=2, seeds=1)
    scores, labels = predictions.probabilities[0, 0], predictions.labels
    pairs = [
        (scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j])
        for i in np.flatnonzero(labels)
        for j in np.flatnonzero(~labels)
    ]
    ours = metric_values(predictions, "auroc", np.ones((1, 8)))[0, 0]
    assert ours == pytest.approx(np.mean(pairs), abs=1e-12)


def test_blocks_do_not_change_a_figure(monkeypatch):
    predictions, weights = toy(), resample_cases(8, 50, 0)
    whole = {metric: metric_values(predictions, metric, weights) for metric in METRICS}
    monkeypatch.setattr("kidney_ssl.statistics.resampling._BLOCK_BYTES", 8 * 200)
    for metric in METRICS:
        np.testing.assert_allclose(metric_values(predictions, metric, weights), whole[metric], atol=1e-14)


@given(cases=st.integers(1, 40), count=st.integers(1, 20), seed=st.integers(0, 2**32 - 1))
def test_every_resample_holds_as_many_cases_as_there_are(cases, count, seed):
    weights = resample_cases(cases, count, seed)
    assert weights.shape == (count, cases)
    assert (weights >= 0).all()
    assert (weights.sum(axis=1) == cases).all()


def test_every_case_is_drawn_as_often_as_any_other():
    weights = resample_cases(10, 20_000, 0)
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.03)
    np.testing.assert_allclose(weights.var(axis=0), 0.9, atol=0.03)  # binomial(10, 1/10)


def test_interval_of_the_mean_over_cases_is_the_t_interval_on_the_logit_scale():
    predictions = toy(cases=40, slices=800, arms=1, seeds=1)
    right = (predictions.probabilities[0, 0] >= 0.5) == predictions.labels
    of_case = pd.Series(right).groupby(predictions.cases).mean()
    mean, error = of_case.mean(), stats.sem(of_case)
    half = stats.t.ppf(0.975, 39) * error / (mean * (1 - mean))
    drawn = resample(predictions, count=40_000, seed=0, metrics=["accuracy_over_cases"])
    ours = intervals(drawn)["arm0"]["accuracy_over_cases"]
    assert ours.value == pytest.approx(mean, abs=1e-12)
    assert ours.low == pytest.approx(expit(logit(mean) - half), abs=0.001)
    assert ours.high == pytest.approx(expit(logit(mean) + half), abs=0.001)


def test_difference_of_means_over_cases_is_the_paired_t_interval():
    predictions = toy(cases=40, slices=800, seeds=1)
    right = (predictions.probabilities[:, 0] >= 0.5) == predictions.labels
    of_case = pd.DataFrame(right.T).groupby(predictions.cases).mean()
    paired = of_case[1] - of_case[0]
    expected = stats.t.interval(0.95, 39, paired.mean(), stats.sem(paired))
    narrow = stats.t.interval(0.90, 39, paired.mean(), stats.sem(paired))
    drawn = resample(predictions, count=40_000, seed=0, metrics=["accuracy_over_cases"])
    (ours,) = planned_comparisons(drawn, baseline="arm0", swaps=2000, seed=0)
    assert (ours.difference.low, ours.difference.high) == pytest.approx(expected, abs=0.001)
    assert (ours.equivalence.low, ours.equivalence.high) == pytest.approx(narrow, abs=0.001)
    # One comparison: the simultaneous interval is its own one, but for the resamples' noise.
    assert (ours.simultaneous.low, ours.simultaneous.high) == pytest.approx(expected, abs=0.002)


def test_cases_that_carry_a_figure_are_counted_by_their_slices():
    predictions = toy()
    assert effective_cases(predictions, "accuracy_over_cases") == 8
    tumors = np.array([np.sum(predictions.labels & (predictions.cases == case)) for case in range(8)])
    assert effective_cases(predictions, "sensitivity") == pytest.approx(tumors.sum() ** 2 / (tumors**2).sum())
    even = replace(predictions, cases=np.arange(8).repeat(2), labels=np.tile([True, False], 8))
    even = replace(even, classes=np.tile(["tumor", "kidney"], 8))
    assert effective_cases(even, "auroc_against_kidney") == pytest.approx(8)


@pytest.mark.parametrize("metric", ["accuracy", "auroc_against_kidney", "average_precision", "brier", "f1"])
def test_p_of_swaps_is_that_of_all_swaps(metric):
    predictions = toy(cases=6, slices=40, seed=4)
    weights = np.ones(6, int)
    swappable = predictions.probabilities
    if metric in RANKING:  # ranks of the slices that count, within each arm and seed
        kept = predictions.classes != "background" if metric.endswith("_against_kidney") else np.ones(40, bool)
        swappable = np.zeros_like(swappable)
        swappable[..., kept] = stats.rankdata(predictions.probabilities[..., kept], axis=-1) / 100

    def difference(swap):
        swapped = np.array(swap, bool)[predictions.cases]
        one, other = swappable
        mixed = np.array([np.where(swapped, other, one), np.where(swapped, one, other)])
        figures = [
            np.mean(
                [
                    plain_metric(metric, replace(predictions, probabilities=mixed), arm, seed, weights)
                    for seed in range(2)
                ]
            )
            for arm in range(2)
        ]
        return abs(figures[0] - figures[1])

    every = np.array(list(product([0, 1], repeat=6)))
    sizes = np.array([difference(swap) for swap in every])
    share = np.mean(sizes >= sizes[0] - 1e-12)
    assert 2 / 64 <= share < 1
    assert swap_p(predictions, ("arm0", "arm1"), metric, every) == pytest.approx((1 + 64 * share) / 65)
    drawn = resample(predictions, count=50, seed=0, metrics=[metric])
    (ours,) = planned_comparisons(drawn, baseline="arm1", swaps=20_000, seed=0)
    assert ours.p == pytest.approx(share, abs=0.015)


def test_max_t_of_one_difference_is_the_quantile_of_its_own_deviation():
    draws = np.random.default_rng(0).normal(0.1, 2.0, size=(1, 100_000))
    points = np.array([0.1])
    assert max_t(points, draws) == pytest.approx(1.96, abs=0.02)
    # The same difference twice costs nothing; one without spread takes no part.
    assert max_t(points.repeat(2), draws.repeat(2, axis=0)) == max_t(points, draws)
    assert max_t(np.array([0.1, 0.0]), np.vstack([draws, np.zeros_like(draws)])) == max_t(points, draws)


def test_max_t_of_independent_differences_is_sidaks_quantile():
    draws = np.random.default_rng(0).normal(size=(5, 100_000)) * np.arange(1, 6)[:, None]
    assert max_t(np.zeros(5), draws) == pytest.approx(stats.norm.ppf((1 + 0.95 ** (1 / 5)) / 2), abs=0.02)


def test_simultaneous_intervals_hold_the_own_ones():
    drawn = resample(toy(cases=35, slices=300, arms=5), count=500, seed=0)
    pairs = [("arm1", "arm2"), ("arm3", "arm4"), ("arm4", "arm0"), ("arm0", "arm1")]
    found = planned_comparisons(drawn, baseline="arm0", contrasts=pairs, swaps=50, seed=0)
    assert len(found) == len(METRICS) * (4 + 2)  # the last pairs are in the baseline's family already
    for one in found:
        own = one.difference
        assert one.simultaneous.low <= own.low < one.equivalence.low < own.value
        assert one.simultaneous.high >= own.high > one.equivalence.high > own.value
    assert {(one.arm, one.against) for one in found if one.family == "contrasts"} == set(pairs[:2])


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), metric=st.sampled_from(METRICS))
def test_identical_arms_differ_by_exactly_nothing(seed, metric):
    predictions = toy(cases=60, slices=500, seed=seed)
    predictions = replace(predictions, probabilities=predictions.probabilities[[0, 0]])
    (one,) = planned_comparisons(
        resample(predictions, count=50, seed=seed, metrics=[metric]), baseline="arm0", swaps=50, seed=0
    )
    assert one.difference == one.equivalence == one.simultaneous == Estimate(0, 0, 0)
    assert one.p == 1
    assert one.verdict == "equivalent"


def test_two_arms_that_are_right_everywhere_are_not_called_equivalent():
    predictions = toy(cases=60, slices=500)
    right = np.where(predictions.labels, 0.9, 0.1)
    predictions = replace(predictions, probabilities=np.stack([right, right**2 + 0.1])[:, None])
    (one,) = planned_comparisons(
        resample(predictions, count=50, seed=0, metrics=["auroc"]), baseline="arm0", swaps=50, seed=0
    )
    assert one.difference == one.equivalence == Estimate(0, reason="the same in every resample: no interval")
    assert one.verdict == "undecided"
    (other,) = compare_pairs(resample(predictions, count=50, seed=0, metrics=["auroc"]), "auroc", [("arm0", "arm1")])
    assert other.difference == one.difference
    assert other.shows(0.02) == "open"
    assert not other.within(-1, 1)


def test_an_interval_that_cannot_be_is_none_with_the_reason():
    predictions = toy(cases=31, slices=400, seeds=1)
    # One case has nearly all tumor slices, so Student's t has one degree of freedom.
    kinds = np.where(predictions.cases == 0, 0, 1)
    kinds[np.flatnonzero(predictions.cases == 1)[0]] = 0
    drawn = resample(replace(predictions, labels=kinds == 0, classes=CLASSES[kinds]), count=200, seed=0)
    (one,) = planned_comparisons(drawn, baseline="arm0", metrics=["auroc"], swaps=20, seed=0)
    for estimate in (one.difference, one.simultaneous):
        assert estimate.value is not None
        assert (estimate.low, estimate.high) == (None, None)
        assert "beyond [-1, 1]" in estimate.reason
    assert one.shows(0.02) == one.shows(0.02, jointly=True) == "open"
    assert "beyond [-1, 1]" in one.row()["reason"]


@given(point=st.floats(-1, 1), half=st.floats(0, 4), bound=st.sampled_from([1.0, 2.0]))
def test_no_interval_leaves_what_a_difference_can_be(point, half, bound):
    one = symmetric(point, half, bound)
    assert one.value == point
    assert (one.low is None) == (one.reason is not None)
    if one.low is None:
        assert abs(point) + half > bound
    else:
        assert -bound - 1e-9 <= one.low <= point <= one.high <= bound + 1e-9


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), metric=st.sampled_from(METRICS))
def test_the_other_way_round_a_difference_changes_its_sign_alone(seed, metric):
    drawn = resample(toy(cases=31, slices=120, seed=seed), count=50, seed=0, metrics=[metric])
    (one,) = planned_comparisons(drawn, baseline="arm0", swaps=50, seed=0)
    (other,) = planned_comparisons(drawn, baseline="arm1", swaps=50, seed=0)
    for ours, theirs in ((one.difference, other.difference), (one.simultaneous, other.simultaneous)):
        turned = [None if end is None else -end for end in (theirs.value, theirs.high, theirs.low)]
        assert [ours.value, ours.low, ours.high] == turned
    assert one.p == other.p


def graded(quality, cases=60):
    """An arm for each quality from 0 (noise) to 1 (right everywhere), on four slices a case."""
    generator = np.random.default_rng(0)
    labels = np.tile([True, True, False, False], cases)
    noise = generator.uniform(size=(len(quality), 1, 4 * cases))
    wrong = generator.uniform(size=noise.shape) > np.array(quality)[:, None, None]
    return ArmPredictions(
        arms=tuple(f"arm{number}" for number in range(len(quality))),
        names=tuple(map(str, range(cases))),
        cases=np.arange(cases).repeat(4),
        labels=labels,
        classes=np.tile(["tumor", "tumor", "kidney", "background"], cases),
        probabilities=np.where(wrong, noise, labels),
    )


@pytest.mark.parametrize("metric", ["accuracy", "auroc", "brier"])
def test_verdicts_say_which_arm_is_better_whichever_way_the_figure_points(metric):
    drawn = resample(graded([0.5, 0.95, 0.05, 0.5]), count=500, seed=0, metrics=[metric])
    better, worse, alike = planned_comparisons(drawn, baseline="arm0", swaps=500, seed=0)
    assert (better.verdict, worse.verdict, alike.verdict) == ("better", "worse", "undecided")
    assert better.p == worse.p == pytest.approx(1 / 501)
    assert alike.p > 0.05
    wide = planned_comparisons(drawn, baseline="arm0", margin=0.9, swaps=50, seed=0)
    assert {one.verdict for one in wide} == {"equivalent"}


def test_equivalence_asks_for_the_90_percent_interval_within_the_margin():
    drawn = resample(graded([0.5, 0.6]), count=500, seed=0, metrics=["accuracy"])
    (one,) = planned_comparisons(drawn, baseline="arm0", swaps=50, seed=0)
    bound = max(-one.equivalence.low, one.equivalence.high)
    assert bound < max(-one.difference.low, one.difference.high)
    for margin, verdict in ((bound * 1.001, "equivalent"), (bound * 0.999, "undecided")):
        (again,) = planned_comparisons(drawn, baseline="arm0", margin=margin, swaps=50, seed=0)
        assert again.verdict == verdict


def test_under_thirty_cases_there_is_no_verdict():
    for cases, verdict in ((29, "too few cases to say"), (30, "better")):
        drawn = resample(graded([0.05, 0.95], cases), count=300, seed=0, metrics=["auroc"])
        assert planned_comparisons(drawn, baseline="arm0", swaps=50, seed=0)[0].verdict == verdict


@pytest.mark.parametrize(("tumor_cases", "kidney_cases"), [(29, 60), (60, 29), (30, 30)])
def test_the_cases_counted_are_those_that_hold_what_a_metric_needs(tumor_cases, kidney_cases):
    predictions = graded([0.2, 0.9])
    kinds = np.tile([0, 0, 1, 2], 60)
    kinds[(kinds == 0) & (predictions.cases >= tumor_cases)] = 2
    kinds[(kinds == 1) & (predictions.cases >= kidney_cases)] = 2
    predictions = replace(predictions, labels=kinds == 0, classes=CLASSES[kinds])
    drawn = resample(predictions, count=100, seed=0)
    found = {one.metric: one for one in planned_comparisons(drawn, baseline="arm0", swaps=20, seed=0)}
    expected = {"accuracy": 60, "specificity": 60, "f1": tumor_cases, "auroc": tumor_cases}
    expected |= {"auroc_against_kidney": min(tumor_cases, kidney_cases)}
    for metric, cases in expected.items():
        assert found[metric].cases == cases
        assert (found[metric].verdict == "too few cases to say") == (cases < 30)


@pytest.mark.parametrize(
    ("left", "open_figures", "reason"),
    [
        (["kidney", "background"], NEED_TUMOR, "no tumor slice in the test part"),
        (["tumor", "background"], {f"{name}_against_kidney" for name in ("auroc", "accuracy")}, NO_KIDNEY),
    ],
)
def test_a_missing_class_leaves_figures_open_with_a_reason(left, open_figures, reason):
    predictions = toy(cases=31, slices=300)
    drawn = resample(predictions.subset(np.isin(predictions.classes, left)), count=50, seed=0)
    for metric, one in intervals(drawn)["arm0"].items():
        assert (one.value is None) == (one.low is None) == (one.high is None) == (metric in open_figures)
        assert one.reason == (reason if metric in open_figures else None)
    for one in planned_comparisons(drawn, baseline="arm0", swaps=20, seed=0):
        own = one.difference
        assert (own.value is None) == (one.p is None) == (own.low is None) == (one.metric in open_figures)
        assert own.reason == (reason if one.metric in open_figures else None)
        assert one.verdict == "undecided" or one.metric not in open_figures


def test_only_tumor_slices_leave_what_needs_others_open():
    predictions = toy(cases=10, slices=200)
    drawn = resample(predictions.subset(predictions.labels), count=50, seed=0)
    found = intervals(drawn)["arm0"]
    assert found["auroc"].reason == found["specificity"].reason == "only tumor slices in the test part"
    assert found["specificity"].value is None
    assert found["sensitivity"].value == found["accuracy"].value is not None


def test_resamples_of_one_class_are_left_out_and_their_share_is_told():
    predictions = toy(cases=4, slices=80)
    # Tumor slices in the first two cases, others in the last two.
    kinds = np.where(predictions.cases < 2, 0, 1)
    predictions = replace(predictions, labels=kinds == 0, classes=CLASSES[kinds])
    drawn = resample(predictions, count=50_000, seed=0, metrics=["auroc", "accuracy"])
    one = intervals(drawn)["arm0"]
    assert drawn.undefined["accuracy"] == 0
    assert drawn.undefined["auroc"] == pytest.approx(2 * 0.5**4, abs=0.005)
    assert drawn.draws["auroc"].shape[1] == round(50_000 * (1 - drawn.undefined["auroc"]))
    assert not np.isnan(drawn.draws["auroc"]).any()
    assert one["auroc"].low < one["auroc"].value < one["auroc"].high


def test_constant_predictions_have_an_auroc_of_one_half_and_nothing_else():
    predictions = toy(cases=12, slices=150)
    predictions = replace(predictions, probabilities=np.full_like(predictions.probabilities, 0.7))
    one = intervals(resample(predictions, count=100, seed=0))["arm0"]
    assert one["auroc"].value == 0.5
    for metric in ("auroc", "sensitivity", "specificity"):
        assert one[metric].low is None
        assert one[metric].reason == "the same in every resample: no interval"
    assert one["average_precision"].value == pytest.approx(predictions.labels.mean())


def test_a_single_case_gives_points_and_no_interval():
    drawn = resample(toy(cases=1, slices=30), count=20, seed=0)
    for one in intervals(drawn)["arm0"].values():
        assert one.value is not None
        assert one.low is None
        assert one.reason == "one case in the test part: no interval"
    for one in planned_comparisons(drawn, baseline="arm0", swaps=20, seed=0):
        assert (one.difference.low, one.p, one.verdict) == (None, 1, "too few cases to say")


def test_a_class_in_a_single_case_gives_points_and_no_interval():
    predictions = toy(cases=5, slices=100)
    kinds = np.where(predictions.cases == 0, 0, 1)
    drawn = resample(replace(predictions, labels=kinds == 0, classes=CLASSES[kinds]), count=50, seed=0)
    found = intervals(drawn)["arm0"]
    assert found["auroc"].value is not None
    assert found["auroc"].reason == "all slices of a class are in one case: no interval"
    assert found["accuracy_over_cases"].low is not None


def test_the_same_seed_gives_the_same_numbers_and_another_one_others():
    predictions = toy(cases=31, slices=200)

    def run(seed):
        drawn = resample(predictions, count=100, seed=seed)
        return intervals(drawn), planned_comparisons(drawn, baseline="arm0", swaps=100, seed=seed)

    assert run(0) == run(0)
    assert run(0)[0] != run(1)[0]
    assert [one.p for one in run(0)[1]] != [one.p for one in run(1)[1]]


def test_tables_are_laid_side_by_side_whatever_their_order():
    predictions = toy()
    tables = {
        arm: [table_of(predictions, number, seed).sample(frac=1, random_state=seed) for seed in range(2)]
        for number, arm in enumerate(predictions.arms)
    }
    tables["arm0"][0] = pd.concat([tables["arm0"][0], tables["arm0"][0].assign(part="validation", slice=999)])
    ours = arms_of_tables(tables)
    assert (ours.arms, ours.names) == (predictions.arms, predictions.names)
    for name in ("cases", "labels", "classes", "probabilities"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(predictions, name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: [table.iloc[1:]], "arm b, table 1 of 1: not the same test slices as arm a"),
        (lambda table: [table.assign(label=1 - table["label"])], "not the same test slices as arm a"),
        (lambda table: [table, table], "equally many seeds, at least one (a 1, b 2)"),
        (lambda table: [], "equally many seeds, at least one (a 1, b 0)"),
    ],
)
def test_arms_that_cannot_be_compared_are_refused(change, message):
    table = table_of(toy())
    with pytest.raises(InputError) as error:
        arms_of_tables({"a": [table], "b": change(table)})
    assert message in str(error.value)


def test_no_arm_and_an_empty_test_part_are_refused():
    with pytest.raises(InputError, match="no arm"):
        arms_of_tables({})
    with pytest.raises(InputError, match="arm a: no slice in the test part"):
        arms_of_tables({"a": [table_of(toy()).assign(part="validation")]})


@pytest.mark.parametrize(
    ("given_plan", "message"),
    [
        ({"baseline": "imagenet"}, "no predictions of arm imagenet to compare; there are arm0, arm1"),
        ({"baseline": "arm0", "contrasts": [("arm1", "cpc")]}, "no predictions of arm cpc"),
        ({"baseline": "arm0", "contrasts": [("arm1", "arm1")]}, "arm arm1 is compared with itself"),
        ({"baseline": "arm0", "contrasts": [("arm0", "arm1"), ("arm1", "arm0")]}, "given twice"),
        ({"baseline": "arm0", "metrics": ["brier"]}, "not resampled: brier; there are auroc"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(given_plan, message):
    drawn = resample(toy(), count=10, seed=0, metrics=["auroc"])
    with pytest.raises(InputError, match=message):
        planned_comparisons(drawn, seed=0, **given_plan)


def test_an_unknown_figure_is_refused():
    with pytest.raises(InputError, match="no such metric: dice"):
        resample(toy(), count=10, seed=0, metrics=["dice"])


@pytest.mark.parametrize("metric", RANKING)
@pytest.mark.parametrize("power", [0.2, 5.0])
def test_a_monotone_transform_of_one_arms_probabilities_changes_no_p_of_ranking(metric, power):
    predictions = toy(cases=20, slices=200, seeds=2, steps=1000)
    swapped = np.random.default_rng(0).integers(2, size=(500, 20))
    probabilities = predictions.probabilities.copy()
    probabilities[1, 0] **= power
    probabilities[1, 1] = 0.3 + 0.2 * probabilities[1, 1]
    p, again = (
        swap_p(one, ("arm0", "arm1"), metric, swapped)
        for one in (predictions, replace(predictions, probabilities=probabilities))
    )
    assert p == again
    assert 0 < p < 1


def study(generator, gain, cases=40, slices=6):
    """Two arms with correlated errors, the second better by `gain` and on another scale of probabilities."""
    kinds = generator.integers(3, size=cases * slices)
    of_case = np.arange(cases).repeat(slices)
    errors = generator.normal(size=(2, cases))[:, of_case] + generator.normal(size=(2, len(kinds)))
    errors += generator.normal(size=cases)[of_case] + generator.normal(size=len(kinds))
    scores = errors + (kinds == 0) * np.array([[2.0], [2.0 + gain]])
    return ArmPredictions(
        arms=("arm0", "arm1"),
        names=tuple(map(str, range(cases))),
        cases=of_case,
        labels=kinds == 0,
        classes=CLASSES[kinds],
        probabilities=np.stack([expit(scores[0]), expit(3 * scores[1] - 4)])[:, None],
    )


@pytest.mark.parametrize("metric", ["auroc", "average_precision"])
def test_p_of_ranking_is_uniform_where_the_arms_rank_alike_on_different_scales(metric):
    generator = np.random.default_rng(0)
    swapped = generator.integers(2, size=(199, 40))
    found = [swap_p(study(generator, 0), ("arm0", "arm1"), metric, swapped) for _ in range(400)]
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert np.mean(np.array(found) <= 0.05) == pytest.approx(0.05, abs=0.03)


def test_p_of_auroc_agrees_with_the_interval_of_the_difference():
    generator = np.random.default_rng(1)
    agreed, outside = [], []
    for gain in np.linspace(-1.5, 1.5, 60):
        drawn = resample(study(generator, gain), count=400, seed=0, metrics=["auroc"])
        (one,) = planned_comparisons(drawn, baseline="arm0", swaps=400, seed=0)
        outside.append(one.difference.low > 0 or one.difference.high < 0)
        agreed.append((one.p <= 0.05) == outside[-1])
    assert np.mean(agreed) >= 0.9
    assert 0.2 < np.mean(outside) < 0.9


@pytest.mark.parametrize("metric", ["auroc", "auroc_against_kidney"])
@pytest.mark.parametrize("shares", [None, np.array([0.7, 0.3])])
def test_the_linear_form_of_swapped_aurocs_is_the_difference_of_two_aurocs(metric, shares):
    predictions = replace(toy(arms=3), shares=shares)
    kept = predictions.classes != "background" if metric.endswith("_against_kidney") else np.ones(60, bool)
    predictions = predictions.subset(kept)
    predictions = replace(predictions, probabilities=stats.rankdata(predictions.probabilities, axis=-1) / 60)
    swapped = np.random.default_rng(0).integers(2, size=(30, 8))
    ours = swap_differences(predictions, ("arm2", "arm0"), metric, swapped)
    for row, found in zip(swapped, ours, strict=True):
        both = []
        for one, other in ((2, 0), (0, 2)):
            mixed = np.where(
                row[predictions.cases] == 1, predictions.probabilities[other], predictions.probabilities[one]
            )
            exchanged = replace(predictions, probabilities=mixed[None])
            plain = [plain_metric(metric, exchanged, 0, seed, np.ones(8)) for seed in range(2)]
            both.append(np.average(plain, weights=shares))
        assert found == pytest.approx(both[0] - both[1], abs=1e-12)


def test_shares_weigh_the_columns_of_an_arm():
    predictions = toy()
    weights = resample_cases(8, 5, 0)
    first, second = (
        metric_values(replace(predictions, probabilities=predictions.probabilities[:, [seed]]), "auroc", weights)
        for seed in range(2)
    )
    found = metric_values(replace(predictions, shares=np.array([0.25, 0.75])), "auroc", weights)
    np.testing.assert_allclose(found, 0.25 * first + 0.75 * second, rtol=0, atol=1e-12)
