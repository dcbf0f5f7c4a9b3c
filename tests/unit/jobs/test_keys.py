"""Keys of a study's jobs: all that changes their bytes changes them, and nothing else does."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kidney_ssl import config
from kidney_ssl.data.arrays import ArrayWriter
from kidney_ssl.errors import InputError
from kidney_ssl.jobs.all import study_jobs
from kidney_ssl.jobs.explaining import Explaining
from kidney_ssl.jobs.finetuning import MODEL, Finetuning
from kidney_ssl.jobs.pretraining import ENCODER, Pretraining
from kidney_ssl.jobs.study import Study
from kidney_ssl.jobs.sweep import sweep
from kidney_ssl.yamlfile import dump_yaml, read_yaml

ROOT = Path(__file__).parents[3]
JOBS = {
    "pretrain": lambda study: Pretraining(study, "simclr", 0),
    "finetune": lambda study: Finetuning(study, "simclr", 100, 0),
    "explain": lambda study: Explaining(study, "simclr"),
}
# A value of the smoke study, another one, and the jobs that it changes.
PARAMETERS = [
    ("network", "resnet34", {"pretrain", "finetune", "explain"}),
    ("pretrain.pool", "all", {"pretrain"}),
    ("pretrain.thin", {"mm": 5}, {"pretrain"}),
    ("pretrain.thin", {"dissimilarity": 0.05}, {"pretrain"}),
    ("pretrain.evaluations", 7, {"pretrain"}),
    ("pretrain.common.epochs", 7, {"pretrain"}),
    ("pretrain.common.images", 7, {"pretrain"}),
    ("pretrain.common.weight_decay", 0.5, {"pretrain"}),
    ("pretrain.methods.simclr.batch_size", 7, {"pretrain"}),
    ("pretrain.methods.simclr.options", {"temperature": 0.3}, {"pretrain"}),
    ("pretrain.methods.rotation.batch_size", 7, set()),
    ("recipes.thesis.optimizer", "adamw", {"pretrain", "finetune"}),
    ("recipes.thesis.weight_decay", 0.5, {"pretrain", "finetune"}),
    ("recipes.thesis.decay_norms", False, {"pretrain", "finetune"}),
    ("recipes.thesis.schedule", "cosine", {"pretrain", "finetune"}),
    ("recipes.thesis.warmup", 0.5, {"pretrain", "finetune"}),
    ("recipes.thesis.plateau", {"factor": 0.5, "patience": 5}, {"pretrain", "finetune"}),
    ("recipes.thesis.clip", 0.5, {"pretrain", "finetune"}),
    ("recipes.modern.clip", 0.5, set()),
    ("pretrain.common.recipe", "modern", {"pretrain"}),
    ("pretrain.common.schedule", "cosine", {"pretrain"}),
    ("pretrain.methods.simclr.recipe", "modern", {"pretrain"}),
    ("pretrain.methods.simclr.clip", 0.5, {"pretrain"}),
    ("finetune.recipe", "modern", {"finetune"}),
    ("finetune.recipe", "thesis", set()),
    ("finetune.warmup", 0.5, {"finetune"}),
    ("finetune.select", "last", {"finetune"}),
    ("recipes.thesis.select", "last", {"finetune"}),
    ("finetune.search_cases", 1, set()),  # of small budgets alone, see below
    ("arms.simclr.recipe", "modern", {"finetune"}),
    ("arms.simclr.recipe", "thesis", set()),  # as all arms have it: what counts is what it says, not that it is named
    ("arms.random.recipe", "modern", set()),
    ("arms.simclr.augmentation", "basic", {"finetune", "explain"}),
    ("arms.simclr.options", {"square": 0.3}, {"finetune", "explain"}),
    ("arms.simclr.extra_updates", 7, {"finetune"}),
    ("arms.random.extra_updates", 7, set()),
    ("finetune.epochs", 7, {"finetune"}),
    ("finetune.min_updates", 77, {"finetune"}),
    ("finetune.evaluations", 3, {"finetune"}),
    ("finetune.batch_size", 7, {"finetune", "explain"}),
    ("finetune.learning_rates", [0.1, 0.2], {"finetune"}),
    ("finetune.weight_decay", 0.5, {"finetune"}),
    ("finetune.batch_norm_momentum", 0.5, {"pretrain", "finetune"}),
    ("explain.layer", "layer3", {"explain"}),
    ("explain.slices", 7, {"explain"}),
    ("compute.threads", 2, {"pretrain", "finetune", "explain"}),
    ("compute.precision", "bf16", {"pretrain", "finetune", "explain"}),
    # How a machine is used, what is kept and what is compared change no bytes.
    ("compute.workers", 7, set()),
    ("compute.resident", "never", set()),
    ("compute.checkpoint_minutes", 7.0, set()),
    ("compute.store_gb", 7.0, set()),
    ("finetune.keep", "all", set()),
    ("analysis.margin", 0.07, set()),
    ("runs", {50: [0, 1], 100: [0]}, set()),
    # One more replicate is nothing to the others, which the jobs here start from.
    ("initialize.random.seeds", [0, 1], set()),
    ("pretrain.common.seeds", [0, 5], set()),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """All files that the jobs of the smoke study read, with made-up content."""
    monkeypatch.chdir(tmp_path)
    fill()
    return tmp_path


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """The keys in such a folder before anything is changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("fresh"))
        fill()
        return keys()


def fill():
    content = read_yaml((ROOT / "studies" / "smoke.yaml").read_text())
    content["compute"]["device"] = "cpu"
    Path("params.yaml").write_text(dump_yaml(content))
    study = Study(config.load())
    for number, path in enumerate(sorted({path for job in JOBS.values() for path in job(study).files.values()})):
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, number)
    write(Path("models/pretrain/simclr/0.safetensors"), 77)


def write(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        writer = ArrayWriter(path, (1, 2, 2), np.int16)
        writer.append(np.full((1, 2, 2), number, np.int16))
        writer.close()
    elif path.name == "cases.csv":
        path.write_text(f"case,split\ncase_{number},validation\n")
    else:
        path.write_text(str(number))


def keys():
    study = Study(config.load())
    return {name: job(study).key() for name, job in JOBS.items()}


def change(key, value):
    content = read_yaml(Path("params.yaml").read_text())
    place = content
    *blocks, last = re.split(r"\.", key)
    for block in blocks:
        place = place[block]
    place[last] = value
    Path("params.yaml").write_text(dump_yaml(content))


def test_keys_are_the_same_in_another_folder_and_all_differ(folder, fresh):
    first = keys()
    assert keys() == first == fresh
    assert len(set(first.values())) == len(JOBS)


@pytest.mark.parametrize(("key", "value", "changed"), PARAMETERS, ids=[f"{row[0]}={row[1]}" for row in PARAMETERS])
def test_a_parameter_changes_the_keys_of_what_it_decides_and_no_other(folder, fresh, key, value, changed):
    change(key, value)
    after = keys()
    assert {name for name in JOBS if fresh[name] != after[name]} == changed


def test_every_file_that_a_job_reads_changes_its_key(folder):
    for name, job in JOBS.items():
        study = Study(config.load())
        for path in job(study).files.values():
            before, kept = keys()[name], path.read_bytes()
            write(path, 1234)
            assert keys()[name] != before, path
            path.write_bytes(kept)
            if path.suffix == ".npy":  # its checksum beside it
                path.with_name(f"{path.name}.sha256").unlink()
            assert keys()[name] == before, path


@pytest.mark.parametrize("module", ["engine/loop.py", "engine/batches.py", "models/resnet.py", "metrics/probes.py"])
def test_an_operator_changed_in_a_module_that_trains_changes_keys_and_a_comment_does_not(folder, monkeypatch, module):
    from kidney_ssl import code_version

    source = Path(code_version.SOURCES["kidney_ssl"])
    before = keys()
    real = Path.read_bytes

    def with_edit(edit):
        def read(path):
            content = real(path)
            return edit(content) if path == source / module else content

        monkeypatch.setattr(Path, "read_bytes", read)

    with_edit(lambda content: content + b"\n# A comment.\n")
    assert keys() == before
    with_edit(lambda content: content + b"\nCHANGED = 1 + 1\n")
    after = keys()
    changed = {name for name in JOBS if before[name] != after[name]}
    assert changed >= {"finetune"}


def test_code_that_only_keeps_and_shares_out_work_changes_no_key(folder):
    from kidney_ssl.code_version import code_version

    for module in ("pretrain_files", "finetune_files", "explain_files"):
        found = set(code_version(f"kidney_ssl.jobs.{module}"))
        assert not found & {"kidney_ssl.config", "kidney_ssl.engine.store", "kidney_ssl.engine.claims"}


def test_a_seed_of_a_pretraining_changes_its_key_by_itself_and_by_the_weights_that_it_starts_from(folder):
    change("initialize.random.seeds", [0, 1])
    write(Path("models/initial/random/1.safetensors"), 1)

    def of_seeds():
        study = Study(config.load())
        return [Pretraining(study, "simclr", seed).key() for seed in range(4)]

    first = of_seeds()
    assert len(set(first)) == 4
    write(Path("models/initial/random/1.safetensors"), 99)
    assert [one == other for one, other in zip(first, of_seeds(), strict=True)] == [True, False, True, False]


def test_the_replicate_that_a_run_starts_from_changes_its_key_and_no_other_does(folder):
    change("pretrain.methods.simclr.seeds", [0, 2, 7])
    for seed in (0, 2, 7):
        write(Path(f"models/pretrain/simclr/{seed}.safetensors"), seed)

    def of_seeds():
        study = Study(config.load())
        return [Finetuning(study, "simclr", 50, seed).key() for seed in range(6)]

    first = of_seeds()
    for place, seed in enumerate((0, 2, 7)):
        file = Path(f"models/pretrain/simclr/{seed}.safetensors")
        kept = file.read_bytes()
        write(file, 99)
        changed = [number for number, (one, other) in enumerate(zip(first, of_seeds(), strict=True)) if one != other]
        assert changed == [place, place + 3]
        file.write_bytes(kept)
    # Fewer replicates: seed 2 starts from number 0, and seed 1 from number 1 as before.
    change("pretrain.methods.simclr.seeds", [0, 2])
    assert [one == other for one, other in zip(first, of_seeds(), strict=True)] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]


def test_a_job_whose_input_is_not_there_has_no_key(folder):
    Path("models/pretrain/simclr/0.safetensors").unlink()
    assert keys()["finetune"] is None


def test_a_run_waits_for_its_pretraining_and_reads_it_from_the_store(folder):
    study = Study(config.load())
    jobs = {job.name: job for job in study_jobs(study)}
    run = jobs["finetune simclr 100-0"]
    assert run.key() is None
    key = jobs["pretrain simclr 0"].key()
    made = study.store.workspace(key)
    for name in Pretraining.needs:
        (made / name).write_text("77" if name == ENCODER else "")
    study.store.add(key, made, {})
    assert run.key() == keys()["finetune"]  # the same content as models/pretrain/simclr/0.safetensors


def test_a_run_waits_for_its_own_replicate_alone(folder):
    change("pretrain.methods.simclr.seeds", [0, 1])
    change("runs", {100: [0, 1]})
    study = Study(config.load())
    jobs = {job.name: job for job in study_jobs(study)}
    key = jobs["pretrain simclr 1"].key()
    made = study.store.workspace(key)
    for name in Pretraining.needs:
        (made / name).write_text("77" if name == ENCODER else "")
    study.store.add(key, made, {})
    assert jobs["finetune simclr 100-0"].key() is None
    assert jobs["finetune simclr 100-1"].key() is not None
    # What starts from the other one may be missing too: its stage was not reached.
    asked = [job.name for job in study_jobs(study, ["pretrain simclr 1"])]
    assert asked == ["pretrain simclr 1", "finetune simclr 100-0", "finetune simclr 100-1", "explain simclr"]


def test_only_what_was_asked_for_is_made_with_what_reads_it(folder):
    study = Study(config.load())
    names = [job.name for job in study_jobs(study, ["finetune rotation 50-0"])]
    assert names == ["finetune rotation 50-0"]
    names = [job.name for job in study_jobs(study, ["pretrain rotation 0"])]
    assert names == ["pretrain rotation 0", "finetune rotation 100-0", "finetune rotation 50-0", "explain rotation"]


def test_arms_that_do_the_same_share_their_runs(folder):
    content = read_yaml(Path("params.yaml").read_text())
    content["arms"]["again"] = content["arms"]["random"]
    Path("params.yaml").write_text(dump_yaml(content))
    study = Study(config.load())
    write(Path("models/initial/random/0.safetensors"), 5)
    assert Finetuning(study, "again", 100, 0).key() == Finetuning(study, "random", 100, 0).key()


@pytest.mark.parametrize(("keep", "kept"), [("explained", {"100-0"}), ("none", {"100-0"}), ("all", {"50-0", "100-0"})])
def test_the_store_keeps_the_networks_that_are_asked_for_and_the_explained_one(folder, keep, kept):
    change("finetune.keep", keep)
    study = Study(config.load())
    runs = [Finetuning(study, "random", *budget) for budget in study.settings.budgets]
    assert {run.run for run in runs if MODEL in run.needs} == kept


@pytest.mark.parametrize("first", [True, False])
def test_of_processes_that_train_together_the_first_removes_a_network_that_is_not_kept(folder, monkeypatch, first):
    study = Study(config.load())
    study.held["finetuner"] = SimpleNamespace(run=lambda *_: None)
    monkeypatch.setattr(Finetuning, "context", lambda *_: None)
    run = Finetuning(study, "random", 50, 0)
    run.first = first
    made = folder / MODEL
    made.write_text("")
    run.train(folder, folder / "checkpoint.pt")
    assert made.exists() != first


RATES = [0.001, 0.0003, 0.0001]


@pytest.fixture
def searching(folder):
    """Three rates, two seeds at 100 %, and 20 validation cases, of which a budget of 50 % holds 10."""
    change("finetune.learning_rates", RATES)
    change("runs", {50: [0, 1], 100: [0, 1]})
    change("finetune.search_cases", 11)
    rows = "".join(f"case_{number},{'validation' if number < 20 else 'train'}\n" for number in range(200))
    Path("data/index/cases.csv").write_text(f"case,split\n{rows}")
    return folder


def small():
    return Finetuning(Study(config.load()), "random", 50, 1)


def store_whole(*chosen):
    """Put finished runs at 100 %, seed 0 first, into the store; the rates that they chose."""
    study = Study(config.load())
    for seed, rate in enumerate(chosen):
        run = Finetuning(study, "random", 100, seed)
        made = study.store.workspace(run.key())
        for name in run.needs:
            (made / name).write_text("")
        rows = "".join(f"{one},{int(one == rate)}\n" for one in RATES)
        (made / "curves.csv").write_text(f"learning_rate,selected\n{rows}")
        study.store.add(run.key(), made, {})


def test_a_small_budget_waits_for_the_rate_that_its_arms_runs_at_100_percent_choose(searching):
    assert small().key() is None
    store_whole(0.0003)
    assert small().key() is None  # of two seeds
    store_whole(0.0003, 0.0003)
    assert (
        small().parameters["finetune"] | {"learning_rates": [0.0003], "select": "last"}
        == (small().parameters["finetune"])
    )
    whole = Finetuning(Study(config.load()), "random", 100, 0)
    assert whole.parameters["finetune"]["learning_rates"] == RATES
    assert whole.parameters["finetune"]["select"] == "best"


def test_a_small_budgets_key_is_that_of_the_rate_that_it_takes_given_by_hand(searching):
    store_whole(0.0001, 0.0001)
    taken = small().key()
    change("finetune.learning_rates", [0.0001])
    assert small().key() == taken  # without any run at 100 %
    change("finetune.learning_rates", [0.001])
    assert small().key() not in (taken, None)
    change("finetune.learning_rates", RATES)
    store_whole(0.001, 0.001)
    assert small().key() not in (taken, None)


@pytest.mark.parametrize(
    ("seeds", "chosen", "taken"),
    [(3, (0.0001, 0.001, 0.0001), 0.0001), (2, (0.0001, 0.001), 0.001), (3, (0.0001, 0.0003, 0.001), 0.001)],
)
def test_most_runs_at_100_percent_decide_and_the_first_of_the_list_on_ties(searching, seeds, chosen, taken):
    change("runs", {50: [1], 100: list(range(seeds))})
    store_whole(*chosen)
    assert small().rates == [taken]


@pytest.mark.parametrize(("least", "tried"), [(10, RATES), (11, [0.001])])
def test_a_budget_with_enough_validation_cases_tries_all_rates_itself(searching, least, tried):
    store_whole(0.001, 0.001)
    change("finetune.search_cases", least)
    run = small()
    assert run.parameters["finetune"]["learning_rates"] == tried
    assert run.parameters["finetune"]["select"] == ("best" if least == 10 else "last")


def test_a_single_rate_needs_no_other_run(searching):
    change("finetune.learning_rates", [0.0003])
    assert small().key() is not None


def test_a_change_of_search_cases_trains_the_runs_anew_whose_choice_it_changes(searching):
    change("runs", {25: [0], 50: [0], 100: [0]})
    store_whole(0.001)

    def found():
        study = Study(config.load())
        return {percent: Finetuning(study, "random", percent, 0).key() for percent in (25, 50, 100)}

    before = found()
    change("finetune.search_cases", 6)  # 50 % has 10 validation cases, 25 % has 5
    after = found()
    assert {percent for percent in before if before[percent] != after[percent]} == {50}


@pytest.mark.parametrize("shares", [1, 3])
def test_workers_make_small_budgets_after_the_runs_whose_rate_they_take(searching, monkeypatch, shares):
    made = []

    def train(run, folder, checkpoint):
        assert run.parameters["finetune"]["learning_rates"] == (RATES if run.percent == 100 else [0.0003])
        made.append(run.name)
        for name in run.needs:
            (folder / name).write_text("")
        (folder / "curves.csv").write_text("learning_rate,selected\n0.001,0\n0.0003,1\n0.0001,0\n")

    monkeypatch.setattr(Finetuning, "train", train)
    study = Study(config.load())
    runs = [job for job in study_jobs(study) if job.name.startswith("finetune random")]
    assert [run.percent for run in runs] == [100, 100, 50, 50]
    assert sweep(study.store, runs[::-1], share=shares, shares=shares) == []  # the small budgets first
    assert sorted(made) == sorted(run.name for run in runs)
    assert {name.split()[-1].split("-")[0] for name in made[:2]} == {"100"}
    # DVC's stage makes and collects them too.
    made.clear()
    change("compute.store", "another")
    study, taken = Study(config.load()), []
    runs = [Finetuning(study, "random", *budget) for budget in study.settings.budgets]
    study.obtain(runs, lambda job, key: not taken.append(job.name))
    assert sorted(taken) == sorted(made) == sorted(run.name for run in runs)


def test_runs_of_other_seeds_start_from_other_weights_whose_rates_count_too(searching):
    change("initialize.random.seeds", [0, 1])
    write(Path("models/initial/random/1.safetensors"), 1)
    store_whole(0.0001, 0.0003)
    change("finetune.learning_rates", [0.0003, 0.0001, 0.001])
    assert small().rates is None  # those runs tried the rates in another order
    store_whole(0.0001, 0.0003)
    assert small().rates == [0.0003]
    keys = [run.key() for run in (Finetuning(Study(config.load()), "random", 100, seed) for seed in (0, 1))]
    write(Path("models/initial/random/1.safetensors"), 2)
    assert small().rates is None
    assert Finetuning(Study(config.load()), "random", 100, 0).key() == keys[0]


def test_a_run_at_100_percent_that_failed_leaves_no_worker_waiting(searching, monkeypatch):
    def train(run, folder, checkpoint):
        raise InputError("loss is nan")

    monkeypatch.setattr(Finetuning, "train", train)
    study = Study(config.load())
    failed = sweep(study.store, [job for job in study_jobs(study) if job.name.startswith("finetune random")])
    assert sum("loss is nan" in line for line in failed) == 2
    assert len(failed) == 4  # the other two wait for the rate that those would have chosen
