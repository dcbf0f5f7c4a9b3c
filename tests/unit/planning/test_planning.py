"""Plans against what the trainings really do, against the files' sizes, and against cases by hand."""

import copy
import json
import shutil
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kidney_ssl import config
from kidney_ssl.augmentations import AUGMENTATIONS
from kidney_ssl.engine.batches import case_batches, epoch_batches
from kidney_ssl.errors import InputError
from kidney_ssl.jobs.explaining import Explaining
from kidney_ssl.jobs.finetuning import Finetuning
from kidney_ssl.jobs.pretraining import Pretraining
from kidney_ssl.jobs.study import Study
from kidney_ssl.jsonfile import write_json
from kidney_ssl.methods import METHODS
from kidney_ssl.methods.base import ParameterGroup
from kidney_ssl.methods.rotation import Method as Rotation
from kidney_ssl.models.resnet import classifier
from kidney_ssl.planning import disk as disk_module
from kidney_ssl.planning import measure, missing
from kidney_ssl.planning.counts import Counts, count_slices, read_counts
from kidney_ssl.planning.disk import NETWORK_BYTES, disk, expected_volumes, refuse_full_disk, sums
from kidney_ssl.planning.measure import Rates, measure_kind, read_rates
from kidney_ssl.planning.missing import missing_jobs, planned_study
from kidney_ssl.planning.plan import plan, side_by_side
from kidney_ssl.planning.work import Work, loading, work_of
from kidney_ssl.yamlfile import read_yaml
from stages import __main__ as repro
from stages import plan as stage
from tests.unit.methods.stand_ins import NARROW

STUDIES = Path(__file__).parents[3] / "studies"


@cache
def parameters(name: str) -> dict[str, Any]:
    return read_yaml((STUDIES / f"{name}.yaml").read_text())


def study(name: str = "smoke", changes: dict | None = None) -> Study:
    """A study of the folder, with keys changed that are given with dots."""
    content = copy.deepcopy(parameters(name))
    content["compute"]["device"] = "cpu"
    for key, value in (changes or {}).items():
        *blocks, last = key.split(".")
        place = content
        for block in blocks:
            place = place[block]
        place[last] = value
    return planned_study(config.Params.model_validate(content))


def counts(train: int = 100, validation: int = 10, test: int = 30) -> Counts:
    return Counts(
        cases=20,
        slices=900,
        chosen={"train": train, "validation": validation, "test": test},
        validation_patients=4,
        training_slices=700,
        test_slices=200,
        source="by hand",
    )


def of_rates(work: Work) -> dict[str, float]:
    """Amounts by the first word of their rates."""
    found = Counter()
    for _, rate, amount in work.amounts:
        found[rate.split(" ")[0]] += amount
    return dict(found)


def rates_of(works, *, stage=1.0, gpus=0, workers=1) -> Rates:
    """A second for everything but DVC."""
    names = {rate for work in works for _, rate, _ in work.amounts} | {"load"}
    return Rates(device="a device", gpus=gpus, workers=workers, seconds=dict.fromkeys(names, 1.0) | {"stage": stage})


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
    block = {"method": method, "start": "random", "seeds": [0], "batch_size": batch, "epochs": epochs}
    one = study(changes={"pretrain.methods.rotation": block | {"min_updates": least, "options": {}}})
    raised = next(done for done in count(1) if done >= epochs and done * len(dealt) >= least)
    assert work_of(Pretraining(one, "rotation", 0), counts(train=slices)).updates == raised * len(dealt)


def test_a_pretraining_by_hand() -> None:
    block = {"method": "rotation", "start": "random", "seeds": [0], "batch_size": 32, "epochs": 10, "min_updates": 0}
    changes = {"pretrain.methods.rotation": block, "pretrain.evaluations": 4}
    one = work_of(Pretraining(study(changes=changes), "rotation", 0), counts())
    # 100 slices are four batches. An evaluation takes 10 validation slices, and probes 100 training slices twice (batch
    # norm, features) and validation again: 220, of which the last and one more are no more than a tenth of 1,000
    # slices trained on, a third each. Batch norm once more for the file.
    pixels = study().settings.slice.image_size ** 2
    evaluated = 2 * 220 + 100
    assert of_rates(one) == {"update": 40, "evaluate": evaluated, "probe": 200, "load": 110 * 2 * pixels}
    assert (one.row, one.updates) == ("pretrain rotation", 40)
    everything = study(changes=changes | {"pretrain.pool": "all"})
    assert work_of(Pretraining(everything, "rotation", 0), counts()).updates == 10 * 22


@pytest.mark.parametrize("name", ["budgets", "kits23"])
def test_evaluation_during_training_is_at_most_a_tenth_of_the_compute(name) -> None:
    """By slices: an evaluated one is a forward pass, a third of a step. The last evaluation happens in any case.

    With it the bound holds where it alone is at most a ninetieth of the training, as in all pretrainings on KiTS23.
    What follows a training, such as predictions of all slices of the test cases, is no evaluation during it.
    """
    one = study(name)
    sizes = count_slices(one.settings, fresh=False)
    train, validation, test = (sizes.chosen[part] for part in ("train", "validation", "test"))
    for key, block in one.settings.pretrain.methods.items():
        work = of_rates(work_of(Pretraining(one, key, 0), sizes))
        last, done = 2 * (validation + min(512, train)) / 3, (work["evaluate"] - min(512, train)) / 3
        trained = work["update"] * block.batch_size
        assert done - last <= trained / 10, key
        assert done <= (trained + done) / 10 or (name != "kits23" and last > trained / 90), key
    for percent, seed in one.settings.budgets:
        job = Finetuning(one, "random", percent, seed)
        work, recipe = work_of(job, sizes), one.settings.finetune
        tried = len(recipe.learning_rates) if job.chooses(sizes.validation_patients) else 1  # each with a last epoch
        last = tried * (round(validation * percent / 100) + test) / 3
        done = (work.amounts[1][2] - sizes.test_slices) / 3
        trained = work.updates * recipe.batch_size
        assert done - last <= trained / 10, percent
        assert done <= (trained + done) / 10 or last > trained / 90, percent


def slices_of(one: Study, name: str, found: Counts) -> int:
    """Slices that a pretraining trains on, from the batches of its plan."""
    job = Pretraining(one, name, 0)
    pool = found.chosen["train"] if job.block.method == "oracle" else found.training_slices
    passes = work_of(job, found).updates * job.block.batch_size / pool
    assert passes == pytest.approx(round(passes), rel=0.03)  # but for last batches that are smaller
    return round(passes) * pool


def test_one_number_of_images_gives_every_pretraining_of_kits23_the_same_slices_to_within_half_an_epoch() -> None:
    one = study("kits23", {"pretrain.common.images": 600_000})
    found = count_slices(one.settings, fresh=False)
    assert found is not None
    given = {name: slices_of(one, name, found) for name in one.settings.pretrain.methods}
    assert len({number for name, number in given.items() if name != "oracle"}) == 1
    assert all(abs(number - 600_000) <= found.training_slices / 2 for number in given.values())
    assert abs(given["oracle"] - 600_000) <= found.chosen["train"] / 2


def test_pretrainings_of_kits23_have_the_slices_of_the_thesis_and_longer_arms_those_of_the_shortest_and_longest() -> (
    None
):
    one = study("kits23")
    found = count_slices(one.settings, fresh=False)
    assert found is not None
    given = {name: slices_of(one, name, found) for name in one.settings.pretrain.methods}
    for name, epochs in {"rotation": 30, "inpaint_kidney": 50, "genesis": 300, "cpc": 30, "simclr": 100}.items():
        assert given[name] == pytest.approx(epochs * 11_980, rel=0.06), name
    for arm, slices in {"longer": min(given.values()), "longest": max(given.values())}.items():
        for start, block in (("imagenet", arm), ("random", f"{arm}_random")):
            assert one.settings.arms[block].weights == f"initial/{start}"
            extra = one.settings.arms[block].extra_updates * one.settings.finetune.batch_size
            assert extra == pytest.approx(slices, rel=0.02), block


def test_a_method_that_reads_masks_never_gets_the_pool_of_all_slices() -> None:
    block = {"method": "oracle", "start": "random", "seeds": [0], "batch_size": 50, "epochs": 1, "min_updates": 0}
    one = study(changes={"pretrain.methods.rotation": block, "pretrain.pool": "all"})
    assert work_of(Pretraining(one, "rotation", 0), counts()).updates == 2


def test_a_fine_tuning_by_hand() -> None:
    changes = {"finetune.epochs": 2, "finetune.min_updates": 9, "finetune.evaluations": 3, "finetune.batch_size": 8}
    changes |= {"finetune.learning_rates": [1e-3, 1e-4], "arms.simclr.augmentation": "basic"}
    changes |= {"arms.random.augmentation": "none", "arms.simclr.extra_updates": 5, "finetune.search_cases": 1}
    one = study(changes=changes)
    # 25 slices, the last alone, are three batches: 3 epochs for 9 updates, 2 more for 5; two rates. Three evaluations
    # of 32 slices would take more than a tenth of 75 slices trained on: one is left, and all slices of the test cases.
    found = of_rates(work_of(Finetuning(one, "simclr", 25, 0), counts()))
    assert (found["update"], found["evaluate"]) == (30, 2 * (2 + 30) + 200)
    assert "probe" not in found
    plain = of_rates(work_of(Finetuning(one, "random", 25, 0), counts()))
    # The frozen encoder: batch norm, then features of train and test.
    assert (plain["update"], plain["evaluate"], plain["probe"]) == (18, 264 + 25 + 25 + 30, 25)


def test_a_budget_with_few_validation_cases_trains_with_one_rate() -> None:
    changes = {"finetune.learning_rates": [1e-3, 1e-4, 1e-5], "finetune.search_cases": 3, "runs": {50: [0], 100: [0]}}
    one = study(changes=changes)
    # Four validation cases; 50 % holds two of them. 100 and 50 slices, epochs for as many updates at least.
    settings = one.settings.finetune
    for percent, slices, rates in ((100, 100, 3), (75, 75, 3), (50, 50, 1)):
        per_epoch = -(-slices // settings.batch_size)
        epochs = max(settings.epochs, -(-settings.min_updates // per_epoch))
        run = Finetuning(one, "random", percent, 0)
        assert work_of(run, counts()).updates == rates * epochs * per_epoch, percent


def test_an_explanation_by_hand() -> None:
    one = study(changes={"explain.slices": 12, "explain.same": 1, "explain.errors": 2, "finetune.batch_size": 10})
    work = work_of(Explaining(one, "random"), counts())
    assert of_rates(work) == {"update": pytest.approx((2 * 12 + 4 + 2) / 10)}
    assert (work.row, work.updates) == ("explain", 0)


def test_trainings_that_differ_in_seed_and_start_alone_are_measured_once() -> None:
    one = study("kits23")

    def kind(name: str, seed: int = 0) -> str:
        return next(rate for _, rate, _ in work_of(Pretraining(one, name, seed), counts()).amounts if "update" in rate)

    assert kind("rotation") == kind("rotation", 1) == kind("rotation_imagenet")
    # The tasks of the thesis and the controls, those by the modern recipe, and those of today.
    assert len({kind(name) for name in one.settings.pretrain.methods}) == 12 + 5 + 8


def test_processes_that_train_together_share_a_batch() -> None:
    together = study(changes={"compute.devices": 2, "finetune.batch_size": 15})
    work = work_of(Finetuning(together, "random", 100, 0), counts())
    assert any('"batch": 8,' in rate for _, rate, _ in work.amounts)
    assert together.numerics["processes"] == 2


def test_trainings_side_by_side_by_hand() -> None:
    assert side_by_side([5, 3, 3, 1], 2) == 6  # 5, 1 beside 3, 3
    assert side_by_side([5, 3, 3, 1], 1) == 12
    assert side_by_side([5, 3], 4) == 5


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30), st.integers(1, 8))
def test_trainings_take_at_least_the_longest_and_their_share(times: list[float], workers: int) -> None:
    took = side_by_side(times, workers)
    assert max(*times, sum(times) / workers) <= took * (1 + 1e-9)
    assert took <= sum(times) * (1 + 1e-9)


RECIPE = {"optimizer": "adam", "decay_norms": True, "clip": None}
SMALL = {"network": "resnet18", "size": 64, "batch": 4} | RECIPE


@pytest.mark.parametrize("method", METHODS)
def test_every_pretext_task_can_be_measured(method: str) -> None:
    kind = SMALL | {"method": method, "options": NARROW.get(method, {})}
    assert min(measure_kind(kind, study().settings.compute, momentum=0.1, allowed=0.1)) > 0


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_augmentation_can_be_measured(name: str) -> None:
    kind = SMALL | {"augmentation": name, "options": {}}
    assert min(measure_kind(kind, study().settings.compute, momentum=0.1, allowed=0.1)) > 0


def test_a_step_is_measured_with_the_recipes_optimizer_and_the_methods_parameters_and_teacher(monkeypatch) -> None:
    found, followed = [], []

    def note(*args):
        found.append(measure_optimizer(*args))
        return found[-1]

    class Teacher(Rotation):
        def begin(self):
            self.teacher = copy.deepcopy(self.encoder).requires_grad_(False)

        def after_step(self, update, updates):
            assert update < updates
            followed.append(update)

        def parameter_groups(self):
            return [ParameterGroup(list(self.encoder.parameters()), 0.5), ParameterGroup(list(self.head.parameters()))]

    measure_optimizer = measure.make_optimizer
    monkeypatch.setattr(measure, "make_optimizer", note)
    monkeypatch.setattr(measure.methods, "load", lambda name: Teacher)
    clipped = []
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_, **__: clipped.append(1) or torch.zeros(()))
    kind = SMALL | {"method": "rotation", "options": {}, "size": 32}
    compute = study().settings.compute
    kind |= {"optimizer": "lars", "decay_norms": False, "clip": 1.0}
    measure_kind(kind, compute, momentum=0.1, allowed=0.1)
    assert all(type(one).__name__ == "LARS" for one in found)
    # Weights and norms of the encoder, weight and bias of the head.
    assert [group["lr"] for group in found[0].param_groups] == pytest.approx([5e-7, 5e-7, 1e-6, 1e-6])
    assert len(followed) == len(clipped) > 0
    measure_kind(kind | {"optimizer": "adamw", "clip": None}, compute, momentum=0.1, allowed=0.1)
    assert type(found[-1]).__name__ == "AdamW"
    assert len(followed) > len(clipped)


def test_trainings_by_other_recipes_are_kinds_of_their_own() -> None:
    one = study(changes={"arms.simclr.recipe": "modern"})

    def kind(arm: str) -> str:
        return next(rate for _, rate, _ in work_of(Finetuning(one, arm, 100, 0), counts()).amounts if "update" in rate)

    assert '"optimizer": "adamw"' in kind("simclr")
    assert '"optimizer": "adam"' in kind("random")


@pytest.mark.parametrize(("allowed", "slices"), [(1.0, 2), (60.0, 20), (1000.0, 64)])
def test_a_batch_that_takes_long_is_measured_with_a_few_slices_and_in_proportion(monkeypatch, allowed, slices) -> None:
    # A clock by which every step takes a second.
    ticks = count()
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    kind = SMALL | {"size": 32, "batch": 64, "augmentation": "none", "options": {}}
    update, evaluate = measure_kind(kind, study().settings.compute, momentum=0.1, allowed=allowed)
    assert update == pytest.approx(64 / slices)
    assert evaluate == pytest.approx(1 / slices)


def test_rates_are_measured_of_what_is_needed_alone_and_read_again(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "_stage", lambda: 2.0)
    kind = json.dumps(SMALL | {"augmentation": "none", "options": {}, "size": 32}, sort_keys=True)
    works = [Work("fine-tune none", 1, [("fine-tune none", f"update {kind}", 1)])]
    found = measure.measure_rates(works, study().settings, workers=1, gpus=0)
    assert set(found.seconds) == {f"update {kind}", f"evaluate {kind}", "load", "stage"}
    assert "cores of" in found.device
    assert list(tmp_path.iterdir()) == []
    write_json(tmp_path / "rates.json", found.model_dump())
    assert read_rates(tmp_path / "rates.json", works) == found
    with pytest.raises(InputError, match="probe"):
        read_rates(tmp_path / "rates.json", [Work("evaluation", 0, [("evaluation", "probe", 1)])])


@pytest.mark.parametrize("content", [None, "{", '{"device": "x"}'])
def test_a_file_that_holds_no_rates_is_named(tmp_path, content) -> None:
    file = tmp_path / "other.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=r"other\.json"):
        read_rates(file, [])


def test_dvc_is_measured_by_stages_that_do_nothing(monkeypatch) -> None:
    monkeypatch.setattr(measure, "IMPORTS", "pass")
    assert 0 < measure._stage() < 60


def test_kits23_is_known_beforehand_and_a_part_of_it_is_an_estimate() -> None:
    whole = count_slices(study("kits23").settings, fresh=False)
    assert whole is not None
    assert whole.chosen["train"] + whole.chosen["validation"] == 11_980
    assert whole.chosen["test"] == 3_149
    assert whole.slices == 95_221
    assert whole.source.startswith("known")
    part = count_slices(study("kits23", {"data.cases": "0-99"}).settings, fresh=False)
    assert part is not None
    assert part.source.startswith("an estimate")
    folder = study("kits23", {"data.source": "directory", "data.root": "somewhere"})
    assert count_slices(folder.settings, fresh=False) is None


def test_the_default_phantom_is_near_its_estimate() -> None:
    # Not of params.yaml, which may hold any study.
    found = count_slices(study("budgets", {"phantom.cases": 160}).settings, fresh=False)
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
    assert found.validation_patients == 1


@pytest.mark.parametrize(
    ("pool", "thin", "arrays", "left"),
    [
        ("all", {"mm": 5}, False, 5 + 2),  # of places 0, 3, .. 27, and 0, 2, 4, 6
        ("selected", {"mm": 5}, False, 2 + 1),  # of places 3, 6, 9, and 2, 4
        ("all", {"dissimilarity": 0.1}, False, None),
        ("all", {"dissimilarity": 0.1}, True, 2 + 2),
        ("selected", {"dissimilarity": 0.1}, True, 1 + 2),
        ("all", None, True, None),
    ],
)
def test_a_thinned_pool_is_counted_as_it_will_be_read(monkeypatch, tmp_path, *, pool, thin, arrays, left) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("index", "normalized", "normalized_pool"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    cases = [("case_0", 10, 3.0, "train"), ("case_1", 4, 2.0, "train"), ("case_2", 9, 1.0, "test")]
    rows = [(case, row, mm) for case, count, mm, _ in cases for row in range(count)]
    tables = {
        "cases": pd.DataFrame([(case, split) for case, _, _, split in cases], columns=["case", "split"]),
        "slices": pd.DataFrame(rows, columns=["case", "slice", "thickness_mm"]),
    }
    chosen = [("case_0", 1), ("case_0", 2), ("case_0", 3), ("case_1", 1), ("case_1", 2), ("case_2", 0)]
    tables["selection"] = pd.DataFrame(chosen, columns=["case", "slice"]).merge(tables["cases"])
    for name, table in tables.items():
        table.to_csv(f"data/index/{name}.csv", index=False)
    one, other = np.random.default_rng(0).random((2, 4, 4)).astype(np.float16)
    np.save("data/normalized_pool/pool_images.npy", np.stack([one] * 5 + [other] * 7 + [one] * 2))
    np.save("data/normalized/train_images.npy", np.stack([one] * 4 + [other]))
    settings = study(changes={"pretrain.pool": pool, "pretrain.thin": thin}).settings
    found = count_slices(settings, fresh=True, arrays=arrays)
    assert found is not None
    assert found.thinned == left
    assert (found.training_slices, found.chosen["train"]) == (14, 5)


def test_a_thinned_pool_takes_fewer_updates_and_the_control_with_masks_as_many_as_before() -> None:
    block = {"start": "random", "seeds": [0], "batch_size": 50, "epochs": 1, "min_updates": 0}
    few = replace(counts(), thinned=200)
    for method, updates in (("rotation", 4), ("oracle", 2)):
        changes = {"pretrain.methods.rotation": block | {"method": method}, "pretrain.pool": "all"}
        one = study(changes=changes | {"pretrain.thin": {"mm": 5}})
        works = [work_of(Pretraining(one, "rotation", 0), few)]
        assert works[0].updates == updates
        text = plan(one, few, to_run=[], works=works, rates=rates_of(works), items=[], workers=1)
        assert "Pretraining: 200 slices" in text
        assert "Pretraining: " not in plan(
            study(changes=changes), few, to_run=[], works=works, rates=rates_of(works), items=[], workers=1
        )


@pytest.mark.parametrize("pool", ["selected", "all"])
def test_bytes_are_those_of_the_arrays_of_stages_that_run(monkeypatch, tmp_path, pool) -> None:
    monkeypatch.chdir(tmp_path)
    one = study(changes={"pretrain.pool": pool})
    side = one.settings.slice.image_size
    others = 200 + 700 * (pool == "all")
    sliced = [np.zeros((140 + others, side, side), np.int16), np.zeros((140, side, side), np.uint8)]
    normalized = np.zeros((140 + others, side, side), np.float16).nbytes
    assert {item.what: item.bytes for item in disk(one, counts(), {"slice", "normalize"}, [], 1)} == {
        "arrays of slices": sum(array.nbytes for array in sliced) + normalized
    }
    assert [item.bytes for item in disk(one, counts(), {"normalize"}, [], 1)] == [normalized]
    assert disk(one, counts(), {"evaluate@random", "report"}, [], 1) == []


@pytest.mark.parametrize("network", NETWORK_BYTES)
def test_bytes_of_a_network_are_known(network) -> None:
    real = sum(one.nbytes for one in classifier(network, 0).state_dict().values())
    assert NETWORK_BYTES[network] == pytest.approx(real, rel=0.01)


def test_networks_that_are_kept_take_room(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    runs = {100: [0, 1, 2]}

    def networks(keep: str) -> float:
        one = study(changes={"finetune.keep": keep, "runs": runs})
        jobs = [Finetuning(one, "random", 100, seed) for seed in runs[100]]
        found = {item.what: item.bytes for item in disk(one, counts(), {"finetune@random"}, jobs, 2)}
        assert found["checkpoints of unfinished trainings"] > 2 * 3 * NETWORK_BYTES["resnet18"]
        assert found["predictions, maps and pictures"] > 3 * 200 * 40
        return found["networks"] / NETWORK_BYTES["resnet18"]

    assert (networks("all"), networks("explained")) == (3, 1)


def test_volumes_that_are_there_take_no_room(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    one = study("kits23", {"data.cases": "0-1", "data.raw_dir": "raw"})
    found = count_slices(one.settings, fresh=False)
    both = expected_volumes(one, found)
    assert both == pytest.approx(2 * 41e9 / 489, rel=0.02)
    (tmp_path / "raw/case_00000").mkdir(parents=True)
    (tmp_path / "raw/case_00000/imaging.nii.gz").write_bytes(bytes(1000))
    assert disk(one, found, {"download"}, [], 1)[0].bytes == both - 1000
    folder = study("kits23", {"data.source": "directory", "data.root": "somewhere"})
    assert expected_volumes(folder, found) == 0


def test_a_study_that_the_disk_cannot_hold_is_refused_by_one_sum(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(disk_module.shutil, "disk_usage", lambda place: SimpleNamespace(free=5_000_000_000))
    items = [disk_module.Item("a", tmp_path / "not" / "there", 3_000_000_000), disk_module.Item("b", tmp_path, 10**9)]
    assert sums(items) == [(tmp_path, 4_000_000_000, 5_000_000_000)]
    refuse_full_disk(items)
    with pytest.raises(InputError, match=r"8\.0 GB.*5\.0 GB.*KIDNEY_INSIST=1"):
        refuse_full_disk([*items, items[1]._replace(bytes=4 * 10**9)])


def test_what_is_done_is_not_missing_unless_its_inputs_change(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    one = study()
    stages = {f"finetune@{arm}" for arm in one.settings.arms} | {"pretrain@simclr"}
    monkeypatch.setattr(missing, "is_done", lambda store, job: job.name.startswith("pretrain"))
    names = {job.name for job in missing_jobs(one, stages)}
    assert "pretrain simclr 0" not in names
    assert {"finetune random 100-0", "finetune simclr 100-0"} <= names
    assert not any(name.startswith("pretrain") for name in names)
    assert "pretrain simclr 0" in {job.name for job in missing_jobs(one, stages | {"normalize"})}
    assert missing_jobs(one, set()) == []


def planned(works, rates, *, workers=1, to_run=("report",), changes=None) -> str:
    one = study(changes=changes)
    return plan(one, counts(), to_run=to_run, works=works, rates=rates, items=[], workers=workers)


def test_a_plan_adds_up() -> None:
    amounts = [("pretrain rotation", "update k", 3600), ("evaluation", "evaluate k", 7200), ("loading", "load", 3600)]
    works = [Work("pretrain rotation", 3600, amounts)] * 2
    text = planned(works, rates_of(works, stage=3600.0), workers=2, to_run=["code"])
    rows = {line.split("  ")[0]: line.split()[-3:] for line in text.splitlines() if "  " in line}
    assert rows["pretrain rotation"] == ["2", "7,200", "2.00"]
    assert rows["evaluation"] == ["0", "0", "4.00"]
    assert rows["DVC"] == ["0", "0", "1.00"]
    assert rows["sum"] == ["2", "7,200", "9.00"]
    assert "Hours from start to end: 5.00 with 2 at a time" in text
    assert "a device" in text
    assert "GPU hours" not in text


def test_gpu_hours_are_those_that_gpus_are_busy() -> None:
    works = [Work("explain", 0, [("explain", "update k", 3600)])] * 8
    rates = rates_of(works, gpus=2, workers=4)
    assert "GPU hours: 4.0" in planned(works, rates, workers=4)
    assert "GPU hours: 8.0" in planned(works, rates, workers=4, changes={"compute.devices": 2})


def test_a_worker_loads_all_arrays_of_fine_tuning_once() -> None:
    one = study()
    side = one.settings.slice.image_size
    assert of_rates(loading(one, counts())) == {"load": np.zeros((140 + 200, side, side), np.float16).nbytes}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the smoke study and nothing else."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(STUDIES / "smoke.yaml", tmp_path / "params.yaml")
    monkeypatch.setattr(stage, "measure_rates", lambda *_, **__: pytest.fail("something is measured"))
    return tmp_path


def test_nothing_is_measured_when_nothing_is_out_of_date(folder, monkeypatch, capsys) -> None:
    monkeypatch.setattr(stage, "out_of_date", set)
    stage.main()
    assert "Nothing is out of date" in capsys.readouterr().out


def test_a_plan_for_another_machine_measures_nothing(folder, monkeypatch, capsys) -> None:
    one = study()
    to_run = {"slice", "normalize", "report"} | {f"finetune@{arm}" for arm in one.settings.arms}
    works = [work_of(job, counts()) for job in missing_jobs(one, to_run)]
    write_json(folder / "h100.json", rates_of(works, gpus=8, workers=8).model_dump() | {"device": "NVIDIA H100"})
    monkeypatch.setattr(stage, "out_of_date", lambda: to_run)
    monkeypatch.setenv("DEVICE_RATES", "h100.json")
    stage.main()
    out = capsys.readouterr().out
    assert all(part in out for part in ("NVIDIA H100", "with 8 at a time", "GPU hours"))
    stage.main("3")
    assert "with 3 at a time" in capsys.readouterr().out


def test_a_plan_for_this_machine_leaves_the_seconds_of_each_training(folder, monkeypatch) -> None:
    measured = []

    def measure(works, *_, **__):
        measured.extend(works)
        rates = rates_of(works)
        return rates.model_copy(update={"seconds": rates.seconds | {"load": 2.0}})

    one = study()
    to_run = {f"finetune@{arm}" for arm in one.settings.arms} | {"normalize", "report"}
    monkeypatch.setattr(stage, "out_of_date", lambda: to_run)
    monkeypatch.setattr(stage, "measure_rates", measure)
    stage.main("1")
    expected = [sum(amount * (1 + (rate == "load")) for _, rate, amount in work.amounts) for work in measured]
    kept = json.loads((folder / "logs/plan.json").read_bytes())
    names = [job.name for job in missing_jobs(one, to_run)]
    assert kept == pytest.approx(dict(zip(names, expected, strict=True)))


def test_repro_refuses_what_the_disk_cannot_hold_unless_one_insists(folder, monkeypatch) -> None:
    began = []
    monkeypatch.setattr(repro, "out_of_date", lambda: {"slice", "normalize", "report"})
    monkeypatch.setattr(repro, "repro", lambda _, *targets: began.append(targets))
    monkeypatch.setattr(repro, "ask", lambda *_: None)  # which asks for nothing
    monkeypatch.setattr(disk_module.shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match="KIDNEY_INSIST=1"):
        repro.main("1")
    assert began == []
    monkeypatch.setenv("KIDNEY_INSIST", "1")
    repro.main("1")
    assert began
