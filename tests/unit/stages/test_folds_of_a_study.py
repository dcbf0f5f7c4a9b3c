"""`make folds STUDY=`: a study of studies/ runs in copies and leaves params.yaml and its results alone."""

import json
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from kidney_ssl import config
from kidney_ssl.config import Params
from kidney_ssl.errors import InputError
from kidney_ssl.statistics.cross_validation import Fold
from kidney_ssl.yamlfile import read_yaml
from stages import folds

ROOT = Path(__file__).parents[3]
OWN = "# mine\n"
KEPT = ("summary.json", "summary.md", "index.html", "predictions.csv")  # of what a fold writes


class Ended:
    """A process that ran a study in its copy."""

    def __init__(self, copy: Path, code: int) -> None:
        study = read_yaml((copy / "params.yaml").read_text())
        for name in ("metrics/summary.json", "report/summary.md", "report/index.html", "models/large.bin"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_text(json.dumps([study["phantom"]["cases"], study["data"]["fold"]]))
        self.code = code

    def wait(self) -> int:
        return self.code


def copied(copy: Path) -> None:
    """A copy with results of the project's own study."""
    (copy / "metrics").mkdir(parents=True)
    for name in ("folds.json", "plan.json"):
        (copy / "metrics" / name).write_text("{}")


def predicted(settings: Params) -> Fold:
    """Predictions of two test slices and one of validation, which differ between runs."""
    runs = [(arm, percent, seed) for percent, seeds in settings.runs.items() for arm in settings.arms for seed in seeds]
    tables: dict[int, dict[str, list[pd.DataFrame]]] = {}
    for number, (arm, percent, _seed) in enumerate(runs):
        rows = pd.DataFrame(
            {
                "part": ["test", "validation", "test"],
                "case": ["case_00001", "case_00000", "case_00001"],
                "slice": [7, 1, 4],
                "patient": "p",
                "class": ["tumor", "kidney", "kidney"],
                "label": [1, 0, 0],
                "probability": [0.5 + number / 1000, 0.1, 0.25],
            }
        )
        tables.setdefault(percent, {}).setdefault(arm, []).append(rows)
    return Fold({}, {"case_00001": "test"}, tables)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project's folder with everything that trains left out; what was saved."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies/small.yaml").write_text((ROOT / "studies/smoke.yaml").read_text())
    (tmp_path / "params.yaml").write_text(OWN + (ROOT / "params.yaml").read_text())
    saved: list[str] = []

    @contextmanager
    def started():
        yield lambda _command, _environment, cwd: Ended(cwd, 0)

    monkeypatch.setattr(folds, "ended_together", started)
    monkeypatch.setattr(folds, "_make_copy", copied)
    monkeypatch.setattr(folds, "_share", lambda _copy, _settings: None)
    monkeypatch.setattr(folds, "_read", lambda _copy, settings: predicted(settings))
    monkeypatch.setattr(folds, "_save", lambda _copy, name: saved.append(name))
    monkeypatch.setattr(folds, "over_folds", lambda _folds, _plan: {"figures": {}})
    monkeypatch.setattr(folds, "folds_markdown", lambda _found, **_: "table")
    monkeypatch.setattr(folds, "folds_forest", lambda _found, percent, **_: f"<svg>{percent}</svg>")
    monkeypatch.setattr(folds.subprocess, "run", lambda *_, **__: type("Done", (), {"returncode": 0, "stdout": ""}))
    return tmp_path, saved


def test_a_study_is_run_by_its_own_parameters_and_kept_beside_the_users(project):
    folder, saved = project
    before = (folder / "params.yaml").read_text()
    folds.main("", "small")
    assert (folder / "params.yaml").read_text() == before
    assert saved == [f"small-fold-{fold}" for fold in range(5)]  # and nothing of the project's own results
    kept = {path.relative_to(folder).as_posix() for path in (folder / "results").rglob("*") if path.is_file()}
    of_folds = {f"results/small/fold-{fold}/{one}" for fold in range(5) for one in KEPT}
    settings = config.load(folder / "studies/small.yaml")
    plots = {f"results/small/folds-{percent}.svg" for percent in settings.runs}
    assert kept == {"results/small/folds.json", "results/small/folds.md"} | plots | of_folds
    shown = [json.loads((folder / f"results/small/fold-{fold}/summary.json").read_text()) for fold in range(5)]
    cases = read_yaml((folder / "studies/small.yaml").read_text())["phantom"]["cases"]
    assert shown == [[cases, fold] for fold in range(5)]
    (folder / "results/small/fold-0/left.json").touch()
    folds.main("", "small")
    assert not (folder / "results/small/fold-0/left.json").exists()
    assert not (folder / "metrics").exists()
    assert not (folder / "report").exists()
    assert not list((folder / folds.COPIES).glob("*fold*"))


def test_the_test_predictions_of_all_runs_of_a_fold_are_one_table(project):
    folder, _ = project
    folds.main("", "small")
    settings = config.load(folder / "studies/small.yaml")
    rows = pd.read_csv(folder / "results/small/fold-1/predictions.csv")
    names = [
        f"{arm} {percent}-{seed}" for percent, seeds in settings.runs.items() for arm in settings.arms for seed in seeds
    ]
    assert list(rows) == ["case", "slice", "patient", "class", "label", *names]
    assert rows["slice"].tolist() == [4, 7]
    assert rows["label"].tolist() == [0, 1]
    assert [rows[name].tolist() for name in names] == [[0.25, 0.5 + place / 1000] for place in range(len(names))]


def test_the_study_of_params_yaml_has_its_results_where_they_were(project):
    folder, saved = project
    folds.main()
    count = read_yaml((folder / "params.yaml").read_text())["data"]["folds"]
    assert saved == [f"fold-{fold}" for fold in range(count)]
    assert (folder / "metrics/folds.json").exists()
    assert (folder / "report/folds.md").read_text() == "table"
    assert not (folder / "results").exists()


@pytest.mark.parametrize("name", ["../small", "sub/small", "/tmp/small", "small.yaml"])
def test_a_study_is_a_name_in_studies(name, project):
    with pytest.raises(InputError, match="no study of studies/"):
        folds.main("", name)


def test_a_study_that_is_not_there_is_one_line(project):
    with pytest.raises(InputError, match=r"^studies/none\.yaml: cannot be read"):
        folds.main("", "none")
