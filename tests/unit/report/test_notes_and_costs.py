"""What the checks found odd and what pretrainings took, on the page and in the summary."""

import json

from test_page import Reader, page

from kidney_ssl.jsonfile import write_json
from kidney_ssl.report.page import read_study
from kidney_ssl.report.sections.results import summary_table
from kidney_ssl.report.summary import summary_markdown
from tests.unit.report.study_files import write_study


def test_what_a_pretraining_took_stands_beside_each_arm_that_starts_from_it(tmp_path):
    settings = write_study(tmp_path, extras=False)
    write_json(tmp_path / "logs/pretrain/rotation-0.json", {"seconds": 12.4, "device": "cpu"})
    study = read_study(tmp_path, settings)
    rows = [[cell.text for cell in row[-3:]] for row in summary_table(study, 100, seconds=True).rows]
    assert rows == [["", "", ""], ["40", "640", "12 (CPU)"], ["40", "640", "-"]]
    text = summary_markdown(study)
    assert "| 40 | 640 |" in text
    assert "12 (CPU)" not in text
    assert "device seconds" not in text


def test_notes_of_the_checks_stand_on_the_page_and_in_the_summary(tmp_path):
    settings = write_study(tmp_path, extras=False)
    assert "Notes of" not in page(tmp_path, settings)
    note = "HU from -3024 to 3071"
    write_json(tmp_path / "data/slices/notes.json", {"case_00001": [note, "header in metres: converted to mm"]})
    row = Reader(page(tmp_path, settings)).table("Notes of the checks of volumes")["case_00001"]
    assert row == {"what is odd": f"{note}; header in metres: converted to mm"}
    assert f"| case_00001 | {note}; header in metres" in summary_markdown(read_study(tmp_path, settings))


def test_the_page_says_how_many_slices_of_how_many_the_thinning_removed(tmp_path):
    settings = write_study(tmp_path, extras=False)
    begins = "Neighbouring slices are nearly copies"
    assert begins not in page(tmp_path, settings)
    file = tmp_path / "metrics/pretrain/rotation.json"
    figures = json.loads(file.read_text())
    for thin, said in (({"mm": 7.5}, "7.5 mm or more apart"), ({"dissimilarity": 0.05}, "0.05 of dissimilarity")):
        write_json(file, {"0": figures["0"] | {"thin": thin | {"slices": 1200, "of": 4885}}})
        line = next(line for line in page(tmp_path, settings).splitlines() if begins in line)
        assert all(part in line for part in ("4,885", "1,200", "3,685", said))
