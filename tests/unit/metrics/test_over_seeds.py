"""Means over the runs of an arm, and the few metrics of the stage evaluate."""

import json
from pathlib import Path
from statistics import fmean

import pytest

from kidney_ssl.errors import InputError
from kidney_ssl.jsonfile import write_json
from kidney_ssl.metrics.over_seeds import Run, budget_name, headline, means
from kidney_ssl.metrics.run import evaluate_run
from kidney_ssl.yamlfile import dump_yaml, read_yaml
from stages.evaluate import main
from tests.unit.metrics.run_files import simulate, write
from tests.unit.report.study_files import ROOT

BUDGETS = ((20, 0), (20, 1), (100, 0))


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The smoke study with made-up runs of its arm `random`; gives the metrics of each run."""
    content = read_yaml((ROOT / "studies/smoke.yaml").read_text())
    content["runs"] = {20: [0, 1], 100: [0]}
    (tmp_path / "params.yaml").write_text(dump_yaml(content))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    metrics = {}
    for number, budget in enumerate(BUDGETS):
        run = Run("random", *budget)
        (tmp_path / run.folder).parent.mkdir(parents=True, exist_ok=True)
        made, slices = write(tmp_path, simulate(0, skill=number))
        made.rename(tmp_path / run.folder)
        start = {"weights": "initial/random", "seed": number}
        write_json(tmp_path / run.folder / "start.json", start)
        metrics[run] = evaluate_run(tmp_path / run.folder, slices) | {"start": start}
    slices.rename(tmp_path / "data/slices")
    return metrics


def test_an_arms_file_has_every_metric_of_each_run_and_its_metrics_the_means_of_a_few(study):
    main("random")
    detailed, found = (json.loads(Path(f"{kind}/evaluate/random.json").read_text()) for kind in ("report", "metrics"))
    assert set(detailed.pop("intervals")) == {"20", "100"}
    assert detailed == {run.budget: metrics for run, metrics in study.items()}
    names = ("accuracy", "auroc", "auroc_against_kidney", "f1")
    assert set(found) == {*names, *(f"{name}_20" for name in names)}
    tests = [metrics["selected"]["test"] for metrics in study.values()]
    assert len({test["auroc"] for test in tests}) == 3
    assert found["auroc_20"] == pytest.approx(fmean(test["auroc"] for test in tests[:2]), abs=1e-6)
    assert found["auroc"] == tests[2]["auroc"]
    assert found["auroc_against_kidney"] == tests[2]["against"]["kidney"]["auroc"]


def test_an_arm_that_is_not_in_the_parameters_is_refused(study):
    with pytest.raises(InputError, match="no arm 'other'"):
        main("other")


def test_a_metric_that_one_seed_lacks_has_no_mean(study):
    study[Run("random", 20, 1)]["selected"]["test"]["f1"] = None
    assert headline(study, "auroc")["f1_20"] is None
    assert means(study)["f1"]["random"] is not None


def test_the_plain_name_is_that_of_all_the_training_cases():
    assert [budget_name("f1", percent, "low") for percent in (100, 25)] == ["f1_low", "f1_25_low"]
