"""Probes of frozen features: neighbours against a plain loop, the linear probe against scikit-learn step by step."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from kidney_ssl.metrics.probes import NEIGHBOURS, probe_accuracy, probe_probabilities


def drawn(seed, count, tested=40, width=6):
    generator = np.random.default_rng(seed)
    labels, tested_labels = generator.random(count) < 0.5, generator.random(tested) < 0.5
    labels[:2] = False, True
    centre = generator.normal(size=width)
    features = generator.normal(size=(count, width)) + np.outer(labels, centre)
    tested_features = generator.normal(size=(tested, width)) + np.outer(tested_labels, centre)
    return (
        features.astype(np.float32),
        labels.astype(np.int64),
        tested_features.astype(np.float32),
        tested_labels.astype(np.int64),
    )


def knn_by_hand(features, labels, tested, tested_labels):
    right = 0
    for feature, label in zip(tested.astype(float), tested_labels, strict=True):
        cosines = [feature @ other / math.hypot(*feature) / math.hypot(*other) for other in features.astype(float)]
        nearest = sorted(range(len(labels)), key=lambda k: -cosines[k])[:NEIGHBOURS]
        votes = sum(int(labels[k]) for k in nearest)
        right += (2 * votes > len(nearest)) == bool(label)  # a tie counts as negative
    return right / len(tested)


# 6 and 12 slices: all of them are neighbours, and an equal number of both classes is a tie.
@pytest.mark.parametrize(("seed", "count"), [(0, 200), (1, 60), (2, 21), (3, 12), (4, 6), (5, 7)])
def test_neighbours_vote_as_in_a_plain_loop(seed, count):
    features, *others = drawn(seed, count)
    # Lengths differ by orders of magnitude: the cosine must not care.
    given = features * 10 ** np.linspace(-2, 2, count, dtype=np.float32)[:, None], *others
    assert probe_accuracy(*given)["knn_accuracy"] == pytest.approx(knn_by_hand(*given))


def test_ties_of_neighbours_count_as_negative():
    features = np.eye(4, dtype=np.float32)
    found = probe_accuracy(features, np.array([0, 1, 0, 1]), features, np.array([0, 0, 0, 1]))
    assert found["knn_accuracy"] == 0.75


@pytest.mark.parametrize("seed", range(3))
def test_the_linear_probe_is_a_logistic_regression_on_features_standardised_by_the_training_slices(seed):
    features, labels, tested, tested_labels = drawn(seed, 100)
    scale = 10 ** np.linspace(-2, 2, 6, dtype=np.float32)
    features, tested = features * scale, tested * scale
    mean, deviation = features.mean(0, dtype=float), features.std(0, dtype=float)
    model = LogisticRegression(C=1.0, max_iter=1000).fit((features - mean) / deviation, labels)
    expected = (model.predict((tested - mean) / deviation) == tested_labels).mean()
    found = probe_accuracy(features, labels, tested, tested_labels)
    assert found["linear_accuracy"] == expected
    assert found["linear_accuracy"] > found["majority_accuracy"]


@pytest.mark.parametrize("seed", range(3))
def test_auroc_is_of_tumor_against_negatives_with_a_kidney(seed):
    features, labels, tested, tested_labels = drawn(seed, 60)
    with_kidney = np.random.default_rng(seed).random(len(tested)) < 0.6
    found = probe_accuracy(features, labels, tested, tested_labels, with_kidney)
    scores = probe_probabilities(features, labels, tested)
    for name in ("knn", "linear"):
        tumors, negatives = scores[name][tested_labels == 1], scores[name][(tested_labels == 0) & with_kidney]
        wins = np.sign(tumors[:, None] - negatives).mean() / 2 + 0.5
        assert found[f"{name}_auroc_against_kidney"] == pytest.approx(wins)
    plain = probe_accuracy(features, labels, tested, tested_labels)
    assert plain["linear_auroc_against_kidney"] != found["linear_auroc_against_kidney"]
    assert plain["linear_accuracy"] == found["linear_accuracy"]


def test_without_a_negative_with_a_kidney_there_is_no_auroc():
    features, labels, tested, tested_labels = drawn(0, 60)
    found = probe_accuracy(features, labels, tested, tested_labels, tested_labels)
    assert math.isnan(found["linear_auroc_against_kidney"])
    assert found["linear_accuracy"] > 0


def test_majority_is_the_more_frequent_training_label():
    tested = np.ones((4, 2), np.float32)
    for labels, expected in (([0, 1, 1], 0.75), ([0, 1, 0], 0.25), ([0, 1], 0.25)):
        features = np.arange(2.0 * len(labels), dtype=np.float32).reshape(-1, 2) + 1
        found = probe_accuracy(features, np.array(labels), tested, np.array([1, 1, 1, 0]))
        assert found["majority_accuracy"] == expected


def test_one_class_in_training_leaves_the_majority_alone():
    features = np.ones((3, 2), np.float32)
    found = probe_accuracy(features, np.zeros(3, np.int64), features, np.array([0, 1, 0]))
    assert found["majority_accuracy"] == pytest.approx(2 / 3)
    assert math.isnan(found["knn_accuracy"])
    assert math.isnan(found["linear_auroc_against_kidney"])
    assert math.isnan(found["linear_accuracy"])
