"""Plans against what the trainings really do, against the files' sizes, and against cases by hand."""

import json
from itertools import count

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import settings as rules
from hypothesis import strategies as st

from kidney_ssl.augmentation import AUGMENTATIONS
from kidney_ssl.planning import steps
from kidney_ssl.planning.counts import Counts, expect_counts, read_counts
from kidney_ssl.planning.disk import disk, expected_volumes
from kidney_ssl.planning.tables import duration, size, table
from kidney_ssl.planning.trainings import finetuning, pretraining
from kidney_ssl.planning.work import Step, Work, seconds, side_by_side
from kidney_ssl.pretext import METHODS
from kidney_ssl.training.batches import case_batches, epoch_batches

COMPUTE = {"device": "cpu", "precision": "32", "threads": 1}
BLOCK = {"batch_size": 4, "learning_rate": 1e-4, "weight_decay": 1e-5, "options": {}, "epochs": 1, "min_updates": 0}


def counts(train: int = 100, validation: int = 10, test: int = 30) -> Counts:
    return Counts(
        cases=20,
        slices=900,
        chosen={"train": train, "validation": validation, "test": test},
        training_slices=700,
        test_slices=200,
        source="by hand",
    )


def epochs_by_hand(batches: int, epochs: int, least: int) -> int:
    """Epoch after epoch until both are reached."""
    return next(done for done in count(1) if done >= epochs and done * batches >= least)


@rules(deadline=None)
@given(
    slices=st.integers(2, 300),
    batch=st.integers(2, 40),
    epochs=st.integers(1, 4),
    least=st.integers(0, 200),
    method=st.sampled_from(["rotation", "simclr"]),
)
def test_updates_are_the_batches_that_trainings_deal(slices, batch, epochs, least, method) -> None:
    generator = torch.Generator().manual_seed(0)
    cases = np.array([f"case_{number % 7}" for number in range(slices)])
    dealt = case_batches(cases, batch, generator) if method == "simclr" else epoch_batches(slices, batch, generator)
    block = BLOCK | {"method": method, "batch_size": batch, "epochs": epochs, "min_updates": least}
    work = pretraining("x-0", block, counts(train=slices), pool="selected", probe_every=1).work
    assert work.epochs == epochs_by_hand(len(dealt), epochs, least)
    assert work.updates == work.epochs * len(dealt)


def test_a_pretraining_by_hand() -> None:
    block = BLOCK | {"method": "rotation", "batch_size": 32, "epochs": 10}
    one = pretraining("rotation-3", block, counts(), pool="selected", probe_every=4)
    # 100 slices are four batches; probes after epochs 4, 8 and 10, each on 100 training slices twice (batch norm,
    # features) and on validation; batch norm once more for the file.
    assert one.work == Work(slices=100, epochs=10, updates=40, evaluated=100, encoded=3 * 210 + 100, probes=3)
    assert one.stage == "pretrain@rotation-3"
    assert pretraining("x-0", block, counts(), pool="all", probe_every=4).work.updates == 10 * 22


def test_a_fine_tuning_by_hand() -> None:
    settings = {"epochs": 2, "min_updates": 9, "evaluations": 3, "batch_size": 8, "learning_rates": [1e-3, 1e-4]}
    arm = {"augmentation": "basic", "options": {}, "extra_updates": 5}
    one = finetuning("finetune@basic-25-0", arm, settings, counts(), percent=25)
    # 25 slices, the last alone, are three batches: 3 epochs for 9 updates, 2 more for 5, 3 evaluated; two rates.
    assert one.work == Work(slices=25, epochs=5, updates=30, evaluated=6 * (2 + 30) + 200, encoded=80, probes=1)
    assert one.title == "fine-tune at 25 %, augmentation basic, 5 further updates"


def test_trainings_that_differ_in_seed_and_start_alone_are_measured_once() -> None:
    blocks = [
        BLOCK | {"method": "cpc", "seed": seed, "start": start} for seed, start in ((0, "random"), (1, "imagenet"))
    ]
    made = {pretraining("x-0", block, counts(), pool="selected", probe_every=1).measured for block in blocks}
    assert len(made) == 1
    other = pretraining("x-0", blocks[0] | {"options": {"grid": 5}}, counts(), pool="selected", probe_every=1)
    assert other.measured not in made


def test_seconds_add_up() -> None:
    step = Step(update=2.0, evaluated=0.5, encoded=0.25, probe=3.0, measured=4, batch=4)
    assert seconds(Work(100, 2, 10, 20, 40, 2), step) == 20 + 10 + 10 + 6


def test_chains_side_by_side_by_hand() -> None:
    assert side_by_side([5, 3, 3, 1], 2) == 6  # 5, 1 beside 3, 3
    assert side_by_side([5, 3, 3, 1], 1) == 12
    assert side_by_side([5, 3], 4) == 5


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30), st.integers(1, 8))
def test_chains_take_at_least_the_longest_and_their_share(chains: list[float], workers: int) -> None:
    took = side_by_side(chains, workers)
    assert max(*chains, sum(chains) / workers) <= took * (1 + 1e-9)
    assert took <= sum(chains) * (1 + 1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_every_pretext_task_can_be_measured(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "STEPS", 1)
    options = {"grid": 5} if method == "cpc" else {}
    block = BLOCK | {"method": method, "options": options}
    found = steps.measure_pretraining(block, network="resnet18", size=64, momentum=0.1, compute=COMPUTE)
    assert min(found.update, found.evaluated, found.encoded, found.probe) > 0
    assert (found.measured, found.batch) == (4, 4)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_augmentation_can_be_measured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "STEPS", 1)
    described = {"augmentation": name, "options": {}}
    found = steps.measure_finetuning(
        described, batch_size=4, weight_decay=0.0, network="resnet18", size=64, compute=COMPUTE
    )
    assert min(found.update, found.evaluated, found.encoded, found.probe) > 0


def test_a_batch_that_takes_long_is_measured_with_a_few_slices_and_in_proportion(monkeypatch) -> None:
    # A clock by which every step takes a second, so four slices of 64 say 16 seconds.
    ticks = count()
    monkeypatch.setattr(steps, "_now", lambda fabric: float(next(ticks)))
    described = {"augmentation": "none", "options": {}}
    found = steps.measure_finetuning(
        described, batch_size=64, weight_decay=0.0, network="resnet18", size=32, compute=COMPUTE
    )
    # A quarter of a second a slice: 20 slices take the 5 seconds of the limit. They took one.
    assert (found.measured, found.batch) == (20, 64)
    assert found.update == pytest.approx(64 / 20)
    assert found.evaluated == pytest.approx(1 / 20)


def test_kits23_is_known_beforehand_and_a_part_of_it_is_an_estimate() -> None:
    known = {"min_tumor_px": 1000, "factor": 1.0, "folds": 5, "validation": 0.1}
    whole = expect_counts("kits23", cases=489, **known)
    assert whole is not None
    assert whole.chosen["train"] + whole.chosen["validation"] == 11_980
    assert whole.chosen["test"] == 3_149
    assert whole.slices == 95_221
    assert whole.source.startswith("known")
    part = expect_counts("kits23", cases=100, **known)
    assert part is not None
    assert part.source.startswith("an estimate")
    assert expect_counts("directory", cases=0, **known) is None


def test_the_default_phantom_is_near_its_estimate() -> None:
    found = expect_counts("phantom", cases=160, min_tumor_px=35, factor=1.0, folds=5, validation=0.1)
    assert found is not None
    assert sum(found.chosen.values()) == pytest.approx(1486, rel=0.01)  # metrics/selection.json
    assert found.slices == pytest.approx(3797, rel=0.01)


def test_slices_are_counted_in_the_index(tmp_path) -> None:
    pd.DataFrame({"case": ["case_0", "case_1", "case_2"], "split": ["train", "validation", "test"]}).to_csv(
        tmp_path / "cases.csv", index=False
    )
    every = [("case_0", 5), ("case_1", 3), ("case_2", 4)]
    pd.DataFrame([{"case": case, "slice": row} for case, number in every for row in range(number)]).to_csv(
        tmp_path / "slices.csv", index=False
    )
    chosen = [("case_0", 0, "train"), ("case_0", 1, "train"), ("case_1", 0, "validation"), ("case_2", 3, "test")]
    pd.DataFrame(chosen, columns=["case", "slice", "split"]).to_csv(tmp_path / "selection.csv", index=False)
    found = read_counts(tmp_path)
    assert found.chosen == {"train": 2, "validation": 1, "test": 1}
    assert (found.cases, found.slices, found.training_slices, found.test_slices) == (3, 12, 5, 4)


def test_bytes_are_those_of_the_arrays(tmp_path) -> None:
    found = disk(counts(), size=16, pool_all=True, encoders=3, classifiers=2, encoder_bytes=1000)
    arrays = {
        "chosen slices and masks": [np.zeros((140, 16, 16), np.int16), np.zeros((140, 16, 16), np.uint8)],
        "chosen slices, normalised": [np.zeros((140, 16, 16), np.float16)],
        "all slices of the test cases": [np.zeros((200, 16, 16), np.int16)],
        "pretraining pool": [np.zeros((700, 16, 16), np.int16)],
    }
    assert {name: found[name] for name in arrays} == {
        name: sum(one.nbytes for one in several) for name, several in arrays.items()
    }
    assert found["encoders: initial, pretrained, of arms"] + found["fine-tuned networks"] == 5000
    assert disk(counts(), size=16, pool_all=False, encoders=3, classifiers=2, encoder_bytes=1)["pretraining pool"] == 0


def test_volumes_of_kits23_are_41_gb() -> None:
    known = expect_counts("kits23", cases=2, min_tumor_px=1000, factor=1.0, folds=5, validation=0.1)
    assert known is not None
    both = expected_volumes("kits23", ["case_00000", "case_00001"], known, 72)
    assert both == pytest.approx(2 * 41e9 / 489, rel=0.02)
    assert expected_volumes("directory", [], known, 72) == 0


def test_a_table_is_as_wide_as_its_cells_and_numbers_have_units() -> None:
    assert table(["what", "n"], [["a", "1,000"], ["longer", "2"]]).splitlines() == [
        "what        n",
        "------  -----",
        "a       1,000",
        "longer      2",
    ]
    assert [duration(number) for number in (1.25, 50, 300, 36_000)] == ["1.2 s", "50 s", "5 min", "10.0 h"]
    assert [size(number) for number in (2_500_000, 41_000_000_000)] == ["2.5 MB", "41.0 GB"]


def test_what_is_measured_is_plain_json() -> None:
    one = pretraining("x-0", BLOCK | {"method": "cpc"}, counts(), pool="selected", probe_every=1)
    assert json.loads(one.measured)["method"] == "cpc"
