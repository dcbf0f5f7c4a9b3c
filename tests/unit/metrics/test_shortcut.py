"""The shortcut probe: what it sees, what it is fitted on, and what it says where there is nothing to say."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from kidney_ssl.errors import InputError
from kidney_ssl.metrics import shortcut as module
from kidney_ssl.metrics.shortcut import ALL, GROUPS, METRICS, Features, probe, read_features, shortcut

CLASS = np.array(["tumor", "kidney", "background", "tumor"])


def rows_of(first, cases, generator, *, classes=CLASS, thickness=None, block="other"):
    """Cases of four slices each; nothing in the rows tells the classes apart but `thickness`, if given by class."""
    count = cases * len(classes)
    kinds = np.tile(classes, cases)
    rows = pd.DataFrame({"case": np.repeat([f"case_{first + n:05d}" for n in range(cases)], len(classes))})
    rows["slice"], rows["class"], rows["label"] = np.tile(np.arange(len(classes)), cases), kinds, kinds == "tumor"
    rows["label"] = rows["label"].astype(int)
    rows["position"], rows["body_mm2"] = generator.uniform(size=count), generator.normal(4e4, 1e3, count)
    rows["thickness_mm"] = generator.uniform(1, 5, count)
    if thickness:
        rows["thickness_mm"] = [thickness[kind] + noise for kind, noise in zip(kinds, rows["position"], strict=True)]
    return rows.assign(block=block)


def slices_of(tmp_path, name, rows, generator, images=None):
    shape = (len(rows), 32, 32)
    images = generator.uniform(size=shape) if images is None else images
    np.save(tmp_path / f"{name}.npy", images.astype(np.float16))
    return read_features(tmp_path / f"{name}.npy", rows, ["other"])


@pytest.fixture(autouse=True, scope="module")
def short_search():
    """Three folds and two strengths to choose from, not five and six."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FOLDS", 3)
        patch.setattr(module, "STRENGTHS", (1e-3, 1e-1))
        yield


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Parts whose thickness tells tumor from kidney, and nothing else does."""
    tmp_path, generator = tmp_path_factory.mktemp("study"), np.random.default_rng(0)
    told = {"tumor": 5.0, "kidney": 3.0, "background": 5.0}
    train, test = (rows_of(first, cases, generator, thickness=told) for first, cases in ((0, 24), (50, 12)))
    return slices_of(tmp_path, "train", train, generator), slices_of(tmp_path, "test", test, generator)


@pytest.fixture(scope="module")
def figures(study):
    return shortcut(*study, resamples=200, seed=0)


def test_a_shortcut_is_found_where_it_lies_and_nowhere_else(figures):
    found = figures
    against = found["auroc_against_kidney"]
    assert against["thickness"]["point"] == 1
    assert against["all"]["point"] > 0.75
    # Background has the tumors' thickness, so of all slices a half is told from them.
    assert 0.55 < found["auroc"]["thickness"]["point"] < 0.9
    for group in ("thumbnail", "position", "body_area"):
        assert against[group]["low"] < 0.5 < against[group]["high"]


def test_the_figure_is_scikit_learns_of_a_regression_on_the_training_part_alone(study, figures):
    (train, test), found = study, figures
    for figure, classes in METRICS.items():
        one, other = (part.of(classes) for part in (train, test))
        columns = one.columns("thickness")
        mean, deviation = columns.mean(0), columns.std(0)
        model = LogisticRegression(C=found[figure]["thickness"]["strength"], max_iter=3000)
        model.fit((columns - mean) / deviation, one.rows["label"])
        scores = model.decision_function((other.columns("thickness") - mean) / deviation)
        assert found[figure]["thickness"]["point"] == pytest.approx(
            roc_auc_score(other.rows["label"], scores), abs=1e-6
        )


def test_nothing_of_the_test_part_reaches_the_fit(study, figures):
    train, test = study
    turned = Features({name: -values for name, values in test.groups.items()}, test.rows)
    once, again = figures, shortcut(train, turned, resamples=100, seed=0)
    strengths = [{f: {g: row["strength"] for g, row in of.items()} for f, of in one.items()} for one in (once, again)]
    assert strengths[0] == strengths[1]
    assert once["auroc"]["thickness"]["point"] != again["auroc"]["thickness"]["point"]


def test_the_thumbnail_is_the_slices_own_and_the_columns_are_what_they_say(tmp_path):
    generator = np.random.default_rng(1)
    rows = rows_of(0, 3, generator).assign(block=["other"] * 6 + ["new"] * 6)
    images = np.repeat(np.arange(12) / 12, 32 * 32).reshape(12, 32, 32)
    found = slices_of(tmp_path, "some", rows, generator, images).groups
    assert list(found) == list(GROUPS)
    np.testing.assert_allclose(found["thumbnail"], np.repeat(np.arange(12) / 12, 256).reshape(12, 256), atol=1e-3)
    np.testing.assert_array_equal(found["position"][:, 0], rows["position"])
    np.testing.assert_array_equal(found["body_area"][:, 1], rows["body_mm2"] ** 2)
    assert found["block"].ravel().tolist() == [1.0] * 6 + [0.0] * 6  # of a block never seen in training: none


def test_a_case_in_both_parts_is_refused(study):
    train, test = study
    shared = Features(test.groups, test.rows.assign(case="case_00003"))
    with pytest.raises(InputError, match="case_00003 is in train and in test"):
        shortcut(train, shared, resamples=100, seed=0)


def test_rows_that_are_not_those_of_the_array_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 32, 32), np.float16))
    with pytest.raises(InputError, match=r"a\.npy: not as many slices as rows"):
        read_features(tmp_path / "a.npy", rows_of(0, 1, np.random.default_rng(0)), [])


@pytest.mark.parametrize(
    ("classes", "test_cases", "figure", "reason"),
    [
        (("tumor", "background"), 4, "auroc_against_kidney", "only one class in the training part"),
        (("tumor",), 4, "auroc", "only one class in the training part"),
        (("tumor", "kidney"), 0, "auroc", "no slice in the test part"),
        (("tumor", "kidney"), 1, "auroc", "one case in the test part: no interval"),
    ],
)
def test_what_cannot_be_computed_has_its_reason(tmp_path, classes, test_cases, figure, reason):
    generator = np.random.default_rng(2)
    train, test = (
        rows_of(first, cases, generator, classes=np.array(classes)) for first, cases in ((0, 6), (50, test_cases))
    )
    parts = (slices_of(tmp_path, f"{n}", one, generator) for n, one in enumerate((train, test)))
    one = shortcut(*parts, resamples=100, seed=0)[figure]["all"]
    assert (one["low"], one["reason"]) == (None, reason)


def test_test_slices_without_tumor_or_constant_features_are_null_and_stop_nothing(tmp_path):
    generator = np.random.default_rng(3)
    train = slices_of(tmp_path, "train", rows_of(0, 8, generator), generator)
    test = slices_of(tmp_path, "test", rows_of(50, 4, generator, classes=np.array(["kidney", "background"])), generator)
    found = shortcut(train, test, resamples=100, seed=0)
    assert found["auroc"]["block"] == {
        "point": None, "low": None, "high": None, "strength": None, "reason": "the same in every training slice",
    }  # fmt: skip
    assert found["auroc"]["position"]["reason"] == "no tumor slice in the test part"


@pytest.mark.parametrize("cases", [1, 2])
def test_few_training_cases_are_fitted_without_a_search(tmp_path, cases):
    generator = np.random.default_rng(4)
    rows = rows_of(0, cases, generator)
    if cases == 2:  # one case holds the tumors, so that no fold has both classes on both sides
        rows["class"], rows["label"] = np.repeat(["tumor", "kidney"], 4), np.repeat([1, 0], 4)
    _, strength = probe(slices_of(tmp_path, "train", rows, generator), ALL)
    assert strength == 1e-2
