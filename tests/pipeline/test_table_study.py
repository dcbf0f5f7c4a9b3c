"""Sixty of scikit-learn's digits through the whole pipeline, written by the lines of docs/own_images.md."""

import json
import re

import pandas as pd
import pytest

from tests.project_copy import ROOT, Project, repository

LINES = re.findall(r"```python\n(.*?)```", (ROOT / "docs/own_images.md").read_text(encoding="utf-8"), re.DOTALL)
SMALL = {
    "data.cases": "0-59",
    "data.folds": 3,
    "data.validation": 0.3,
    "pretrain.common.images": 64,
    "pretrain.methods": {"rotation": {"method": "rotation", "start": "random"}},
    "arms": {
        "random": {"weights": "initial/random", "augmentation": "none"},
        "rotation": {"weights": "pretrain/rotation", "augmentation": "none"},
    },
    "analysis.contrasts": [],
    "runs": {100: [0]},
    "finetune.min_updates": 0,
    "finetune.epochs": 1,
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = repository(tmp_path_factory.mktemp("table") / "project")
    (project.folder / "params.yaml").write_bytes((project.folder / "studies/table.yaml").read_bytes())
    project.change(SMALL)
    project.succeed("python", "-c", LINES[0])
    return project


def test_a_table_of_images_goes_through_the_whole_pipeline(digits: Project) -> None:
    digits.succeed("python", "-m", "stages", "1")
    table = pd.read_csv(digits.folder / "digits/table.csv", index_col="case")
    rows = pd.read_csv(digits.folder / "models/finetune/rotation/100-0/predictions.csv")
    assert rows["label"].tolist() == table.loc[rows["case"], "label"].tolist()
    assert (rows["part"] == "test").sum() == 20
    summary = json.loads((digits.folder / "metrics/summary.json").read_text())
    assert set(summary["auroc"]) == {"random", "rotation"}
    assert all(0 <= value <= 1 for value in summary["auroc"].values())
    assert set(summary["auroc_against_kidney"].values()) == {None}
    assert (digits.folder / "report/index.html").stat().st_size > 100_000
    assert json.loads((digits.folder / "metrics/normalization.json").read_text())["source"] == "all training pixels"


def test_a_bad_image_ends_the_stage_in_one_line(digits: Project) -> None:
    folder = digits.folder / "digits"
    good = (folder / "0007.png").read_bytes()
    (folder / "0007.png").write_bytes(good[:40])
    try:
        for stage in ("download", "select"):
            assert digits.stage(stage).returncode == 0
        ended = digits.stage("slice")
    finally:
        (folder / "0007.png").write_bytes(good)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert re.search(r"1 bad case\(s\): digit_0007: \S*0007\.png: cannot be read as an image", ended.stderr)
    exported = digits.run("kidney-ssl", "export", "random")
    assert exported.returncode == 1
    assert "data.source: table" in exported.stderr
