"""The first lines on claims, shortcut and confounders: by rule, and never more than the figures say."""

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest
from test_page import Reader, page

from kidney_ssl.jsonfile import write_json
from kidney_ssl.report.cards import cards_markdown
from kidney_ssl.report.headline import NOT_COMPARED, findings, headline, noise, verdicts
from kidney_ssl.report.names import named, spoken
from kidney_ssl.report.page import read_study
from kidney_ssl.report.summary import summary_markdown
from kidney_ssl.thesis.claims import judge
from kidney_ssl.thesis.evidence import Evidence
from tests.unit.report.simulated_arms import METHODS, predictions, settings
from tests.unit.report.study_files import write_study

ROOT = Path(__file__).parents[3]
CLASS_WORD = re.compile(r"(?<![\w./-])(?:kidney|tumor)s?\b", re.IGNORECASE)
ARMS = ("random", "imagenet", *METHODS, "supervised", "unsupervised")
ROW = {"point": 0.62, "low": 0.5, "high": 0.71, "strength": 0.1, "reason": None}
pytestmark = pytest.mark.usefixtures("no_charts")  # words alone are looked at here
NONE = {"point": None, "low": None, "high": None, "strength": None, "reason": "the same in every training slice"}


@pytest.fixture
def root(tmp_path):
    return tmp_path, write_study(tmp_path, extras=False, test_cases=30)


def judged(**changes):
    found = judge(Evidence(settings(), {100: predictions(dict.fromkeys(ARMS, 1.0))}))
    for one in found["claims"]:
        one["verdict"] = changes.get(one["id"], "undecided")
    return found


def test_the_first_lines_count_the_verdicts_and_name_the_decided_claims(root):
    changes = {
        "augmentations_help": "supported",
        "activations_alike": "not supported",
        "dice_sharper_than_mse": "not asked",
    }
    write_json(root[0] / "metrics/claims.json", judged(**changes))
    said = findings(read_study(*root))
    assert (
        "Of the thesis's 9 claims, by rules fixed beforehand: 1 supported, 1 not supported, 6 undecided, 1 not asked."
        in said
    )
    assert "Supported: The supervised and the unsupervised augmentation help." in said
    assert "Not supported: Activations look alike whatever the arm was pretrained with." in said
    assert not any("Larger ResNets" in line or "Dice" in line for line in said)


def test_the_headline_states_what_is_shown_and_never_more(root):
    path = root[0] / "metrics/comparisons.json"
    rows = json.loads(path.read_text())["differences"]

    def said(**verdicts):
        for row in rows:
            row["verdict"] = verdicts.get(row["arm"], "undecided") if row["metric"].endswith("kidney") else "worse"
        write_json(path, {"differences": rows})
        return headline(read_study(*root))

    purpose = "at telling kidney tumors from tumor-free kidney"
    assert said() == f"No pretraining was shown to do better than random weights {purpose}."
    assert said(rotation="worse") == (
        f"No pretraining was shown to do better than random weights {purpose}; rotation did worse."
    )
    assert said(rotation="better", inpaint_random="better") == (
        f"Rotation and random inpainting did better than random weights {purpose}."
    )
    assert said(rotation="equivalent", inpaint_random="equivalent") == (
        f"No arm differs from random weights {purpose} by more than 0.02 in AUROC, tumor against kidney."
    )
    few = "too few cases to say"
    cases = max(row["cases"] for row in rows if row["metric"].endswith("kidney"))
    assert said(rotation=few, inpaint_random=few).endswith(f": {cases} test cases are too few to say.")
    rows[:] = [row | {"cases": cases - 1} for row in rows]
    part = f": the {cases - 1} of {cases} test cases that can tell are too few to say."
    assert said(rotation=few, inpaint_random=few).endswith(part)


def test_a_headline_over_budgets_names_those_where_an_arm_did_better(tmp_path):
    settings = write_study(tmp_path, percents=(10, 100), extras=False, test_cases=30)
    path = tmp_path / "metrics/comparisons.json"
    rows = json.loads(path.read_text())["differences"]
    for row in rows:
        row["verdict"] = "better" if (row["arm"], row["percent"]) == ("rotation", 10) else "undecided"
    write_json(path, {"differences": rows})
    assert headline(read_study(tmp_path, settings)).startswith(
        "Rotation with 10 % of the labels did better than random"
    )


def test_what_is_shown_comes_first_with_its_interval_and_the_rest_is_one_line(root):
    path = root[0] / "metrics/comparisons.json"
    rows = json.loads(path.read_text())["differences"]
    for row in rows:
        row["verdict"] = "worse" if (row["arm"], row["metric"]) == ("rotation", "accuracy") else "undecided"
    contrast = {"family": "contrasts", "arm": "rotation", "against": "inpaint_random", "verdict": "better"}
    write_json(path, {"differences": [*rows, rows[0] | contrast | {"metric": "f1"}]})
    study = read_study(*root)
    found = verdicts(study, study.differences)
    assert [line.split(":")[0] for line in found["decided"]] == [
        "Rotation is worse than random weights in accuracy",
        "Rotation is better than random inpainting in F1",
    ]
    assert found["open"] == ["Rotation", "Random inpainting"]
    text = Reader(page(*root)).text
    assert text.index("Rotation is worse than random weights in accuracy") < text.index("Undecided in AUROC")
    assert "Undecided in AUROC, tumor against kidney: all 2 other arms." in text


def test_without_comparisons_no_difference_is_a_finding(root):
    (root[0] / "metrics/comparisons.json").unlink()
    assert headline(read_study(*root)) == NOT_COMPARED
    assert NOT_COMPARED in Reader(page(*root)).text


def test_noise_is_said_in_numbers(root, tmp_path):
    assert "one training with one seed" in noise(read_study(*root))
    settings = write_study(tmp_path / "seeds", seeds=(0, 1, 2), extras=False)
    study = read_study(tmp_path / "seeds", settings)
    spread = np.median(list(study.summary["auroc_against_kidney_spread"].values()))
    assert f"varies by {spread:.2f} (median standard deviation)" in noise(study)


def test_without_decided_claims_none_is_named(root):
    write_json(root[0] / "metrics/claims.json", judged())
    said = findings(read_study(*root))
    assert "Of the thesis's 9 claims, by rules fixed beforehand: 9 undecided." in said
    assert not any(line.startswith(("Supported", "Not supported", "The oracle")) for line in said)


def test_without_the_files_nothing_is_said_of_claims_and_shortcut(root):
    said = " ".join(findings(read_study(*root)))
    assert "claims" not in said
    assert "logistic" not in said
    text = page(*root)
    assert "metrics/claims.json is not on this machine" in text
    assert "metrics/shortcut.json is not on this machine" in text


@pytest.mark.parametrize(("verdict", "words"), [("beat", "could show"), ("did not beat", "could not have shown")])
def test_the_first_lines_say_whether_a_benefit_could_have_shown(root, verdict, words):
    content = judged()
    budgets = [{"percent": 10, "figure": "x", "verdict": verdict}]
    content["oracle"] = {"verdict": verdict, "against": "random", "budgets": budgets, "reason": None}
    write_json(root[0] / "metrics/claims.json", content)
    (said,) = [line for line in findings(read_study(*root)) if line.startswith("The oracle")]
    assert Reader(page(*root)).text.index(said) < page(*root).index('id="learning"')
    assert words in said
    assert "with 10 %" in said


def test_the_shortcut_stands_in_the_first_lines_and_beside_the_arms(root):
    groups = dict.fromkeys(("all", "thumbnail", "position", "body_area", "thickness"), ROW) | {"block": NONE}
    write_json(root[0] / "metrics/shortcut.json", {"auroc": groups, "auroc_against_kidney": groups})
    (said,) = [line for line in findings(read_study(*root)) if "logistic" in line]
    assert said.endswith("has an AUROC against kidney of 0.62 (0.50 to 0.71).")
    reader = Reader(page(*root))
    rows = reader.table("What a shortcut earns")
    assert rows["shortcut: all of these together"]["AUROC against kidney"] == "0.62 (0.50 to 0.71)"
    assert rows["shortcut: block of cases"]["AUROC against kidney"].startswith("-")
    assert "the same in every training slice" in reader.text
    summary = read_study(*root).summary
    assert rows["Rotation"]["AUROC against all others"].startswith(f"{summary['auroc']['rotation']:.2f} (")


def test_a_shortcut_that_is_not_known_is_not_spoken_of(root):
    groups = dict.fromkeys(("all", "thumbnail", "position", "body_area", "thickness", "block"), NONE)
    write_json(root[0] / "metrics/shortcut.json", {"auroc": groups, "auroc_against_kidney": groups})
    assert not any("logistic" in line for line in findings(read_study(*root)))
    assert (
        Reader(page(*root)).table("What a shortcut earns")["shortcut: position"]["AUROC against kidney"].startswith("-")
    )


def test_the_page_shows_verdicts_rules_and_figures_and_heads_a_phantoms(root):
    content = judged(augmentations_help="supported")
    write_json(root[0] / "metrics/claims.json", content)
    reader = Reader(page(*root))
    assert "inpaint_random - " not in reader.text
    rows = reader.table("What the thesis claims")
    assert {name: row["verdict"] for name, row in rows.items()} == {
        one["sentence"]: one["verdict"] for one in content["claims"]
    }
    for one in content["claims"]:
        assert " ".join(one["rule"].split()) in reader.text
        assert len([told for told in one["figures"] if named(told) in reader.text]) == len(one["figures"])
    assert "The phantom says nothing about patients. These verdicts" in reader.text


def test_the_confounder_table_has_each_part_and_class(root):
    reader = Reader(page(*root))
    rows = reader.table("Slices by part and class")
    assert list(rows) == [
        f"{part}, {kind}" for part in ("train", "validation", "test") for kind in ("tumor", "kidney", "background")
    ]
    assert rows["test, kidney"]["slices"] == "30"
    assert rows["test, kidney"]["slice distance, mm"] == "5.0 (5.0 to 5.0)"
    assert reader.table("Standardised mean difference")["slice distance, mm"]["tumor against kidney, test"] == "0.00"


def test_every_rule_stands_in_the_documentation():
    text = " ".join((ROOT / "docs/claims.md").read_text(encoding="utf-8").split())
    for one in judged()["claims"]:
        assert one["sentence"] in text
        assert " ".join(one["rule"].split()) in text


LIVER = {"organ": "liver", "tumor": "lesion", "cyst": "cyst"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("AUROC against kidney", "AUROC against liver"),
        ("Kidneys lie low; a kidney tumor.", "Livers lie low; a liver lesion."),
        ("two tumors, a cyst", "two lesions, a cyst"),
        ("kidney-bearing negatives of kidney-ssl", "liver-bearing negatives of kidney-ssl"),
        ("auroc_against_kidney, inpaint_kidney, kidney_px, data.classes.tumor", None),
        ("src/kidney_ssl/methods/inpaint_kidney.py", None),
    ],
)
def test_a_study_says_its_own_organ_and_keys_stay(text, expected):
    assert spoken(text, LIVER) == (expected or text)
    assert spoken(text, {"organ": "kidney", "tumor": "tumor", "cyst": "cyst"}) == text


def test_a_plural_fits_the_organ():
    names = {"organ": "pancreas", "tumor": "metastasis", "cyst": "cyst"}
    assert spoken("kidneys, tumors, a tumor", names) == "pancreases, metastases, a metastasis"


def test_an_article_fits_the_organ():
    assert spoken("A kidney, without a kidney", LIVER | {"organ": "adrenal gland"}) == (
        "An adrenal gland, without an adrenal gland"
    )


def test_page_summary_and_cards_of_a_liver_study_say_liver(tmp_path):
    paired = write_study(tmp_path, source="directory", test_cases=30)
    liver = copy.deepcopy(paired)
    liver["data"]["classes"] = LIVER | {"paired": False, "labels": {1: "organ", 2: "tumor"}}
    liver["analysis"]["primary"] = "auroc_against_kidney"
    study = read_study(tmp_path, liver)
    seen = Reader(page(tmp_path, liver)).text + summary_markdown(study) + cards_markdown(study)
    assert not CLASS_WORD.findall(re.sub(r"kidney[-_]ssl", "", seen))
    assert "AUROC against liver" in seen
    assert "Where the liver lies" in seen
    assert "liver lesion" in seen
    assert ">cyst</span>" not in page(tmp_path, liver)
    assert ">cyst</span>" in page(tmp_path, paired)
    assert "AUROC against kidney" in Reader(page(tmp_path, paired)).text
