"""Controls on the page and in the summary: marked, and left out of what is compared."""

import json
import re
from dataclasses import replace

import pytest

from kidney_ssl.report.headline import headline
from kidney_ssl.report.page import read_study, write_page
from kidney_ssl.report.summary import summary_markdown
from tests.unit.report.study_files import write_study

ARMS = {"random": "initial/random", "rotation": "pretrain/rotation", "oracle": "pretrain/oracle"}
PRIMARY = "auroc_against_kidney"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Random, rotation and an oracle whose figures say that it is a control."""
    root = tmp_path_factory.mktemp("study")
    settings = write_study(root, arms=ARMS, test_cases=40, extras=False)
    settings["analysis"]["primary"] = PRIMARY
    for name in ("oracle", "rotation"):
        path = root / f"metrics/pretrain/{name}.json"
        of_seeds = json.loads(path.read_text()).items()
        path.write_text(json.dumps({seed: one | {"control": name == "oracle"} for seed, one in of_seeds}))
    return read_study(root, settings)


def test_an_arm_is_a_control_if_its_pretraining_is_or_if_it_trains_longer(study):
    assert study.controls == {"oracle"}
    assert [study.title(arm) for arm in ARMS] == ["Random weights", "Rotation", "Oracle (control)"]
    longer = study.params["arms"] | {"longer": {"weights": "initial/random", "extra_updates": 70}}
    assert replace(study, params=study.params | {"arms": longer}).controls == {"oracle", "longer"}


def test_the_page_and_the_summary_mark_them_and_nothing_else(study, tmp_path):
    write_page(study, tmp_path / "index.html")
    text = (tmp_path / "index.html").read_text()
    heads = re.findall(r'<th scope="row"[^>]*>\s*(.*?)</th>', text)
    assert heads.count("Oracle (control)") >= 4  # what arms there are, all metrics, comparisons, subgroups
    assert not [head for head in heads if "control" in head and "Oracle" not in head]
    assert "A control is there to judge the study by" in text
    rows = [line for line in summary_markdown(study).splitlines() if line.startswith("| ")]
    assert any(line.startswith("| Oracle (control) |") for line in rows)
    assert any(line.startswith("| Oracle | Oracle (control) |") for line in rows)
    assert not [line for line in rows if "(control)" in line and "Oracle" not in line]


def test_a_control_is_no_finding_of_the_headline(study):
    """An oracle that is better says that a benefit could show, not that something helps."""
    rows = [{**row, "verdict": "better" if row["arm"] == "oracle" else "undecided"} for row in study.differences]
    assert headline(replace(study, comparisons={"differences": rows})).startswith(
        "No pretraining was shown to do better"
    )
    rows = [{**row, "verdict": "better" if row["arm"] != "oracle" else "worse"} for row in study.differences]
    said = headline(replace(study, comparisons={"differences": rows}))
    assert said == "Rotation did better than random weights at telling kidney tumors from tumor-free kidney."
