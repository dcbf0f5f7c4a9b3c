"""Calibration and decision curve: against scikit-learn, statsmodels, plain loops and cases made by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_linear_model import GLM

from kidney_ssl.metrics.calibration import BINS, CALIBRATION, CLIP, calibration
from kidney_ssl.metrics.decision_curve import THRESHOLDS, decision_curve
from kidney_ssl.statistics.result import Estimate


def drawn(seed, count=400, slope=0.7, intercept=-0.5, decimals=16):
    """Slices whose true logit is intercept + slope * the told one."""
    generator = np.random.default_rng(seed)
    told = generator.normal(0, 2, count)
    label = (generator.random(count) < expit(intercept + slope * told)).astype(int)
    return label, expit(told).round(decimals), generator.uniform(0.5, 5, count)


def fitted(label, probability, weight, *, slope=None):
    """Logit P = a + b logit p by statsmodels; b is held if given."""
    logits = logit(np.clip(probability, CLIP, 1 - CLIP))
    told, held = (np.stack([np.ones_like(logits), logits], 1), None)
    if slope is not None:
        told, held = np.ones((len(logits), 1)), slope * logits
    model = GLM(label, told, family=Binomial(), offset=held, freq_weights=weight)
    return model.fit(tol=1e-12).params


@pytest.mark.parametrize("decimals", [16, 2, 1])
def test_bins_are_those_of_scikit_learn(decimals):
    label, probability, _ = drawn(0, decimals=decimals)
    found = calibration(label, probability, "it")["bins"]
    observed, told = calibration_curve(label, probability, n_bins=BINS, strategy="quantile")
    np.testing.assert_allclose([one["observed"] for one in found], observed)
    np.testing.assert_allclose([one["mean_probability"] for one in found], told)
    assert sum(one["slices"] for one in found) == len(label)


def test_bins_hold_equally_many_slices():
    label, probability, _ = drawn(1)
    assert {one["slices"] for one in calibration(label, probability, "it")["bins"]} == {40}


@pytest.mark.parametrize("weighted", [False, True])
def test_ece_is_the_plain_sum_over_bins(weighted):
    label, probability, weight = drawn(2, decimals=2)
    weight = weight if weighted else np.ones(len(label))
    found = calibration(label, probability, "it", weight)
    edges = np.quantile(probability, np.arange(1, BINS) / BINS)
    gaps = 0.0
    for number, told in enumerate(found["bins"]):
        kept = np.array([sum(p > edges) == number for p in probability])
        if weighted or told["slices"]:
            assert kept.sum() == told["slices"]
        gap = np.sum(weight[kept] * label[kept]) - np.sum(weight[kept] * probability[kept])
        gaps += abs(gap)
        assert told["observed"] == pytest.approx(np.average(label[kept], weights=weight[kept]))
        assert told["mean_probability"] == pytest.approx(np.average(probability[kept], weights=weight[kept]))
    assert found["ece"] == pytest.approx(gaps / weight.sum())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_recalibration_is_the_maximum_of_the_likelihood(seed, weighted):
    label, probability, weight = drawn(seed, count=80 + 300 * seed)
    weight = weight if weighted else np.ones(len(label))
    found = calibration(label, probability, "it", weight)
    expected = fitted(label, probability, weight)
    np.testing.assert_allclose([found["intercept"], found["slope"]], expected, atol=1e-7)
    assert found["in_the_large"] == pytest.approx(fitted(label, probability, weight, slope=1.0)[0], abs=1e-7)


def test_recalibration_finds_the_true_intercept_and_slope():
    label, probability, _ = drawn(5, count=200_000)
    found = calibration(label, probability, "it")
    assert found["slope"] == pytest.approx(0.7, abs=0.02)
    assert found["intercept"] == pytest.approx(-0.5, abs=0.02)


def test_weights_count_as_that_many_slices():
    label, probability, _ = drawn(6, count=60)
    times = np.random.default_rng(0).integers(1, 4, 60)
    weighted = calibration(label, probability, "it", times.astype(float))
    repeated = calibration(label.repeat(times), probability.repeat(times), "it")
    for name in ("intercept", "slope", "in_the_large"):
        assert weighted[name] == pytest.approx(repeated[name], abs=1e-7)


def test_probabilities_of_0_and_1_count_as_the_nearest_with_a_logit():
    label, probability, _ = drawn(7, count=100)
    probability[:4], label[:4] = [0, 0, 1, 1], [0, 1, 0, 1]
    found = calibration(label, probability, "it")
    np.testing.assert_allclose(
        [found["intercept"], found["slope"]], fitted(label, probability, np.ones(100)), atol=1e-5
    )


@pytest.mark.parametrize(
    ("label", "probability", "missing", "words"),
    [
        ([], [], CALIBRATION, "no slice"),
        ([1, 1], [0.2, 0.8], ("intercept", "slope", "in_the_large"), "only tumor slices in it"),
        ([0, 0], [0.2, 0.8], ("intercept", "slope", "in_the_large"), "no tumor slices in it"),
        ([0, 1, 1], [0.4, 0.4, 0.4], ("intercept", "slope"), "all probabilities are equal in it"),
        ([0, 0, 1, 1], [0.1, 0.3, 0.3, 0.4], ("intercept", "slope"), "part both classes in it"),
        ([1, 0, 0], [0.1, 0.3, 0.4], ("intercept", "slope"), "part both classes in it"),
    ],
)
def test_what_cannot_be_computed_says_why_and_the_rest_stands(label, probability, missing, words):
    found = calibration(np.array(label, int), np.array(probability, float), "it")
    assert set(found) == set(CALIBRATION)
    for name, value in found.items():
        assert isinstance(value, Estimate) == (name in missing)
        assert not isinstance(value, Estimate) or words in value.reason


def test_equal_probabilities_still_have_a_calibration_in_the_large():
    found = calibration(np.array([0, 1, 1, 1]), np.full(4, 0.4), "it")
    assert found["in_the_large"] == pytest.approx(logit(0.75) - logit(0.4))
    assert found["bins"] == [{"mean_probability": pytest.approx(0.4), "observed": 0.75, "slices": 4}]


def test_a_fit_that_starts_at_its_maximum_warns_of_nothing():
    found = calibration(np.array([1, 0, 1, 0]), np.array([0.1, 0.1, 0.9, 0.9]), "it")
    assert (found["slope"], found["intercept"]) == (pytest.approx(0), pytest.approx(0))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 100)), max_size=40))
def test_no_labels_and_probabilities_stop_it(rows):
    label, probability = np.array([r[0] for r in rows], int), np.array([r[1] / 100 for r in rows])
    for value in calibration(label, probability, "it").values():
        assert isinstance(value, (Estimate, list)) or np.isfinite(value)


def test_net_benefit_is_that_of_counting():
    label, probability, _ = drawn(3, decimals=2)
    for point in decision_curve(label, probability):
        t = point["threshold"]
        hits = sum(p >= t and y == 1 for p, y in zip(probability, label, strict=True))
        false = sum(p >= t and y == 0 for p, y in zip(probability, label, strict=True))
        assert point["net_benefit"] == pytest.approx(hits / 400 - false / 400 * t / (1 - t))
        assert point["treat_all"] == pytest.approx(label.mean() - (1 - label.mean()) * t / (1 - t))
    assert len(decision_curve(label, probability)) == len(THRESHOLDS)


def test_calling_all_slices_is_treating_all_and_a_perfect_model_has_the_prevalence():
    label, _, _ = drawn(4)
    assert all(point["net_benefit"] == point["treat_all"] for point in decision_curve(label, np.ones(400)))
    perfect = [point["net_benefit"] for point in decision_curve(label, label.astype(float))]
    assert perfect == pytest.approx([label.mean()] * len(THRESHOLDS))
