"""ROC and precision-recall curves with bands: scikit-learn's curves, within bands that come from whole cases."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve, roc_curve

from kidney_ssl.statistics.arms import arms_of_tables
from kidney_ssl.statistics.curve_bands import GRID, curve_bands
from tests.unit.report.simulated_arms import predictions


@pytest.fixture(scope="module")
def predicted():
    return arms_of_tables(predictions({"good": 1.5, "poor": 0.2}, cases=40))


def test_the_roc_is_scikit_learns_and_lies_in_its_band(predicted):
    found = curve_bands(predicted, "roc", count=200, seed=0)
    for arm, (probabilities,) in zip(predicted.arms, predicted.probabilities, strict=True):
        false, true, _ = roc_curve(predicted.labels, probabilities, drop_intermediate=False)
        band = found[arm]
        np.testing.assert_allclose(band.y, np.interp(GRID, false, true), atol=1e-9)
        assert (band.low <= band.high).all()
        assert ((band.low - 0.05 <= band.y) & (band.y <= band.high + 0.05)).all()
        assert (band.high - band.low).max() > 0.02
    assert (found["good"].y >= found["poor"].y).mean() > 0.9


def test_precision_is_that_of_the_first_threshold_that_reaches_the_recall(predicted):
    found = curve_bands(predicted, "pr", count=50, seed=0)["good"]
    precision, recall, _ = precision_recall_curve(predicted.labels, predicted.probabilities[0, 0])
    order = np.argsort(recall, kind="stable")
    first = [precision[recall >= at - 1e-9][np.argmin(recall[recall >= at - 1e-9])] for at in found.x]
    assert (np.diff(recall[order]) >= 0).all()
    assert np.mean(np.abs(found.y - first) < 0.02) > 0.95


def test_the_same_seed_gives_the_same_band_and_seeds_of_an_arm_are_averaged(predicted):
    one, two = (curve_bands(predicted, "roc", count=20, seed=1)["good"] for _ in range(2))
    np.testing.assert_array_equal(one.low, two.low)
    twice = replace(predicted, probabilities=np.repeat(predicted.probabilities, 2, axis=1))
    np.testing.assert_allclose(curve_bands(twice, "roc", count=20, seed=1)["good"].high, one.high)


def test_slices_of_equal_probability_are_called_together(predicted):
    flat = replace(predicted, probabilities=np.full_like(predicted.probabilities, 0.5))
    np.testing.assert_allclose(curve_bands(flat, "roc", count=5, seed=0)["good"].y, GRID)


def test_one_class_alone_has_no_curve(predicted):
    assert curve_bands(predicted.subset(predicted.labels), "roc", count=5, seed=0) == {}
