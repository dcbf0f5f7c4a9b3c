"""A stage that DVC starts once, and a launcher (srun, say) that starts it on every node."""

import json
import sys

import pandas as pd
import pytest

from tests.pipeline.fake_srun import __file__ as fake_srun
from tests.pipeline.toy_data import write_toy_data
from tests.project_copy import Project


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project whose slices and start are a toy's, for pretraining on two processes."""
    project = Project.copy_to(tmp_path_factory.mktemp("launched"))
    write_toy_data(project.folder)
    project.change({"compute.devices": 2, "compute.device": "cpu", "pretrain.methods.rotation.batch_size": 4})
    return project


def launched(project, monkeypatch, *arguments):
    monkeypatch.setenv("KIDNEY_LAUNCH", f"{sys.executable} {fake_srun}")
    return project.stage("pretrain", *arguments)


def test_two_tasks_of_a_launcher_pretrain_together_and_write_once(project, monkeypatch):
    ended = launched(project, monkeypatch, "rotation")
    assert ended.returncode == 0, ended.stderr
    curves = pd.read_csv(project.folder / "metrics/pretrain/rotation.csv")
    assert curves["seed"].tolist() == [0] * len(curves)
    assert curves["epoch"].tolist() == list(range(1, len(curves) + 1))
    assert (project.folder / "models/pretrain/rotation/0.safetensors").exists()
    assert len(project.stored()) == 1
    assert project.unfinished() == []
    assert json.loads((project.folder / "logs/pretrain/rotation-0.json").read_text())["images"] == 9 * len(curves)


def test_one_process_starts_no_launcher(project, monkeypatch):
    with project.changed({"compute.devices": 1}):
        ended = launched(project, monkeypatch, "rotation")
    assert ended.returncode == 0, ended.stderr
    assert "GLOBAL_RANK" not in ended.stderr


def test_a_failed_task_fails_the_stage(project, monkeypatch):
    with project.changed({"pretrain.methods.rotation.batch_size": 2, "compute.devices": 3}):
        ended = launched(project, monkeypatch, "rotation")
    assert ended.returncode != 0
    assert "error: compute.devices, compute.nodes: " in ended.stderr


def test_a_launcher_that_is_not_there_is_named(project, monkeypatch):
    monkeypatch.setenv("KIDNEY_LAUNCH", "no_such_launcher --quiet")
    ended = project.stage("pretrain", "rotation")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: KIDNEY_LAUNCH: 'no_such_launcher' cannot be run")
