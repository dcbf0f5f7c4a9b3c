"""Pretrainings with several seeds on the page: means in tables, a line a seed in charts."""

import re

import pytest

from kidney_ssl.jsonfile import write_json
from kidney_ssl.report.page import read_study
from kidney_ssl.report.sections import pretraining
from kidney_ssl.report.sections.pretraining import pretrain_section, pretrain_tables
from tests.unit.report.study_files import write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two seeds of each pretraining, whose logs tell 600 and 1,200 seconds; a minute for each fine-tuning."""
    root = tmp_path_factory.mktemp("study")
    settings = write_study(root, seeds=(0, 1), pretraining_seeds=(0, 1), extras=False)
    for seed in (0, 1):
        write_json(root / f"logs/pretrain/rotation-{seed}.json", {"seconds": 600.0 * (seed + 1), "images": 640})
        for arm in ("random", "rotation"):
            write_json(root / f"logs/finetune/{arm}-100-{seed}.json", {"seconds": 60.0})
    return read_study(root, settings)


def test_tables_hold_means_over_the_seeds_and_how_many_there_are(study):
    pretrainings, tasks = pretrain_tables(study)
    heads = [column.label for column in pretrainings.columns]
    row = dict(zip(heads, pretrainings.rows[0], strict=True))
    assert (row["seeds"].text, row["updates"].text) == ("2", "40")
    assert row["k-NN"].sort == pytest.approx((0.7 + 0.6) / 2)
    assert [cell.sort for cell in tasks.rows[0][2:]] == pytest.approx([(0.02 + 1.02) / 2, 0.08])


def test_charts_have_a_line_for_each_seed_and_pictures_are_the_first_ones(study):
    section = pretrain_section(study)
    (loss, *_) = section["curves"]["validation loss"]
    assert len(re.findall(r"fill: none; stroke: var\(--accent\)", loss.svg)) == 2
    assert len(section["pictures"]) == 2


def test_each_seed_has_its_cost_and_an_arms_is_the_mean(study, monkeypatch):
    drawn = []
    monkeypatch.setattr(pretraining, "scatter", lambda _, points, *__, **___: drawn.append(points))
    table = pretraining.cost_section(study)["table"]
    assert {title: minutes for title, minutes, _ in drawn[0]} == {"Random weights": 1, "Rotation": 15 + 1}
    took = {row[0].text: row[1].sort for row in table.rows}
    assert (took["pretrain Rotation, seed 0"], took["pretrain Rotation, seed 1"]) == (600, 1200)


def test_an_arm_says_how_many_replicates_it_starts_from(study):
    assert study.start("rotation") == "Rotation, from random weights, 2 seeds"
    assert study.start("random") == "Random weights"
