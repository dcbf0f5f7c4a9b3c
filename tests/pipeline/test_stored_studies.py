"""The run store under a study: what is in it is never trained again, and nothing else is ever taken from it."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from kidney_ssl.data.arrays import ArrayWriter
from tests.project_copy import Project, running

ALL = ("pretrain", "finetune", "explain")
WRITTEN = ("code", "data", "metrics", "models", "plots", "report")
BEHIND = (("finetune", " 50-0"), ("finetune", " 100-0"), ("explain", ""))  # of an arm
MISSING = """
import json, sys
from kidney_ssl import config
from kidney_ssl.jobs.all import study_jobs
from kidney_ssl.jobs.base import is_done
from kidney_ssl.jobs.study import Study
studies = [Study(config.load(file)) for file in sys.argv[1:]]
print(json.dumps([[job.name for job in study_jobs(one) if not is_done(one.store, job)] for one in studies]))
"""
# Parameters, and the trainings that they decide.
CHANGES = [
    ({"finetune.batch_size": 8}, ("finetune", "explain")),
    ({"compute.threads": 2}, ALL),
    ({"pretrain.common.weight_decay": 0.5}, ALL),
    ({"explain.layer": "layer2"}, ("explain",)),
    ({"compute.workers": 1, "compute.checkpoint_minutes": 9, "report.published": True}, ()),
]


@pytest.fixture(scope="module")
def study(smoke_run: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The finished smoke study, to be changed and changed back."""
    return smoke_run.linked(tmp_path_factory.mktemp("stored") / "project")


def written(project: Project) -> dict[Path, tuple[int, int]]:
    """Inode and time of each file that stages wrote: whoever changes one gives it another time, or another inode."""
    files = [path for top in WRITTEN for path in (project.folder / top).rglob("*") if path.is_file()]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


@pytest.fixture(autouse=True)
def restored(study: Project) -> Iterator[None]:
    """Parameters, results, start weights, arrays and sources as they were: all but the first two by DVC and git."""
    kept = [study.folder / name for name in ("params.yaml", "dvc.lock")]
    kept += [path for path in (study.folder / "metrics").rglob("*") if path.is_file()]
    before, files = {path: path.read_bytes() for path in kept}, written(study)
    yield
    changed = written(study) != files
    for path, content in before.items():
        path.write_bytes(content)
    study.succeed("git", "checkout", "--quiet", "src")
    if changed:
        study.succeed("dvc", "checkout", "--quiet", "--force")


def missing(project: Project) -> set[str]:
    """The trainings that the study lacks, by the store's word."""
    return of_files(project, "params.yaml")[0]


def of_files(project: Project, *files: str) -> list[set[str]]:
    """The trainings that the study lacks with each of some files of parameters, in one process."""
    return [set(names) for names in json.loads(project.succeed("python", "-c", MISSING, *files))]


def names(project: Project, *kinds: str) -> set[str]:
    """The trainings of some kinds that the whole study has."""
    params = project.params
    found = {f"pretrain {name} 0" for name in params["pretrain"]["methods"]}
    found |= {f"explain {arm}" for arm in params["arms"]}
    runs = [f"{percent}-{seed}" for percent, seeds in params["runs"].items() for seed in seeds]
    found |= {f"finetune {arm} {run}" for arm in params["arms"] for run in runs}
    return {name for name in found if name.split()[0] in kinds}


def sweep(project: Project) -> list[str]:
    """The trainings that a worker says it made."""
    return re.findall(r"^(\w+ .+): [\d.]+ s$", project.succeed("python", "-m", "stages.sweep"), re.MULTILINE)


def test_nothing_of_a_finished_study_is_missing(study: Project) -> None:
    assert missing(study) == set()
    assert study.unfinished() == []


def test_another_operator_in_the_loop_takes_no_stored_training(study: Project) -> None:
    loop = study.folder / "src/kidney_ssl/engine/loop.py"
    text = loop.read_text()
    assert "+ 1" in text
    loop.write_text(text.replace("+ 1", "+ 2", 1))
    # What starts from a pretraining cannot be told before that is made anew.
    assert names(study, "pretrain", "finetune") <= missing(study)
    loop.write_text(f"{text}\n# as it was\n")
    assert missing(study) == set()


def test_other_start_weights_take_no_stored_training(study: Project) -> None:
    start = study.folder / "models/initial/random/0.safetensors"
    weights = load_file(start)
    weights["conv1.weight"][0, 0, 0, 0] += 1
    start.unlink()
    save_file(weights, start)
    assert missing(study) == names(study, *ALL)


@pytest.mark.parametrize(
    ("file", "kinds"),
    [
        ("normalized/train_images.npy", ALL),
        ("normalized/test_images.npy", ("finetune", "explain")),
        ("slices/train_masks.npy", ALL),
        ("normalized_natural/natural_images.npy", ("finetune", "explain")),
    ],
)
def test_another_array_takes_no_stored_training_that_reads_it(
    study: Project, file: str, kinds: tuple[str, ...]
) -> None:
    path = study.folder / "data" / file
    array = np.load(path)
    array[0, 0, 0] += 1
    for old in (path, path.with_name(f"{path.name}.sha256")):
        old.unlink()
    writer = ArrayWriter(path, array.shape, array.dtype)
    writer.append(array)
    writer.close()
    assert missing(study) == names(study, *kinds)


@pytest.fixture(scope="module")
def lacking(study: Project) -> list[set[str]]:
    """What the study lacks with each of `CHANGES`."""
    files = [f"changed-{number}.yaml" for number in range(len(CHANGES))]
    for file, (changes, _) in zip(files, CHANGES, strict=True):
        with study.changed(changes):
            (study.folder / file).write_bytes((study.folder / "params.yaml").read_bytes())
    found = of_files(study, *files)
    for file in files:
        (study.folder / file).unlink()
    return found


@pytest.mark.parametrize("number", range(len(CHANGES)), ids=["+".join(changes) for changes, _ in CHANGES])
def test_other_parameters_take_no_stored_training_that_they_decide(
    study: Project, lacking: list[set[str]], number: int
) -> None:
    changes, kinds = CHANGES[number]
    expected = names(study, *kinds)
    if "pretrain.common.weight_decay" in changes:
        # The arm of random weights is no matter of the pretrainings.
        expected -= {"finetune random 50-0", "finetune random 100-0", "explain random"}
    assert lacking[number] == expected


def test_one_more_seed_trains_exactly_the_new_runs(study: Project) -> None:
    before = study.stored()
    arms = list(study.params["arms"])
    study.change({"runs": {50: [0], 100: [0, 1]}})
    expected = {f"finetune {arm} 100-1" for arm in arms}
    assert missing(study) == expected
    # Without workers DVC trains what its stage lacks.
    assert "finetune@random" in running(study.succeed("dvc", "repro", "finetune@random"))
    first = {key: name for key, name in study.stored().items() if key not in before}
    assert list(first.values()) == ["finetune random 100-1"]
    assert sorted(sweep(study)) == sorted(expected - {"finetune random 100-1"})
    new = {key: name for key, name in study.stored().items() if key not in before}
    assert Counter(new.values()) == Counter(expected)
    assert sweep(study) == []


def test_one_more_pretraining_seed_trains_it_alone_and_the_runs_that_start_from_it(study: Project) -> None:
    before = study.stored()
    study.change({"pretrain.methods.rotation.seeds": [0, 1], "runs": {50: [0], 100: [0, 1]}})
    study.succeed("dvc", "repro", "finetune@rotation")
    new = [name for key, name in study.stored().items() if key not in before]
    assert sorted(new) == ["finetune rotation 100-1", "pretrain rotation 1"]
    for run, seed in (("50-0", 0), ("100-0", 0), ("100-1", 1)):
        start = json.loads((study.folder / f"models/finetune/rotation/{run}/start.json").read_text())
        assert start == {"weights": "pretrain/rotation", "seed": seed}
    assert running(study.succeed("dvc", "repro", "finetune@rotation")) == []


def test_a_study_whose_store_was_deleted_is_still_up_to_date(study: Project) -> None:
    store = study.folder / "checkpoints/store"
    store.rename(store.with_name("aside"))
    try:
        assert study.succeed("dvc", "status").strip() == "Data and pipelines are up to date."
        assert running(study.succeed("dvc", "repro")) == []
    finally:
        shutil.rmtree(store, ignore_errors=True)
        store.with_name("aside").rename(store)


def test_a_failed_training_is_named_the_others_go_on_and_mended_it_alone_is_made(study: Project) -> None:
    arms = list(study.params["arms"])
    (arm,) = (arm for arm in arms if study.params["arms"][arm]["weights"] == "pretrain/rotation")
    others = {f"explain {other}" for other in arms if other != arm}
    behind = {f"{kind} {arm}{run}" for kind, run in BEHIND}
    for key, name in study.stored().items():
        if name in behind | {"pretrain rotation 0"}:
            shutil.rmtree(study.folder / "checkpoints/store/runs" / key)
    before = set(study.stored())
    study.change({"explain.slices": 4})
    with study.changed({"pretrain.methods.rotation.learning_rate": 1e30}):
        ended = study.stage("__main__", "2")
        assert ended.returncode == 1
        last = ended.stderr.strip().splitlines()[-1]
        assert last.startswith("error: ")
        assert "pretrain rotation 0" in last
        assert {name for key, name in study.stored().items() if key not in before} == others
    assert set(sweep(study)) == behind | {"pretrain rotation 0"}
    assert sweep(study) == []
