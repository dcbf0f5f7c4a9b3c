"""Probes on an encoder before fine-tuning: the features are the encoder's, the labels the budget's."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from kidney_ssl import encoder_probe
from kidney_ssl.engine.batches import Slices
from kidney_ssl.metrics.probes import probe_probabilities
from kidney_ssl.models.resnet import classifier
from kidney_ssl.models.weights import load_encoder
from tests.unit.engine.toy_study import forget_but_the_last_batch, toy_part


@pytest.fixture
def larger():
    return {"train": toy_part(40, 0), "test": toy_part(20, 200)}


def predict(parts, start, fabric, rows):
    data = {name: Slices(part, device=fabric.device) for name, part in parts.items()}
    data["train"] = data["train"].subset(rows)
    return encoder_probe.probe_predictions(data, start, network="resnet18", fabric=fabric, batch_size=8)


def test_features_are_the_pooled_maps_of_the_encoder_with_the_statistics_of_clean_slices(
    larger, start, fabric, monkeypatch
):
    given = {}

    def note(features, labels, tested):
        given.update(features=features, labels=labels, tested=tested)
        return {}

    rows = np.array([0, 1, 2, 3, 8, 9, 10, 11])
    monkeypatch.setattr(encoder_probe, "probe_probabilities", note)
    predict(larger, start, fabric, rows)
    model = classifier("resnet18", 5)
    load_encoder(model, start)
    images = torch.from_numpy(larger["train"].images[rows]).float()[:, None]
    forget_but_the_last_batch(model)
    maps = {}
    model.layer4.register_forward_hook(lambda *found: maps.update(last=found[2]))
    with torch.no_grad():
        model.train()(images)
        model.eval()
        for name, expected in (
            ("features", images),
            ("tested", torch.from_numpy(larger["test"].images).float()[:, None]),
        ):
            model(expected)
            assert np.allclose(given[name], maps["last"].mean(dim=(2, 3)), atol=1e-4)
    assert given["labels"].tolist() == [0, 1] * 4


def test_probes_separate_what_one_look_separates_and_read_the_budgets_labels_alone(larger, start, fabric):
    rows = np.arange(36)
    table = predict(larger, start, fabric, rows)
    assert list(table.columns) == ["case", "slice", "class", "label", "knn", "linear"]
    for probe in ("knn", "linear"):
        assert roc_auc_score(table["label"], table[probe]) > 0.9
    frame = larger["train"].frame
    frame.loc[~frame.index.isin(rows), "label"] = 1 - frame["label"]
    assert predict(larger, start, fabric, rows).equals(table)


def test_one_class_leaves_the_columns_empty(larger, start, fabric):
    table = predict(larger, start, fabric, np.arange(0, 40, 2))
    assert table[["knn", "linear"]].isna().all().all()


def test_probabilities_are_scikit_learns():
    generator = np.random.default_rng(0)
    features, tested = generator.normal(size=(50, 6)), generator.normal(size=(9, 6))
    labels = (features[:, 0] + generator.normal(size=50) > 0).astype(int)
    found = probe_probabilities(features, labels, tested)
    scaler = StandardScaler().fit(features)
    plain = LogisticRegression(max_iter=1000).fit(scaler.transform(features), labels)
    assert np.allclose(found["linear"], plain.predict_proba(scaler.transform(tested))[:, 1])
    unit = [matrix / np.linalg.norm(matrix, axis=1, keepdims=True) for matrix in (features, tested)]
    near = KNeighborsClassifier(20).fit(unit[0], labels)
    assert np.allclose(found["knn"], near.predict_proba(unit[1])[:, 1])
