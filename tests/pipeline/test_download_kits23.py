"""KiTS23 through the stages, from servers on this machine that speak as the real ones do."""

import csv
import hashlib
from pathlib import Path

import pytest

from tests.project_copy import Project
from tests.unit.data.hub import DATASET, IMAGING_COMMIT, LABELS, LABELS_COMMIT, Fault, running
from tests.unit.data.test_kits23 import CASES, label_bytes, make_imaging


def test_a_part_of_kits23_is_fetched_listed_selected_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = {case: label_bytes(case) for case in CASES}
    images = {f"images/{case}.nii.gz": make_imaging(labels[case], seed) for seed, case in enumerate(CASES)}
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setenv("STORE", str(tmp_path / "store"))
    project = Project.copy_to(tmp_path / "clone", study="kits23")
    with running(images, labels) as hub:
        project.change(
            {
                "data.cases": [38, "case_00061", 546],
                "data.folds": 2,
                "data.raw_dir": "$STORE/kits23",
                "kits23.imaging_endpoint": hub.addresses["hub"],
                "kits23.imaging_repository": DATASET,
                "kits23.imaging_revision": IMAGING_COMMIT,
                "kits23.labels_endpoint": hub.addresses["github"],
                "kits23.labels_repository": LABELS,
                "kits23.labels_revision": LABELS_COMMIT,
            }
        )
        hub.faults[f"images/{CASES[0]}.nii.gz"] = Fault("status", status=404)
        broken = project.stage("download")
        assert broken.returncode == 1
        error = [line for line in broken.stderr.splitlines() if line.startswith("error: ")]
        assert len(error) == 1
        assert f"1 of 3 cases of KiTS23 are incomplete: {CASES[0]}" in error[0]
        assert "dvc repro download" in error[0]
        assert not (project.folder / "data" / "manifest.csv").exists()
        hub.faults.clear()
        project.succeed("python", "-m", "stages.download")
    # The servers are gone: what is whole needs no network.
    project.succeed("python", "-m", "stages.download")
    with (project.folder / "data" / "manifest.csv").open() as stream:
        listed = {row["file"]: (int(row["bytes"]), row["sha256"]) for row in csv.DictReader(stream)}
    wanted = {f"{case}/segmentation.nii.gz": labels[case] for case in CASES}
    wanted |= {f"{case}/imaging.nii.gz": images[f"images/{case}.nii.gz"] for case in CASES}
    assert listed == {file: (len(content), hashlib.sha256(content).hexdigest()) for file, content in wanted.items()}
    licence = (project.folder / "data" / "LICENSE.txt").read_text()
    assert "CC BY-NC-SA 4.0" in licence
    assert licence == (tmp_path / "store" / "kits23" / "LICENSE.txt").read_text()
    assert "91 slices in 3 cases" in project.succeed("python", "-m", "stages.select")
    index = (project.folder / "data" / "index" / "slices.csv").read_text()
    assert {"0-299", "500-588"} == {row["block"] for row in csv.DictReader(index.splitlines())}
