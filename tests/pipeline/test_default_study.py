"""The default study, which params.yaml holds as it comes: `make test` passes with any other there too."""

from pathlib import Path

from kidney_ssl.config import load
from kidney_ssl.thesis.departures import read_departures
from tests.unit.data.test_phantom import CASES, DEFAULT, MIN_TUMOR_PX
from tests.unit.test_dvc import EIGHT, graph, study, tasks_and_pretrainings_without_an_arm
from tests.unit.test_params import STUDIES, bare_keys, flat

ROOT = Path(__file__).parents[2]
NAME = "params.yaml"


def test_it_is_valid_and_has_the_same_keys_as_the_studies_each_under_a_comment():
    assert load(ROOT / NAME).data.source == "phantom"
    keys = set(flat(study(NAME)))
    assert all(set(flat(study(f"studies/{path.name}"))) == keys for path in STUDIES)
    assert not bare_keys(ROOT / NAME)


def test_it_has_the_eight_tasks_and_an_arm_of_each_pretraining():
    tasks, unused = tasks_and_pretrainings_without_an_arm(NAME)
    assert tasks >= EIGHT
    assert not unused
    assert {f"pretrain@{one}" for one in study(NAME)["pretrain"]["methods"]} < set(graph(NAME))


def test_its_marks_are_read():
    assert {mark for one in read_departures(ROOT / NAME) for mark in one.marks} == {"T", "O", "?"}


def test_the_phantoms_tests_are_of_its_phantom():
    settings = load(ROOT / NAME)
    assert settings.phantom.model_dump() == {"cases": CASES, **DEFAULT}
    assert settings.select.min_tumor_px == MIN_TUMOR_PX
