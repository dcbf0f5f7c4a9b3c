"""The split-half null of optimism: against plain loops, scikit-learn, and epochs of which one is truly better."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from kidney_ssl.errors import InputError
from kidney_ssl.metrics.optimism import read_epochs, split_half
from kidney_ssl.statistics.result import Estimate
from tests.unit.metrics.run_files import simulate

FIGURES = {"accuracy": accuracy_score, "f1": f1_score}


def inputs(seed, **sizes):
    tables = simulate(seed, **sizes)
    test = tables["predictions"].query("part == 'test'")
    return test["case"].to_numpy(), test["label"].to_numpy(), tables["epochs"]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("cases", [7, 8])
def test_it_is_that_of_a_plain_loop_with_scikit_learn(seed, cases):
    case, label, epochs = inputs(seed, cases=cases, epochs=5)
    found = split_half(case, label, epochs, 1, halvings=40, seed=3)
    names = np.unique(case)
    order = np.random.default_rng(3).permuted(np.tile(np.arange(cases), (40, 1)), axis=1)
    for name, figure in FIGURES.items():
        gained = []
        for one in order:
            first = np.isin(case, names[one < cases // 2])
            chosen = [figure(label[first], (p[first] >= 0.5).astype(int)) for p in epochs]
            read = [figure(label[~first], (p[~first] >= 0.5).astype(int)) for p in epochs]
            gained.append(read[int(np.argmax(chosen))] - read[1])
        assert found[name]["mean"] == pytest.approx(np.mean(gained))
        assert found[name]["low"] == pytest.approx(np.quantile(gained, 0.025))
        assert found[name]["high"] == pytest.approx(np.quantile(gained, 0.975))
        assert found[name]["halvings"] == 40


def test_choosing_among_equal_epochs_earns_something_on_the_same_cases_and_nothing_on_others():
    generator = np.random.default_rng(0)
    case, label = np.repeat(np.arange(60), 5), generator.integers(0, 2, 300)
    earned, null = [], []
    for _ in range(20):
        epochs = np.where(generator.random((30, 300)) < 0.7, label, 1 - label).astype(np.float32)
        accuracy = ((epochs >= 0.5) == label).mean(axis=1)
        earned.append(accuracy.max() - accuracy[0])
        null.append(split_half(case, label, epochs, 0, halvings=100)["accuracy"]["mean"])
    assert np.mean(earned) > 0.04
    assert abs(np.mean(null)) < 0.01


def test_a_truly_better_epoch_is_still_better_on_other_cases():
    generator = np.random.default_rng(1)
    case, label = np.repeat(np.arange(60), 5), generator.integers(0, 2, 300)
    right = np.array([0.6, 0.9, 0.6])[:, None]
    epochs = np.where(generator.random((3, 300)) < right, label, 1 - label).astype(np.float32)
    found = split_half(case, label, epochs, 0)["accuracy"]
    assert found["low"] > 0.1
    assert found["mean"] == pytest.approx(0.3, abs=0.06)


def test_one_epoch_or_equal_epochs_have_no_difference():
    case, label, epochs = inputs(0)
    for table in (epochs[:1], np.repeat(epochs[:1], 3, axis=0)):
        for figure in split_half(case, label, table, 0).values():
            assert (figure["mean"], figure["low"], figure["high"], figure["halvings"]) == (0, 0, 0, 1000)


def test_the_same_seed_gives_the_same_and_the_order_of_slices_is_free():
    case, label, epochs = inputs(2)
    found = split_half(case, label, epochs, 1)
    mixed = np.random.default_rng(0).permutation(len(case))
    again = split_half(case[mixed], label[mixed], epochs[:, mixed], 1)
    assert again == found
    assert split_half(case, label, epochs, 1, seed=1) != found


def test_halves_without_tumor_have_no_f1_and_are_left_out():
    case, label = np.array(["a", "a", "b", "b", "c", "d"]), np.array([1, 0, 1, 0, 0, 0])
    epochs = np.array([[0.9, 0.9, 0.9, 0.1, 0.1, 0.1], [0.9, 0.1, 0.9, 0.1, 0.1, 0.1]])
    found = split_half(case, label, epochs, 0)
    # a and b, the cases with tumor, are in different halves in two thirds of the halvings.
    assert found["f1"]["halvings"] == pytest.approx(667, abs=50)
    assert found["accuracy"]["halvings"] == 1000
    only = split_half(case, np.array([1, 0, 0, 0, 0, 0]), epochs, 0)["f1"]
    assert only["mean"].value is None
    assert only["halvings"] == 0


@pytest.mark.parametrize(("count", "words"), [(1, "a single case"), (0, "no case")])
def test_fewer_than_two_cases_cannot_be_halved(count, words):
    found = split_half(np.array(["a"] * 3 * count), np.array([1, 0, 0] * count), np.zeros((2, 3 * count)), 0)
    for figure in found.values():
        assert figure["mean"] == Estimate(reason=f"{words} in the test part cannot be halved")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda epochs: epochs[:, 1:], "is not"),
        (lambda epochs: epochs[:1], "is not"),
        (lambda epochs: epochs[::-1], "epoch 3 has other probabilities than the predictions"),
        (lambda epochs: epochs[0], "is not"),
    ],
)
def test_epochs_of_another_run_are_refused(tmp_path, change, words):
    tables = simulate(0)
    probability = tables["epochs"][1].astype(float)
    np.save(tmp_path / "epochs.npy", tables["epochs"])
    assert read_epochs(tmp_path / "epochs.npy", probability, [1, 3, 5, 7], 1).shape == tables["epochs"].shape
    np.save(tmp_path / "epochs.npy", change(tables["epochs"]))
    with pytest.raises(InputError, match=words):
        read_epochs(tmp_path / "epochs.npy", probability, [1, 3, 5, 7], 1)


@pytest.mark.parametrize("content", [None, b"", b"\x93NUMPY\x01\x00"])
def test_a_missing_or_damaged_file_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "epochs.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"epochs.npy: cannot be read .*run the finetune stage again"):
        read_epochs(tmp_path / "epochs.npy", np.zeros(3), [1], 0)
