"""Fine-tuning: the same bytes twice and after a kill, selection, grid, and what is refused."""

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from kidney_ssl.engine.batches import Part, Slices
from kidney_ssl.engine.checkpoint import Checkpoint
from kidney_ssl.engine.loop import TrainingContext
from kidney_ssl.errors import InputError
from kidney_ssl.finetune import Recipe, finetune
from kidney_ssl.models.resnet import classifier
from kidney_ssl.models.weights import load_classifier, load_encoder, read_safetensors
from tests.random_state import global_random_state
from tests.unit.engine.toy_study import toy_part

CPU = torch.device("cpu")
FILES = ("model.safetensors", "curves.csv", "predictions.csv", "epochs.npy")


RECIPE = Recipe(
    network="resnet18",
    epochs=2,
    batch_size=12,
    learning_rates=[1e-3],
    weight_decay=1e-5,
    min_updates=0,
    evaluations=10,
    batch_norm_momentum=0.5,
)
SECONDS = 30.0


def toy_parts():
    """So many training slices, beside those of evaluation, that a run may be evaluated after each epoch."""
    return {"train": toy_part(24, 0), "validation": toy_part(4, 100), "test": toy_part(3, 200)}


@pytest.fixture
def parts():
    return toy_parts()


def run(parts, start, out, fabric, *, rows=MappingProxyType({}), resident="auto", seconds=SECONDS, **changes):
    data = {name: Slices(replace(part, masks=None), device=CPU, resident=resident) for name, part in parts.items()}
    data |= {name: data[name].subset(kept) for name, kept in rows.items()}
    context = TrainingContext(fabric, "toy-100-0", 0, out.parent / "checkpoints" / f"{out.name}.pt", seconds)
    result = finetune(data, start, out, recipe=replace(RECIPE, **changes), context=context)
    for path in context.checkpoint.parent.glob("*.pt"):
        path.unlink()
    return result


def contents(folder):
    return [(folder / name).read_bytes() for name in FILES]


def test_two_runs_give_the_same_bytes_and_touch_no_global_random_state(parts, start, tmp_path, fabric):
    before = global_random_state()
    run(parts, start, tmp_path / "a", fabric)
    run(parts, start, tmp_path / "b", fabric, resident="never")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert global_random_state() == before


def test_the_written_model_gives_the_written_predictions(parts, start, tmp_path, fabric):
    run(parts, start, tmp_path / "a", fabric)
    table = pd.read_csv(tmp_path / "a" / "predictions.csv")
    assert list(table.columns) == ["part", "case", "slice", "class", "label", "probability"]
    model = classifier("resnet18", 99)
    load_classifier(model, tmp_path / "a" / "model.safetensors")
    with torch.no_grad():
        for name in ("validation", "test"):
            rows = table[table["part"] == name]
            assert rows["case"].tolist() == parts[name].frame["case"].tolist()
            logits = model.eval()(torch.from_numpy(parts[name].images).float()[:, None])[:, 0]
            assert np.allclose(rows["probability"], torch.sigmoid(logits), atol=1e-4)
    curves = pd.read_csv(tmp_path / "a" / "curves.csv")
    expected = "learning_rate epoch train_loss train_learning_rate validation_loss validation_auroc validation_accuracy"
    assert list(curves.columns) == [*expected.split(), "test_accuracy", "test_f1", "selected"]
    chosen = curves[curves["selected"] == 1].iloc[0]
    rows = table[table["part"] == "validation"]
    assert chosen["validation_auroc"] == roc_auc_score(rows["label"], rows["probability"])
    assert chosen["validation_auroc"] == curves["validation_auroc"].max()
    assert chosen["epoch"] == curves.loc[curves["validation_auroc"].idxmax(), "epoch"]  # the earliest of equals


def test_training_starts_from_the_encoder_and_the_seeds_head(parts, start, tmp_path, fabric):
    run(parts, start, tmp_path / "a", fabric, epochs=1, learning_rates=[1e-30], weight_decay=0)
    found = read_safetensors(tmp_path / "a" / "model.safetensors")
    expected = classifier("resnet18", 0)
    load_encoder(expected, start)
    for name, value in expected.named_parameters():
        assert torch.allclose(found[name], value, rtol=0, atol=1e-25), name


def test_a_separable_toy_is_learned(start, tmp_path, fabric):
    parts = {"train": toy_part(24, 0), "validation": toy_part(4, 100), "test": toy_part(3, 200)}
    result = run(parts, start, tmp_path / "a", fabric, epochs=8, batch_size=8)
    losses = result.curves["train_loss"]
    assert losses.iloc[-1] < losses.iloc[0] / 2
    assert result.curves.loc[result.curves["selected"] == 1, "validation_auroc"].item() == 1


def test_epochs_are_raised_to_the_least_number_of_updates(parts, start, tmp_path, fabric):
    result = run(parts, start, tmp_path / "a", fabric, epochs=1, min_updates=5)  # 2 batches an epoch
    assert result.epochs == len(result.curves) == 3
    assert (result.images, result.updates) == (3 * 24, 6)


def test_more_epochs_at_a_small_budget_give_no_more_choices(parts, start, tmp_path, fabric):
    every = run(parts, start, tmp_path / "a", fabric, epochs=5, extra_updates=4)  # 2 batches an epoch
    few = run(parts, start, tmp_path / "b", fabric, epochs=5, extra_updates=4, evaluations=3)
    assert every.epochs == few.epochs == 7
    assert every.curves["epoch"].tolist() == [2, 3, 4, 5, 6, 7]  # a tenth of five epochs affords six evaluations
    assert few.curves["epoch"].tolist() == [3, 5, 7]
    assert np.load(tmp_path / "b/epochs.npy").shape[0] == 3
    # Evaluating changes nothing of the training.
    shared = ["epoch", "train_loss", "validation_auroc", "test_accuracy"]
    assert few.curves[shared].equals(every.curves.iloc[[1, 3, 5]][shared].reset_index(drop=True))


def test_the_control_that_trains_longer_has_no_more_choices(parts, start, tmp_path, fabric):
    parts["test"] = toy_part(40, 200)
    plain = run(parts, start, tmp_path / "a", fabric, epochs=4)
    longer = run(parts, start, tmp_path / "b", fabric, epochs=4, extra_updates=8)
    assert longer.epochs == 2 * plain.epochs
    assert len(plain.curves) == len(longer.curves) == 1  # 44 slices evaluated are worth 15, a tenth of 96 are 10


def test_each_rate_has_the_same_epochs_and_the_best_on_validation_wins(parts, start, tmp_path, fabric):
    result = run(parts, start, tmp_path / "a", fabric, learning_rates=[1e-30, 1e-3])
    curves = result.curves
    assert curves.groupby("learning_rate").size().tolist() == [2, 2]
    assert curves["selected"].sum() == 1
    best = curves.loc[curves["validation_auroc"].idxmax()]  # the first of equals, in the order of the grid
    assert (result.learning_rate, result.epoch) == (best["learning_rate"], best["epoch"])
    alone = run(parts, start, tmp_path / "b", fabric, learning_rates=[result.learning_rate])
    assert alone.predictions.equals(result.predictions)


def test_each_rate_is_the_highest_of_its_schedule(parts, start, tmp_path, fabric):
    changes = {"learning_rates": [1e-3, 1e-4], "epochs": 3, "schedule": "cosine", "warmup": 0.34}
    curves = run(parts, start, tmp_path / "a", fabric, **changes).curves
    shares = [2 / 3, (1 + math.cos(math.pi / 4)) / 2, (1 + math.cos(math.pi * 3 / 4)) / 2]  # updates 1, 3 and 5 of 6
    for rate, of_rate in curves.groupby("learning_rate"):
        assert of_rate["train_learning_rate"].tolist() == pytest.approx([rate * share for share in shares])


def test_the_last_epoch_is_kept_if_it_is_asked_for(parts, start, tmp_path, fabric):
    result = run(parts, start, tmp_path / "a", fabric, epochs=3, select="last", learning_rates=[1e-3, 1e-4])
    selected = result.curves[result.curves["selected"] == 1]
    assert selected["epoch"].tolist() == [result.epoch] == [3]
    last = result.curves[result.curves["epoch"] == 3]
    assert result.learning_rate == last.loc[last["validation_auroc"].idxmax(), "learning_rate"]


def test_rows_limit_what_is_trained_and_selected_on(parts, start, tmp_path, fabric):
    rows = {"train": np.array([0, 1, 2, 3]), "validation": np.array([1, 2, 3])}
    fewer = dict(parts)
    for name, kept in rows.items():
        fewer[name] = Part(parts[name].images[kept], parts[name].frame.iloc[kept])
    run(parts, start, tmp_path / "a", fabric, rows=rows)
    run(fewer, start, tmp_path / "b", fabric)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_budget_without_validation_slices_is_refused(parts, start, tmp_path, fabric):
    with pytest.raises(InputError, match="no validation slices: give more cases or a larger budget"):
        run(parts, start, tmp_path / "a", fabric, rows={"validation": np.array([], dtype=np.int64)})


def test_every_epochs_test_probabilities_are_kept(parts, start, tmp_path, fabric):
    run(parts, start, tmp_path / "a", fabric, epochs=3, learning_rates=[1e-5, 1e-3])
    curves = pd.read_csv(tmp_path / "a" / "curves.csv")
    won = curves.loc[curves["selected"] == 1, "learning_rate"].iloc[0]
    curves = curves[curves["learning_rate"] == won].reset_index(drop=True)
    probabilities = np.load(tmp_path / "a" / "epochs.npy")
    assert probabilities.shape == (3, 3)
    assert probabilities.dtype == np.float32
    labels = parts["test"].frame["label"].to_numpy()
    assert ((probabilities >= 0.5) == labels).mean(axis=1).tolist() == curves["test_accuracy"].tolist()
    predictions = pd.read_csv(tmp_path / "a" / "predictions.csv").query("part == 'test'")["probability"]
    assert np.allclose(probabilities[curves["selected"].argmax()], predictions)


def test_the_natural_test_set_is_predicted_by_the_selected_epoch(parts, start, tmp_path, fabric):
    natural = Part(parts["test"].images[::-1], parts["test"].frame.iloc[::-1].drop(columns="label"))
    run(parts | {"natural": natural}, start, tmp_path / "a", fabric)
    run(parts, start, tmp_path / "b", fabric)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    table = pd.read_csv(tmp_path / "a" / "natural.csv")
    assert list(table.columns) == ["case", "slice", "class", "probability"]
    tested = pd.read_csv(tmp_path / "a" / "predictions.csv").query("part == 'test'")
    assert table["slice"].tolist() == tested["slice"].tolist()[::-1]
    # Other batches, so sums are rounded otherwise.
    assert np.allclose(table["probability"], tested["probability"][::-1], atol=1e-5)


def test_a_natural_test_set_of_training_cases_is_refused(parts, start, tmp_path, fabric):
    with pytest.raises(InputError, match="case_00000 is in train and in natural"):
        run(parts | {"natural": parts["train"]}, start, tmp_path / "a", fabric)


def test_extra_updates_make_the_training_longer_and_nothing_else(parts, start, tmp_path, fabric):
    plain = run(parts, start, tmp_path / "a", fabric, epochs=2)
    longer = run(parts, start, tmp_path / "b", fabric, epochs=2, extra_updates=1, evaluations=3)  # 2 batches an epoch
    assert (plain.epochs, longer.epochs) == (2, 3)
    assert longer.updates == 6
    pd.testing.assert_frame_equal(longer.curves.head(2).drop(columns="selected"), plain.curves.drop(columns="selected"))


def test_one_class_in_validation_selects_by_loss_with_a_warning(parts, start, tmp_path, fabric):
    parts["validation"] = toy_part(4, 100, labels=0)
    with pytest.warns(UserWarning, match="one class"):
        result = run(parts, start, tmp_path / "a", fabric)
    assert result.curves["validation_auroc"].isna().all()
    assert result.epoch == result.curves["validation_loss"].idxmin() + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test": toy_part(4, 0)}, "case_00000 is in train and in test"),
        ({"validation": toy_part(0, 100)}, "no validation slices"),
        ({"train": toy_part(6, 0, labels=0)}, "of one class"),
    ],
)
def test_parts_that_cannot_be_trained_on_are_refused(parts, tmp_path, fabric, change, message):
    with pytest.raises(InputError, match=message):
        run(parts | change, tmp_path / "not read", tmp_path / "a", fabric)
    assert not (tmp_path / "a").exists()


def test_a_rate_that_blows_up_ends_with_one_line(parts, start, tmp_path, fabric):
    with pytest.raises(InputError, match=r"^toy-100-0: .* not finite|^toy-100-0: loss is") as caught:
        run(parts, start, tmp_path / "a", fabric, learning_rates=[1e30], epochs=3)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a").exists()


RATES = {"learning_rates": [1e-3, 1e-4], "epochs": 1}


@pytest.mark.parametrize("recipe", [{}, {"optimizer": "adamw", "schedule": "cosine", "warmup": 0.9, "select": "last"}])
def test_a_failure_in_the_second_rate_goes_on_there(start, tmp_path, fabric, monkeypatch, recipe):
    parts, rates = toy_parts(), RATES | recipe
    whole = run(parts, start, tmp_path / "whole" / "a", fabric, **rates)
    save, files = Checkpoint.save, []

    def interrupted(self, state):
        save(self, state)
        files.append(self.path)
        if len(set(files)) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(parts, start, tmp_path / "cut" / "a", fabric, seconds=0, **rates)
    monkeypatch.undo()
    assert sorted(path.name for path in (tmp_path / "cut" / "checkpoints").iterdir()) == ["a.0.pt", "a.1.pt"]
    resumed = run(parts, start, tmp_path / "cut" / "a", fabric, **rates)
    assert (whole.images, resumed.images) == (48, 12)  # the last batch of the second rate
    assert contents(tmp_path / "cut" / "a") == contents(tmp_path / "whole" / "a")


CHILD = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from test_finetune import run, toy_parts
from tests.shallow_networks import shallow
from kidney_ssl.engine.device import make_fabric
with shallow():
    run(toy_parts(), Path({start!r}), Path({out!r}), make_fabric("cpu", "32", 1), epochs=4, seconds=0)
"""


def test_a_killed_process_is_continued_to_the_same_bytes(parts, start, tmp_path, fabric):
    out = tmp_path / "killed" / "a"
    script = CHILD.format(tests=str(Path(__file__).parent), start=str(start), out=str(out))
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE) as child:
        deadline = time.monotonic() + 120
        while not list((out.parent / "checkpoints").glob("*.pt")) and child.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert not out.exists()
    run(parts, start, out, fabric, epochs=4)
    run(parts, start, tmp_path / "whole" / "a", fabric, epochs=4)
    assert contents(out) == contents(tmp_path / "whole" / "a")
