"""A stage that DVC starts once, and a launcher (srun, say) that starts it on every node."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
from fake_srun import __file__ as fake_srun
from project_copy import Project

from kidney_ssl.models.weights import random_weights, save_weights
from tests.training.toy_study import toy_part


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project whose slices and start are a toy's, for pretraining on two processes."""
    project = Project.copy_to(tmp_path_factory.mktemp("launched"))
    data = project.folder / "data"
    for folder in ("normalized", "slices"):
        (data / folder).mkdir(parents=True)
    for first_case, name in enumerate(("train", "validation", "test")):
        part = toy_part(9, 100 * first_case)
        np.save(data / f"normalized/{name}_images.npy", part.images)
        frame = part.frame.assign(tumor_px=0, spacing_mm=1.0)
        frame.to_csv(data / f"slices/{name}.csv", index=False)
    regions = {"left": [0.2, 0.8, 0.0, 0.5], "right": [0.2, 0.8, 0.5, 1.0]}
    (data / "normalized/regions.json").write_text(json.dumps(regions))
    save_weights(random_weights("resnet18", 7), project.folder / "models/initial/random.safetensors")
    project.change({"compute.devices": 2, "compute.device": "cpu", "pretrain.methods.rotation-0.batch_size": 4})
    return project


def launched(project, monkeypatch, *arguments):
    monkeypatch.setenv("KIDNEY_LAUNCH", f"{sys.executable} {fake_srun}")
    return project.stage("pretrain", *arguments)


def test_two_tasks_of_a_launcher_pretrain_together_and_write_once(project, monkeypatch):
    ended = launched(project, monkeypatch, "rotation-0")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("slices a second") == 1
    curves = pd.read_csv(project.folder / "metrics/pretrain/rotation-0.csv")
    assert curves["epoch"].tolist() == list(range(1, len(curves) + 1))
    assert (project.folder / "models/pretrain/rotation-0.safetensors").exists()
    assert [path.name for path in (project.folder / "checkpoints").rglob("*") if path.is_file()] == []
    assert json.loads((project.folder / "logs/pretrain/rotation-0.json").read_text())["images"] == 9 * len(curves)


def test_one_process_starts_no_launcher(project, monkeypatch):
    with project.changed({"compute.devices": 1}):
        ended = launched(project, monkeypatch, "rotation-0")
    assert ended.returncode == 0, ended.stderr
    assert "GLOBAL_RANK" not in ended.stderr


def test_a_failed_task_fails_the_stage(project, monkeypatch):
    with project.changed({"pretrain.methods.rotation-0.batch_size": 2, "compute.devices": 3}):
        ended = launched(project, monkeypatch, "rotation-0")
    assert ended.returncode != 0
    assert "error: compute.devices, compute.nodes: " in ended.stderr


def test_a_launcher_that_is_not_there_is_named(project, monkeypatch):
    monkeypatch.setenv("KIDNEY_LAUNCH", "no_such_launcher --quiet")
    ended = project.stage("pretrain", "rotation-0")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: KIDNEY_LAUNCH: 'no_such_launcher' cannot be run")
