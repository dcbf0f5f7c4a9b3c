"""Controls on the page and in the summary: marked, and left out of what is compared."""

import json
import re
from dataclasses import replace

import pytest

from kidney_ssl.report.page import read_study, write_page
from kidney_ssl.report.tables import pretext_markdown
from kidney_ssl.report.wording import findings
from tests.report.study_files import write_study

ARMS = {"random": "initial/random", "rotation": "pretrain/rotation-0", "oracle": "pretrain/oracle-0"}
PRIMARY = "auroc_against_kidney"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Random, rotation and an oracle whose figures say that it is a control."""
    root = tmp_path_factory.mktemp("study")
    settings = write_study(root, arms=ARMS, test_cases=40, extras=False)
    settings["analysis"]["primary"] = PRIMARY
    for name in ("oracle-0", "rotation-0"):
        path = root / f"metrics/pretrain/{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"control": name == "oracle-0"}))
    return read_study(root, settings)


def test_an_arm_is_a_control_if_its_pretraining_is_or_if_it_trains_longer(study):
    assert study.controls == {"oracle"}
    assert [study.title(arm) for arm in ARMS] == ["random", "rotation", "oracle (control)"]
    longer = study.params["arms"] | {"longer": {"weights": "initial/random", "extra_updates": 70}}
    assert replace(study, params=study.params | {"arms": longer}).controls == {"oracle", "longer"}


def test_the_page_and_the_summary_mark_them_and_nothing_else(study, tmp_path):
    write_page(study, tmp_path / "index.html")
    text = (tmp_path / "index.html").read_text()
    heads = re.findall(r'<th scope="row"[^>]*>\s*(.*?)</th>', text)
    assert heads.count("oracle (control)") >= 4  # what arms there are, table 2, all figures, comparisons
    assert not [head for head in heads if "control" in head and "oracle" not in head]
    assert "A control is there to judge the study by" in text
    marked = pretext_markdown({name: one.figures for name, one in study.pretrainings.items()})
    assert "| oracle-0 (control) |" in marked
    assert "| rotation-0 |" in marked


def test_a_control_is_neither_the_best_nor_the_worst(study):
    figures = {"random": 0.6, "rotation": 0.7, "oracle": 0.9}
    said = findings(replace(study, summary=study.summary | {PRIMARY: figures, "accuracy": figures}))
    spread = [one for one in said if "runs from" in one]
    assert len(spread) == 2
    assert all("0.600 (random) to 0.700 (rotation) over 2 arms" in one for one in spread)
